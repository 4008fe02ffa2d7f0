//! The loop that keeps the cluster as its objects want it. Each reconcile reads as five steps: dereference,
//! validate, build, apply, update status.
//!
//! One task owns all state, so a reconcile sees one moment of it. Changes are collected for a moment, and a
//! reconcile builds the tenants that they concern. Streams and statuses are brought out by tasks of their
//! own: neither a broker nor a slow API server holds up the mapping.

pub mod apply;
pub mod build;
pub mod dereference;
pub mod status;
pub mod validate;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use flutecast_contract::name::TenantName;
use k8s_openapi::jiff::Timestamp;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::backend::cluster::mapping::{Applied, Mapping};
use crate::controller::dereference::DirtySet;
use crate::index::Index;
use crate::backend::cluster::lease::Lead;
use crate::protection::Guard;
use crate::backend::cluster::status::sync::Publisher;
use crate::controller::apply::directory::{Outcome, Registrar};
use crate::rollout::{Heard, News, Served};
use crate::controller::status::judge::{Judge, secret_of};
use crate::controller::status::write_failures::Unstored;
use crate::backend::cluster::watch::secrets::SecretWatches;
use crate::backend::cluster::watch::{Change, Place};
use crate::controller::build::cache::BuildCache;
use crate::controller::apply::documents::Documents;
use crate::controller::apply::source_grace::Linger;
use crate::jetstream::leftover::Realm;
use crate::jetstream::task::{Report, Wanted};
use crate::metrics::{Ending, Metrics, ObjectKind};
use crate::object::Objects;
use crate::object::Kind;
use flutecast_process::backoff::{Backoff, jittered};

/// For how long changes are collected before they are looked at together.
const COLLECT: Duration = Duration::from_millis(100);
/// How many changes are taken at once.
const BATCH: usize = 1024;
/// How often everything is done again without a reason.
const RESYNC: Duration = Duration::from_secs(600);
/// The first and the longest wait after the mapping could not be written.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));
/// For how long the very first mapping waits to hear whose the streams are.
const FIRST_REPORT: Duration = Duration::from_secs(1);

/// What connects the keeper to the other tasks.
pub struct Links {
    /// What the watches tell.
    pub changes: mpsc::Receiver<Change>,
    /// Whether this operator is the one that works.
    pub leading: watch::Receiver<Lead>,
    /// Gets what JetStream is to look like; none: leave it alone.
    pub streams: watch::Sender<Option<Arc<Wanted>>>,
    /// How it stands with the streams.
    pub report: watch::Receiver<Report>,
    /// What the data plane's pods announce.
    pub heard: watch::Receiver<Arc<Heard>>,
}

/// Keeps the mapping, the streams and the statuses.
pub struct Keeper {
    /// The namespaces that are watched.
    pub places: Vec<Place>,
    /// What the API server holds of the mapping.
    pub mapping: Mapping,
    /// The watches of the Secrets that Tenants name.
    pub secrets: SecretWatches,
    /// Where statuses go.
    pub publisher: Publisher,
    /// What enrollment answers from.
    pub registrar: Registrar,
    /// Gets counts.
    pub metrics: Arc<Metrics>,
    /// Holds what is used.
    pub guard: Guard,
    /// What is known, what was built of it, and what could not be done.
    pub state: State,
}

/// Why the keeper's waiting is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Woken {
    /// Nobody tells anything any more.
    Ended,
    /// Something changed, or it is time to look at everything.
    ForAll,
    /// Only what pods serve changed, or who waits for them is due: the mapping is as it was.
    ForPods,
}

/// What the keeper remembers.
#[derive(Debug, Default)]
pub struct State {
    index: Index,
    whole: BuildCache,
    linger: Linger,
    served: Served,
    /// The last report that was looked at.
    report: Report,
    report_was_awaited: bool,
    /// The tenants that the mapping leaves out, because their stream belongs to somebody else.
    mapped_without: BTreeSet<TenantName>,
    /// The tenants whose mapping could not be stored.
    unstored: Unstored,
    /// The turn in which it works; none: it doesn't, or not everything was told in this turn yet.
    turn: Option<u64>,
}

impl State {
    /// Nothing is known; what the pods say decides who is Ready.
    #[must_use]
    pub fn new(served: Served) -> Self {
        Self { served, ..Self::default() }
    }
}

