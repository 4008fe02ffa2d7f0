//! The second step of a reconcile: each object alone, from what the API holds to types that need no further
//! checks.
//!
//! One file per kind. What is wrong with an object is a list of findings; an object that is usable without
//! what the findings are about comes with both.

pub mod device;
pub mod enrollment;
pub mod push_format;
pub mod secret;
pub mod tenant;

use crate::finding::{Finding, Reason};

/// A usable object, and what had to be left out of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Checked<T> {
    /// What is usable.
    pub value: T,
    /// What is not.
    pub findings: Vec<Finding>,
}

/// The validated object, or why none of it can be used.
pub type Validated<T> = Result<Checked<T>, Vec<Finding>>;

/// Turns a name that can't be one into a finding.
fn name<T>(field: &str, parsed: Result<T, flutecast_contract::name::InvalidName>) -> Result<T, Finding> {
    parsed.map_err(|error| Finding::new(Reason::InvalidName, field, error.to_string()))
}
