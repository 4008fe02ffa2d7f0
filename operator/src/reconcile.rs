//! The folder mode's loop. Each reconcile reads as five steps: dereference, validate, build, apply, update status.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::apply::linger::Linger;
use crate::apply::mapping_folder::{MappingError, MappingFolder};
use crate::backoff::{Backoff, jittered};
use crate::build::{self, Built};
use crate::folder::scan;
use crate::folder::store::Store;
use crate::folder::watch::FolderWatch;
use crate::jetstream::task::{Report, Wanted};
use crate::metrics::{Ending, Metrics};
use crate::object::Objects;
use crate::status::{self, Board};
use crate::verdict::Verdicts;

/// How often everything is done again without a reason: someone may have changed a mapping file.
const RESYNC: Duration = Duration::from_secs(30);
/// The first and the longest wait after the mapping could not be written.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

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
    last: Last,
}

/// What the last reconcile made, to tell again when JetStream reports.
#[derive(Default)]
struct Last {
    built: Built,
    folder: Verdicts,
}

impl FolderOperator {
    /// An operator over `manifests`. It tells `streams` what JetStream is to look like, and hears from `report` what can't be.
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
            last: Last::default(),
        }
    }

    /// Runs until `cancel` is cancelled.
    pub async fn run(mut self, cancel: CancellationToken) {
        let mut folder = FolderWatch::new(&self.manifests);
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        tokio::task::block_in_place(|| self.read_manifests());
        loop {
            // Reading, building and writing many files takes a while; other tasks go on meanwhile.
            let wait = match tokio::task::block_in_place(|| self.reconcile()) {
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
    fn reconcile(&mut self) -> Result<(), MappingError> {
        let (objects, folder) = self.dereference();
        let valid = build::validate(&objects);
        let built = build::build(valid, &objects);
        let applied = self.apply(&built);
        self.last = Last { built, folder };
        self.update_status();
        applied
    }

    /// Step 1: the objects in force. In a folder everything that an object names is at hand.
    fn dereference(&self) -> (Objects, Verdicts) {
        self.store.objects()
    }

    /// Step 4: mapping documents here, streams in their own task.
    fn apply(&mut self, built: &Built) -> Result<(), MappingError> {
        let wanted = Wanted {
            tenants: built.tenants.values().map(|tenant| tenant.streams.clone()).collect(),
            existing: built.existing.clone(),
        };
        self.streams.send_if_modified(|current| {
            let changed = current.as_deref() != Some(&wanted);
            if changed {
                *current = Some(Arc::new(wanted));
            }
            changed
        });
        let changed =
            self.mapping.write(built).inspect_err(|_| self.metrics.reconciled(Ending::Failed, 0))?;
        self.metrics.reconciled(Ending::Done, changed.len());
        for file in changed {
            tracing::info!(file, "mapping changed");
        }
        Ok(())
    }

    /// Step 5: says what changed.
    fn update_status(&mut self) {
        let verdicts =
            status::verdicts(&self.last.built, &self.last.folder, &self.report.borrow_and_update());
        self.metrics.judged(&verdicts);
        if let Err(error) = self.board.say(verdicts, &mut io::stdout().lock()) {
            tracing::debug!(%error, "nobody reads the verdicts");
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
                    if tokio::task::block_in_place(|| self.read_manifests()) {
                        return;
                    }
                }
                Ok(()) = self.report.changed() => self.update_status(),
                () = &mut again => return,
            }
        }
    }

    /// Reads the folder. Answers whether anything changed. A folder that can't be read at all changes nothing.
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