impl Keeper {
    /// Starts it on a thread of its own: builds of many devices hold up no other task, and the memory that
    /// they need for a moment is found again by the next one (docs/decisions/0049). It ends when `cancel` is
    /// cancelled; whoever gets the handle watches it.
    #[must_use = "a task that nobody watches fails unseen"]
    pub fn spawn(self, links: Links, cancel: CancellationToken) -> JoinHandle<()> {
        let runtime = Handle::current();
        tokio::task::spawn_blocking(move || runtime.block_on(self.run(links, cancel)))
    }

    async fn run(mut self, mut links: Links, cancel: CancellationToken) {
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        let mut next = Instant::now() + jittered(RESYNC);
        loop {
            let Some(woken) = cancel.run_until_cancelled(self.wait(&mut links, next)).await else { return };
            if woken == Woken::Ended {
                return;
            }
            if Instant::now() >= next {
                self.state.index.give_back(DirtySet::everything());
            }
            if !self.may_work(&links) {
                next = Instant::now() + jittered(RESYNC);
                continue;
            }
            if woken == Woken::ForPods {
                let mut scope = DirtySet::default();
                self.look_at_pods(&mut scope);
                self.update_status(&scope);
                continue;
            }
            let Some(reconciled) = cancel.run_until_cancelled(self.reconcile_in_turn(&mut links)).await
            else {
                return;
            };
            let Some(reconciled) = reconciled else {
                self.may_work(&links);
                continue;
            };
            next = Instant::now()
                + match reconciled {
                    Ok(()) => {
                        backoff.reset();
                        jittered(RESYNC)
                    }
                    Err(error) => {
                        let wait = backoff.next_wait();
                        tracing::error!(error, ?wait, "the mapping can't be written; trying again");
                        wait
                    }
                };
        }
    }

    /// Waits until there is something to do, and a moment longer, so that what belongs together is done
    /// together.
    async fn wait(&mut self, links: &mut Links, next: Instant) -> Woken {
        let due = [self.state.linger.next(), self.mapping.next_repair()];
        let next = due.into_iter().flatten().fold(next, Instant::min);
        let mut changes = Vec::new();
        let mut until = self.state.served.next().map_or(next, |served| served.min(next));
        let (mut has_news, mut has_heard) = (false, false);
        loop {
            let is_collecting = has_news || has_heard;
            tokio::select! {
                count = links.changes.recv_many(&mut changes, BATCH) => {
                    if count == 0 {
                        return Woken::Ended;
                    }
                    has_news |= self.take(&mut changes);
                }
                Ok(()) = links.report.changed() => has_news |= self.compare_reports(&links.report.borrow_and_update()),
                Ok(()) = links.heard.changed() => {
                    self.state.served.hear(links.heard.borrow_and_update().clone());
                    has_heard = true;
                }
                Ok(()) = links.leading.changed() => has_news = true,
                () = tokio::time::sleep_until(until) => {
                    let is_for_all = has_news || Instant::now() >= next;
                    return if is_for_all { Woken::ForAll } else { Woken::ForPods };
                }
            }
            if (has_news || has_heard) && !is_collecting {
                until = until.min(Instant::now() + COLLECT);
            }
        }
    }

    /// Takes changes in. Answers whether any of them is news.
    fn take(&mut self, changes: &mut Vec<Change>) -> bool {
        let index = &mut self.state.index;
        let mut has_news = false;
        for change in changes.drain(..) {
            has_news |= match change {
                Change::Tenant(event) => index.tenant(event),
                Change::Device(event) => index.device(event),
                Change::PushFormat(event) => index.format(event),
                Change::Tokens(key, event) => index.tokens(key, event),
                Change::Written(kind, key) => {
                    self.publisher.outbox.taken_in(kind, &key);
                    false
                }
                Change::Shard(event) => self.mapping.shard(event),
                Change::Access(event) => self.mapping.access(event),
                Change::Presence(device) => index.look_at_device(&device),
                Change::Slice(event) => self.state.served.slice(event),
                Change::CreationForbidden(namespaces) => index.creation_forbidden(namespaces),
            } || self.state.turn.is_none();
        }
        has_news
    }

