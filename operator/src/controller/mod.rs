//! The control loop, and its five steps: [`dereference`], [`validate`], [`build`], [`apply`], [`status`].
//!
//! ```text
//! Backend ──Change──► Inbox ──► dereference → validate → build → apply → update status
//!                       ▲                                          │           │
//! jetstream ──report────┘     jetstream, enrollment, the mapping ◄─┘           └─► statuses, by the Backend
//! ```
//! One task owns all state, so a reconcile sees a consistent state. It runs on a thread of its own. Validate
//! and build are pure; only [`Backend::write_mapping`] waits. Streams and statuses are written by other
//! tasks: neither a broker nor a slow API server holds up the mapping.

pub(crate) mod apply;
pub(crate) mod backend;
pub(crate) mod build;
pub(crate) mod dereference;
pub(crate) mod inbox;
pub(crate) mod metrics;
pub(crate) mod status;
#[cfg(test)]
mod tests;
pub(crate) mod validate;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use flutecast_contract::name::TenantName;
use flutecast_process::backoff::{Backoff, jittered};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::apply::directory::DirectoryPublisher;
use self::apply::documents::MappingDocuments;
use self::apply::source_grace::SourceGrace;
use self::backend::{Backend, WrittenMapping};
use self::build::Built;
use self::build::cache::BuildCache;
use self::dereference::DirtySet;
use self::inbox::{Inbox, InboxMessage, Wake, WakeTimes};
use self::metrics::ControllerMetrics;
use self::status::write_failures::WriteFailures;
use crate::jetstream::reconciler::{StreamReports, WantedStreams};
use crate::last_messages::{DeclaredChannels, TenantChannels};
use crate::metrics::CallResult;

/// The first and the longest wait after the mapping could not be written.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));
/// The longest wait of the very first mapping for the first report, which has the owners of the streams.
const FIRST_REPORT: Duration = Duration::from_secs(1);

/// Keeps the mapping, the streams and the statuses as the objects want them.
pub(crate) struct Controller<B> {
    backend: B,
    /// The streams that JetStream's task has to apply; `None` while another operator works.
    streams: watch::Sender<Option<Arc<WantedStreams>>>,
    /// The channels whose last messages are looked at; `None` while another operator works.
    channels: watch::Sender<Option<Arc<DeclaredChannels>>>,
    directory: DirectoryPublisher,
    metrics: Arc<ControllerMetrics>,
    cache: BuildCache,
    source_grace: SourceGrace,
    /// The last report that was looked at.
    report: StreamReports,
    report_was_awaited: bool,
    /// The tenants that the mapping leaves out, because their stream belongs to somebody else.
    foreign: BTreeSet<TenantName>,
    write_failures: WriteFailures,
    /// The term in which this operator works; `None` while it does not, or does not know all objects yet.
    term: Option<u64>,
}

/// The result of the first four steps.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reconciled<'a> {
    pub(crate) built: &'a Built,
    pub(crate) report: &'a StreamReports,
    /// The tenants that the mapping leaves out, because their stream belongs to somebody else.
    pub(crate) foreign: &'a BTreeSet<TenantName>,
    pub(crate) write_failures: &'a WriteFailures,
}

impl<B: Backend> Controller<B> {
    pub(crate) fn new(
        backend: B,
        streams: watch::Sender<Option<Arc<WantedStreams>>>,
        channels: watch::Sender<Option<Arc<DeclaredChannels>>>,
        directory: DirectoryPublisher,
        metrics: Arc<ControllerMetrics>,
    ) -> Self {
        Self {
            backend,
            streams,
            channels,
            directory,
            metrics,
            cache: BuildCache::default(),
            source_grace: SourceGrace::default(),
            report: StreamReports::new(),
            report_was_awaited: false,
            foreign: BTreeSet::new(),
            write_failures: WriteFailures::default(),
            term: None,
        }
    }

    /// Starts the loop on a thread of its own: building many devices holds up no other task, and the memory
    /// that a build frees is reused by the next one. It ends when `cancel` is cancelled.
    #[must_use = "a task whose handle is dropped fails silently"]
    pub(crate) fn spawn(self, inbox: Inbox<B::Input>, cancel: CancellationToken) -> JoinHandle<()> {
        let runtime = Handle::current();
        tokio::task::spawn_blocking(move || {
            runtime.block_on(cancel.run_until_cancelled(self.run(inbox))).unwrap_or_default();
        })
    }

