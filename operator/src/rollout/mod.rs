//! The rollout of the mapping to the data plane: a Device is Ready when every ready pod serves it.
//!
//! ```text
//! NATS announcements ──listener──► PodStates ─┐
//! EndpointSlices ──watch──► Slices ───────────┼─► Rollout (pure): confirmed or late ──► conditions
//! mapping as stored ──► RevisionLog ──────────┘
//! ```
//! Only the listener does I/O. The contract with the pods is docs/protocol-internal.md, "Serving
//! announcements".

mod confirmed;
mod laggards;
mod listener;
mod metrics;
mod pending;
mod pod_states;
mod revision_log;
mod slices;
#[cfg(test)]
mod tests;

pub(crate) use self::listener::listener;
pub(crate) use self::metrics::RolloutMetrics;
pub(crate) use self::pending::{Confirmation, PendingDevice, Rollout, RolloutChanges, message_before};
pub(crate) use self::pod_states::PodStates;
pub(crate) use self::slices::RIGHTS;
