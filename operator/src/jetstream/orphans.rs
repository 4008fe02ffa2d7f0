//! Streams whose Tenant went while nobody looked.
//!
//! On an API server one knows for certain which Tenants exist. A stream says in its metadata which Tenant it
//! belongs to, which installation looks after it, and what becomes of it when the Tenant goes. So an operator
//! that was away finds what is left over.

use std::collections::BTreeSet;

use super::settings::{self, INSTALLATION, ON_DELETE, OWNER_NAMESPACE, OWNER_UID};
use super::tenant::Streams;
use crate::jetstream::streams::OnDelete;
use flutecast_nats::api::StreamInfo;
use flutecast_nats::{JetStreamApi, RequestError};

/// The part of the world that one installation looks after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Installation {
    /// What tells it from all others that share the broker.
    pub(crate) id: String,
    /// The namespaces that it looks after; none in the list: all.
    pub(crate) places: Vec<Option<String>>,
    /// The uids of all Tenants that exist there.
    pub(crate) alive: BTreeSet<String>,
}

impl Installation {
    /// Whether a stream is of this installation and its Tenant is not.
    fn is_left_over(&self, stream: &StreamInfo) -> bool {
        let (Some(namespace), Some(uid)) = (stream.metadata(OWNER_NAMESPACE), stream.metadata(OWNER_UID))
        else {
            return false;
        };
        let is_ours = stream.metadata(INSTALLATION) == Some(&self.id);
        let is_here = self.places.iter().any(|place| place.as_ref().is_none_or(|place| place == namespace));
        is_ours && is_here && !self.alive.contains(uid)
    }
}

/// Deletes all streams of a installation, whatever becomes of them when their Tenants go. Answers how many.
///
/// # Errors
/// [`RequestError`]
pub(crate) async fn delete_all(
    api: &JetStreamApi,
    installation: &Installation,
) -> Result<usize, RequestError> {
    let streams = api.streams().await?;
    let ours = streams.iter().filter(|stream| installation.is_left_over(stream));
    // A tenant's stream before those of its sources.
    let names: BTreeSet<&str> = ours.filter_map(|stream| stream.config.get("name")?.as_str()).collect();
    for name in &names {
        api.delete_stream(name).await?;
        tracing::info!(stream = name, "deleted");
    }
    Ok(names.len())
}

/// What became of a look at what is left over, or of letting go of a Tenant's streams.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Released {
    /// How many calls changed something.
    pub(crate) changes: u32,
    /// The streams that NATS doesn't let go, and its words. They are tried again with the next look, and hold
    /// up nothing else.
    pub(crate) refused: Vec<(String, String)>,
}

impl Released {
    /// Notes what became of one stream. Answers whether it was let go.
    ///
    /// # Errors
    /// [`RequestError::Unavailable`]
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

/// Lets go of what is left over: deletes it, or keeps it for whoever comes next under the same name, as its
/// Tenant wanted.
///
/// # Errors
/// [`RequestError::Unavailable`]
pub(crate) async fn remove(
    api: &JetStreamApi,
    streams: &Streams,
    installation: Option<&Installation>,
) -> Result<Released, RequestError> {
    let mut all = Released::default();
    let Some(installation) = installation else { return Ok(all) };
    // By name, so that a tenant's stream goes before those of its sources and doesn't complain about them.
    for (name, stream) in streams.iter().filter(|(_, stream)| installation.is_left_over(stream)) {
        let tenant = stream.metadata(settings::OWNER_NAME).unwrap_or_default();
        if stream.metadata(ON_DELETE) == Some(OnDelete::Delete.as_str()) {
            if all.note(name, api.delete_stream(name).await)? {
                tracing::info!(stream = name, tenant, "the Tenant is gone, and its stream with it");
            }
        } else if all.note(name, without_owner(api, name, stream).await)? {
            tracing::info!(stream = name, tenant, "the Tenant is gone; its stream is kept");
        }
    }
    Ok(all)
}

/// Takes the uid of its Tenant off a stream.
pub(super) async fn without_owner(
    api: &JetStreamApi,
    name: &str,
    stream: &StreamInfo,
) -> Result<(), RequestError> {
    let mut config = stream.config.clone();
    settings::set_metadata(&mut config, &[(OWNER_UID, None)]);
    api.update_stream(name, config).await.map(drop)
}
