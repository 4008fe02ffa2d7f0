//! The pass over last messages: every 45 s at the latest, the newest message of each declared channel is
//! looked at.
//!
//! Two things come of it:
//!
//! - The last value of a channel outlives `retention.maxAge`. A message whose age nears it is copied to
//!   `LAST_<tenant>`, where the data plane finds it when the tenant's stream has nothing to show. Channels
//!   that send cost nothing: their last message is young.
//! - A [`Judge`] says of each Device whether its messages are understood. A device that begins to send is
//!   looked at within seconds, so that this and its presence are one write.
//!
//! ```text
//! controller ──DeclaredChannels──► task ──► look (one tenant): last messages ──► Judge
//! jetstream ────StreamReports────►  │                            │
//!                                   │                            └─► keep (pure) ──► store: LAST_<tenant>
//! presence ────devices that begin──►│
//!                                   └──► sweep: what is no longer declared
//! ```
//! Ages are differences of two times of the broker.

mod declared;
mod judge;
mod keep;
mod look;
mod memory;
mod metrics;
mod store;
mod tail;
mod task;
#[cfg(test)]
mod tests;

use flutecast_contract::name::{ChannelName, IotId, TenantName};
use flutecast_format::program::Program;
use flutecast_nats::StoredMessage;
use k8s_openapi::jiff::Timestamp;

pub(crate) use self::declared::{DeclaredChannels, LeftOut, TenantChannels};
pub(crate) use self::judge::{JudgementLog, MessageJudge};
pub(crate) use self::metrics::LookMetrics;
pub(crate) use self::tail::TailReader;
pub(crate) use self::task::LookTask;
use crate::object::Key;

/// What one look found of a Device.
#[derive(Debug)]
pub(crate) struct DeviceLook<'a> {
    pub(crate) tenant: &'a TenantName,
    pub(crate) iot_id: &'a IotId,
    /// The Device.
    pub(crate) key: Key,
    /// All declared channels, sorted by name.
    pub(crate) channels: Vec<ChannelLook<'a>>,
    /// The broker's time of the look.
    pub(crate) now: Timestamp,
    /// `false` if only some devices are looked at, out of turn.
    pub(crate) is_in_turn: bool,
}

#[derive(Debug)]
pub(crate) struct ChannelLook<'a> {
    pub(crate) name: &'a ChannelName,
    pub(crate) program: &'a Program,
    /// The newest message of the channel in the tenant's stream.
    pub(crate) last: Option<&'a StoredMessage>,
}

/// Judges what was found. `()` judges nothing.
pub(crate) trait Judge: Send + Sync + 'static {
    /// Called for each Device of a tenant at each look that reaches it.
    fn judge(&self, device: &DeviceLook<'_>, tails: &TailReader) -> impl Future<Output = ()> + Send;
}

impl Judge for () {
    async fn judge(&self, _: &DeviceLook<'_>, _: &TailReader) {}
}
