//! The open event streams: ends those whose access changed, whose client reads nothing, or that are sent to
//! another pod.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Wake, Waker};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::metrics::HttpMetrics;
use super::server::SocketControl;
use crate::access::{Access, Credential, Grant};
use crate::catalog::Catalog;

/// Why this module ends a stream. The fan-out ends streams for other reasons. The names are those of `bye`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum CloseReason {
    /// The caller's grant has changed.
    AccessRevoked,
    /// The tenant was removed.
    TenantRemoved,
    /// Another pod has fewer clients.
    Rebalancing,
    /// This pod is shutting down.
    Draining,
}

impl CloseReason {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::AccessRevoked => "AccessRevoked",
            Self::TenantRemoved => "TenantRemoved",
            Self::Rebalancing => "Rebalancing",
            Self::Draining => "Draining",
        }
    }

    /// Returns the bounds of the client's random retry time in ms. It is short where clients are sent away a
    /// few at a time.
    pub(crate) fn retry_ms(self) -> RangeInclusive<u32> {
        match self {
            Self::AccessRevoked | Self::TenantRemoved => 1_000..=3_000,
            Self::Rebalancing | Self::Draining => 100..=600,
        }
    }
}

/// The least time that a client stays before it is sent to another pod.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MinimumStay {
    /// For a client on its first connection.
    pub(crate) new: Duration,
    /// For a client that resumes, perhaps because it was sent away before.
    pub(crate) returned: Duration,
}

/// All open event streams of this pod. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct StreamRegistry {
    open: Arc<Mutex<OpenStreams>>,
    metrics: HttpMetrics,
}

/// By age: the oldest stream comes first.
type OpenStreams = BTreeMap<u64, Arc<OpenStream>>;

/// Shared by the body, the watcher, and the fan-out, which only wakes it.
#[derive(Debug)]
struct OpenStream {
    /// The origin of `waits_since`.
    start: Instant,
    credential: Credential,
    grant: Grant,
    /// `true` if the client resumes, so that it had a stream before.
    returned: bool,
    socket: SocketControl,
    /// 1 + the milliseconds from `start` to when data began to wait for the writer; 0 if none waits.
    waits_since: AtomicU64,
    end: OnceLock<CloseReason>,
    waker: AtomicWaker,
}

/// The body's side of an open stream. Dropping it removes the stream from the registry.
#[derive(Debug)]
pub(crate) struct StreamGuard {
    id: u64,
    stream: Arc<OpenStream>,
    /// To be used when there is data for the writer.
    pub(super) waker: Waker,
    open: Arc<Mutex<OpenStreams>>,
}

impl StreamRegistry {
    pub(crate) fn new(metrics: HttpMetrics) -> Self {
        Self { open: Arc::default(), metrics }
    }

    /// Registers a stream of a caller who was granted `grant` for `credential`.
    pub(crate) fn open(
        &self,
        credential: Credential,
        grant: Grant,
        returned: bool,
        socket: SocketControl,
    ) -> StreamGuard {
        let stream = Arc::new(OpenStream {
            start: Instant::now(),
            credential,
            grant,
            returned,
            socket,
            waits_since: AtomicU64::new(0),
            end: OnceLock::new(),
            waker: AtomicWaker::new(),
        });
        let mut open = lock(&self.open);
        let id = open.last_key_value().map_or(0, |(newest, _)| newest + 1);
        open.insert(id, Arc::clone(&stream));
        StreamGuard { id, waker: Arc::clone(&stream).into(), stream, open: Arc::clone(&self.open) }
    }

    /// Ends the streams whose caller would be granted something else now, even if it is more: the client
    /// comes back and gets the new grant. Returns how many were ended.
    pub(crate) fn recheck(&self, access: &Access, catalog: &Catalog) -> usize {
        let mut ended = 0;
        for stream in lock(&self.open).values() {
            if stream.holds(access) {
                continue;
            }
            let tenant = &stream.grant.tenant;
            let gone = !access.has_tenant(tenant) && !catalog.tenants.contains_key(tenant);
            let end = if gone { CloseReason::TenantRemoved } else { CloseReason::AccessRevoked };
            if stream.end.set(end).is_ok() {
                stream.wake_by_ref();
                self.metrics.revoked.inc();
                ended += 1;
            }
        }
        ended
    }

    /// Ends the streams whose client has read nothing for `timeout` although data waits. Returns how many
    /// were ended.
    ///
    /// The writer polls as soon as it has room. If it has data and doesn't poll again, the client doesn't
    /// read. This holds for HTTP/1.1 and for one stream of many on an HTTP/2 connection.
    pub(crate) fn end_stalled(&self, timeout: Duration) -> usize {
        let timeout = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        let mut stalled = 0;
        for stream in lock(&self.open).values() {
            let since = stream.waits_since.load(Ordering::Relaxed);
            if since != 0
                && stream.mark().saturating_sub(since) >= timeout
                && !stream.socket.end.is_cancelled()
            {
                stream.socket.end.cancel();
                self.metrics.stalled.inc();
                stalled += 1;
            }
        }
        stalled
    }

