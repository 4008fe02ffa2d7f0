//! Brings finalizers to the API server.

use flutecast_kube::Right;
use flutecast_kube::fault::brief;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use flutecast_crds::{PushFormat, Tenant};
use futures_util::future::join_all;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::last::Last;
use super::step::{Act, FINALIZER, Protection, Step, Steps, steps};
use crate::api_server::{ApiWrite, ApiWrites, MANAGER};
use crate::index::Index;
use crate::index::kind::OurKind;
use crate::lease::Lead;
use crate::metrics::CallResult;
use crate::object::Key;
use crate::object::Kind;
use flutecast_process::backoff::{Backoff, jittered};

/// The rights that holding what is in use by a finalizer needs.
pub(crate) const RIGHTS: &[Right] = &[
    Right {
        group: "flutecast.io",
        resources: &["tenants", "pushformats"],
        names: &[],
        verbs: &["patch"],
        why: "Finalizers can't be granted apart from the rest of an object.",
    },
    Right {
        group: "",
        resources: &["namespaces"],
        names: &[],
        verbs: &["get"],
        why: "What is in a namespace that goes as a whole is let go.",
    },
];

/// How many objects are changed at once.
const AT_ONCE: usize = 8;
/// How long one request may take.
const DEADLINE: Duration = Duration::from_secs(10);
/// The first and the longest wait after one failed.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));
/// How often is looked whether the namespace of something that is held goes as a whole.
const NAMESPACES: Duration = Duration::from_secs(3);

/// Where the keeper says what is used.
#[derive(Debug)]
pub(crate) struct Guard {
    protection: Protection,
    steps: watch::Sender<Option<Arc<Steps>>>,
}

impl Guard {
    /// Has done what is to be done for what is known.
    pub(crate) fn keep(&self, index: &Index) {
        let steps = steps(index, self.protection);
        self.steps.send_if_modified(|current| {
            let changed = current.as_deref() != Some(&steps);
            if changed {
                *current = Some(Arc::new(steps));
            }
            changed
        });
    }

    /// Another operator's turn: nothing is done from here.
    pub(crate) fn stop(&self) {
        self.steps.send_replace(None);
    }
}

/// Starts the task. `works` is held as long as it works: the Lease isn't given back before. After `cancel` is
/// cancelled it ends when, as the last operator, it has let go of everything; whoever gets the handle watches
/// it.
#[must_use = "a task that nobody watches fails unseen"]
pub(crate) fn spawn(
    client: Client,
    protection: Protection,
    last: Last,
    writes: ApiWrites,
    works: watch::Receiver<Lead>,
    cancel: CancellationToken,
) -> (Guard, JoinHandle<()>) {
    let (sender, receiver) = watch::channel(None);
    let worker = Worker { client, writes };
    let task = tokio::spawn(async move {
        cancel.run_until_cancelled(worker.run(receiver.clone())).await;
        // Another operator can take over from here on, which is what is looked for below.
        drop(works);
        let worked = receiver.borrow().is_some();
        if worked && protection == Protection::Finalizer {
            last.let_go_unless_taken_over().await;
        }
    });
    (Guard { protection, steps: sender }, task)
}

struct Worker {
    client: Client,
    writes: ApiWrites,
}

impl Worker {
    /// Runs as long as there is a keeper.
    async fn run(&self, mut steps: watch::Receiver<Option<Arc<Steps>>>) {
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        loop {
            let todo = steps.borrow_and_update().clone().unwrap_or_default();
            let is_done = self.take(&todo).await;
            let asks_again = todo.values().any(|step| step.act == Act::LetGoWithNamespace);
            let again = match (is_done, asks_again) {
                (false, _) => Some(backoff.next_wait()),
                (true, true) => Some(jittered(NAMESPACES)),
                (true, false) => None,
            };
            if is_done {
                backoff.reset();
            }
            let changed = match again {
                Some(wait) => tokio::time::timeout(wait, steps.changed()).await.unwrap_or(Ok(())),
                None => steps.changed().await,
            };
            if changed.is_err() {
                return;
            }
        }
    }

