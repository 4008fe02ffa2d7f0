//! The operator on an API server: the same validate and build steps as in folder mode, fed by watches.
//!
//! ```text
//! watch ──Change──► keeper: index → dereference → validate → build → apply (ConfigMaps, Secret) → update status
//!                     │                                                                            │
//!                     └─► jetstream (its own task) ──Report──► keeper        outbox → writer ──────┘
//! ```
//! `index` is synchronous state; `status::judge` and `status::conditions` are pure. No object of a user ever
//! gets an ownerReference from here, and none gets a finalizer unless that is asked for (`protect`), so
//! whatever becomes of the operator, nothing hangs.

pub mod clean_up;
pub mod events;
mod follow;
pub mod lease;
pub mod mapping;
pub mod rights;
mod start;
pub mod status;
pub mod watch;

pub use self::start::{Nats, Options, Place, client, start};

/// Who writes, in managedFields and Events.
pub const MANAGER: &str = "flutecast-operator";

/// Whether the API server says no, rather than that it is in trouble of its own, which passes.
pub(crate) fn says_no(answer: &kube::core::Status) -> bool {
    answer.code < 500 && answer.code != 429
}

/// An error in one line: of an answer of the API server its message, without the rest of the answer.
pub(crate) fn brief(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(answer) => format!("{} ({})", answer.message, answer.code),
        error => error.to_string(),
    }
}