    async fn run(mut self, mut inbox: Inbox<B::Input>) {
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        let mut next = Instant::now();
        while let Some(wake) = self.wait(&mut inbox, next).await {
            if Instant::now() >= next {
                self.backend.dirty().merge(DirtySet::everything());
            }
            if !self.is_working(&inbox) {
                next = Instant::now() + jittered(B::RESYNC);
                continue;
            }
            if wake == Wake::Status {
                self.update_status(&mut DirtySet::default());
                continue;
            }
            let Some(reconciled) = self.reconcile_in_term(&mut inbox).await else {
                self.is_working(&inbox);
                continue;
            };
            next = Instant::now()
                + match reconciled {
                    Ok(()) => {
                        backoff.reset();
                        jittered(B::RESYNC)
                    }
                    Err(error) => {
                        let wait = backoff.next_wait();
                        tracing::error!(error, ?wait, "the mapping can't be written; trying again");
                        wait
                    }
                };
        }
    }

    /// Waits until there is something to do. Returns `None` when the backend is gone.
    async fn wait(&mut self, inbox: &mut Inbox<B::Input>, next: Instant) -> Option<Wake> {
        let due = [self.source_grace.next(), self.backend.next_reconcile()];
        let reconcile = due.into_iter().flatten().fold(next, Instant::min);
        let times = WakeTimes { reconcile, status: self.backend.next_status() };
        inbox.wait(times, B::COLLECT, |message| self.handle(message)).await
    }

    fn handle(&mut self, message: InboxMessage<B::Input>) -> Wake {
        match message {
            InboxMessage::Change(change) => {
                let wake = self.backend.apply_change(change);
                // Each change may be the last one that was missing.
                if self.term.is_none() { Wake::Reconcile } else { wake }
            }
            InboxMessage::Report(report) => self.handle_report(report),
        }
    }

    /// Marks the tenants of which the report says something else than before.
    fn handle_report(&mut self, report: StreamReports) -> Wake {
        let mut dirty = DirtySet::default();
        for tenant in report.keys().chain(self.report.keys()) {
            if report.get(tenant) != self.report.get(tenant) {
                self.backend.mark_tenant(tenant, &mut dirty);
            }
        }
        let wake = if dirty.is_empty() { Wake::Nothing } else { Wake::Reconcile };
        self.backend.dirty().merge(dirty);
        self.report = report;
        wake
    }

    /// Returns whether this operator is the one that works, and has seen all objects since its term began.
    /// When another one's term has begun, everything that is under way here ends.
    ///
    /// Objects that were seen before don't count: while another operator worked, Tenants may have come with
    /// streams and mapping of their own, which a watch that was cut off reports late. From such an old view
    /// they would be taken for leftovers, and removed.
    fn is_working(&mut self, inbox: &Inbox<B::Input>) -> bool {
        let term = inbox.term();
        if self.term.is_some() && self.term != term {
            self.streams.send_replace(None);
            self.channels.send_replace(None);
            self.backend.stop();
            self.source_grace = SourceGrace::default();
            self.directory.stop();
            self.term = None;
        }
        let is_complete = self.backend.is_complete(term.unwrap_or_default());
        self.metrics.set_standby(is_complete && term.is_none());
        if let (Some(begun), true, None) = (term, is_complete, self.term) {
            self.term = term;
            self.backend.begin(begun);
            self.cache.begin(self.backend.stored_formats());
            self.backend.dirty().merge(DirtySet::everything());
        }
        self.term.is_some() && is_complete
    }

    /// Reconciles once. Returns `None` if the term ended before.
    ///
    /// The operator that works next begins with a list of everything, so what is under way here is dropped.
    /// To finish it would keep the other tasks at work meanwhile: an API server that is away answers each of
    /// many requests only after its deadline, which together is longer than another operator waits for the
    /// Lease.
    async fn reconcile_in_term(&mut self, inbox: &mut Inbox<B::Input>) -> Option<Result<(), String>> {
        let end_of_term = inbox.end_of(self.term);
        tokio::select! {
            biased;
            () = end_of_term => None,
            reconciled = self.reconcile(inbox) => Some(reconciled),
        }
    }

