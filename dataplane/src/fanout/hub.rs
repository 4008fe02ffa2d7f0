//! The task of one tenant: moves what comes in to the state, and does the I/O that the state asks for.

use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use async_nats::Subscriber;
use flutecast_contract::name::{ChannelName, IotId, TenantName};
use flutecast_nats::stream::MAX_SUBJECTS;
use flutecast_nats::{ConnectionState, LiveMessage, NatsConnection, RequestError, StreamReader};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::task::unconstrained;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::hello::ByeReason;
use super::keys::{ClientKey, WatchKey};
use super::metrics::{COMPLETE, DONE, FanoutMetrics};
use super::reader;
use super::replay::replay;
use super::state::{HubState, NewClient, ReadResult, ReplayOutcome, ReplayRequest};
use super::{ChannelValues, HubSettings, Unavailable};
use crate::catalog::{Catalog, TenantCatalog};
use crate::pipeline::ClockReading;
use crate::sources::broker::SUBSCRIPTION_CAPACITY;
use crate::sources::ordered::{BatchEnd, Ordered};

/// How many reads of one hub run at once.
const CONCURRENT_READS: usize = 4;
/// How many messages are taken before the batch is applied.
const BATCH: usize = 4_096;
/// The first pause after a read that failed.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause after a read that failed.
const LAST_PAUSE: Duration = Duration::from_secs(2);
/// An audit that is called for comes this long after the last one, at the earliest.
const AUDIT_PAUSE: Duration = Duration::from_secs(1);
/// Over which time clients are told to come back when the process ends without having drained.
const STOP_SPREAD: Duration = Duration::from_secs(3);

/// What a hub is asked.
#[derive(Debug)]
pub(super) enum Command {
    /// A client comes.
    Attach(NewClient),
    /// The client of this connection is gone.
    Detach(u64),
    /// Say `bye` to everybody, with reconnect times spread over this time.
    Drain(Duration),
    /// Which values of these channels are known.
    Cached(Vec<(IotId, ChannelName)>, oneshot::Sender<CachedValues>),
}

/// The values that a hub knows.
pub(super) type CachedValues = HashMap<(IotId, ChannelName), ChannelValues>;

/// What a task of the hub reports.
#[derive(Debug)]
pub(super) enum HubReport {
    /// A channel is subscribed to.
    Opened(WatchKey, Subscriber),
    /// A read ended.
    Read(Result<ReadResult, RequestError>, Vec<WatchKey>),
    /// An audit ended.
    Audited(Result<ReadResult, RequestError>),
    /// A replay ended: client, watch.
    Replayed(ClientKey, WatchKey, ReplayOutcome),
}

/// What all hubs share.
#[derive(Debug, Clone)]
pub(super) struct HubContext {
    pub(super) broker: NatsConnection,
    pub(super) catalog: watch::Receiver<Arc<Catalog>>,
    pub(super) settings: Arc<HubSettings>,
    pub(super) metrics: FanoutMetrics,
    pub(super) stop: CancellationToken,
    pub(super) tasks: TaskTracker,
    /// Replays of all hubs together are bounded, so that a wave of reconnects doesn't flood the broker.
    pub(super) replays: Arc<Semaphore>,
}

/// The task of one tenant.
pub(super) struct Hub {
    tenant: TenantName,
    shared: HubContext,
    state: HubState,
    commands: UnboundedReceiver<Command>,
    reports: UnboundedReceiver<HubReport>,
    reporter: UnboundedSender<HubReport>,
    broker: watch::Receiver<ConnectionState>,
    known_broker: ConnectionState,
    connects: u64,
    ordered: Ordered<Subscriber, WatchKey>,
    batch: Vec<(WatchKey, async_nats::Message)>,
    overrun: Vec<WatchKey>,
    /// Messages of which it isn't proven yet that everything older is here.
    unproven: Vec<(WatchKey, LiveMessage)>,
    running_reads: usize,
    /// Reads wait until then, after one that failed.
    pause: Option<Instant>,
    /// How long the next pause is.
    next_pause: Duration,
    next_audit: Instant,
    last_audit: Instant,
    auditing: bool,
}

enum HubEvent {
    Stop,
    Command(Option<Command>),
    HubReport(HubReport),
    Catalog,
    Broker,
    Batch(BatchEnd),
    Timer,
}

impl Hub {
    pub(super) fn new(tenant: TenantName, shared: HubContext, commands: UnboundedReceiver<Command>) -> Self {
        let (reporter, reports) = unbounded_channel();
        let catalog = tenant_catalog(&shared.catalog, &tenant);
        let state =
            HubState::new(tenant.clone(), catalog, Arc::clone(&shared.settings), shared.metrics.clone());
        let broker = shared.broker.watch();
        Self {
            tenant,
            known_broker: shared.broker.state(),
            connects: shared.broker.client.statistics().connects.load(Relaxed),
            next_audit: Instant::now() + shared.settings.audit,
            last_audit: Instant::now(),
            broker,
            state,
            commands,
            reports,
            reporter,
            ordered: Ordered::default(),
            batch: Vec::new(),
            overrun: Vec::new(),
            unproven: Vec::new(),
            running_reads: 0,
            pause: None,
            next_pause: FIRST_PAUSE,
            auditing: false,
            shared,
        }
    }