    /// Ends up to `count` streams, the oldest first, so that their clients go to other pods. With `stay`,
    /// clients that have not stayed long enough are kept, and so are those with unread data, which would have
    /// to be read for them once more. Returns how many were ended.
    pub(crate) fn send_away(&self, count: usize, end: CloseReason, stay: Option<MinimumStay>) -> usize {
        let may_go = |stream: &OpenStream| {
            let stayed = stay.is_none_or(|MinimumStay { new, returned }| {
                let least = if stream.returned { returned } else { new };
                stream.start.elapsed() >= least && stream.waits_since.load(Ordering::Relaxed) == 0
            });
            stayed && stream.end.get().is_none()
        };
        let mut ended = 0;
        for stream in lock(&self.open).values().filter(|stream| may_go(stream)).take(count) {
            if stream.end.set(end).is_ok() {
                // On the same connection the client would come back to this pod.
                stream.socket.leave.cancel();
                stream.wake_by_ref();
                ended += 1;
            }
        }
        ended
    }

    /// Rechecks all streams at each change of `access`, and ends those that stall.
    pub(crate) async fn watch(
        self,
        mut access: watch::Receiver<Option<Arc<Access>>>,
        catalog: watch::Receiver<Arc<Catalog>>,
        take_timeout: Duration,
    ) {
        // A stalled client is noticed at most a sixth of the timeout late.
        let period = (take_timeout / 6).max(Duration::from_millis(10));
        let mut tick = interval(period);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut looked = Instant::now();
        loop {
            tokio::select! {
                changed = access.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let current = access.borrow_and_update().clone();
                    let ended = current.map_or(0, |access| self.recheck(&access, &catalog.borrow().clone()));
                    if ended > 0 {
                        tracing::info!(ended, "access has changed; streams that it concerns were ended");
                    }
                }
                _ = tick.tick() => {
                    // If the process itself stood still (a paused machine), clients get time to read first.
                    let late = looked.elapsed() > period * 2;
                    looked = Instant::now();
                    let stalled = if late { 0 } else { self.end_stalled(take_timeout) };
                    if stalled > 0 {
                        tracing::info!(stalled, "clients that take nothing were closed");
                    }
                }
            }
        }
    }
}

fn lock(open: &Mutex<OpenStreams>) -> MutexGuard<'_, OpenStreams> {
    // No code that holds the lock can leave the map inconsistent.
    open.lock().unwrap_or_else(PoisonError::into_inner)
}

impl OpenStream {
    fn holds(&self, access: &Access) -> bool {
        access.decide(self.grant.tenant.as_str(), &self.credential).as_ref() == Ok(&self.grant)
    }

    fn mark(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX - 1) + 1
    }

    /// Starts the wait for the writer, unless it has started.
    fn begin_wait(&self) {
        let _ = self.waits_since.compare_exchange(0, self.mark(), Ordering::Relaxed, Ordering::Relaxed);
    }
}

/// A stream is woken when there is data. An HTTP/2 stream without window is woken and doesn't poll.
impl Wake for OpenStream {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.begin_wait();
        self.waker.wake();
    }
}

impl StreamGuard {
    /// Returns whether the caller's grant still holds. To be checked once after opening, as a change of
    /// access between the grant and the opening was applied without this stream.
    pub(crate) fn holds(&self, access: &Access) -> bool {
        self.stream.holds(access)
    }

    /// To be called when the writer polls for more. Returns why the stream has to end, if so. `waker` is the
    /// writer's.
    pub(crate) fn polled(&self, waker: &Waker) -> Option<CloseReason> {
        self.stream.waits_since.store(0, Ordering::Relaxed);
        self.stream.waker.register(waker);
        self.stream.end.get().copied()
    }

    /// To be called when the writer was given data.
    pub(crate) fn gave(&self) {
        self.stream.begin_wait();
    }
}

