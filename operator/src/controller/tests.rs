//! The loop, over a backend that records what it is asked to do.

use std::sync::{Mutex, PoisonError};

use flutecast_crds::DeviceSpec;
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::build::formats::FormatsInForce;
use super::*;
use crate::jetstream::reconciler::TenantReport;
use crate::lease::Leadership;
use crate::object::{Key, Meta, Object, Objects};

const SECOND: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Call {
    Begin(u64),
    Stop,
    /// The tenants in the access document.
    Write(Vec<String>),
    Status,
}

/// Knows one Tenant, `t`, and can't write at first.
struct Recorder {
    calls: Arc<Mutex<Vec<Call>>>,
    failures: usize,
    dirty: DirtySet,
}

impl Recorder {
    fn record(&self, call: Call) {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).push(call);
    }
}

impl Backend for Recorder {
    type Input = Wake;

    const RESYNC: Duration = Duration::from_secs(600);
    const COLLECT: Duration = Duration::from_millis(100);
    const CREATES_DEVICES: bool = true;

    fn apply_change(&mut self, wake: Wake) -> Wake {
        wake
    }

    fn dirty(&mut self) -> &mut DirtySet {
        &mut self.dirty
    }

    fn mark_tenant(&self, tenant: &TenantName, dirty: &mut DirtySet) {
        dirty.touch(crate::object::Kind::Tenant, &("default".to_owned(), tenant.to_string()));
    }

    fn begin(&mut self, term: u64) {
        self.record(Call::Begin(term));
    }

    fn stored_formats(&mut self) -> FormatsInForce {
        FormatsInForce::default()
    }

    fn stop(&mut self) {
        self.record(Call::Stop);
    }

    fn objects(&mut self, _: &DirtySet) -> Objects {
        let meta = Meta {
            namespace: "default".to_owned(),
            name: "t".to_owned(),
            uid: None,
            created: 0,
            labels: Arc::default(),
        };
        let spec = serde_json::from_str(r#"{"access": {"anonymous": true}}"#).unwrap();
        Objects { tenants: vec![Arc::new(Object { meta: Arc::new(meta), spec })], ..Objects::default() }
    }

    fn has_device(&self, _: &Key) -> bool {
        false
    }

    fn devices_of<'a>(&'a self, _: &'a str) -> Box<dyn Iterator<Item = &'a Object<DeviceSpec>> + 'a> {
        Box::new(std::iter::empty())
    }

    async fn write_mapping(&mut self, wanted: &MappingDocuments) -> WrittenMapping {
        self.record(Call::Write(wanted.access.tenants.keys().map(ToString::to_string).collect()));
        let error = (self.failures > 0).then(|| "no".to_owned());
        self.failures = self.failures.saturating_sub(1);
        WrittenMapping { error, ..WrittenMapping::default() }
    }

    fn update_status(&mut self, _: &Reconciled<'_>, _: &mut DirtySet) {
        self.record(Call::Status);
    }
}

struct World {
    changes: mpsc::Sender<Wake>,
    report: watch::Sender<StreamReports>,
    leading: watch::Sender<Leadership>,
    streams: watch::Receiver<Option<Arc<WantedStreams>>>,
    calls: Arc<Mutex<Vec<Call>>>,
}

impl World {
    /// Starts a loop whose first `failures` writes fail.
    fn start(failures: usize) -> (Self, impl Future<Output = ()>) {
        let (changes, changes_of_loop) = mpsc::channel(16);
        let (report, report_of_loop) = watch::channel(StreamReports::new());
        let (leading, leading_of_loop) = watch::channel(Leadership::Standby);
        let (streams_of_loop, streams) = watch::channel(None);
        let calls = Arc::<Mutex<Vec<Call>>>::default();
        let backend = Recorder { calls: calls.clone(), failures, dirty: DirtySet::default() };
        let directory = DirectoryPublisher::new(watch::channel(None).0);
        let controller =
            Controller::new(backend, streams_of_loop, watch::channel(None).0, directory, Arc::default());
        let inbox =
            Inbox { changes: changes_of_loop, report: report_of_loop, leading: Some(leading_of_loop) };
        (Self { changes, report, leading, streams, calls }, controller.run(inbox))
    }

    /// Returns the calls since the last time, once the loop has nothing to do.
    async fn calls(&self) -> Vec<Call> {
        sleep(SECOND * 30).await;
        std::mem::take(&mut *self.calls.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn report(&self, foreign: bool) {
        let report = TenantReport { foreign, ..TenantReport::default() };
        self.report.send_replace([(TenantName::new("t").unwrap(), report)].into());
    }
}

fn write(tenants: &[&str]) -> Call {
    Call::Write(tenants.iter().map(|tenant| (*tenant).to_owned()).collect())
}

async fn run(failures: usize, script: impl AsyncFnOnce(&World)) {
    let (world, controller) = World::start(failures);
    let script = async {
        assert_eq!(world.calls().await, [], "another operator works");
        script(&world).await;
    };
    tokio::select! {
        () = controller => panic!("the loop ended"),
        () = script => {}
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_written_without_the_lease_and_everything_in_each_turn() {
    run(0, async |world| {
        world.changes.send(Wake::Reconcile).await.unwrap();
        assert_eq!(world.calls().await, []);
        world.leading.send_replace(Leadership::Leader(1));
        assert_eq!(world.calls().await, [Call::Begin(1), write(&["t"]), Call::Status]);
        assert!(world.streams.borrow().is_some());
        world.leading.send_replace(Leadership::Standby);
        assert_eq!(world.calls().await, [Call::Stop]);
        assert!(world.streams.borrow().is_none());
        world.leading.send_replace(Leadership::Leader(2));
        assert_eq!(world.calls().await, [Call::Begin(2), write(&["t"]), Call::Status]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_write_that_failed_is_repeated() {
    run(3, async |world| {
        world.leading.send_replace(Leadership::Leader(1));
        let calls = world.calls().await;
        assert_eq!(calls.iter().filter(|call| matches!(call, Call::Write(_))).count(), 4, "{calls:?}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_tenant_with_a_foreign_stream_is_not_mapped() {
    run(0, async |world| {
        world.leading.send_replace(Leadership::Leader(1));
        world.report(true);
        assert_eq!(world.calls().await, [Call::Begin(1), write(&[]), Call::Status]);
        world.report(false);
        assert_eq!(world.calls().await, [write(&["t"]), Call::Status]);
        world.report(false);
        assert_eq!(world.calls().await, [], "the report says nothing new");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_change_for_statuses_only_writes_no_mapping() {
    run(0, async |world| {
        world.leading.send_replace(Leadership::Leader(1));
        world.calls().await;
        world.changes.send(Wake::Status).await.unwrap();
        assert_eq!(world.calls().await, [Call::Status]);
        world.changes.send(Wake::Nothing).await.unwrap();
        assert_eq!(world.calls().await, []);
    })
    .await;
}
