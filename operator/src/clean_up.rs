//! `--clean-up`: removes what an installation leaves when it is uninstalled. It runs when no operator works
//! any more, with rights of its own, since the operator's rights are removed with it
//! (docs/decisions/117-a-release.md).
//!
//! Guarantees: it takes the Lease first, so that no operator creates the objects again; it removes as much as
//! it can, and fails if something is left. It doesn't wait for longer than [`TAKEOVER`] and a few seconds.

use std::collections::BTreeSet;
use std::time::Duration;

use clap::ValueEnum;
use flutecast_contract::object::ACCESS_SECRET;
use flutecast_kube::Right;
use flutecast_kube::fault::brief;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{DeleteParams, ListParams};
use kube::{Api, Client};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::api_server::MANAGER;
use crate::backend::cluster::mapping::SHARD_SELECTOR;
use crate::jetstream::orphans::{self, Installation};
use crate::lease::{self, Candidate, Leadership, LeaseMetrics};
use crate::watch::NamespaceScope;
use crate::{nats_passwords, protection};

/// The rights in the namespace of the mapping and of the objects.
pub(crate) const RIGHTS: &[Right] = &[
    Right::new("coordination.k8s.io", &["leases"], &["create"]),
    Right::new("coordination.k8s.io", &["leases"], &["get", "update", "delete"]).named(&[MANAGER]),
    Right::new("flutecast.io", &["tenants", "pushformats"], &["list", "patch"])
        .because("Finalizers can't be granted apart from the rest of an object."),
    Right::new("", &["configmaps"], &["list", "delete"]),
    Right::new("", &["secrets"], &["get", "delete"]).named(&[ACCESS_SECRET]),
    nats_passwords::RIGHTS_AT_THE_END,
];

/// The longest wait for the Lease: an operator that ended without giving it back loses it within this time.
pub(crate) const TAKEOVER: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A part of an installation that can be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum CleanUp {
    /// What `--protection finalizer` holds objects with.
    Finalizers,
    /// All its streams in NATS, with their messages.
    Streams,
    /// What operators wrote: the ConfigMaps of the mapping, the access Secret, the Lease.
    Mapping,
    /// The Secret of `--nats-passwords-secret`.
    NatsPasswords,
}

#[derive(Debug, Clone)]
pub(crate) struct InstallationScope {
    /// The namespaces of the objects.
    pub(crate) scopes: Vec<NamespaceScope>,
    /// The namespace of the mapping, the access Secret and the Lease.
    pub(crate) own_namespace: String,
    /// Identifies this program in the Lease.
    pub(crate) identity: String,
    /// The Secret with the passwords of the bundled NATS.
    pub(crate) passwords_secret: Option<String>,
}

/// JetStream, and whether NATS is connected.
pub(crate) type Broker = (flutecast_nats::JetStreamApi, watch::Receiver<bool>);

/// Removes `what` of an installation. The error says what is left, and why.
pub(crate) async fn clean_up(
    client: &Client,
    scope: &InstallationScope,
    what: &BTreeSet<CleanUp>,
    broker: Option<Broker>,
) -> anyhow::Result<()> {
    let cancel = CancellationToken::new();
    let namespace = scope.own_namespace.clone();
    let candidate = Candidate { namespace, name: MANAGER.to_owned(), identity: scope.identity.clone() };
    let (mut leading, election) =
        lease::spawn(client.clone(), candidate, LeaseMetrics::default(), cancel.clone());
    let result = match within(TAKEOVER, leading.wait_for(|lead| *lead != Leadership::Standby)).await {
        true => remove(client, scope, what, broker).await,
        false => {
            Err(vec![format!("an operator still works: it has held the Lease {MANAGER} for {TAKEOVER:?}")])
        }
    };
    cancel.cancel();
    // The work has ended.
    drop(leading);
    election.await?;
    let mut left = result.err().unwrap_or_default();
    if left.is_empty() && what.contains(&CleanUp::Mapping) {
        let leases = Api::<Lease>::namespaced(client.clone(), &scope.own_namespace);
        left.extend(gone(leases.delete(MANAGER, &DeleteParams::default()).await).err());
    }
    anyhow::ensure!(left.is_empty(), "not everything is removed: {}", left.join("; "));
    Ok(())
}

/// Waits for a condition. Returns whether it became true in time. The value of the future, which locks a
/// watch channel, is dropped here.
async fn within<T, E>(limit: Duration, comes_true: impl Future<Output = Result<T, E>>) -> bool {
    matches!(tokio::time::timeout(limit, comes_true).await, Ok(Ok(_)))
}

async fn remove(
    client: &Client,
    scope: &InstallationScope,
    what: &BTreeSet<CleanUp>,
    broker: Option<Broker>,
) -> Result<(), Vec<String>> {
    let mut left = Vec::new();
    if what.contains(&CleanUp::Finalizers) {
        match protection::remove_finalizers(client, &scope.scopes).await {
            Ok(count) => tracing::info!(count, "nothing is held by a finalizer any longer"),
            Err(error) => left.push(format!("finalizers: {}", brief(&error))),
        }
    }
    // Before the access Secret, which identifies the installation.
    if what.contains(&CleanUp::Streams)
        && let Err(error) = remove_streams(client, scope, broker).await
    {
        left.push(format!("streams: {error}"));
    }
    if what.contains(&CleanUp::NatsPasswords)
        && let Err(error) = remove_passwords(client, scope).await
    {
        left.push(format!("the passwords of NATS: {error}"));
    }
    if left.is_empty()
        && what.contains(&CleanUp::Mapping)
        && let Err(error) = remove_mapping(client, &scope.own_namespace).await
    {
        left.push(format!("the mapping: {}", brief(&error)));
    }
    if left.is_empty() { Ok(()) } else { Err(left) }
}

async fn remove_streams(
    client: &Client,
    scope: &InstallationScope,
    broker: Option<Broker>,
) -> Result<(), String> {
    let secrets = Api::<Secret>::namespaced(client.clone(), &scope.own_namespace);
    let access = secrets.get_metadata_opt(ACCESS_SECRET).await.map_err(|error| brief(&error))?;
    // Without it no stream was created, or it is gone and the owner of the streams can't be determined.
    let Some(id) = access.and_then(|access| access.metadata.uid) else {
        tracing::warn!("there is no Secret {ACCESS_SECRET}; streams are left as they are");
        return Ok(());
    };
    let (api, mut connected) = broker.ok_or("no address of NATS was given")?;
    if !within(CONNECT_TIMEOUT, connected.wait_for(|connected| *connected)).await {
        return Err(format!("NATS is not there after {CONNECT_TIMEOUT:?}"));
    }
    let installation = Installation { id, scopes: scope.scopes.clone(), alive: BTreeSet::new() };
    let count = orphans::delete_all(&api, &installation).await.map_err(|error| error.to_string())?;
    tracing::info!(count, "the streams are deleted");
    Ok(())
}

async fn remove_passwords(client: &Client, scope: &InstallationScope) -> Result<(), String> {
    let name = scope.passwords_secret.as_deref().ok_or("--nats-passwords-secret doesn't name the Secret")?;
    let secrets = Api::<Secret>::namespaced(client.clone(), &scope.own_namespace);
    let deleted = secrets.delete(name, &DeleteParams::default()).await.map(drop);
    ignore_missing(deleted).map_err(|error| brief(&error))?;
    tracing::info!(secret = name, "the passwords of NATS are deleted");
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
