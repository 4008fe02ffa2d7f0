//! The task of one tenant: passes events on to the state, and does the I/O that the state requests.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use async_nats::Subscriber;
use flutecast_contract::name::TenantName;
use flutecast_nats::stream::MAX_SUBJECTS;
use flutecast_nats::{ConnectionState, NatsConnection, RequestError, StreamReader};
use flutecast_process::backoff::Backoff;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::task::unconstrained;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::control_events::ByeReason;
use super::keys::{ChannelId, ChannelKey, ClientKey};
use super::live::LiveMessages;
use super::metrics::{COMPLETE, DONE, FanoutMetrics};
use super::problem_log::ProblemLog;
use super::reader;
use super::replay::replay;
use super::state::{HubState, NewClient, ReadResult, ReplayRequest};
use super::stored::TenantStreams;
use super::values::LiveValues;
use super::{HubSettings, Unavailable};
use crate::catalog::{Catalog, TenantCatalog};
use crate::ingest::broker_clock::BrokerClock;
use crate::ingest::ordered_merge::BatchEnd;
use crate::pipeline::{GapReason, Now};

/// The most reads of one hub that run at once.
const CONCURRENT_READS: usize = 4;
/// The first pause after a read that failed.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(2);
/// The least time between two audits, for one that a message calls for.
const AUDIT_PAUSE: Duration = Duration::from_secs(1);
/// The time over which clients reconnect when the process ends without having drained.
const STOP_SPREAD: Duration = Duration::from_secs(3);

#[derive(Debug)]
pub(super) enum Command {
    Attach(NewClient),
    Detach(u64),
    /// Send every client away, with reconnect times spread over this time.
    Drain(Duration),
    /// Return the values of those of these channels that are live.
    Values(Vec<ChannelId>, oneshot::Sender<LiveValues>),
}

#[derive(Debug)]
pub(super) enum HubReport {
    Opened(ChannelKey, Subscriber),
    /// Some channels of a read that goes on.
    ReadPart(ReadResult),
    /// The end of a read, and those of its channels that were not in a part.
    Read(Result<ReadResult, RequestError>, Vec<ChannelKey>),
    Audited(Result<ReadResult, RequestError>),
    Replayed(ClientKey, ChannelKey, Result<(), GapReason>),
}

/// The state that all hubs share.
#[derive(Debug, Clone)]
pub(super) struct HubContext {
    pub(super) broker: NatsConnection,
    pub(super) clock: BrokerClock,
    pub(super) catalog: watch::Receiver<Arc<Catalog>>,
    pub(super) settings: Arc<HubSettings>,
    pub(super) metrics: FanoutMetrics,
    pub(super) problem_log: ProblemLog,
    pub(super) stop: CancellationToken,
    pub(super) tasks: TaskTracker,
    /// Bounds the replays of all hubs together, so that a wave of reconnects doesn't flood the broker.
    pub(super) replays: Arc<Semaphore>,
    /// Bounds the tails that are read at once, so that they fit into the pod's memory.
    pub(super) tails: Arc<Semaphore>,
}

impl HubContext {
    pub(super) fn tenant(&self, tenant: &TenantName) -> Option<Arc<TenantCatalog>> {
        self.catalog.borrow().tenants.get(tenant).cloned()
    }
}

pub(super) struct Hub {
    tenant: TenantName,
    context: HubContext,
    state: HubState,
    commands: UnboundedReceiver<Command>,
    reports: UnboundedReceiver<HubReport>,
    reporter: UnboundedSender<HubReport>,
    broker: watch::Receiver<ConnectionState>,
    known_broker: ConnectionState,
    connects: u64,
    live: LiveMessages,
    running_reads: usize,
    /// The time at which reads start again after one that failed.
    pause: Option<Instant>,
    backoff: Backoff,
    next_audit: Instant,
    last_audit: Instant,
    auditing: bool,
}

