//! All hubs of this pod: one task for each tenant that has clients.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use flutecast_contract::name::{ChannelName, DeviceCode, TenantName};
use flutecast_nats::NatsConnection;
use prometheus_client::registry::Registry;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::backlog::{Backlog, BacklogBounds, FrameKind};
use super::connection::ConnectionPermit;
use super::control_events::{self, ByeReason, HelloFacts};
use super::hub::{Command, Hub, HubContext};
use super::keys::{ChannelId, channel_id};
use super::latest::{self, NamedChannel};
use super::problem_log::ProblemLog;
use super::query::wanted_channels;
use super::state::NewClient;
use super::values::LiveValues;
use super::{
    Connection, DeviceQuery, DeviceValues, FanoutMetrics, HubSettings, Scope, SubscribeRequest, Unavailable,
};
use crate::catalog::{Catalog, Device, TenantCatalog};
use crate::ingest::broker_clock::BrokerClock;

/// The most pages of history that are read for resuming clients at once.
const CONCURRENT_REPLAYS: usize = 16;
/// The most tails of channels that are read at once: each takes up to 8 MiB meanwhile.
const CONCURRENT_TAILS: usize = 32;
/// The most requests for the newest values that read the newest messages at once.
const CONCURRENT_LATEST: usize = 8;
/// The longest that a request for the newest values may take.
const LATEST: Duration = Duration::from_secs(5);
/// The least time after which a client that finds the pod full comes back.
const FULL_RETRY: Duration = Duration::from_secs(5);

/// All hubs of this pod. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Hubs {
    inner: Arc<HubsInner>,
}

#[derive(Debug)]
struct HubsInner {
    context: HubContext,
    hubs: Mutex<HashMap<TenantName, HubHandle>>,
    clients: Arc<AtomicUsize>,
    next_number: AtomicU64,
    /// The time over which clients reconnect; `None` unless the pod drains.
    draining: Mutex<Option<Duration>>,
    latest: Semaphore,
}

#[derive(Debug)]
struct HubHandle {
    commands: UnboundedSender<Command>,
    clients: Arc<AtomicUsize>,
}

impl Hubs {
    /// Starts the hubs. The handle ends after `stop` is cancelled, when every hub has ended.
    #[must_use = "someone has to watch the task"]
    pub fn start(
        broker: NatsConnection,
        catalog: watch::Receiver<Arc<Catalog>>,
        settings: HubSettings,
        registry: &mut Registry,
        stop: CancellationToken,
    ) -> (Self, JoinHandle<()>) {
        let tasks = TaskTracker::new();
        let context = HubContext {
            broker,
            clock: BrokerClock::register(registry),
            catalog,
            settings: Arc::new(settings),
            metrics: FanoutMetrics::register(registry),
            problem_log: ProblemLog::register(registry),
            stop: stop.clone(),
            tasks: tasks.clone(),
            replays: Arc::new(Semaphore::new(CONCURRENT_REPLAYS)),
            tails: Arc::new(Semaphore::new(CONCURRENT_TAILS)),
        };
        let summing_up = context.problem_log.clone().sum_up();
        tasks.spawn(stop.clone().run_until_cancelled_owned(summing_up));
        let inner = Arc::new(HubsInner {
            context,
            hubs: Mutex::default(),
            clients: Arc::default(),
            next_number: AtomicU64::new(u64::from(rand::random::<u32>())),
            draining: Mutex::default(),
            latest: Semaphore::new(CONCURRENT_LATEST),
        });
        let handle = tokio::spawn(async move {
            stop.cancelled().await;
            tasks.close();
            tasks.wait().await;
        });
        (Self { inner }, handle)
    }

    /// Subscribes a client. Returns at once: a tenant that isn't there yet, a broker that is away and a full
    /// pod are reported in the event stream. Dropping the connection ends it.
    pub fn subscribe(&self, request: SubscribeRequest) -> Connection {
        let inner = &self.inner;
        let settings = &inner.context.settings;
        if let Some(spread) = *locked(&inner.draining) {
            return inner.turn_away(&request.tenant, ByeReason::Draining, spread.min(FULL_RETRY));
        }
        let Some(permit) = ConnectionPermit::take(&inner.clients, settings.max_clients) else {
            return inner.turn_away(&request.tenant, ByeReason::Full, FULL_RETRY);
        };
        let limit = inner.context.tenant(&request.tenant).and_then(|tenant| tenant.settings.max_clients);
        let limit = limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
        let mut hubs = locked(&inner.hubs);
        let hub = self.hub(&mut hubs, &request.tenant);
        let Some(tenant_permit) = ConnectionPermit::take(&hub.clients, limit) else {
            drop(hubs);
            return inner.turn_away(&request.tenant, ByeReason::Full, FULL_RETRY);
        };
        let commands = hub.commands.clone();
        let (number, backlog) = inner.number_and_backlog();
        // Sent under the lock, so that the hub doesn't end between.
        let arrival =
            NewClient { connection: number, backlog: Arc::clone(&backlog), request, since: Instant::now() };
        if commands.send(Command::Attach(arrival)).is_err() {
            backlog.finish(Some(control_events::bye(ByeReason::Draining, settings.retry)));
        }
        drop(hubs);
        Connection { number, backlog, hub: Some(commands), _permits: vec![permit, tenant_permit] }
    }

    /// Returns a connection that sends the client away for a moment, as it isn't known yet who may read what.
    /// It reveals nothing about the tenant.
    pub fn not_yet(&self, tenant: &TenantName) -> Connection {
        let inner = &self.inner;
        inner.turn_away(tenant, ByeReason::Starting, inner.context.settings.retry)
    }

