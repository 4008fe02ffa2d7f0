//! Streams whose Tenant was deleted while no operator ran.
//!
//! On an API server it is certain which Tenants exist. The metadata of a stream has its Tenant, the
//! installation that manages it, and what happens when the Tenant goes. So an operator that was away finds
//! the streams that are left over.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::settings::{self, INSTALLATION, ON_DELETE, OWNER_NAMESPACE, OWNER_UID};
use super::tenant::Streams;
use crate::jetstream::streams::OnDelete;
use crate::object::Key;
use flutecast_contract::subject;
use flutecast_nats::api::StreamInfo;
use flutecast_nats::{JetStreamApi, RequestError};

/// An installation of Flutecast, and the Tenants that it manages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Installation {
    /// Identifies it among all that share the broker.
    pub(crate) id: String,
    /// The namespaces that it manages; `None` for all.
    pub(crate) scopes: Vec<Option<String>>,
    /// The uids of all Tenants that exist in these namespaces.
    pub(crate) alive: BTreeSet<String>,
}

impl Installation {
    /// Returns whether a stream is of this installation and its Tenant doesn't exist.
    fn is_left_over(&self, stream: &StreamInfo) -> bool {
        self.manages(stream) && stream.metadata(OWNER_UID).is_some_and(|uid| !self.alive.contains(uid))
    }

    /// Returns whether a stream was kept for the next Tenant of the name, and there is none yet. `existing`
    /// are the namespaces and names of all Tenants.
    fn waits_for_tenant(&self, stream: &StreamInfo, existing: &BTreeSet<Key>) -> bool {
        let owner = stream.metadata(OWNER_NAMESPACE).zip(stream.metadata(settings::OWNER_NAME));
        let is_missing =
            |(namespace, name): (&str, &str)| !existing.contains(&(namespace.to_owned(), name.to_owned()));
        self.manages(stream) && stream.metadata(OWNER_UID).is_none() && owner.is_some_and(is_missing)
    }

    fn manages(&self, stream: &StreamInfo) -> bool {
        let is_here = |namespace: &str| {
            self.scopes.iter().any(|scope| scope.as_ref().is_none_or(|scope| scope == namespace))
        };
        stream.metadata(INSTALLATION) == Some(&self.id)
            && stream.metadata(OWNER_NAMESPACE).is_some_and(is_here)
    }
}

/// Deletes all streams of an installation, whatever their Tenants say about the end. Returns their number.
pub(crate) async fn delete_all(
    api: &JetStreamApi,
    installation: &Installation,
) -> Result<usize, RequestError> {
    let streams = api.streams().await?;
    let ours = streams.iter().filter(|stream| installation.is_left_over(stream));
    // Sorted: a tenant's stream goes before those of its sources.
    let names: BTreeSet<&str> = ours.filter_map(|stream| stream.config.get("name")?.as_str()).collect();
    for name in &names {
        api.delete_stream(name).await?;
        tracing::info!(stream = name, "deleted");
    }
    Ok(names.len())
}

/// The result of releasing streams.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Released {
    /// Number of calls that changed something.
    pub(crate) changes: u32,
    /// The streams that NATS refuses to release, with its words. They are tried again with the next pass.
    pub(crate) refused: Vec<(String, String)>,
}

impl Released {
    /// Records the result for one stream. Returns whether it was released.
    pub(super) fn note(
        &mut self,
        stream: &str,
        result: Result<(), RequestError>,
    ) -> Result<bool, RequestError> {
        match result {
            Ok(()) => {
                self.changes += 1;
                Ok(true)
            }
            Err(error @ RequestError::Refused { .. }) => {
                self.refused.push((stream.to_owned(), error.to_string()));
                Ok(false)
            }
            Err(away) => Err(away),
        }
    }
}

/// Releases the streams that are left over: deletes them, or keeps them for the next Tenant of the name, as
/// their Tenant wanted. `existing` are the namespaces and names of all Tenants.
pub(crate) async fn remove(
    api: &JetStreamApi,
    streams: &Streams,
    installation: Option<&Installation>,
    existing: &BTreeSet<Key>,
) -> Result<Released, RequestError> {
    let mut all = Released::default();
    let Some(installation) = installation else { return Ok(all) };
    // Sorted by name: a tenant's stream goes before those of its sources and doesn't report errors about
    // them.
    for (name, stream) in streams.iter().filter(|(_, stream)| installation.is_left_over(stream)) {
        let tenant = stream.metadata(settings::OWNER_NAME).unwrap_or_default();
        if stream.metadata(ON_DELETE) == Some(OnDelete::Delete.as_str()) {
            if all.note(name, api.delete_stream(name).await)? {
                tracing::info!(stream = name, tenant, "the Tenant is gone, and its stream with it");
            }
        } else if let Some(config) = without_owner(name, stream)
            && all.note(name, api.update_stream(name, config).await.map(drop))?
        {
            tracing::info!(stream = name, tenant, "the Tenant is gone; its stream is kept");
        }
    }
    // An operator before this one let them capture on.
    for (name, stream) in streams.iter().filter(|(name, _)| subject::is_source_stream(name)) {
        let mut config = stream.config.clone();
        settings::capture_nothing(&mut config, name);
        if config != stream.config
            && installation.waits_for_tenant(stream, existing)
            && all.note(name, api.update_stream(name, config).await.map(drop))?
        {
            tracing::info!(stream = name, "the Tenant is gone; its stream is kept and captures nothing");
        }
    }
    Ok(all)
}

/// Returns the settings of a stream that is kept without its Tenant: without the Tenant's uid, and the stream
/// of a source captures nothing, so that its subject is free for another Tenant. The next Tenant of the name
/// takes it up again. `None` if the stream has no uid: in a folder a Tenant that went may only be moved.
pub(super) fn without_owner(name: &str, stream: &StreamInfo) -> Option<Map<String, Value>> {
    stream.metadata(OWNER_UID)?;
    let mut config = stream.config.clone();
    settings::set_metadata(&mut config, &[(OWNER_UID, None)]);
    if subject::is_source_stream(name) {
        settings::capture_nothing(&mut config, name);
    }
    Some(config)
}