    /// Takes all steps. Answers whether none of them has to be taken again.
    async fn take(&self, steps: &Steps) -> bool {
        let going = self.namespaces_that_go(steps).await;
        let is_due = |key: &Key, step: &Step| {
            step.act != Act::LetGoWithNamespace || going.get(&key.0).copied().unwrap_or(false)
        };
        let due: Vec<_> = steps.iter().filter(|((_, key), step)| is_due(key, step)).collect();
        let mut all_done = true;
        for some in due.chunks(AT_ONCE) {
            let takes = some.iter().map(|((kind, key), step)| self.take_one(*kind, key, step));
            all_done &= join_all(takes).await.into_iter().all(|done| done);
        }
        all_done
    }

    /// Which of the namespaces that matter are being deleted.
    async fn namespaces_that_go(&self, steps: &Steps) -> BTreeMap<String, bool> {
        let mut going = BTreeMap::new();
        for ((_, key), _) in steps.iter().filter(|(_, step)| step.act == Act::LetGoWithNamespace) {
            if !going.contains_key(&key.0) {
                going.insert(key.0.clone(), self.goes(&key.0).await);
            }
        }
        going
    }

    async fn goes(&self, namespace: &str) -> bool {
        let api: Api<Namespace> = Api::all(self.client.clone());
        match tokio::time::timeout(DEADLINE, api.get_opt(namespace)).await {
            Ok(Ok(namespace)) => {
                namespace.is_none_or(|namespace| namespace.metadata.deletion_timestamp.is_some())
            }
            Ok(Err(error)) => {
                tracing::warn!(
                    namespace,
                    error = brief(&error),
                    "whether the namespace is being deleted isn't known"
                );
                false
            }
            Err(_) => false,
        }
    }

    async fn take_one(&self, kind: Kind, key: &Key, step: &Step) -> bool {
        let count = |ending| {
            if let Some(kind) = kind.label() {
                self.writes.count(ApiWrite::Finalizer(kind), ending);
            }
        };
        let (namespace, name) = key;
        let patch = async {
            match kind {
                Kind::Tenant => patch::<Tenant>(&self.client, key, step).await,
                Kind::PushFormat => patch::<PushFormat>(&self.client, key, step).await,
                Kind::Device | Kind::Secret | Kind::File => Ok(()),
            }
        };
        let error = match tokio::time::timeout(DEADLINE, patch).await {
            Ok(Ok(())) => {
                let done = if step.act == Act::Hold { "held" } else { "let go" };
                tracing::info!(%kind, namespace, name, "what is in use is protected: {done}");
                count(CallResult::Done);
                return true;
            }
            // It has another version by now, of which the watch tells, or it is gone.
            Ok(Err(kube::Error::Api(answer))) if answer.is_conflict() || answer.is_not_found() => {
                return true;
            }
            Ok(Err(error)) => brief(&error),
            Err(_) => format!("no answer within {DEADLINE:?}"),
        };
        count(CallResult::Failed);
        tracing::warn!(%kind, namespace, name, error, "the finalizer {FINALIZER} can't be changed; trying again");
        false
    }
}

/// Sets the finalizers of one version of an object.
pub(super) async fn patch<K: OurKind>(client: &Client, key: &Key, step: &Step) -> Result<(), kube::Error> {
    let (namespace, name) = key;
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    // Not by server-side apply: what somebody else put on as well, for instance a backup that was played
    // back, must go, too.
    let body = json!({"metadata": {
        "resourceVersion": step.version.to_string(),
        "finalizers": step.finalizers,
    }});
    let parameters = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    match api.patch_metadata(name, &parameters, &Patch::Merge(&body)).await {
        Ok(_) => Ok(()),
        Err(error) => Err(error),
    }
}