    /// Whether this operator is the one that works, and everything was told since it is. Another one's turn
    /// ends everything that is under way here.
    ///
    /// What was told before doesn't count: while another operator worked, Tenants may have come with streams
    /// and mapping of their own, of which a watch that was cut off tells late. To work by such a picture
    /// would be to take them for leftovers and to remove them.
    fn may_work(&mut self, links: &Links) -> bool {
        let turn = match *links.leading.borrow() {
            Lead::Turn(turn) => Some(turn),
            Lead::No => None,
        };
        if self.state.turn.is_some() && self.state.turn != turn {
            links.streams.send_replace(None);
            self.publisher.stop();
            self.guard.stop();
            self.mapping.stop();
            self.state.linger = Linger::default();
            self.state.served.stop();
            self.registrar.stop();
            self.state.turn = None;
        }
        let since = turn.unwrap_or_default();
        let knows_all = self.state.index.is_complete(&self.places, since) && self.mapping.is_complete(since);
        self.metrics.stands_by(knows_all && turn.is_none());
        if turn.is_some() && knows_all && self.state.turn.is_none() {
            self.state.turn = turn;
            // They are read anew, too; until they are, the access document stays as it is.
            self.state.index.doubt_tokens(since);
            self.state.index.give_back(DirtySet::everything());
        }
        self.state.turn.is_some() && knows_all
    }

    /// One reconcile; none: the turn ended before. Whoever works next begins with a list of everything, so
    /// what was under way is forgotten. To wait for it would leave the other tasks at work meanwhile: an API
    /// server that is away answers each of many requests after its deadline only, which together is longer
    /// than another operator waits for the Lease.
    async fn reconcile_in_turn(&mut self, links: &mut Links) -> Option<Result<(), String>> {
        let (turn, mut leading) = (self.state.turn, links.leading.clone());
        let is_over = |lead: &Lead| !matches!(lead, Lead::Turn(now) if Some(*now) == turn);
        tokio::select! {
            biased;
            _ = leading.wait_for(is_over) => None,
            reconciled = self.reconcile(links) => Some(reconciled),
        }
    }

    /// One reconcile.
    async fn reconcile(&mut self, links: &mut Links) -> Result<(), String> {
        let mut scope = self.state.index.take_scope();
        if scope.needs_building() {
            let objects = self.dereference(&scope);
            let valid = build::validate(&objects);
            let built = build::build_upon(self.state.whole.built(), valid, &objects);
            self.state.whole.merge(built, &mut scope, &self.state.index);
        }
        self.state.whole.set_realm(self.mapping.realm().as_deref());
        let applied = self.apply(links, &mut scope).await;
        self.tell_enrollment(&scope, applied.is_ok());
        self.look_at_pods(&mut scope);
        self.update_status(&scope);
        self.guard.keep(&self.state.index);
        applied
    }

    /// Step 1: the objects that the change concerns. The Secrets that Tenants name are watched from here on.
    fn dereference(&mut self, scope: &DirtySet) -> Objects {
        let named =
            self.state.index.tenants.objects().filter_map(|tenant| {
                Some((tenant.meta.namespace.clone(), secret_of(&tenant.spec)?.to_owned()))
            });
        for key in self.secrets.keep(named.collect()) {
            self.state.index.forget_tokens(&key);
        }
        self.state.index.objects(scope)
    }

    /// Step 4: streams in their own task, the mapping here.
    async fn apply(&mut self, links: &mut Links, scope: &mut DirtySet) -> Result<(), String> {
        self.tell_streams(links);
        if !self.state.report_was_awaited {
            // Whose streams they are is known in a moment. Without NATS the mapping doesn't wait for it.
            let _too_late_is_fine = tokio::time::timeout(FIRST_REPORT, links.report.changed()).await;
            self.state.report_was_awaited = true;
            self.compare_reports(&links.report.borrow_and_update());
        }
        let wanted = self.wanted_mapping();
        // A Secret that was not looked for yet must not look like one that is gone: its tokens would be shut
        // out for a moment.
        let with_access = self.secrets.keys().all(|key| self.state.index.tokens_of(key).is_some());
        let realm = self.mapping.realm();
        let Applied { changed, unstored, failed } = self.mapping.write(&wanted, with_access).await;
        let mapping = &self.mapping;
        self.state.served.stored(wanted.shards.iter().map(|(tenant, shards)| {
            let held = shards.iter().map(|shard| mapping.holds(shard).then_some(shard.revision.as_str()));
            (tenant, held)
        }));
        if self.mapping.realm() != realm {
            self.state.whole.set_realm(self.mapping.realm().as_deref());
            self.tell_streams(links);
        }
        for name in &changed {
            tracing::info!(name, "mapping changed");
        }
        let ending = if failed.is_none() { Ending::Done } else { Ending::Failed };
        self.metrics.passed(ending, changed.len());
        for tenant in &self.state.unstored.take_in(unstored, Instant::now()) {
            touch_tenant(&self.state.index, scope, tenant);
        }
        failed.map_or(Ok(()), Err)
    }

