//! Brings statuses to the API server, several at once, each only as it is wanted last.
//!
//! Promised: what was put in is written, or the object is gone, or the API server refuses it for good (which is logged). Not
//! promised: that each of several statuses of one object is seen; the last one is.

use flutecast_rights::Right;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use flutecast_crds::condition::Condition;
use flutecast_crds::{API_VERSION, Device, PushFormat, Tenant};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::kubernetes::events::{Announcer, Notice};
use crate::kubernetes::index::Key;
use crate::kubernetes::kind::{AnyStatus, OurKind};
use crate::kubernetes::lease::Lead;
use crate::kubernetes::watch::{Change, Event};
use crate::kubernetes::{MANAGER, brief};
use crate::metrics::{ApiWrite, Ending, Metrics, ObjectKind};
use crate::verdict::Kind;

/// The rights that writing statuses needs.
pub const RIGHTS: &[Right] = &[Right {
    group: "flutecast.io",
    resources: &["tenants/status", "devices/status", "pushformats/status"],
    names: &[],
    verbs: &["patch"],
    why: "",
}];

/// How many are written at once.
const AT_ONCE: usize = 16;
/// How long one may take.
const DEADLINE: Duration = Duration::from_secs(10);
/// The first and the longest wait after one failed.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// One status to be written.
#[derive(Debug, Clone)]
pub struct Status {
    /// Which life of the object it is about.
    pub uid: String,
    /// What is to be said.
    pub status: AnyStatus,
    /// What `kubectl describe` is to show once it is written.
    pub notice: Option<Notice>,
}

type Name = (Kind, Key);

/// The statuses that are to be written. It holds at most one for each object.
#[derive(Debug, Clone, Default)]
pub struct Outbox(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    some: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    queue: BTreeMap<Name, Status>,
    under_way: BTreeMap<Name, Status>,
}

impl Outbox {
    /// Has a status written, in place of any other of the object. What is under way already isn't written again.
    pub fn put(&self, kind: Kind, key: &Key, status: Status) {
        let name = (kind, key.clone());
        let mut waiting = self.0.lock();
        if waiting.under_way.get(&name).is_some_and(|under_way| same(under_way, &status)) {
            waiting.queue.remove(&name);
        } else if !waiting.queue.get(&name).is_some_and(|queued| same(queued, &status)) {
            waiting.queue.insert(name, status);
            self.0.some.notify_one();
        }
    }

    /// The object's status is as wanted.
    pub fn withdraw(&self, kind: Kind, key: &Key) {
        self.0.lock().queue.remove(&(kind, key.clone()));
    }

    /// The conditions of an object that are on their way.
    #[must_use]
    pub fn pending(&self, kind: Kind, key: &Key) -> Option<Vec<Condition>> {
        let name = (kind, key.clone());
        let waiting = self.0.lock();
        let status = waiting.queue.get(&name).or_else(|| waiting.under_way.get(&name));
        status.map(|status| status.status.conditions().to_vec())
    }

    /// The answer to a write was taken in: from here on the object is known as it was written.
    pub fn taken_in(&self, kind: Kind, key: &Key) {
        self.0.done((kind, key.clone()), None);
    }

    /// Forgets all that wait. What is under way goes on.
    pub fn clear(&self) {
        self.0.lock().queue.clear();
    }

    /// How many wait or are under way.
    #[must_use]
    pub fn len(&self) -> usize {
        let waiting = self.0.lock();
        waiting.queue.len() + waiting.under_way.len()
    }

    /// Whether nothing waits or is under way.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn same(one: &Status, other: &Status) -> bool {
    one.uid == other.uid && one.status == other.status
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Option<(Name, Status)> {
        let mut waiting = self.lock();
        // One write of an object at a time, so that a later one can't be overtaken.
        let free = waiting.queue.keys().find(|name| !waiting.under_way.contains_key(*name))?.clone();
        let status = waiting.queue.remove(&free)?;
        waiting.under_way.insert(free.clone(), status.clone());
        Some((free, status))
    }

    /// Something was written, or failed and is to be tried again unless something newer waits.
    fn done(&self, name: Name, again: Option<Status>) {
        let mut waiting = self.lock();
        waiting.under_way.remove(&name);
        if let Some(status) = again {
            waiting.queue.entry(name).or_insert(status);
        }
        // Something newer may have waited for this.
        if !waiting.queue.is_empty() {
            self.some.notify_one();
        }
    }
}

