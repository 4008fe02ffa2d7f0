//! Writes statuses to the API server, several at once.
//!
//! # Guarantees
//! The last status of each object is written, unless the object is gone. One that the API server refuses is
//! logged and tried again, since a policy that refuses it may change.
//!
//! # Not guaranteed
//! Of several statuses of one object, only the last one is written for sure.

use flutecast_kube::Right;
use flutecast_kube::fault::{brief, is_refusal};
use std::time::Duration;

use flutecast_crds::{API_VERSION, Device, PushFormat, Tenant};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::api_server::{ApiWrite, ApiWrites, MANAGER};
use crate::backend::cluster::change::ClusterChange;
use crate::backend::cluster::events::Announcer;
use crate::backend::cluster::status::queue::{Name, QueuedStatus, StatusQueue, WriteProblem};
use crate::index::kind::ApiKind;
use crate::lease::Leadership;
use crate::metrics::CallResult;
use crate::object::Kind;
use crate::watch::Event;
use flutecast_process::backoff::Backoff;

pub(crate) const RIGHTS: &[Right] =
    &[Right::new("flutecast.io", &["tenants/status", "devices/status", "pushformats/status"], &["patch"])];

const CONCURRENT_WRITES: usize = 16;
const DEADLINE: Duration = Duration::from_secs(10);
/// The first and the longest pause of all writes when [`CONCURRENT_WRITES`] in a row found the API server
/// unavailable.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

pub(crate) struct Writer {
    pub(crate) client: Client,
    pub(crate) queue: StatusQueue,
    /// Receives the objects of the API server's replies.
    pub(crate) changes: mpsc::Sender<ClusterChange>,
    pub(crate) announcer: Announcer,
    pub(crate) writes: ApiWrites,
    /// Held as long as something is written: the Lease is not released before.
    pub(crate) _works: watch::Receiver<Leadership>,
}

enum WriteResult {
    Written(Box<ClusterChange>),
    /// The object is gone, or was created again.
    Gone,
    Failed(WriteProblem, String),
}

/// The state of the API server as the writes of statuses find it.
#[derive(Debug)]
struct Health {
    backoff: Backoff,
    /// Number of writes in a row that found it unavailable.
    failures: usize,
    /// The end of the pause of all writes.
    paused: Option<Instant>,
}

impl Default for Health {
    fn default() -> Self {
        Self { backoff: Backoff::new(PAUSE.0, PAUSE.1), failures: 0, paused: None }
    }
}

impl Health {
    fn record_reply(&mut self) {
        self.backoff.reset();
        self.failures = 0;
        self.paused = None;
    }

    /// Records that the API server was unavailable. That may be so for some objects only; after
    /// [`CONCURRENT_WRITES`] in a row, all of them wait.
    fn record_unavailable(&mut self, now: Instant) {
        self.failures += 1;
        if self.failures >= CONCURRENT_WRITES {
            self.failures = 0;
            self.paused = Some(now + self.backoff.next_wait());
        }
    }
}

impl Writer {
    pub(crate) async fn run(self) {
        let mut writes = FuturesUnordered::new();
        let mut health = Health::default();
        loop {
            let now = Instant::now();
            let paused = health.paused.filter(|until| now < *until);
            while paused.is_none()
                && writes.len() < CONCURRENT_WRITES
                && let Some((name, status)) = self.queue.take(now)
            {
                writes.push(async {
                    let result = self.write(&name, &status).await;
                    (name, status, result)
                });
            }
            // While all writes are in use, those that are due are taken when one ends.
            let due = if writes.len() < CONCURRENT_WRITES { self.queue.due() } else { None };
            let wake = paused.or(due);
            let rest = async {
                match wake {
                    Some(wake) => tokio::time::sleep_until(wake).await,
                    None => std::future::pending().await,
                }
            };
            // No branch may wait long: writes in flight go on only while this select is polled.
            tokio::select! {
                Some((name, status, result)) = writes.next() => {
                    self.settle(name, status, result, &mut health).await;
                }
                () = self.queue.changed() => {}
                () = rest => {}
            }
        }
    }

