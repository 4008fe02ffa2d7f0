//! The process of a Flutecast program: logs, supervision and shutdown.
//!
//! - [`log`]: log lines on standard error, without what may hold a secret.
//! - [`tasks`]: supervision; a task that ends unasked ends the program.
//! - [`shutdown`]: SIGTERM and SIGINT.
//! - [`backoff`]: pauses between attempts, with jitter.
//!
//! # Shutdown
//! The first signal cancels a token. Each task ends when it sees that token, or one that its program derives
//! from it (the data plane drains its clients first). [`tasks::Tasks::join`] waits for all of them, with a
//! deadline. A second signal ends the data plane at once; the operator has nothing that takes long and
//! ignores it.

pub mod backoff;
pub mod log;
pub mod shutdown;
pub mod tasks;

/// The version of this program: the workspace's, unless it was built as another one (`FLUTECAST_VERSION`).
pub const VERSION: &str = match option_env!("FLUTECAST_VERSION") {
    Some(version) => version,
    None => env!("CARGO_PKG_VERSION"),
};