    fn tell_streams(&self, links: &Links) {
        let built = self.state.whole.built();
        let wanted = Wanted {
            tenants: built.tenants.values().map(|tenant| tenant.streams.clone()).collect(),
            existing: built.existing.clone(),
            realm: self.realm(),
        };
        links.streams.send_if_modified(|current| {
            let changed = current.as_deref() != Some(&wanted);
            if changed {
                *current = Some(Arc::new(wanted));
            }
            changed
        });
    }

    /// What this installation looks after. What tells it from others is the access Secret, which no other
    /// has; until it is there, nothing can be left over either.
    fn realm(&self) -> Option<Realm> {
        let alive = self.state.index.tenants.iter().map(|(_, entry)| entry.uid.clone());
        Some(Realm { id: self.mapping.realm()?, places: self.places.clone(), alive: alive.collect() })
    }

    /// What the mapping is to hold now.
    fn wanted_mapping(&mut self) -> Documents {
        let foreign = self.state.report.iter().filter(|(_, tenant)| tenant.foreign);
        self.state.mapped_without = foreign.map(|(name, _)| name.clone()).collect();
        let wanted = Documents::of(self.state.whole.built(), &self.state.mapped_without);
        self.state.linger.hold_back(wanted, Instant::now())
    }

    /// Takes in how it stands with the streams. Answers whether that changes what is said of any object.
    fn compare_reports(&mut self, report: &Report) -> bool {
        let mut scope = DirtySet::default();
        for tenant in report.keys().chain(self.state.report.keys()) {
            if report.get(tenant) != self.state.report.get(tenant) {
                touch_tenant(&self.state.index, &mut scope, tenant);
            }
        }
        let has_news = !scope.is_empty();
        self.state.index.give_back(scope);
        self.state.report.clone_from(report);
        has_news
    }

    /// What the data plane's pods confirm, and what follows for the Devices and Tenants.
    fn look_at_pods(&mut self, scope: &mut DirtySet) {
        let State { index, whole, served, .. } = &mut self.state;
        let now = Instant::now();
        served.expect(index, whole.built(), scope, now);
        let News { devices, tenants, pods } = served.look(whole.built(), now);
        devices.iter().for_each(|device| scope.touch(Kind::Device, device));
        for tenant in &tenants {
            let named = index.tenants.iter().filter(|((_, name), _)| name == tenant.as_str());
            named.for_each(|(key, _)| scope.touch(Kind::Tenant, key));
        }
        self.metrics.pods(&pods, served.count());
    }

    fn tell_enrollment(&mut self, scope: &DirtySet, is_stored: bool) {
        let State { index, whole, report, mapped_without: foreign, .. } = &self.state;
        let outcome = Outcome { built: whole.built(), report, foreign, is_stored };
        self.registrar.tell(index, scope, &outcome);
    }

    /// Step 5: says what changed.
    fn update_status(&mut self, scope: &DirtySet) {
        let State { index, whole, report, unstored, served, .. } = &self.state;
        let (presence, now) = (&self.publisher.presence, Timestamp::now());
        let judge = Judge { index, built: whole.built(), report, unstored, presence, served, now };
        self.publisher.publish(&judge, scope);
        self.metrics.objects(ObjectKind::Tenant, index.tenants.standings());
        self.metrics.objects(ObjectKind::Device, index.devices.standings());
        self.metrics.objects(ObjectKind::PushFormat, index.formats.standings());
    }
}

/// Has the statuses of a tenant and its devices looked at.
fn touch_tenant(index: &Index, scope: &mut DirtySet, tenant: &TenantName) {
    let tenants = index.tenants.iter().filter(|((_, name), _)| name == tenant.as_str());
    for (key, _) in tenants {
        scope.touch(Kind::Tenant, key);
    }
    for device in index.devices_of(tenant.as_str()) {
        scope.touch(Kind::Device, device);
    }
}
