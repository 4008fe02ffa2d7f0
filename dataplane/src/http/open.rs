//! The event streams that are open: who may read on, and who takes nothing any more.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Wake, Waker};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::server::Socket;
use crate::access::{Access, Credential, Grant};
use crate::catalog::Catalog;
use crate::metrics::HttpMetrics;

/// Why this side ends a stream, beyond what the fan-out ends by itself. The names are those of `bye`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum End {
    /// What the caller was granted has changed.
    AccessRevoked,
    /// The tenant is gone altogether.
    TenantRemoved,
    /// Another pod has fewer clients.
    Rebalancing,
    /// This pod goes.
    Draining,
}

impl End {
    /// The reason's name in `bye`.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::AccessRevoked => "AccessRevoked",
            Self::TenantRemoved => "TenantRemoved",
            Self::Rebalancing => "Rebalancing",
            Self::Draining => "Draining",
        }
    }

    /// How long the client waits before it comes back, in ms: a random time in between. Those who are sent
    /// away a few at a time needn't wait for each other.
    pub(crate) fn retry_ms(self) -> RangeInclusive<u32> {
        match self {
            Self::AccessRevoked | Self::TenantRemoved => 1_000..=3_000,
            Self::Rebalancing | Self::Draining => 100..=600,
        }
    }
}

/// Which clients are left alone when some are sent to other pods.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rest {
    /// A client that never was anywhere else stays at least so long.
    pub(crate) new: Duration,
    /// One that came back, perhaps because it was sent away, stays at least so long.
    pub(crate) returned: Duration,
}

/// Every open event stream of this pod. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct OpenStreams {
    inner: Arc<Inner>,
    metrics: HttpMetrics,
}

#[derive(Debug)]
struct Inner {
    next: AtomicU64,
    streams: Mutex<HashMap<u64, Arc<OpenStream>>>,
}

/// One of them, as its body, the watcher and the fan-out see it: the last by waking it.
#[derive(Debug)]
struct OpenStream {
    /// What its mark is counted from.
    start: Instant,
    credential: Credential,
    grant: Grant,
    /// Whether the client said where it resumes, so that it was somewhere before.
    returned: bool,
    socket: Socket,
    /// Milliseconds since `start`, plus 1, when the writer was given something, or told that there is
    /// something, and has not asked again since; 0: it waits for us.
    waits_since: AtomicU64,
    end: OnceLock<End>,
    waker: AtomicWaker,
}

/// The body's side of an open stream. Dropping it closes the stream.
#[derive(Debug)]
pub(crate) struct Lease {
    id: u64,
    stream: Arc<OpenStream>,
    /// The stream's own waker.
    waker: Waker,
    inner: Arc<Inner>,
}

impl OpenStreams {
    /// None yet.
    pub(crate) fn new(metrics: HttpMetrics) -> Self {
        let inner = Inner { next: AtomicU64::new(0), streams: Mutex::default() };
        Self { inner: Arc::new(inner), metrics }
    }

    /// Opens a stream for a caller who showed `credential` and was granted `grant`.
    pub(crate) fn open(&self, credential: Credential, grant: Grant, returned: bool, socket: Socket) -> Lease {
        let id = self.inner.next.fetch_add(1, Ordering::Relaxed);
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
        self.inner.lock().insert(id, Arc::clone(&stream));
        Lease { id, waker: Arc::clone(&stream).into(), stream, inner: Arc::clone(&self.inner) }
    }

    /// Ends the streams whose caller would be granted something else now, even if it were more: the client
    /// comes back and gets what holds now. Returns how many that were.
    pub(crate) fn recheck(&self, access: &Access, catalog: &Catalog) -> usize {
        let mut ended = 0;
        for stream in self.inner.lock().values() {
            let tenant = &stream.grant.tenant;
            if access.decide(tenant.as_str(), &stream.credential).as_ref() == Ok(&stream.grant) {
                continue;
            }
            let gone = !access.has_tenant(tenant) && !catalog.tenants.contains_key(tenant);
            let end = if gone { End::TenantRemoved } else { End::AccessRevoked };
            if stream.end.set(end).is_ok() {
                stream.wake_by_ref();
                self.metrics.revoked.inc();
                ended += 1;
            }
        }
        ended
    }

