//! What an installation leaves when it is uninstalled, and who removes it: a program that runs when no
//! operator works any more, with rights of its own, since those of the operator go with it.
//! docs/decisions/117-a-release.md says why.
//!
//! Promised: it takes the operator's turn first, so nothing is made again behind its back; it does all that
//! it can, and fails when something is left. It never waits for more than [`TURN`] and a few seconds.

use std::collections::BTreeSet;
use std::time::Duration;

use flutecast_contract::object::ACCESS_SECRET;
use flutecast_kube::Right;
use flutecast_kube::fault::brief;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{DeleteParams, ListParams};
use kube::{Api, Client};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::api_server::{ApiWrites, MANAGER};
use crate::backend::cluster::mapping::SHARD_SELECTOR;
use crate::jetstream::orphans::{self, Installation};
use crate::lease::{self, Candidate, Lead, LeaseMetrics};
use crate::protection;
use crate::watch::NamespaceScope;

/// The rights that it needs, in the namespace of the mapping and of the objects.
pub(crate) const RIGHTS: &[Right] = &[
    Right { group: "coordination.k8s.io", resources: &["leases"], names: &[], verbs: &["create"], why: "" },
    Right {
        group: "coordination.k8s.io",
        resources: &["leases"],
        names: &[MANAGER],
        verbs: &["get", "update", "delete"],
        why: "",
    },
    Right {
        group: "flutecast.io",
        resources: &["tenants", "pushformats"],
        names: &[],
        verbs: &["list", "patch"],
        why: "Finalizers can't be granted apart from the rest of an object.",
    },
    Right { group: "", resources: &["configmaps"], names: &[], verbs: &["list", "delete"], why: "" },
    Right { group: "", resources: &["secrets"], names: &[ACCESS_SECRET], verbs: &["get", "delete"], why: "" },
];

/// For how long the turn is waited for: until an operator that ended without giving its Lease back has lost
/// it, and has been looked at twice.
pub(crate) const TURN: Duration = Duration::from_secs(30);
/// For how long NATS is waited for.
const CONNECT: Duration = Duration::from_secs(10);

/// What is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Remains {
    /// The finalizers of `--protection finalizer`.
    Finalizers,
    /// The streams in NATS that this installation looks after, whatever their Tenants say of the end.
    Streams,
    /// The ConfigMaps of the mapping, the access Secret, and the Lease.
    Mapping,
}

/// Where it is to go from.
#[derive(Debug, Clone)]
pub(crate) struct Site {
    /// The namespaces of the objects.
    pub(crate) places: Vec<NamespaceScope>,
    /// The namespace of the mapping, the access Secret and the Lease.
    pub(crate) own_namespace: String,
    /// By what this program is told from operators.
    pub(crate) identity: String,
}

/// The way to JetStream, and whether it holds.
pub(crate) type Broker = (flutecast_nats::JetStreamApi, watch::Receiver<bool>);

/// Removes what remains.
///
/// # Errors
/// What is left, and why.
pub(crate) async fn clean_up(
    client: &Client,
    site: &Site,
    what: &BTreeSet<Remains>,
    broker: Option<Broker>,
) -> anyhow::Result<()> {
    let cancel = CancellationToken::new();
    let namespace = site.own_namespace.clone();
    let candidate = Candidate { namespace, name: MANAGER.to_owned(), identity: site.identity.clone() };
    let (mut leading, election) =
        lease::spawn(client.clone(), candidate, LeaseMetrics::new(ApiWrites::default()), cancel.clone());
    let result = match within(TURN, leading.wait_for(|lead| *lead != Lead::No)).await {
        true => remove(client, site, what, broker).await,
        false => Err(vec![format!("an operator still works: it has held the Lease {MANAGER} for {TURN:?}")]),
    };
    cancel.cancel();
    // Nobody works any more.
    drop(leading);
    election.await?;
    let mut left = result.err().unwrap_or_default();
    if left.is_empty() && what.contains(&Remains::Mapping) {
        let leases = Api::<Lease>::namespaced(client.clone(), &site.own_namespace);
        left.extend(gone(leases.delete(MANAGER, &DeleteParams::default()).await).err());
    }
    anyhow::ensure!(left.is_empty(), "not everything is removed: {}", left.join("; "));
    Ok(())
}