    /// Runs until the process stops, or nobody is here any more and `may_end` agrees.
    pub(super) async fn run(mut self, may_end: impl Fn(&UnboundedReceiver<Command>) -> bool) {
        self.shared.metrics.hubs.inc();
        loop {
            self.work();
            if self.state.is_idle() && self.running_reads == 0 && may_end(&self.commands) {
                break;
            }
            match self.next_event().await {
                HubEvent::Stop | HubEvent::Command(None) => break,
                HubEvent::Command(Some(command)) => self.command(command),
                HubEvent::HubReport(report) => self.report(report),
                HubEvent::Catalog => {
                    let catalog = tenant_catalog(&self.shared.catalog, &self.tenant);
                    self.state.change_catalog(catalog, ClockReading::now());
                }
                HubEvent::Broker => self.broker_changed(),
                HubEvent::Batch(end) => {
                    self.apply_batch(end);
                    if end != BatchEnd::Complete {
                        tokio::task::yield_now().await;
                    }
                }
                HubEvent::Timer => self.timer(),
            }
        }
    }

    async fn next_event(&mut self) -> HubEvent {
        let timer = self.next_timer();
        tokio::select! {
            () = self.shared.stop.cancelled() => HubEvent::Stop,
            command = self.commands.recv() => HubEvent::Command(command),
            Some(report) = self.reports.recv() => HubEvent::HubReport(report),
            Ok(()) = self.shared.catalog.changed() => HubEvent::Catalog,
            Ok(()) = self.broker.changed() => HubEvent::Broker,
            end = unconstrained(poll_fn(|cx| {
                self.ordered.poll_batch(cx, BATCH, SUBSCRIPTION_CAPACITY, &mut self.batch, &mut self.overrun)
            })) => HubEvent::Batch(end),
            () = sleep_until(timer) => HubEvent::Timer,
        }
    }

    fn next_timer(&mut self) -> Instant {
        let due = [self.state.next_timer(), self.pause, Some(self.next_audit)];
        due.into_iter().flatten().min().unwrap_or(self.next_audit)
    }

    fn timer(&mut self) {
        let now = ClockReading::now();
        if self.pause.is_some_and(|until| until <= now.instant) {
            self.pause = None;
        }
        if self.next_audit <= now.instant {
            self.last_audit = now.instant;
            self.next_audit = now.instant + self.shared.settings.audit.mul_f64(rand::random_range(0.8..1.2));
            self.start_audit();
        }
        self.state.tick(now);
    }

    fn command(&mut self, command: Command) {
        let now = ClockReading::now();
        match command {
            Command::Attach(arrival) => self.state.attach(arrival, now),
            Command::Detach(connection) => self.state.detach(connection, now),
            Command::Drain(spread) => self.state.end_all(ByeReason::Draining, spread, now),
            Command::Cached(wanted, reply) => {
                // Whoever asked may have gone.
                let _ = reply.send(self.state.live_values(wanted));
            }
        }
    }

    fn report(&mut self, report: HubReport) {
        let now = ClockReading::now();
        match report {
            HubReport::Opened(key, subscriber) => {
                let slot = self.ordered.insert(key, subscriber);
                if let Some(unwanted) = self.state.opened(key, slot) {
                    self.ordered.remove(unwanted);
                }
            }
            HubReport::Read(result, keys) => {
                self.running_reads -= 1;
                match result {
                    Ok(result) => {
                        self.shared.metrics.read(DONE);
                        self.pause = None;
                        self.next_pause = FIRST_PAUSE;
                        self.state.apply_read(result, now);
                    }
                    Err(error) => self.read_failed(&error, &keys, now),
                }
            }
            HubReport::Audited(result) => {
                self.auditing = false;
                match result {
                    Ok(result) => self.state.audited(&result, now),
                    Err(error) => {
                        self.shared.metrics.read(error.label());
                        if error == RequestError::NoStream {
                            // Nothing can be said of what comes until there is a stream again.
                            self.state.read_all_again(now);
                        }
                    }
                }
            }
            HubReport::Replayed(client, watch, end) => {
                self.shared.metrics.replayed(match end {
                    ReplayOutcome::Complete => COMPLETE,
                    ReplayOutcome::Gap(reason) => reason.as_str(),
                });
                self.state.replayed(client, watch, end, now);
            }
        }
    }