    async fn settle(&self, name: Name, status: QueuedStatus, result: WriteResult, health: &mut Health) {
        let (kind, (namespace, object)) = &name;
        let count = |ending| {
            if let Some(kind) = kind.label() {
                self.writes.count(ApiWrite::Status(kind), ending);
            }
        };
        match result {
            WriteResult::Written(change) => {
                count(CallResult::Done);
                health.record_reply();
                // In flight until the control loop has seen the reply; otherwise it would queue the same
                // again.
                let _ends_with_the_loop = self.changes.send(*change).await;
                let _ends_with_the_loop =
                    self.changes.send(ClusterChange::Written(name.0, name.1.clone())).await;
                if let Some(notice) = &status.notice {
                    self.announcer.announce(reference(&name, &status.uid), notice.clone());
                }
            }
            WriteResult::Gone => {
                health.record_reply();
                self.queue.done(&name);
            }
            WriteResult::Failed(failure, error) => {
                count(CallResult::Failed);
                let now = Instant::now();
                match failure {
                    WriteProblem::Unavailable => health.record_unavailable(now),
                    WriteProblem::Refused => health.record_reply(),
                }
                let (kind, namespace, object) = (*kind, namespace.clone(), object.clone());
                let (wait, is_first) = self.queue.failed(&name, status, failure, now);
                if is_first {
                    let problem = "a status can't be written; trying again";
                    tracing::warn!(%kind, namespace, name = object, error, ?wait, "{problem}");
                } else {
                    let problem = "a status still can't be written";
                    tracing::debug!(%kind, namespace, name = object, error, ?wait, "{problem}");
                }
            }
        }
    }

    async fn write(&self, name: &Name, status: &QueuedStatus) -> WriteResult {
        let write = async {
            match name.0 {
                Kind::Tenant => self.patch::<Tenant>(name, status, ClusterChange::Tenant).await,
                Kind::Device => self.patch::<Device>(name, status, ClusterChange::Device).await,
                Kind::PushFormat => self.patch::<PushFormat>(name, status, ClusterChange::PushFormat).await,
                Kind::Secret | Kind::File => WriteResult::Gone,
            }
        };
        let late =
            || WriteResult::Failed(WriteProblem::Unavailable, format!("no answer within {DEADLINE:?}"));
        tokio::time::timeout(DEADLINE, write).await.unwrap_or_else(|_| late())
    }

    async fn patch<K: ApiKind>(
        &self,
        name: &Name,
        status: &QueuedStatus,
        wrap: fn(Event<K>) -> ClusterChange,
    ) -> WriteResult {
        let (kind, (namespace, object)) = name;
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        let body = json!({
            "apiVersion": API_VERSION,
            "kind": kind.to_string(),
            "metadata": {"name": object, "namespace": namespace, "uid": status.uid},
            "status": status.status,
        });
        let parameters = PatchParams::apply(MANAGER).force();
        match api.patch_status(object, &parameters, &Patch::Apply(&body)).await {
            Ok(object) => WriteResult::Written(Box::new(wrap(Event::Apply(Box::new(object))))),
            Err(kube::Error::Api(answer)) if answer.is_not_found() => WriteResult::Gone,
            // The object was created again; any other conflict passes.
            Err(kube::Error::Api(answer)) if answer.is_conflict() && answer.message.contains("UID") => {
                WriteResult::Gone
            }
            // The status is stored, but the object can't be read, which the watch reports.
            Err(kube::Error::SerdeError(_)) => WriteResult::Gone,
            Err(kube::Error::Api(answer)) if is_refusal(&answer) => {
                WriteResult::Failed(WriteProblem::Refused, brief(&kube::Error::Api(answer)))
            }
            Err(error) => WriteResult::Failed(WriteProblem::Unavailable, brief(&error)),
        }
    }
}

fn reference((kind, (namespace, name)): &Name, uid: &str) -> ObjectReference {
    ObjectReference {
        api_version: Some(API_VERSION.to_owned()),
        kind: Some(kind.to_string()),
        namespace: Some(namespace.clone()),
        name: Some(name.clone()),
        uid: Some(uid.to_owned()),
        ..ObjectReference::default()
    }
}