    /// Ends the streams that have taken nothing for `timeout` although something waits. Returns how many
    /// streams stalled.
    ///
    /// The writer asks for more as soon as it has room; when it has been given something and doesn't ask
    /// again, the client doesn't read. This holds for HTTP/1.1 as well as for one stream of many on an HTTP/2
    /// connection.
    pub(crate) fn end_stalled(&self, timeout: Duration) -> usize {
        let timeout = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        let mut stalled = 0;
        for stream in self.inner.lock().values() {
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

    /// Ends up to `count` streams so that their clients go to other pods; those that are here longest first.
    /// With `rest`, clients that came only just are left alone, and so are those that haven't taken yet what
    /// there is for them: what one doesn't have yet would be read for it once more. Returns how many.
    pub(crate) fn send_away(&self, count: usize, end: End, rest: Option<Rest>) -> usize {
        let may_go = |stream: &OpenStream| {
            let rested = rest.is_none_or(|Rest { new, returned }| {
                let least = if stream.returned { returned } else { new };
                stream.start.elapsed() >= least && stream.waits_since.load(Ordering::Relaxed) == 0
            });
            rested && stream.end.get().is_none()
        };
        let streams = self.inner.lock();
        let mut oldest: Vec<_> = streams.iter().filter(|(_, stream)| may_go(stream)).collect();
        if count < oldest.len() {
            oldest.select_nth_unstable_by_key(count, |(id, _)| **id);
            oldest.truncate(count);
        }
        let mut ended = 0;
        for (_, stream) in oldest {
            if stream.end.set(end).is_ok() {
                // Whoever comes back on the same connection would come back to this pod.
                stream.socket.leave.cancel();
                stream.wake_by_ref();
                ended += 1;
            }
        }
        ended
    }

    /// Watches them: rechecks all at each change of `access`, and ends what stalls. Ends with `stop`.
    pub(crate) async fn watch(
        self,
        mut access: watch::Receiver<Option<Arc<Access>>>,
        catalog: watch::Receiver<Arc<Catalog>>,
        take_timeout: Duration,
        stop: CancellationToken,
    ) {
        // A sixth of the timeout is how late a stalled client may be noticed.
        let period = (take_timeout / 6).max(Duration::from_millis(10));
        let mut tick = interval(period);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut looked = Instant::now();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
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
                    // After the process itself stood still (a paused machine), clients get their chance
                    // first.
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

impl Inner {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Arc<OpenStream>>> {
        // Nothing that holds this lock can leave the map half changed.
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OpenStream {
    fn mark(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX - 1) + 1
    }

    /// From now on the writer lets us wait, unless it does so already.
    fn begin_wait(&self) {
        let _ = self.waits_since.compare_exchange(0, self.mark(), Ordering::Relaxed, Ordering::Relaxed);
    }
}

/// Whoever has something for the stream wakes it. An HTTP/2 stream without window is woken and doesn't ask.
impl Wake for OpenStream {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.begin_wait();
        self.waker.wake();
    }
}

impl Lease {
    /// Whether the caller is still granted what it was. To be asked once after opening: a change of access
    /// that came between the grant and the opening was looked at without this stream.
    pub(crate) fn holds(&self, access: &Access) -> bool {
        let OpenStream { credential, grant, .. } = &*self.stream;
        access.decide(grant.tenant.as_str(), credential).as_ref() == Ok(grant)
    }

    /// The writer asks for more: it has taken what it got. Answers why the stream ends, if it does. `waker`
    /// is the writer's.
    pub(crate) fn asked(&self, waker: &Waker) -> Option<End> {
        self.stream.waits_since.store(0, Ordering::Relaxed);
        self.stream.waker.register(waker);
        self.stream.end.get().copied()
    }

    /// Whom to wake when there is something for the writer.
    pub(crate) fn waker(&self) -> &Waker {
        &self.waker
    }

    /// The writer was given something.
    pub(crate) fn gave(&self) {
        self.stream.begin_wait();
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.inner.lock().remove(&self.id);
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

    fn open(streams: &OpenStreams, access: &Access, credential: Credential) -> (Lease, Socket) {
        open_as(streams, access, credential, false)
    }

    fn open_as(
        streams: &OpenStreams,
        access: &Access,
        credential: Credential,
        returned: bool,
    ) -> (Lease, Socket) {
        let socket = Socket::default();
        let grant = access.decide("acme", &credential).unwrap();
        (streams.open(credential, grant, returned, socket.clone()), socket)
    }

    const SECRET: &str = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";

    #[tokio::test(start_paused = true)]
    async fn a_change_of_access_ends_those_whom_it_concerns() {
        let before = access(&format!("{{acme: {{tokens: {{a: {{sha256: {SECRET}}}}}}}}}"));
        let streams = OpenStreams::new(HttpMetrics::default());
        let (lease, _socket) = open(&streams, &before, Credential::token(b"secret"));
        assert_eq!(lease.stream.grant.scope, Scope::All);
        let woken = Arc::new(Woken::default());
        let waker = Arc::clone(&woken).into();
        assert_eq!(lease.asked(&waker), None);

        let renamed =
            access(&format!("{{acme: {{allowedOrigins: ['*'], tokens: {{b: {{sha256: {SECRET}}}}}}}}}"));
        assert_eq!(streams.recheck(&renamed, &Catalog::default()), 0, "the same grant by another name");

        let less = access(&format!("{{acme: {{tokens: {{a: {{sha256: {SECRET}, devices: [A]}}}}}}}}"));
        assert_eq!(streams.recheck(&less, &Catalog::default()), 1);
        assert!(woken.0.load(Ordering::Relaxed));
        assert_eq!(lease.asked(&waker), Some(End::AccessRevoked));
        assert_eq!(streams.recheck(&less, &Catalog::default()), 0, "it is ended once");
        drop(lease);
        assert_eq!(streams.inner.lock().len(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_tenant_that_is_gone_is_told_so() {
        let before = access("{acme: {anonymous: true}}");
        let streams = OpenStreams::new(HttpMetrics::default());
        let (lease, _socket) = open(&streams, &before, Credential::None);
        assert_eq!(streams.recheck(&access("{}"), &Catalog::default()), 1);
        assert_eq!(lease.asked(Waker::noop()), Some(End::TenantRemoved));
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_client_that_takes_nothing_stalls() {
        let timeout = Duration::from_secs(30);
        let access = access("{acme: {anonymous: true}}");
        let streams = OpenStreams::new(HttpMetrics::default());
        let (idle, idle_socket) = open(&streams, &access, Credential::None);
        let (stuck, stuck_socket) = open(&streams, &access, Credential::None);
        idle.gave();
        stuck.gave();
        tokio::time::advance(Duration::from_secs(29)).await;
        // It has taken all and waits for more, however long that takes.
        assert_eq!(idle.asked(Waker::noop()), None);
        assert_eq!(streams.end_stalled(timeout), 0);
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(streams.end_stalled(timeout), 1);
        assert!(stuck_socket.end.is_cancelled() && !idle_socket.end.is_cancelled());
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!(streams.end_stalled(timeout), 0);
        // Something comes for it, and it doesn't ask for it.
        idle.waker().wake_by_ref();
        tokio::time::advance(Duration::from_secs(29)).await;
        idle.waker().wake_by_ref();
        assert_eq!(streams.end_stalled(timeout), 0);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(streams.end_stalled(timeout), 1);
        assert!(idle_socket.end.is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_are_here_longest_go_first_and_who_came_just_now_stays() {
        let rest = Some(Rest { new: Duration::from_secs(10), returned: Duration::from_secs(120) });
        let access = access("{acme: {anonymous: true}}");
        let streams = OpenStreams::new(HttpMetrics::default());
        let leases: Vec<_> = [false, true, false, false]
            .into_iter()
            .map(|returned| open_as(&streams, &access, Credential::None, returned))
            .collect();
        let gone = || {
            let ends = leases.iter().map(|(lease, socket)| {
                let end = lease.asked(Waker::noop());
                assert_eq!(end.is_some(), socket.leave.is_cancelled());
                assert!(!socket.end.is_cancelled(), "what waits for it is still written");
                end.is_some()
            });
            ends.collect::<Vec<_>>()
        };
        assert_eq!(streams.send_away(9, End::Rebalancing, rest), 0);
        tokio::time::advance(Duration::from_secs(11)).await;
        assert_eq!(streams.send_away(1, End::Rebalancing, rest), 1);
        assert_eq!(gone(), [true, false, false, false]);
        // One has something that it hasn't taken.
        leases[2].0.gave();
        assert_eq!(streams.send_away(9, End::Rebalancing, rest), 1);
        assert_eq!(gone(), [true, false, false, true]);
        tokio::time::advance(Duration::from_secs(120)).await;
        assert_eq!(streams.send_away(1, End::Rebalancing, rest), 1);
        assert_eq!(gone(), [true, true, false, true]);
        // Who drains asks nobody.
        leases[2].0.gave();
        assert_eq!(streams.send_away(9, End::Draining, None), 1);
        assert_eq!(leases[2].0.asked(Waker::noop()), Some(End::Draining));
    }
}
