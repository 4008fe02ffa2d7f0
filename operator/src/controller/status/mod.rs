//! The fifth step: what is said in the status of each object.

pub mod conditions;
mod deletion;
pub mod judge;
pub mod write_failures;
