//! The last operator that ends in order lets go of everything, so that nothing waits for one that never
//! comes.

use std::time::Duration;

use flutecast_crds::{PushFormat, Tenant};
use flutecast_kube::fault::brief;
use futures_util::future::join_all;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::ListParams;
use kube::core::PartialObjectMeta;
use kube::{Api, Client};
use tokio::time::Instant;

use super::step::{Act, FINALIZER, Step};
use super::task::patch;
use crate::index::kind::OurKind;
use crate::index::version_of;
use crate::object::Key;
use crate::watch::Place;

/// For how long is looked whether another operator takes over. Others look at the Lease every two seconds.
const TAKEN_OVER: Duration = Duration::from_secs(4);
/// How often.
const LOOK: Duration = Duration::from_millis(300);
/// How long all of it may take at the end of a program: Kubernetes gives a pod thirty seconds.
const END: Duration = Duration::from_secs(10);
/// How many objects are let go at once.
const AT_ONCE: usize = 8;
/// How often one object is tried again when somebody else changes it meanwhile.
const ATTEMPTS: usize = 5;

/// What the end of the last operator needs.
pub(crate) struct Last {
    /// The API server.
    pub(crate) client: Client,
    /// The namespaces that are looked after.
    pub(crate) places: Vec<Place>,
    /// The namespace and the name of the Lease.
    pub(crate) lease: Key,
    /// Who we are.
    pub(crate) identity: String,
}

impl Last {
    /// Lets go of everything, unless another operator works on.
    pub(super) async fn let_go_unless_taken_over(&self) {
        if let Some(holder) = self.successor().await {
            tracing::info!(holder, "another operator holds what is in use from here on");
            return;
        }
        match tokio::time::timeout(END, let_go(&self.client, &self.places)).await {
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

    /// Who took the Lease within a moment; none: nobody did.
    async fn successor(&self) -> Option<String> {
        let api: Api<Lease> = Api::namespaced(self.client.clone(), &self.lease.0);
        let end = Instant::now() + TAKEN_OVER;
        while Instant::now() < end {
            let lease = tokio::time::timeout_at(end, api.get_opt(&self.lease.1)).await;
            let holder = lease.ok().and_then(Result::ok).flatten();
            let holder = holder.and_then(|lease| lease.spec?.holder_identity);
            if let Some(holder) = holder.filter(|holder| !holder.is_empty() && *holder != self.identity) {
                return Some(holder);
            }
            tokio::time::sleep(LOOK).await;
        }
        None
    }
}

/// Takes the finalizer off everything. Answers off how many.
///
/// # Errors
/// The first error; everything was tried.
pub(crate) async fn let_go(client: &Client, places: &[Place]) -> Result<usize, kube::Error> {
    let mut count = 0;
    let mut failed = None;
    for place in places {
        for result in [let_go_of::<Tenant>(client, place).await, let_go_of::<PushFormat>(client, place).await]
        {
            match result {
                Ok(some) => count += some,
                Err(error) => failed = Some(error),
            }
        }
    }
    failed.map_or(Ok(count), Err)
}

async fn let_go_of<K: OurKind>(client: &Client, place: &Place) -> Result<usize, kube::Error> {
    let api: Api<K> = match place {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    let mut count = 0;
    let mut failed = None;
    for attempt in 0..ATTEMPTS {
        let held = api.list_metadata(&ListParams::default()).await?;
        let steps: Vec<(Key, Step)> = held.items.iter().filter_map(release).collect();
        if steps.is_empty() {
            return Ok(count);
        }
        let mut results = Vec::new();
        for some in steps.chunks(AT_ONCE) {
            results.extend(join_all(some.iter().map(|(key, step)| patch::<K>(client, key, step))).await);
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

/// How an object is let go; none: it isn't held.
fn release<K>(object: &PartialObjectMeta<K>) -> Option<(Key, Step)> {
    let meta = &object.metadata;
    let finalizers = meta.finalizers.clone().unwrap_or_default();
    let others: Vec<String> =
        finalizers.iter().filter(|finalizer| *finalizer != FINALIZER).cloned().collect();
    if others.len() == finalizers.len() {
        return None;
    }
    let key = (meta.namespace.clone()?, meta.name.clone()?);
    Some((key, Step { act: Act::LetGo, version: version_of(meta)?, finalizers: others }))
}
