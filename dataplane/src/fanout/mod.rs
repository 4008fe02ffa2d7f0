//! From formatted messages to the clients that want them: one hub per tenant, a bounded backlog per client.

mod arena;
mod connection;
mod event_id;
mod metrics;
mod outbox;
mod selector;
mod settings;
mod values;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use flutecast_mapping::name::{ChannelName, DeviceCode, TenantName};
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use connection::Connection;
pub use event_id::{Epoch, EventId, InvalidEventId};
pub use metrics::FanoutMetrics;
pub use selector::{InvalidSelector, Selector};
pub use settings::HubSettings;
pub use values::{ChannelValues, DeviceValues};

use crate::catalog::Catalog;
use crate::sources::broker::Broker;

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

/// All hubs of this pod. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Hubs {
    catalog: watch::Receiver<Arc<Catalog>>,
}

impl Hubs {
    /// Starts; the handle ends after `stop` is cancelled, when every hub has ended.
    #[must_use = "someone has to watch the task"]
    pub fn start(
        broker: Broker,
        catalog: watch::Receiver<Arc<Catalog>>,
        settings: HubSettings,
        registry: &mut Registry,
        stop: CancellationToken,
    ) -> (Self, JoinHandle<()>) {
        let _ = (broker, settings, FanoutMetrics::register(registry));
        let handle = tokio::spawn(async move { stop.cancelled().await });
        (Self { catalog }, handle)
    }

    /// Subscribes. Returns at once; whatever may pass (a tenant that isn't there yet, a broker that is away, a full pod) is told
    /// in the stream. Dropping the connection ends it.
    #[must_use]
    pub fn subscribe(&self, request: SubscribeRequest) -> Connection {
        let _ = (request, &self.catalog);
        Connection::ended()
    }

    /// The newest values of the devices that the caller may read and wants, in the order of their codes. Codes that don't exist are left out.
    ///
    /// # Errors
    /// [`Unavailable`]; the answer takes 5 s at most.
    pub async fn latest(
        &self,
        tenant: &TenantName,
        scope: &Scope,
        wanted: &Wanted,
        channels: Option<&BTreeSet<ChannelName>>,
    ) -> Result<Vec<DeviceValues>, Unavailable> {
        let _ = (tenant, scope, wanted, channels);
        Err(Unavailable::Starting)
    }

    /// Says `bye` (`Draining`) to every client and to every new one, with reconnect times spread evenly over `spread`.
    pub fn drain(&self, spread: Duration) {
        let _ = spread;
    }

    /// How many clients are connected.
    #[must_use]
    pub fn connections(&self) -> usize {
        0
    }
}