impl Drop for StreamGuard {
    fn drop(&mut self) {
        lock(&self.open).remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use flutecast_contract::document::AccessDocument;

    use super::*;
    use crate::access::Scope;

    #[derive(Default)]
    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    fn access(tenants: &str) -> Access {
        let yaml = format!("apiVersion: mapping.flutecast.io/v1\ntenants: {tenants}");
        let document: AccessDocument = serde_yaml::from_str(&yaml).unwrap();
        Access::from_document(document).unwrap().0
    }

    fn open(
        streams: &StreamRegistry,
        access: &Access,
        credential: Credential,
    ) -> (StreamGuard, SocketControl) {
        open_as(streams, access, credential, false)
    }

    fn open_as(
        streams: &StreamRegistry,
        access: &Access,
        credential: Credential,
        returned: bool,
    ) -> (StreamGuard, SocketControl) {
        let socket = SocketControl::default();
        let grant = access.decide("acme", &credential).unwrap();
        (streams.open(credential, grant, returned, socket.clone()), socket)
    }

    const SECRET: &str = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";

    #[tokio::test(start_paused = true)]
    async fn change_of_access_ends_the_streams_concerned() {
        let before = access(&format!("{{acme: {{tokens: {{a: {{sha256: {SECRET}}}}}}}}}"));
        let streams = StreamRegistry::new(HttpMetrics::default());
        let (guard, _socket) = open(&streams, &before, Credential::token(b"secret"));
        assert_eq!(guard.stream.grant.scope, Scope::All);
        let woken = Arc::new(Woken::default());
        let waker = Arc::clone(&woken).into();
        assert_eq!(guard.polled(&waker), None);

        let renamed =
            access(&format!("{{acme: {{allowedOrigins: ['*'], tokens: {{b: {{sha256: {SECRET}}}}}}}}}"));
        assert_eq!(streams.recheck(&renamed, &Catalog::default()), 0, "the same grant by another name");

        let less = access(&format!("{{acme: {{tokens: {{a: {{sha256: {SECRET}, devices: [A]}}}}}}}}"));
        assert_eq!(streams.recheck(&less, &Catalog::default()), 1);
        assert!(woken.0.load(Ordering::Relaxed));
        assert_eq!(guard.polled(&waker), Some(CloseReason::AccessRevoked));
        assert_eq!(streams.recheck(&less, &Catalog::default()), 0, "it is ended once");
        drop(guard);
        assert_eq!(lock(&streams.open).len(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn streams_of_a_removed_tenant_end_with_that_reason() {
        let before = access("{acme: {anonymous: true}}");
        let streams = StreamRegistry::new(HttpMetrics::default());
        let (guard, _socket) = open(&streams, &before, Credential::None);
        assert_eq!(streams.recheck(&access("{}"), &Catalog::default()), 1);
        assert_eq!(guard.polled(Waker::noop()), Some(CloseReason::TenantRemoved));
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_client_that_reads_nothing_stalls() {
        let timeout = Duration::from_secs(30);
        let access = access("{acme: {anonymous: true}}");
        let streams = StreamRegistry::new(HttpMetrics::default());
        let (idle, idle_socket) = open(&streams, &access, Credential::None);
        let (stuck, stuck_socket) = open(&streams, &access, Credential::None);
        idle.gave();
        stuck.gave();
        tokio::time::advance(Duration::from_secs(29)).await;
        // It has read all and waits for more, however long that takes.
        assert_eq!(idle.polled(Waker::noop()), None);
        assert_eq!(streams.end_stalled(timeout), 0);
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(streams.end_stalled(timeout), 1);
        assert!(stuck_socket.end.is_cancelled() && !idle_socket.end.is_cancelled());
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!(streams.end_stalled(timeout), 0);
        // There is data for it, and it doesn't poll.
        idle.waker.wake_by_ref();
        tokio::time::advance(Duration::from_secs(29)).await;
        idle.waker.wake_by_ref();
        assert_eq!(streams.end_stalled(timeout), 0);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(streams.end_stalled(timeout), 1);
        assert!(idle_socket.end.is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn oldest_clients_are_sent_away_first_and_new_ones_stay() {
        let rest = Some(MinimumStay { new: Duration::from_secs(10), returned: Duration::from_secs(120) });
        let access = access("{acme: {anonymous: true}}");
        let streams = StreamRegistry::new(HttpMetrics::default());
        let guards: Vec<_> = [false, true, false, false]
            .into_iter()
            .map(|returned| open_as(&streams, &access, Credential::None, returned))
            .collect();
        let gone = || {
            let ends = guards.iter().map(|(guard, socket)| {
                let end = guard.polled(Waker::noop());
                assert_eq!(end.is_some(), socket.leave.is_cancelled());
                assert!(!socket.end.is_cancelled(), "what waits for it is still written");
                end.is_some()
            });
            ends.collect::<Vec<_>>()
        };
        assert_eq!(streams.send_away(9, CloseReason::Rebalancing, rest), 0);
        tokio::time::advance(Duration::from_secs(11)).await;
        assert_eq!(streams.send_away(1, CloseReason::Rebalancing, rest), 1);
        assert_eq!(gone(), [true, false, false, false]);
        // One has unread data.
        guards[2].0.gave();
        assert_eq!(streams.send_away(9, CloseReason::Rebalancing, rest), 1);
        assert_eq!(gone(), [true, false, false, true]);
        tokio::time::advance(Duration::from_secs(120)).await;
        assert_eq!(streams.send_away(1, CloseReason::Rebalancing, rest), 1);
        assert_eq!(gone(), [true, true, false, true]);
        // A drain ignores minimum stays and unread data.
        guards[2].0.gave();
        assert_eq!(streams.send_away(9, CloseReason::Draining, None), 1);
        assert_eq!(guards[2].0.polled(Waker::noop()), Some(CloseReason::Draining));
    }
}
