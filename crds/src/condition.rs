//! The conditions of all three kinds, as kstatus reads them.

pub use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// The object does what its spec says. There from the operator's first visit on.
pub const READY: &str = "Ready";
/// The operator is working on the object; goes away when it is done.
pub const RECONCILING: &str = "Reconciling";
/// The operator can't go on until somebody changes something; goes away when that happened.
pub const STALLED: &str = "Stalled";
