//! What clients talk to.

mod duration;
mod error;
mod params;
