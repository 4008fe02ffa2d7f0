//! The folder mode's loop. Each reconcile reads as five steps: dereference, validate, build, apply, update
//! status.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use flutecast_contract::name::TenantName;
use tokio::sync::watch;
use tokio::task::block_in_place;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::controller::apply::documents::Documents;
use crate::controller::apply::source_grace::Linger;
use crate::backend::folder::mapping::{MappingError, MappingFolder};
use crate::controller::build::{self, Built};
use crate::enrollment::roster::{self, Roster, Sources};
use crate::backend::folder::scan;
use crate::backend::folder::store::Store;
use crate::backend::folder::watch::FolderWatch;
use crate::jetstream::task::{Report, Wanted};
use crate::metrics::{Ending, Metrics, ObjectKind};
use crate::object::Objects;
use crate::backend::folder::status::{self, Board};
use crate::object::Kind;
use crate::finding::Outcomes;
use flutecast_process::backoff::{Backoff, jittered};

/// How often everything is done again without a reason: someone may have changed a mapping file.
const RESYNC: Duration = Duration::from_secs(30);
/// The first and the longest wait after the mapping could not be written.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// For how long the very first mapping waits to hear whose the streams are.
const FIRST_REPORT: Duration = Duration::from_secs(1);

/// Keeps the mapping folder and JetStream as a folder of manifests wants them.
pub struct FolderOperator {
    manifests: PathBuf,
    store: Store,
    mapping: MappingFolder,
    streams: watch::Sender<Option<Arc<Wanted>>>,
    report: watch::Receiver<Report>,
    board: Board,
    metrics: Arc<Metrics>,
    linger: Linger,
    /// Whether the first report of the streams was waited for.
    report_was_awaited: bool,
    /// The tenants that the mapping leaves out, because their stream belongs to somebody else.
    mapped_without: BTreeSet<TenantName>,
    last: Last,
    roster: watch::Sender<Option<Arc<Roster>>>,
}

/// What the last reconcile made, to tell again when JetStream reports.
#[derive(Default)]
struct Last {
    built: Built,
    folder: Outcomes,
    objects: Objects,
    is_stored: bool,
}

impl FolderOperator {
    /// An operator over `manifests`. It tells `streams` what JetStream is to look like, and hears from
    /// `report` what can't be.
    #[must_use]
    pub fn new(
        manifests: PathBuf,
        mapping: MappingFolder,
        streams: watch::Sender<Option<Arc<Wanted>>>,
        report: watch::Receiver<Report>,
        board: Board,
        metrics: Arc<Metrics>,
    ) -> Self {
        let store = Store::new(mapping.devices());
        Self {
            manifests,
            store,
            mapping,
            streams,
            report,
            board,
            metrics,
            linger: Linger::default(),
            report_was_awaited: false,
            mapped_without: BTreeSet::new(),
            last: Last::default(),
            roster: watch::channel(None).0,
        }
    }

    /// Tells `roster` what enrollment answers from.
    #[must_use]
    pub fn telling(self, roster: watch::Sender<Option<Arc<Roster>>>) -> Self {
        Self { roster, ..self }
    }

    /// Runs until `cancel` is cancelled.
    pub async fn run(mut self, cancel: CancellationToken) {
        let mut folder = FolderWatch::new(&self.manifests);
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        block_in_place(|| self.read_manifests());
        loop {
            let Some(reconciled) = cancel.run_until_cancelled(self.reconcile()).await else { return };
            let wait = match reconciled {
                Ok(()) => {
                    backoff.reset();
                    jittered(RESYNC)
                }
                Err(error) => {
                    let wait = backoff.next_wait();
                    tracing::error!(%error, ?wait, "the mapping can't be written; trying again");
                    wait
                }
            };
            if cancel.run_until_cancelled(self.wait(&mut folder, wait)).await.is_none() {
                return;
            }
        }
    }

    /// One reconcile.
    async fn reconcile(&mut self) -> Result<(), MappingError> {
        // Reading, building and writing many files takes a while; other tasks go on meanwhile.
        let (objects, built, folder) = block_in_place(|| {
            let (objects, folder) = self.dereference();
            let valid = build::validate(&objects);
            let mut built = build::build_upon(&self.last.built, valid, &objects);
            build::enrollment::refuse_to_create(&mut built);
            (objects, built, folder)
        });
        let applied = self.apply(&built).await;
        self.last = Last { built, folder, objects, is_stored: applied.is_ok() };
        self.update_status();
        applied
    }

    /// Step 1: the objects in force. In a folder everything that an object names is at hand.
    fn dereference(&self) -> (Objects, Outcomes) {
        self.store.objects()
    }

