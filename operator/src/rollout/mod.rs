//! What the data plane's pods say that they serve, and what follows for a Device: it is Ready when every
//! ready pod serves it.
//!
//! ```text
//! NATS announcements ──task──► Heard ─┐
//! EndpointSlices ──watch──► Slices ───┼─► Served (pure): which Devices are served, which pods lag ──► judge
//! what the operator stored ──► Ledger ┘
//! ```
//! Only the task does I/O. The contract with the pods is docs/protocol-internal.md, "Serving announcements".

mod announcement;
mod behind;
mod floors;
mod ledger;
mod slices;
mod task;
#[cfg(test)]
mod tests;
mod waiting;

pub use self::announcement::{Announced, Heard};
pub use self::slices::{RIGHTS, SERVICE_LABEL, Slices};
pub use self::task::spawn;
pub use self::waiting::{Answer, MAPPED, News, Served};