    /// Returns the hub of a tenant; a new one if there is none, or if its task has ended.
    fn hub<'a>(&self, hubs: &'a mut HashMap<TenantName, HubHandle>, tenant: &TenantName) -> &'a HubHandle {
        if hubs.get(tenant).is_some_and(|hub| hub.commands.is_closed()) {
            hubs.remove(tenant);
        }
        hubs.entry(tenant.clone()).or_insert_with(|| {
            let (commands, received) = unbounded_channel();
            let hub = Hub::new(tenant.clone(), self.inner.context.clone(), received);
            let (inner, name) = (Arc::clone(&self.inner), tenant.clone());
            let may_end = move |received: &UnboundedReceiver<Command>| {
                // Commands are sent under this lock: none can come between the check and the removal.
                let mut hubs = locked(&inner.hubs);
                let leave = received.is_empty();
                if leave {
                    hubs.remove(&name);
                }
                leave
            };
            self.inner.context.tasks.spawn(hub.run(may_end));
            HubHandle { commands, clients: Arc::default() }
        })
    }

    /// Returns the newest values of the devices that the caller may read and asks for, in the order of their
    /// codes. Codes that don't exist are left out.
    ///
    /// # Errors
    /// Returns [`Unavailable`] if values can't be read, after at most 5 s.
    pub async fn latest(
        &self,
        tenant: &TenantName,
        scope: &Scope,
        wanted: &DeviceQuery,
        channels: Option<&BTreeSet<ChannelName>>,
    ) -> Result<Vec<DeviceValues>, Unavailable> {
        let catalog = self.inner.context.tenant(tenant).ok_or(Unavailable::Starting)?;
        let devices = wanted.matching(scope, &catalog);
        let values = timeout(LATEST, self.inner.values_of(&catalog, &devices, channels));
        values.await.unwrap_or(Err(Unavailable::BrokerAway))
    }

    /// Sends `bye` (`Draining`) to every client and to every new one, with reconnect times spread evenly over
    /// `spread`.
    pub fn drain(&self, spread: Duration) {
        *locked(&self.inner.draining) = Some(spread);
        for hub in locked(&self.inner.hubs).values() {
            // A hub that has ended has no clients.
            let _ = hub.commands.send(Command::Drain(spread));
        }
    }

    pub fn connections(&self) -> usize {
        self.inner.clients.load(Ordering::Relaxed)
    }
}

impl HubsInner {
    /// Returns the number of a new connection, and its backlog.
    fn number_and_backlog(&self) -> (u64, Arc<Backlog>) {
        let settings = &self.context.settings;
        let bounds = BacklogBounds { count: settings.every_max_count, bytes: settings.every_max_bytes };
        (self.next_number.fetch_add(1, Ordering::Relaxed), Arc::new(Backlog::new(bounds)))
    }

    /// Returns a connection that sends the client away, and ends.
    fn turn_away(&self, tenant: &TenantName, reason: ByeReason, retry: Duration) -> Connection {
        let (number, backlog) = self.number_and_backlog();
        let settings = &self.context.settings;
        let retry = retry.max(settings.retry).mul_f64(rand::random_range(1.0..2.0));
        let facts = HelloFacts { tenant, connection: number, settings, epoch: None, resumed: false, retry };
        backlog.push(FrameKind::Control, control_events::hello(facts, &[], None), Instant::now());
        backlog.finish(Some(control_events::bye(reason, retry)));
        Connection { number, backlog, hub: None, _permits: Vec::new() }
    }

    async fn values_of(
        &self,
        catalog: &TenantCatalog,
        devices: &BTreeMap<DeviceCode, Arc<Device>>,
        channels: Option<&BTreeSet<ChannelName>>,
    ) -> Result<Vec<DeviceValues>, Unavailable> {
        let of = |device| wanted_channels(device, channels).map(move |channel| (device, channel));
        let all = || devices.values().flat_map(|device| of(&**device));
        let names = all().map(|(device, channel)| channel_id(device, channel)).collect();
        let mut known = self.live_values(&catalog.name, names).await;
        let missing: Vec<_> =
            all().filter(|(device, channel)| !known.contains_key(&channel_id(device, channel))).collect();
        if !missing.is_empty() {
            known.extend(self.read_values(catalog, &missing).await?);
        }
        let values_of = |device: &Arc<Device>| DeviceValues {
            device: Arc::clone(device),
            channels: wanted_channels(device, channels)
                .filter_map(|channel| known.remove(&channel_id(device, channel)))
                .collect(),
        };
        Ok(devices.values().map(values_of).collect())
    }

    /// Returns the values of those of these channels that the tenant's hub has live.
    async fn live_values(&self, tenant: &TenantName, wanted: Vec<ChannelId>) -> LiveValues {
        let (reply, answer) = oneshot::channel();
        let asked = locked(&self.hubs)
            .get(tenant)
            .is_some_and(|hub| hub.commands.send(Command::Values(wanted, reply)).is_ok());
        if asked { answer.await.unwrap_or_default() } else { LiveValues::new() }
    }

    /// Reads the newest values of channels from the stream.
    async fn read_values(
        &self,
        catalog: &TenantCatalog,
        wanted: &[NamedChannel<'_>],
    ) -> Result<LiveValues, Unavailable> {
        if !self.context.broker.state().connected {
            return Err(Unavailable::BrokerAway);
        }
        latest::read_values(&self.context, &self.latest, catalog, wanted).await
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code that can panic runs under these locks while the data is half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
