//! From formatted messages to the clients that want them: one hub per tenant, a bounded backlog per client.

mod arena;
mod connection;
mod hello;
mod hub;
mod hubs;
mod metrics;
mod outbox;
mod reader;
mod replay;
mod selector;
mod settings;
mod state;
mod values;

use std::collections::BTreeSet;
use std::time::Duration;

use flutecast_contract::name::{ChannelName, DeviceCode, TenantName};
use flutecast_contract::stream_position::EventId;

use crate::access::Scope;

pub use connection::Connection;
pub use hubs::Hubs;
pub use metrics::FanoutMetrics;
pub use selector::{InvalidSelector, Selector};
pub use settings::HubSettings;
pub use values::{ChannelValues, DeviceValues};

/// Which devices a client asks for: the union of the three.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Every device that the caller may read.
    pub all: bool,
    /// Devices by code.
    pub codes: BTreeSet<DeviceCode>,
    /// Devices by label.
    pub selector: Option<Selector>,
}

/// What a client subscribes to.
#[derive(Debug, Clone)]
pub struct SubscribeRequest {
    /// The tenant.
    pub tenant: TenantName,
    /// Which of its devices the caller may read.
    pub scope: Scope,
    /// Which of them it wants.
    pub wanted: Wanted,
    /// Which channels; none: all.
    pub channels: Option<BTreeSet<ChannelName>>,
    /// At most one value per `Latest` channel in this time.
    pub interval: Option<Duration>,
    /// Where to resume.
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
