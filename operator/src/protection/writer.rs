//! Writes finalizers to the API server.

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

use super::last_operator::LastOperator;
use super::plan::{Action, FINALIZER, FinalizerChange, FinalizerPlan, Protection, plan};
use crate::api_server::{ApiWrite, ApiWrites, MANAGER};
use crate::index::Index;
use crate::index::kind::ApiKind;
use crate::lease::Leadership;
use crate::metrics::CallResult;
use crate::object::{Key, Kind};
use flutecast_process::backoff::{Backoff, jittered};

pub(crate) const RIGHTS: &[Right] = &[
    Right::new("flutecast.io", &["tenants", "pushformats"], &["patch"])
        .because("Finalizers can't be granted apart from the rest of an object."),
    Right::new("", &["namespaces"], &["get"])
        .because("What is in a namespace that goes as a whole is let go."),
];

const MAX_CONCURRENT: usize = 8;
const DEADLINE: Duration = Duration::from_secs(10);
/// The first and the longest wait after a failure.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));
/// The interval at which the namespaces of protected objects are checked for deletion.
const NAMESPACE_CHECK: Duration = Duration::from_secs(3);

/// Publishes the due changes to the task that writes them.
#[derive(Debug)]
pub(crate) struct FinalizerPublisher {
    protection: Protection,
    plan: watch::Sender<Option<Arc<FinalizerPlan>>>,
}

impl FinalizerPublisher {
    pub(crate) fn publish(&self, index: &Index) {
        let plan = plan(index, self.protection);
        self.plan.send_if_modified(|current| {
            let changed = current.as_deref() != Some(&plan);
            if changed {
                *current = Some(Arc::new(plan));
            }
            changed
        });
    }

    /// Stops all changes, because another operator leads.
    pub(crate) fn stop(&self) {
        self.plan.send_replace(None);
    }
}

/// Starts the task. It keeps `works` while it writes, so that the Lease isn't given back before. After
/// `cancel` is cancelled it ends; the last operator removes all finalizers before.
#[must_use = "a task whose handle is dropped fails silently"]
pub(crate) fn spawn(
    client: Client,
    protection: Protection,
    last: LastOperator,
    writes: ApiWrites,
    works: watch::Receiver<Leadership>,
    cancel: CancellationToken,
) -> (FinalizerPublisher, JoinHandle<()>) {
    let (sender, receiver) = watch::channel(None);
    let worker = FinalizerWriter { client, writes };
    let task = tokio::spawn(async move {
        cancel.run_until_cancelled(worker.run(receiver.clone())).await;
        // From here on another operator can take over, which is checked below.
        drop(works);
        let worked = receiver.borrow().is_some();
        if worked && protection == Protection::Finalizer {
            last.remove_finalizers_unless_taken_over().await;
        }
    });
    (FinalizerPublisher { protection, plan: sender }, task)
}

struct FinalizerWriter {
    client: Client,
    writes: ApiWrites,
}

impl FinalizerWriter {
    /// Runs until the sender of the plan is dropped.
    async fn run(&self, mut plan: watch::Receiver<Option<Arc<FinalizerPlan>>>) {
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        loop {
            let todo = plan.borrow_and_update().clone().unwrap_or_default();
            let is_done = self.apply(&todo).await;
            let asks_again = todo.values().any(|change| change.action == Action::RemoveWithNamespace);
            let again = match (is_done, asks_again) {
                (false, _) => Some(backoff.next_wait()),
                (true, true) => Some(jittered(NAMESPACE_CHECK)),
                (true, false) => None,
            };
            if is_done {
                backoff.reset();
            }
            let changed = match again {
                Some(wait) => tokio::time::timeout(wait, plan.changed()).await.unwrap_or(Ok(())),
                None => plan.changed().await,
            };
            if changed.is_err() {
                return;
            }
        }
    }

    /// Makes all changes. Returns `false` if one has to be repeated.
    async fn apply(&self, plan: &FinalizerPlan) -> bool {
        let going = self.deleted_namespaces(plan).await;
        let is_due = |key: &Key, change: &FinalizerChange| {
            change.action != Action::RemoveWithNamespace || going.get(&key.0).copied().unwrap_or(false)
        };
        let due: Vec<_> = plan.iter().filter(|((_, key), change)| is_due(key, change)).collect();
        let mut all_done = true;
        for some in due.chunks(MAX_CONCURRENT) {
            let applied = some.iter().map(|((kind, key), change)| self.apply_one(*kind, key, change));
            all_done &= join_all(applied).await.into_iter().all(|done| done);
        }
        all_done
    }

    /// Returns which namespaces of [`Action::RemoveWithNamespace`] are being deleted.
    async fn deleted_namespaces(&self, plan: &FinalizerPlan) -> BTreeMap<String, bool> {
        let mut going = BTreeMap::new();
        for ((_, key), _) in plan.iter().filter(|(_, change)| change.action == Action::RemoveWithNamespace) {
            if !going.contains_key(&key.0) {
                going.insert(key.0.clone(), self.is_being_deleted(&key.0).await);
            }
        }
        going
    }

    async fn is_being_deleted(&self, namespace: &str) -> bool {
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

    async fn apply_one(&self, kind: Kind, key: &Key, change: &FinalizerChange) -> bool {
        let count = |ending| {
            if let Some(kind) = kind.label() {
                self.writes.count(ApiWrite::Finalizer(kind), ending);
            }
        };
        let (namespace, name) = key;
        let patch = async {
            match kind {
                Kind::Tenant => patch::<Tenant>(&self.client, key, change).await,
                Kind::PushFormat => patch::<PushFormat>(&self.client, key, change).await,
                Kind::Device | Kind::Secret | Kind::File => Ok(()),
            }
        };
        let error = match tokio::time::timeout(DEADLINE, patch).await {
            Ok(Ok(())) => {
                let done = if change.action == Action::Add { "held" } else { "let go" };
                tracing::info!(%kind, namespace, name, "what is in use is protected: {done}");
                count(CallResult::Done);
                return true;
            }
            // It has another version by now, which the watch reports, or it is gone.
            Ok(Err(kube::Error::Api(answer))) if answer.is_conflict() || answer.is_not_found() => {
                return true;
            }
            Ok(Err(error)) => brief(&error),
            Err(_) => format!("no answer within {DEADLINE:?}"),
        };
        count(CallResult::Failed);
        tracing::warn!(
            %kind,
            namespace,
            name,
            error,
            "the finalizer {FINALIZER} can't be changed; trying again"
        );
        false
    }
}

/// Sets the finalizers of one version of an object.
pub(super) async fn patch<K: ApiKind>(
    client: &Client,
    key: &Key,
    change: &FinalizerChange,
) -> Result<(), kube::Error> {
    let (namespace, name) = key;
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    // Not by server-side apply: the finalizer must also go if another manager owns it, for instance after a
    // backup was restored.
    let body = json!({"metadata": {
        "resourceVersion": change.version.to_string(),
        "finalizers": change.finalizers,
    }});
    let parameters = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    match api.patch_metadata(name, &parameters, &Patch::Merge(&body)).await {
        Ok(_) => Ok(()),
        Err(error) => Err(error),
    }
}
