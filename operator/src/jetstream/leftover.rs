//! Streams whose Tenant went while nobody looked.
//!
//! On an API server one knows for certain which Tenants exist. A stream says in its metadata which Tenant it belongs to, which
//! installation looks after it, and what becomes of it when the Tenant goes. So an operator that was away finds what is left over.

use std::collections::BTreeSet;

use super::api::{Api, ApiError, StreamInfo};
use super::config::{self, ON_DELETE, OWNER_NAMESPACE, OWNER_UID, REALM};
use super::tenant::Streams;
use crate::build::streams::OnDelete;

/// The part of the world that one installation looks after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Realm {
    /// What tells it from all others that share the broker.
    pub id: String,
    /// The namespaces that it looks after; none in the list: all.
    pub places: Vec<Option<String>>,
    /// The uids of all Tenants that exist there.
    pub alive: BTreeSet<String>,
}

impl Realm {
    /// Whether a stream is of this realm and its Tenant is not.
    fn is_left_over(&self, stream: &StreamInfo) -> bool {
        let (Some(namespace), Some(uid)) = (stream.metadata(OWNER_NAMESPACE), stream.metadata(OWNER_UID))
        else {
            return false;
        };
        let is_ours = stream.metadata(REALM) == Some(&self.id);
        let is_here = self.places.iter().any(|place| place.as_ref().is_none_or(|place| place == namespace));
        is_ours && is_here && !self.alive.contains(uid)
    }
}

/// Deletes all streams of a realm, whatever becomes of them when their Tenants go. Answers how many.
///
/// # Errors
/// [`ApiError`]
pub async fn delete_all(api: &Api, realm: &Realm) -> Result<usize, ApiError> {
    let streams = api.streams().await?;
    let ours = streams.iter().filter(|stream| realm.is_left_over(stream));
    // A tenant's stream before those of its sources.
    let names: BTreeSet<&str> = ours.filter_map(|stream| stream.config.get("name")?.as_str()).collect();
    for name in &names {
        api.delete_stream(name).await?;
        tracing::info!(stream = name, "deleted");
    }
    Ok(names.len())
}

/// Lets go of what is left over: deletes it, or keeps it for whoever comes next under the same name, as its Tenant wanted.
/// Answers how many calls changed something.
///
/// # Errors
/// [`ApiError`]
pub async fn remove(api: &Api, streams: &Streams, realm: Option<&Realm>) -> Result<u32, ApiError> {
    let Some(realm) = realm else { return Ok(0) };
    let mut changes = 0;
    // By name, so that a tenant's stream goes before those of its sources and doesn't complain about them.
    for (name, stream) in streams.iter().filter(|(_, stream)| realm.is_left_over(stream)) {
        let tenant = stream.metadata(config::OWNER_NAME).unwrap_or_default();
        if stream.metadata(ON_DELETE) == Some(OnDelete::Delete.as_str()) {
            api.delete_stream(name).await?;
            tracing::info!(stream = name, tenant, "the Tenant is gone, and its stream with it");
        } else {
            let mut config = stream.config.clone();
            config::set_metadata(&mut config, &[(OWNER_UID, None)]);
            api.update_stream(name, config).await?;
            tracing::info!(stream = name, tenant, "the Tenant is gone; its stream is kept");
        }
        changes += 1;
    }
    Ok(changes)
}
