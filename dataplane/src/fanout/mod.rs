//! From formatted messages to the clients that want them: one hub per tenant, a bounded backlog per client.

mod arena;
mod connection;
mod event_id;
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
use std::sync::Arc;
use std::time::Duration;

use flutecast_contract::name::{ChannelName, DeviceCode, TenantName};

pub use connection::Connection;
pub use event_id::{Epoch, EventId, InvalidEventId};
pub use hubs::Hubs;
pub use metrics::FanoutMetrics;
pub use selector::{InvalidSelector, Selector};
pub use settings::HubSettings;
pub use values::{ChannelValues, DeviceValues};

/// Which devices a caller may read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// All of the tenant.
    All,
    /// Only these.
    Only(Arc<BTreeSet<DeviceCode>>),
}

impl Scope {
    /// Whether the caller may read this device.
    #[must_use]
    pub fn allows(&self, code: &DeviceCode) -> bool {
        match self {
            Self::All => true,
            Self::Only(codes) => codes.contains(code),
        }
    }
}

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