/// Whether something comes true in time. What it hands out locks the channel until it is dropped: a task that
/// holds it while it goes on stops whoever sends.
async fn within<T, E>(limit: Duration, comes_true: impl Future<Output = Result<T, E>>) -> bool {
    matches!(tokio::time::timeout(limit, comes_true).await, Ok(Ok(_)))
}

async fn remove(
    client: &Client,
    site: &Site,
    what: &BTreeSet<Remains>,
    broker: Option<Broker>,
) -> Result<(), Vec<String>> {
    let mut left = Vec::new();
    if what.contains(&Remains::Finalizers) {
        match protection::remove_finalizers(client, &site.places).await {
            Ok(count) => tracing::info!(count, "nothing is held by a finalizer any longer"),
            Err(error) => left.push(format!("finalizers: {}", brief(&error))),
        }
    }
    // Before the access Secret, which tells whose they are.
    if what.contains(&Remains::Streams)
        && let Err(error) = remove_streams(client, site, broker).await
    {
        left.push(format!("streams: {error}"));
    }
    if left.is_empty()
        && what.contains(&Remains::Mapping)
        && let Err(error) = remove_mapping(client, &site.own_namespace).await
    {
        left.push(format!("the mapping: {}", brief(&error)));
    }
    if left.is_empty() { Ok(()) } else { Err(left) }
}

async fn remove_streams(client: &Client, site: &Site, broker: Option<Broker>) -> Result<(), String> {
    let secrets = Api::<Secret>::namespaced(client.clone(), &site.own_namespace);
    let access = secrets.get_metadata_opt(ACCESS_SECRET).await.map_err(|error| brief(&error))?;
    // Without it nothing was ever made, or it is gone and nobody can tell whose the streams are.
    let Some(id) = access.and_then(|access| access.metadata.uid) else {
        tracing::warn!("there is no Secret {ACCESS_SECRET}; streams are left as they are");
        return Ok(());
    };
    let (api, mut connected) = broker.ok_or("no address of NATS was given")?;
    if !within(CONNECT, connected.wait_for(|connected| *connected)).await {
        return Err(format!("NATS is not there after {CONNECT:?}"));
    }
    let installation = Installation { id, places: site.places.clone(), alive: BTreeSet::new() };
    let count = orphans::delete_all(&api, &installation).await.map_err(|error| error.to_string())?;
    tracing::info!(count, "the streams are deleted");
    Ok(())
}

async fn remove_mapping(client: &Client, namespace: &str) -> Result<(), kube::Error> {
    let (maps, secrets) = (
        Api::<ConfigMap>::namespaced(client.clone(), namespace),
        Api::<Secret>::namespaced(client.clone(), namespace),
    );
    let shards = maps.list_metadata(&ListParams::default().labels(SHARD_SELECTOR)).await?;
    for name in shards.items.iter().filter_map(|shard| shard.metadata.name.as_deref()) {
        let deleted = maps.delete(name, &DeleteParams::default()).await.map(drop);
        ignore_missing(deleted)?;
    }
    ignore_missing(secrets.delete(ACCESS_SECRET, &DeleteParams::default()).await.map(drop))?;
    tracing::info!(count = shards.items.len(), "the mapping is deleted");
    Ok(())
}

fn ignore_missing(result: Result<(), kube::Error>) -> Result<(), kube::Error> {
    match result {
        Err(kube::Error::Api(answer)) if answer.is_not_found() => Ok(()),
        other => other,
    }
}

fn gone<T>(result: Result<T, kube::Error>) -> Result<(), String> {
    ignore_missing(result.map(drop)).map_err(|error| format!("the Lease: {}", brief(&error)))
}