    async fn reconcile(&mut self, inbox: &mut Inbox<B::Input>) -> Result<(), String> {
        let mut dirty = std::mem::take(self.backend.dirty());
        if let Some(objects) = dereference::dereference(&mut self.backend, &dirty) {
            let valid = validate::validate(&objects);
            let mut built = build::build_upon(self.cache.built(), valid, &objects);
            if !B::CREATES_DEVICES {
                build::enrollment::refuse_to_create(&mut built);
            }
            self.cache.merge(built, &mut dirty, |device| self.backend.has_device(device));
        }
        let applied = self.apply(inbox, &mut dirty).await;
        self.update_status(&mut dirty);
        applied
    }

    /// The fourth step: streams by their own task, the mapping here, and what enrollment replies.
    async fn apply(&mut self, inbox: &mut Inbox<B::Input>, dirty: &mut DirtySet) -> Result<(), String> {
        self.publish_streams();
        if !self.report_was_awaited {
            // Without NATS the mapping doesn't wait any longer.
            let _ = tokio::time::timeout(FIRST_REPORT, inbox.report.changed()).await;
            self.report_was_awaited = true;
            let report = inbox.report.borrow_and_update().clone();
            self.handle_report(report);
        }
        let foreign = self.report.iter().filter(|(_, tenant)| tenant.foreign);
        self.foreign = foreign.map(|(name, _)| name.clone()).collect();
        let wanted = MappingDocuments::of(self.cache.built(), &self.foreign);
        let wanted = self.source_grace.hold_back(wanted, Instant::now());
        self.publish_channels(&wanted);
        let WrittenMapping { changed, failures, error } = self.backend.write_mapping(&wanted).await;
        // The first write may have made what identifies the installation.
        self.publish_streams();
        for name in &changed {
            tracing::info!(name, "mapping changed");
        }
        let result = if error.is_none() { CallResult::Done } else { CallResult::Failed };
        self.metrics.count_pass(result, changed.len());
        for tenant in &self.write_failures.update(failures, Instant::now()) {
            self.backend.mark_tenant(tenant, dirty);
        }
        let Self { backend, directory, cache, report, foreign, write_failures, .. } = self;
        let reconciled = Reconciled { built: cache.built(), report, foreign, write_failures };
        directory.publish(backend, dirty, &reconciled, error.is_none());
        error.map_or(Ok(()), Err)
    }

    /// Hands the streams to their task, if they differ from those that it has.
    fn publish_streams(&mut self) {
        let installation = self.backend.installation();
        self.cache.set_installation(installation.as_ref().map(|installation| installation.id.as_str()));
        let built = self.cache.built();
        let wanted = WantedStreams {
            tenants: built.tenants.values().map(|tenant| tenant.streams.clone()).collect(),
            existing: built.existing.clone(),
            installation,
        };
        self.streams.send_if_modified(|current| {
            let changed = current.as_deref() != Some(&wanted);
            if changed {
                *current = Some(Arc::new(wanted));
            }
            changed
        });
    }

    /// Hands the channels of the mapping to the task that looks at their last messages, if they changed.
    fn publish_channels(&self, documents: &MappingDocuments) {
        let built = self.cache.built();
        let declared = documents.shards.iter().filter_map(|(name, shards)| {
            let tenant = built.tenants.get(name)?;
            let channels = TenantChannels {
                namespace: tenant.streams.owner.namespace.clone(),
                max_age: tenant.streams.stream.max_age?,
                shards: shards.clone(),
                left_out: tenant.left_out.clone(),
            };
            Some((name.clone(), channels))
        });
        let declared: DeclaredChannels = declared.collect();
        self.channels.send_if_modified(|current| {
            let changed = current.as_deref() != Some(&declared);
            if changed {
                *current = Some(Arc::new(declared));
            }
            changed
        });
    }

    /// The fifth step.
    fn update_status(&mut self, dirty: &mut DirtySet) {
        let Self { backend, cache, report, foreign, write_failures, .. } = self;
        let reconciled = Reconciled { built: cache.built(), report, foreign, write_failures };
        backend.update_status(&reconciled, dirty);
    }
}