/// What writes them.
pub struct Writer {
    /// The API server.
    pub client: Client,
    /// The statuses.
    pub outbox: Outbox,
    /// Gets each object as the API server answers it.
    pub changes: mpsc::Sender<Change>,
    /// Tells what `kubectl describe` shows.
    pub announcer: Announcer,
    /// Gets counts.
    pub metrics: Arc<Metrics>,
    /// Held as long as something is written: the Lease isn't given back before.
    pub works: watch::Receiver<Lead>,
}

/// How a write ended.
enum Ended {
    Well(Box<Change>),
    /// The object is gone, or has another life now.
    Gone,
    /// It makes no sense to try this one again.
    Refused(String),
    /// It is tried again.
    Failed(String),
}

impl Writer {
    /// Starts the task. It ends when `cancel` is cancelled; whoever gets the handle watches it.
    #[must_use = "a task that nobody watches fails unseen"]
    pub fn spawn(self, cancel: CancellationToken) -> JoinHandle<()> {
        tokio::spawn(async move { cancel.run_until_cancelled_owned(self.run()).await.unwrap_or_default() })
    }

    async fn run(self) {
        let mut writes = FuturesUnordered::new();
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        loop {
            while writes.len() < AT_ONCE
                && let Some((name, status)) = self.outbox.0.take()
            {
                writes.push(async {
                    let ended = self.write(&name, &status).await;
                    (name, status, ended)
                });
            }
            tokio::select! {
                Some((name, status, ended)) = writes.next() => {
                    if let Some(wait) = self.settle(name, status, ended, &mut backoff).await {
                        tokio::time::sleep(wait).await;
                    }
                }
                () = self.outbox.0.some.notified() => {}
            }
        }
    }

    /// Answers how long to wait when the API server is in trouble.
    async fn settle(
        &self,
        name: Name,
        status: Status,
        ended: Ended,
        backoff: &mut Backoff,
    ) -> Option<Duration> {
        let (kind, (namespace, object)) = &name;
        let count = |ending| {
            if let Some(kind) = ObjectKind::of(*kind) {
                self.metrics.api_write(ApiWrite::Status(kind), ending);
            }
        };
        match ended {
            Ended::Well(change) => {
                count(Ending::Done);
                backoff.reset();
                // The write is under way until the keeper has taken in the answer, or it would want the same again.
                let _ends_with_the_keeper = self.changes.send(*change).await;
                let _ends_with_the_keeper = self.changes.send(Change::Written(name.0, name.1.clone())).await;
                if let Some(notice) = &status.notice {
                    self.announcer.announce(reference(&name, &status.uid), notice.clone());
                }
                None
            }
            Ended::Gone => {
                self.outbox.0.done(name, None);
                None
            }
            Ended::Refused(error) => {
                count(Ending::Failed);
                tracing::error!(%kind, namespace, name = object, error, "the API server refuses a status");
                self.outbox.0.done(name, None);
                None
            }
            Ended::Failed(error) => {
                count(Ending::Failed);
                let wait = backoff.next_wait();
                tracing::warn!(%kind, namespace, name = object, error, ?wait, "a status can't be written; trying again");
                self.outbox.0.done(name, Some(status));
                Some(wait)
            }
        }
    }

    async fn write(&self, name: &Name, status: &Status) -> Ended {
        let write = async {
            match name.0 {
                Kind::Tenant => self.patch::<Tenant>(name, status, Change::Tenant).await,
                Kind::Device => self.patch::<Device>(name, status, Change::Device).await,
                Kind::PushFormat => self.patch::<PushFormat>(name, status, Change::PushFormat).await,
                // They have no status of ours.
                Kind::Secret | Kind::File => Ended::Gone,
            }
        };
        let late = || Ended::Failed(format!("no answer within {DEADLINE:?}"));
        tokio::time::timeout(DEADLINE, write).await.unwrap_or_else(|_| late())
    }

    async fn patch<K: OurKind>(&self, name: &Name, status: &Status, wrap: fn(Event<K>) -> Change) -> Ended {
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
            Ok(object) => Ended::Well(Box::new(wrap(Event::Apply(Box::new(object))))),
            Err(kube::Error::Api(answer)) if answer.is_not_found() => Ended::Gone,
            // Another life of the same name; any other conflict passes.
            Err(kube::Error::Api(answer)) if answer.is_conflict() && answer.message.contains("UID") => {
                Ended::Gone
            }
            Err(kube::Error::Api(answer)) if answer.is_invalid() => Ended::Refused(answer.message),
            // It is stored, but the object itself can't be read; the watch tells.
            Err(kube::Error::SerdeError(_)) => Ended::Gone,
            Err(error) => Ended::Failed(brief(&error)),
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
