//! Brings statuses to the API server, several at once, each only as it is wanted last.
//!
//! Promised: what was put in is written, or the object is gone. What the API server refuses is logged and
//! tried again, since whoever refuses it, mostly a policy, may change. Not promised: that each of several
//! statuses of one object is seen; the last one is.

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
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::api_server::MANAGER;
use crate::api_server::{ApiWrite, ApiWrites};
use crate::backend::cluster::change::Change;
use crate::backend::cluster::events::Announcer;
use crate::backend::cluster::status::queue::{Failure, Name, Outbox, Status};
use crate::index::kind::OurKind;
use crate::lease::Lead;
use crate::metrics::CallResult;
use crate::object::Kind;
use crate::watch::Event;
use flutecast_process::backoff::Backoff;

/// The rights that writing statuses needs.
pub(crate) const RIGHTS: &[Right] = &[Right {
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
/// The first and the longest pause of all when so many as are written at once found the API server away, and
/// none found it well.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// What writes them.
pub(crate) struct Writer {
    /// The API server.
    pub(crate) client: Client,
    /// The statuses.
    pub(crate) outbox: Outbox,
    /// Gets each object as the API server answers it.
    pub(crate) changes: mpsc::Sender<Change>,
    /// Tells what `kubectl describe` shows.
    pub(crate) announcer: Announcer,
    /// Gets counts.
    pub(crate) writes: ApiWrites,
    /// Held as long as something is written: the Lease isn't given back before.
    pub(crate) _works: watch::Receiver<Lead>,
}

/// How a write ended.
enum Ended {
    Well(Box<Change>),
    /// The object is gone, or has another life now.
    Gone,
    /// It is tried again.
    Failed(Failure, String),
}

/// How it stands with the API server as a whole.
#[derive(Debug)]
struct Health {
    backoff: Backoff,
    /// How many in a row found it away.
    away: usize,
    /// Nothing is written before.
    paused: Option<Instant>,
}

impl Default for Health {
    fn default() -> Self {
        Self { backoff: Backoff::new(PAUSE.0, PAUSE.1), away: 0, paused: None }
    }
}

impl Health {
    /// It answered.
    fn is_well(&mut self) {
        self.backoff.reset();
        self.away = 0;
        self.paused = None;
    }

    /// It didn't, or was in trouble. That may be so for some objects only; when it is for as many as are
    /// written at once, all of them wait.
    fn is_away(&mut self, now: Instant) {
        self.away += 1;
        if self.away >= AT_ONCE {
            self.away = 0;
            self.paused = Some(now + self.backoff.next_wait());
        }
    }
}

impl Writer {
    /// Starts the task. It ends when `cancel` is cancelled; whoever gets the handle watches it.
    #[must_use = "a task that nobody watches fails unseen"]
    pub(crate) fn spawn(self, cancel: CancellationToken) -> JoinHandle<()> {
        tokio::spawn(async move { cancel.run_until_cancelled_owned(self.run()).await.unwrap_or_default() })
    }

    async fn run(self) {
        let mut writes = FuturesUnordered::new();
        let mut health = Health::default();
        loop {
            let now = Instant::now();
            let paused = health.paused.filter(|until| now < *until);
            while paused.is_none()
                && writes.len() < AT_ONCE
                && let Some((name, status)) = self.outbox.take(now)
            {
                writes.push(async {
                    let ended = self.write(&name, &status).await;
                    (name, status, ended)
                });
            }
            // What is due while all hands are full is taken when one is free.
            let due = if writes.len() < AT_ONCE { self.outbox.due() } else { None };
            let wake = paused.or(due);
            let rest = async {
                match wake {
                    Some(wake) => tokio::time::sleep_until(wake).await,
                    None => std::future::pending().await,
                }
            };
            // Nothing waits here that keeps a write under way from going on: it would seem to get no answer.
            tokio::select! {
                Some((name, status, ended)) = writes.next() => self.settle(name, status, ended, &mut health).await,
                () = self.outbox.changed() => {}
                () = rest => {}
            }
        }
    }

    async fn settle(&self, name: Name, status: Status, ended: Ended, health: &mut Health) {
        let (kind, (namespace, object)) = &name;
        let count = |ending| {
            if let Some(kind) = kind.label() {
                self.writes.count(ApiWrite::Status(kind), ending);
            }
        };
        match ended {
            Ended::Well(change) => {
                count(CallResult::Done);
                health.is_well();
                // The write is under way until the keeper has taken in the answer, or it would want the same
                // again.
                let _ends_with_the_keeper = self.changes.send(*change).await;
                let _ends_with_the_keeper = self.changes.send(Change::Written(name.0, name.1.clone())).await;
                if let Some(notice) = &status.notice {
                    self.announcer.announce(reference(&name, &status.uid), notice.clone());
                }
            }
            Ended::Gone => {
                health.is_well();
                self.outbox.done(&name);
            }
            Ended::Failed(failure, error) => {
                count(CallResult::Failed);
                let now = Instant::now();
                match failure {
                    Failure::Away => health.is_away(now),
                    Failure::Denied => health.is_well(),
                }
                let (kind, namespace, object) = (*kind, namespace.clone(), object.clone());
                let (wait, is_first) = self.outbox.failed(&name, status, failure, now);
                if is_first {
                    tracing::warn!(%kind, namespace, name = object, error, ?wait, "a status can't be written; trying again");
                } else {
                    tracing::debug!(%kind, namespace, name = object, error, ?wait, "a status still can't be written");
                }
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
        let late = || Ended::Failed(Failure::Away, format!("no answer within {DEADLINE:?}"));
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
            // It is stored, but the object itself can't be read; the watch tells.
            Err(kube::Error::SerdeError(_)) => Ended::Gone,
            Err(kube::Error::Api(answer)) if is_refusal(&answer) => {
                Ended::Failed(Failure::Denied, brief(&kube::Error::Api(answer)))
            }
            Err(error) => Ended::Failed(Failure::Away, brief(&error)),
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