impl Hub {
    pub(super) fn new(tenant: TenantName, context: HubContext, commands: UnboundedReceiver<Command>) -> Self {
        let (reporter, reports) = unbounded_channel();
        let catalog = context.tenant(&tenant);
        let state =
            HubState::new(tenant.clone(), catalog, Arc::clone(&context.settings), context.metrics.clone());
        let broker = context.broker.watch();
        Self {
            tenant,
            known_broker: context.broker.state(),
            connects: context.broker.client.statistics().connects.load(Relaxed),
            next_audit: Instant::now() + context.settings.audit,
            last_audit: Instant::now(),
            broker,
            state,
            commands,
            reports,
            reporter,
            live: LiveMessages::default(),
            running_reads: 0,
            pause: None,
            backoff: Backoff::new(FIRST_PAUSE, LAST_PAUSE),
            auditing: false,
            context,
        }
    }

    /// Runs until the process stops, or until the hub is idle and `may_end` agrees.
    pub(super) async fn run(mut self, may_end: impl Fn(&UnboundedReceiver<Command>) -> bool) {
        self.context.metrics.hubs.inc();
        loop {
            self.do_io();
            if self.state.is_idle() && self.running_reads == 0 && may_end(&self.commands) {
                break;
            }
            let timer = self.next_timer();
            tokio::select! {
                () = self.context.stop.cancelled() => break,
                command = self.commands.recv() => match command {
                    Some(command) => self.command(command),
                    None => break,
                },
                Some(report) = self.reports.recv() => self.report(report),
                Ok(()) = self.context.catalog.changed() => {
                    self.state.change_catalog(self.context.tenant(&self.tenant), self.context.clock.now());
                }
                Ok(()) = self.broker.changed() => self.broker_changed(),
                end = unconstrained(poll_fn(|cx| self.live.poll_batch(cx))) => {
                    self.apply_batch(end);
                    if end != BatchEnd::Complete {
                        tokio::task::yield_now().await;
                    }
                }
                () = sleep_until(timer) => self.timer(),
            }
        }
    }

    fn next_timer(&mut self) -> Instant {
        let due = [self.state.timers.next(), self.pause, Some(self.next_audit)];
        due.into_iter().flatten().min().unwrap_or(self.next_audit)
    }

    fn timer(&mut self) {
        let now = self.context.clock.now();
        if self.pause.is_some_and(|until| until <= now.instant) {
            self.pause = None;
        }
        if self.next_audit <= now.instant {
            self.last_audit = now.instant;
            self.next_audit = now.instant + self.context.settings.audit.mul_f64(rand::random_range(0.8..1.2));
            self.start_audit();
        }
        self.state.tick(now);
    }

    fn command(&mut self, command: Command) {
        let now = self.context.clock.now();
        match command {
            Command::Attach(arrival) => self.state.attach(arrival, now),
            Command::Detach(connection) => self.state.detach(connection, now),
            Command::Drain(spread) => self.state.end_all(ByeReason::Draining, spread, now),
            Command::Values(channels, reply) => {
                // The caller may have gone.
                let _ = reply.send(self.state.live_values(channels, now));
            }
        }
    }

    fn report(&mut self, report: HubReport) {
        let now = self.context.clock.now();
        match report {
            HubReport::Opened(key, subscriber) => {
                let slot = self.live.subscriptions.insert(key, subscriber);
                if let Some(unwanted) = self.state.opened(key, slot) {
                    self.live.subscriptions.remove(unwanted);
                }
            }
            HubReport::ReadPart(result) => self.state.apply_read(result, now),
            HubReport::Read(result, keys) => {
                self.running_reads -= 1;
                match result {
                    Ok(result) => {
                        self.context.metrics.read(DONE);
                        self.pause = None;
                        self.backoff.reset();
                        self.state.apply_read(result, now);
                    }
                    Err(error) => self.read_failed(&error, &keys, now),
                }
            }
            HubReport::Audited(Ok(result)) => {
                self.auditing = false;
                self.state.audited(&result, now);
            }
            HubReport::Audited(Err(error)) => {
                self.auditing = false;
                self.context.metrics.read(error.label());
                if error == RequestError::NoStream {
                    // Nothing can be said of what comes until there is a stream again.
                    self.state.read_all_again(now);
                }
            }
            HubReport::Replayed(client, channel, end) => {
                self.context.metrics.replayed(end.err().map_or(COMPLETE, GapReason::as_str));
                self.state.replayed(client, channel, end, now);
            }
        }
    }

