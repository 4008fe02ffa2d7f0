//! From messages to the clients that watch their channels: one hub per tenant, a bounded backlog per client.

mod backlog;
mod connection;
mod control_events;
mod hub;
mod hubs;
mod keys;
mod latest;
mod live;
mod log_limit;
mod metrics;
mod problem_log;
mod query;
mod reader;
mod replay;
mod selector;
mod state;
mod stored;
mod tail;
mod values;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use flutecast_contract::name::{ChannelName, TenantName};
use flutecast_contract::stream_position::EventId;
use flutecast_nats::RequestError;

use crate::access::Scope;

pub use connection::Connection;
pub use hubs::Hubs;
pub use metrics::FanoutMetrics;
pub use query::DeviceQuery;
pub use selector::{InvalidSelector, Selector};
pub use values::{ChannelValues, DeviceValues};

#[derive(Debug, Clone)]
pub struct SubscribeRequest {
    pub tenant: TenantName,
    /// The devices that the caller may read.
    pub scope: Scope,
    pub wanted: DeviceQuery,
    /// The channels that the client asks for; `None` for all.
    pub channels: Option<BTreeSet<ChannelName>>,
    /// The time in which the client gets at most one value of each `Latest` channel.
    pub interval: Option<Duration>,
    /// Whether the client gets the event `problem`.
    pub problems: bool,
    /// The last event that the client got on an earlier connection.
    pub resume: Option<EventId>,
}

/// Why values can't be read now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// The broker can't be reached, or doesn't answer.
    #[error("the broker can't be reached")]
    BrokerAway,
    /// The tenant's stream or mapping isn't there yet.
    #[error("the tenant isn't served yet")]
    Starting,
}

impl From<&RequestError> for Unavailable {
    fn from(error: &RequestError) -> Self {
        match error {
            RequestError::NoStream => Self::Starting,
            RequestError::Unavailable(_) | RequestError::Refused { .. } | RequestError::BadAnswer(_) => {
                Self::BrokerAway
            }
        }
    }
}

/// The limits and times of the fan-out.
#[derive(Debug, Clone)]
pub struct HubSettings {
    /// The pod's name, as `hello` shows it.
    pub server_name: Arc<str>,
    /// A `ping` is sent when nothing else was for this long.
    pub ping: Duration,
    /// The time that an `EventSource` waits before it reconnects.
    pub retry: Duration,
    /// The time that a device stays subscribed after its last client left, so that a reconnect is cheap.
    pub linger: Duration,
    /// A client that takes nothing for this long, while something waits, is closed.
    pub take_timeout: Duration,
    /// The most `Every` events that wait for one client.
    pub every_max_count: usize,
    /// The most bytes of `Every` events that wait for one client.
    pub every_max_bytes: usize,
    /// The most clients that this pod serves.
    pub max_clients: usize,
    /// Interval of comparing the live `Every` channels with the stream, in case an event was missed.
    pub audit: Duration,
}

/// The defaults for tests; `Config` has the program's own for the fields that have a flag.
impl Default for HubSettings {
    fn default() -> Self {
        Self {
            server_name: "flutecast-dataplane".into(),
            ping: Duration::from_secs(15),
            retry: Duration::from_secs(2),
            linger: Duration::from_secs(2),
            take_timeout: Duration::from_secs(30),
            every_max_count: 1_024,
            every_max_bytes: 1_024 * 1_024,
            max_clients: 20_000,
            audit: Duration::from_secs(20),
        }
    }
}