    fn read_failed(&mut self, error: &RequestError, keys: &[WatchKey], now: ClockReading) {
        self.shared.metrics.read(error.label());
        if self.state.read_failed(keys, error.into(), now) {
            tracing::warn!(tenant = %self.tenant, %error, "the tenant's stream can't be read; it is tried again");
        }
        self.pause = Some(now.instant + self.next_pause.mul_f64(rand::random_range(0.5..1.5)));
        self.next_pause = (self.next_pause * 2).min(LAST_PAUSE);
    }

    fn broker_changed(&mut self) {
        let state = *self.broker.borrow_and_update();
        if state.generation != self.known_broker.generation {
            self.state.read_all_again(ClockReading::now());
            self.pause = None;
        }
        self.known_broker = state;
    }

    /// Applies what came live, as far as everything older is here too.
    fn apply_batch(&mut self, end: BatchEnd) {
        let now = ClockReading::now();
        // The count goes up before the first message of a new connection is dispatched. So if it didn't, no
        // message here came after a loss of the connection.
        let connects = self.shared.broker.client.statistics().connects.load(Relaxed);
        if connects != self.connects {
            self.connects = connects;
            self.state.read_all_again(now);
        }
        for key in self.overrun.drain(..) {
            // Its queue may have been full, so that the client threw messages away.
            self.state.read_again(key, now);
        }
        let settled = match end {
            BatchEnd::Complete => usize::MAX,
            BatchEnd::Partial { settled } => settled,
        };
        let mut proven = self.unproven.iter().map(|(_, message)| message.sequence).max().unwrap_or(0);
        for (index, (key, message)) in self.batch.drain(..).enumerate() {
            match LiveMessage::read(message) {
                Some(message) => {
                    if index < settled {
                        proven = proven.max(message.sequence);
                    }
                    self.unproven.push((key, message));
                }
                None => self.shared.metrics.not_republished(),
            }
        }
        self.unproven.sort_by_key(|(_, message)| message.sequence);
        let count = self.unproven.partition_point(|(_, message)| message.sequence <= proven);
        self.state.apply_live(self.unproven.drain(..count), now);
        if self.state.take_doubt() {
            self.next_audit = self.next_audit.min((self.last_audit + AUDIT_PAUSE).max(now.instant));
        }
    }

    /// Does what the state asks for.
    fn work(&mut self) {
        let io = self.state.take_io();
        for slot in io.close {
            // Dropping a subscription closes it.
            drop(self.ordered.remove(slot));
        }
        for request in io.replays {
            self.start_replay(request);
        }
        if self.pause.is_none() {
            self.start_reads();
        }
    }

    fn reader(&self) -> Option<StreamReader> {
        let stream = self.state.stream()?.to_owned();
        Some(StreamReader::new(self.shared.broker.client.clone(), stream))
    }

    /// Starts the reads that are wanted.
    fn start_reads(&mut self) {
        let Some(reader) = self.reader() else { return };
        if !self.shared.broker.state().connected {
            self.state.set_failure(Unavailable::BrokerAway, ClockReading::now());
            return;
        }
        while self.running_reads < CONCURRENT_READS {
            let Some(request) = self.state.next_read(MAX_SUBJECTS) else { break };
            self.running_reads += 1;
            let (reader, reporter) = (reader.clone(), self.reporter.clone());
            self.shared.tasks.spawn(async move {
                let result = reader::read(&reader, &request, &reporter).await;
                // The hub is gone if nobody hears this.
                let _ = reporter.send(HubReport::Read(result, reader::keys(&request)));
            });
        }
    }

    fn start_audit(&mut self) {
        let Some(reader) = self.reader() else { return };
        if self.auditing || !self.shared.broker.state().connected {
            return;
        }
        let Some(request) = self.state.audit() else { return };
        self.auditing = true;
        let reporter = self.reporter.clone();
        self.shared.tasks.spawn(async move {
            let result = reader::read(&reader, &request, &reporter).await;
            let _ = reporter.send(HubReport::Audited(result));
        });
    }

    fn start_replay(&mut self, request: ReplayRequest) {
        let Some(reader) = self.reader() else { return };
        let (reporter, permits) = (self.reporter.clone(), Arc::clone(&self.shared.replays));
        self.shared.tasks.spawn(async move {
            let (client, watch) = (request.client, request.watch);
            let end = replay(&reader, request, &permits).await;
            let _ = reporter.send(HubReport::Replayed(client, watch, end));
        });
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        // Whoever is still here comes back, whether the process stops or this task has failed.
        self.commands.close();
        while let Ok(command) = self.commands.try_recv() {
            if let Command::Attach(arrival) = command {
                self.state.attach(arrival, ClockReading::now());
            }
        }
        self.state.end_all(ByeReason::Draining, STOP_SPREAD, ClockReading::now());
        self.state.forget();
        self.shared.metrics.hubs.dec();
    }
}

/// What the catalog says of a tenant now.
fn tenant_catalog(
    catalog: &watch::Receiver<Arc<Catalog>>,
    tenant: &TenantName,
) -> Option<Arc<TenantCatalog>> {
    catalog.borrow().tenants.get(tenant).cloned()
}