    fn read_failed(&mut self, error: &RequestError, keys: &[ChannelKey], now: Now) {
        self.context.metrics.read(error.label());
        if self.state.read_failed(keys, error.into(), now) {
            let tenant = &self.tenant;
            tracing::warn!(%tenant, %error, "the tenant's stream can't be read; it is tried again");
        }
        self.pause = Some(now.instant + self.backoff.next_wait());
    }

    fn broker_changed(&mut self) {
        let state = *self.broker.borrow_and_update();
        if state.generation != self.known_broker.generation {
            self.state.read_all_again(self.context.clock.now());
            self.pause = None;
        }
        self.known_broker = state;
    }

    /// Applies the live messages that no older message can follow.
    fn apply_batch(&mut self, end: BatchEnd) {
        let now = self.context.clock.now();
        // The count goes up before the first message of a new connection is dispatched. So if it didn't, no
        // message here came after a loss of the connection.
        let connects = self.context.broker.client.statistics().connects.load(Relaxed);
        if connects != self.connects {
            self.connects = connects;
            self.state.read_all_again(now);
        }
        for key in self.live.overrun.drain(..) {
            // Its queue may have been full, so that the NATS client dropped messages.
            self.state.read_again(key, now);
        }
        let not_republished = || self.context.metrics.not_republished();
        self.state.apply_live(self.live.take_proven_batch(end, not_republished), now);
    }

    fn do_io(&mut self) {
        let io = self.state.take_io();
        if io.audit {
            self.next_audit = self.next_audit.min((self.last_audit + AUDIT_PAUSE).max(Instant::now()));
        }
        for slot in io.close {
            // Dropping a subscription closes it.
            drop(self.live.subscriptions.remove(slot));
        }
        for line in io.problems {
            self.context.problem_log.write(&self.tenant, &line);
        }
        for request in io.replays {
            self.start_replay(request);
        }
        if self.pause.is_none() {
            self.start_reads();
        }
    }

    fn streams(&self) -> Option<TenantStreams> {
        let stream = self.state.stream()?.to_owned();
        let reader = StreamReader::new(self.context.broker.client.clone(), stream);
        Some(TenantStreams::new(reader, &self.tenant, &self.context))
    }

    fn start_reads(&mut self) {
        let Some(streams) = self.streams() else { return };
        if !self.context.broker.state().connected {
            self.state.read_failed(&[], Unavailable::BrokerAway, self.context.clock.now());
            return;
        }
        while self.running_reads < CONCURRENT_READS {
            let Some(request) = self.state.next_read(MAX_SUBJECTS) else { break };
            self.running_reads += 1;
            let (streams, clock) = (streams.clone(), self.context.clock.clone());
            let reporter = self.reporter.clone();
            self.context.tasks.spawn(async move {
                let mut unread = request.channel_keys();
                let result = reader::read(&streams, &clock, &request, &mut unread, &reporter).await;
                // Nothing receives this if the hub is gone.
                let _ = reporter.send(HubReport::Read(result, unread));
            });
        }
    }

    fn start_audit(&mut self) {
        let Some(streams) = self.streams() else { return };
        if self.auditing || !self.context.broker.state().connected {
            return;
        }
        let Some(request) = self.state.audit() else { return };
        self.auditing = true;
        let (reporter, clock) = (self.reporter.clone(), self.context.clock.clone());
        self.context.tasks.spawn(async move {
            // Newest messages only: there are no parts.
            let result = reader::read(&streams, &clock, &request, &mut Vec::new(), &reporter).await;
            let _ = reporter.send(HubReport::Audited(result));
        });
    }

    fn start_replay(&mut self, request: ReplayRequest) {
        let Some(streams) = self.streams() else { return };
        let (reporter, permits) = (self.reporter.clone(), Arc::clone(&self.context.replays));
        self.context.tasks.spawn(async move {
            let (client, channel) = (request.client, request.channel);
            let end = replay(&streams, request, &permits).await;
            let _ = reporter.send(HubReport::Replayed(client, channel, end));
        });
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        // The clients come back, whether the process stops or this task has failed.
        self.commands.close();
        while let Ok(command) = self.commands.try_recv() {
            if let Command::Attach(arrival) = command {
                self.state.attach(arrival, self.context.clock.now());
            }
        }
        self.state.end_all(ByeReason::Draining, STOP_SPREAD, self.context.clock.now());
        self.state.forget();
        self.context.metrics.hubs.dec();
    }
}
