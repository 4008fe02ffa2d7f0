//! The conditions of all three kinds, as kstatus defines them.

pub use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// `True` if the object is in force as its spec says. Present from the first reconciliation on.
pub const READY: &str = "Ready";
/// `True` while the operator works on the object; absent otherwise.
pub const RECONCILING: &str = "Reconciling";
/// `True` while the operator waits for a change by a user; absent otherwise.
pub const STALLED: &str = "Stalled";
/// Of Devices: `True` if the newest messages of all channels are understood, `False` if that of one isn't,
/// `Unknown` while there is no message. Says nothing about `Ready`.
pub const MESSAGES_UNDERSTOOD: &str = "MessagesUnderstood";
