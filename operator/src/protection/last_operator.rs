//! The last operator that ends in order removes all finalizers, so that no deletion waits for an operator
//! that never comes.

use std::time::Duration;

use flutecast_crds::{PushFormat, Tenant};
use flutecast_kube::fault::brief;
use futures_util::future::join_all;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::ListParams;
use kube::core::PartialObjectMeta;
use kube::{Api, Client};
use tokio::time::Instant;

use super::plan::{Action, FINALIZER, FinalizerChange};
use super::writer::patch;
use crate::index::kind::ApiKind;
use crate::index::version_of;
use crate::object::Key;
use crate::watch::NamespaceScope;

/// The wait for another operator to take over. Others check the Lease every two seconds.
const TAKEOVER: Duration = Duration::from_secs(4);
const POLL_INTERVAL: Duration = Duration::from_millis(300);
/// Timeout for all removals at the end of the program. Kubernetes gives a pod thirty seconds.
const DEADLINE: Duration = Duration::from_secs(10);
const MAX_CONCURRENT: usize = 8;
/// The most attempts for an object that changes meanwhile.
const ATTEMPTS: usize = 5;

pub(crate) struct LastOperator {
    pub(crate) client: Client,
    pub(crate) scopes: Vec<NamespaceScope>,
    pub(crate) lease: Key,
    /// This operator in the Lease.
    pub(crate) identity: String,
}

impl LastOperator {
    pub(super) async fn remove_finalizers_unless_taken_over(&self) {
        if let Some(holder) = self.successor().await {
            tracing::info!(holder, "another operator holds what is in use from here on");
            return;
        }
        match tokio::time::timeout(DEADLINE, remove_finalizers(&self.client, &self.scopes)).await {
            Ok(Ok(count)) => {
                tracing::info!(count, "no other operator runs; what is in use is held no longer")
            }
            Ok(Err(error)) => {
                tracing::warn!(
                    error = brief(&error),
                    "what is in use stays held until an operator starts again, or --let-go"
                );
            }
            Err(_) => tracing::warn!("what is in use stays held until an operator starts again, or --let-go"),
        }
    }

    /// Returns the operator that takes the Lease within [`TAKEOVER`]; `None` if there is none.
    async fn successor(&self) -> Option<String> {
        let api: Api<Lease> = Api::namespaced(self.client.clone(), &self.lease.0);
        let end = Instant::now() + TAKEOVER;
        while Instant::now() < end {
            let lease = tokio::time::timeout_at(end, api.get_opt(&self.lease.1)).await;
            let holder = lease.ok().and_then(Result::ok).flatten();
            let holder = holder.and_then(|lease| lease.spec?.holder_identity);
            if let Some(holder) = holder.filter(|holder| !holder.is_empty() && *holder != self.identity) {
                return Some(holder);
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        None
    }
}

/// Removes the finalizer from all objects, also after an error. Returns their number, or the last error.
pub(crate) async fn remove_finalizers(
    client: &Client,
    scopes: &[NamespaceScope],
) -> Result<usize, kube::Error> {
    let mut count = 0;
    let mut failed = None;
    for scope in scopes {
        for result in [
            remove_finalizers_of::<Tenant>(client, scope).await,
            remove_finalizers_of::<PushFormat>(client, scope).await,
        ] {
            match result {
                Ok(some) => count += some,
                Err(error) => failed = Some(error),
            }
        }
    }
    failed.map_or(Ok(count), Err)
}

async fn remove_finalizers_of<K: ApiKind>(
    client: &Client,
    scope: &NamespaceScope,
) -> Result<usize, kube::Error> {
    let api: Api<K> = match scope {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    let mut count = 0;
    let mut failed = None;
    for attempt in 0..ATTEMPTS {
        let held = api.list_metadata(&ListParams::default()).await?;
        let plan: Vec<(Key, FinalizerChange)> = held.items.iter().filter_map(removal).collect();
        if plan.is_empty() {
            return Ok(count);
        }
        let mut results = Vec::new();
        for some in plan.chunks(MAX_CONCURRENT) {
            results.extend(join_all(some.iter().map(|(key, change)| patch::<K>(client, key, change))).await);
        }
        failed = None;
        for result in results {
            match result {
                Ok(()) => count += 1,
                Err(kube::Error::Api(answer)) if answer.is_not_found() => {}
                Err(error) => failed = Some(error),
            }
        }
        if failed.is_none() {
            return Ok(count);
        }
        tracing::debug!(attempt, "some objects changed meanwhile");
    }
    failed.map_or(Ok(count), Err)
}

/// Returns the change that removes the finalizer; `None` if the object doesn't have it.
fn removal<K>(object: &PartialObjectMeta<K>) -> Option<(Key, FinalizerChange)> {
    let meta = &object.metadata;
    let finalizers = meta.finalizers.clone().unwrap_or_default();
    let others: Vec<String> =
        finalizers.iter().filter(|finalizer| *finalizer != FINALIZER).cloned().collect();
    if others.len() == finalizers.len() {
        return None;
    }
    let key = (meta.namespace.clone()?, meta.name.clone()?);
    Some((key, FinalizerChange { action: Action::Remove, version: version_of(meta)?, finalizers: others }))
}
