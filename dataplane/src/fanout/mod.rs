//! From messages to the clients that watch their channels: one hub per tenant, a bounded backlog per client.

mod backlog;
mod connection;
mod hello;
mod hub;
mod hubs;
mod keys;
mod live;
mod metrics;
mod query;
mod reader;
mod replay;
mod selector;
mod settings;
mod state;
mod values;

use std::collections::BTreeSet;
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
pub use settings::HubSettings;
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