    /// Step 4: streams in their own task, mapping documents here.
    async fn apply(&mut self, built: &Built) -> Result<(), MappingError> {
        self.tell_streams(built);
        if !self.report_was_awaited {
            // Whose streams they are is known in a moment. Without NATS the mapping doesn't wait for it.
            let _too_late_is_fine = tokio::time::timeout(FIRST_REPORT, self.report.changed()).await;
            self.report_was_awaited = true;
        }
        self.mapped_without = foreign(&self.report.borrow());
        let wanted = Documents::of(built, &self.mapped_without);
        let wanted = self.linger.hold_back(wanted, Instant::now());
        let changed = block_in_place(|| self.mapping.write(&wanted))
            .inspect_err(|_| self.metrics.passed(Ending::Failed, 0))?;
        self.metrics.passed(Ending::Done, changed.len());
        for file in changed {
            tracing::info!(file, "mapping changed");
        }
        Ok(())
    }

    fn tell_streams(&self, built: &Built) {
        let wanted = Wanted {
            tenants: built.tenants.values().map(|tenant| tenant.streams.clone()).collect(),
            existing: built.existing.clone(),
            realm: None,
        };
        self.streams.send_if_modified(|current| {
            let changed = current.as_deref() != Some(&wanted);
            if changed {
                *current = Some(Arc::new(wanted));
            }
            changed
        });
    }

    /// Tells enrollment what is known of the devices.
    fn tell_enrollment(&self) {
        let Last { built, folder: _, objects, is_stored } = &self.last;
        let report = self.report.borrow();
        let before = self.roster.borrow().clone();
        let tenants = built.tenants.iter().map(|(name, tenant)| {
            let foreign = self.mapped_without.contains(name);
            let before = before.as_ref().and_then(|roster| roster.get(name)).filter(|_| !foreign);
            let sources = Sources {
                built,
                is_stored: *is_stored && !foreign,
                has_stream: !foreign && report.get(name).is_some_and(|report| report.has_stream),
                before: before.map(|before| &**before),
            };
            let devices = objects.devices.iter().filter(|device| device.spec.tenant == name.as_str());
            (name.clone(), Arc::new(roster::roll(tenant, devices.map(|device| &**device), &sources)))
        });
        let now: Roster = tenants.collect();
        if before.as_deref() != Some(&now) {
            self.roster.send_replace(Some(Arc::new(now)));
        }
    }

    /// Step 5: says what changed.
    fn update_status(&mut self) {
        self.tell_enrollment();
        let verdicts =
            status::verdicts(&self.last.built, &self.last.folder, &self.report.borrow_and_update());
        self.count(&verdicts);
        if let Err(error) = self.board.say(verdicts, &mut io::stdout().lock()) {
            tracing::debug!(%error, "nobody reads the verdicts");
        }
    }

    fn count(&self, verdicts: &Outcomes) {
        for kind in [Kind::Tenant, Kind::Device, Kind::PushFormat] {
            let Some(label) = ObjectKind::of(kind) else { continue };
            let of_kind = verdicts.iter().filter(|(object, _)| object.kind == kind);
            let standings = of_kind.map(|(_, outcome)| outcome.standing());
            self.metrics
                .objects(label, standings.inspect(|standing| self.metrics.reconciled(label, *standing)));
        }
    }

    /// Waits until there is something to reconcile.
    async fn wait(&mut self, folder: &mut FolderWatch, longest: Duration) {
        let resync = Instant::now() + longest;
        let again = tokio::time::sleep_until(self.linger.next().map_or(resync, |next| next.min(resync)));
        tokio::pin!(again);
        loop {
            tokio::select! {
                () = folder.changed() => {
                    if block_in_place(|| self.read_manifests()) {
                        return;
                    }
                }
                Ok(()) = self.report.changed() => {
                    let reported = foreign(&self.report.borrow());
                    if reported != self.mapped_without {
                        return;
                    }
                    self.update_status();
                }
                () = &mut again => return,
            }
        }
    }

    /// Reads the folder. Answers whether anything changed. A folder that can't be read at all changes
    /// nothing.
    fn read_manifests(&mut self) -> bool {
        match scan::scan(&self.manifests) {
            Ok(files) => self.store.load(&files),
            Err(error) => {
                tracing::error!(folder = %self.manifests.display(), %error, "the manifests can't be read; all stays as it is");
                false
            }
        }
    }
}

/// The tenants whose stream belongs to somebody else.
fn foreign(report: &Report) -> BTreeSet<TenantName> {
    report.iter().filter(|(_, tenant)| tenant.foreign).map(|(name, _)| name.clone()).collect()
}
