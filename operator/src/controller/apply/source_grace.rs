//! The grace of payload sources: one that is switched off stays in the mapping for a moment, so that the data
//! plane can split what its stream still holds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use flutecast_contract::document::ShardDocument;
use flutecast_contract::name::{SourceName, TenantName};
use tokio::time::Instant;

use super::documents::MappingDocuments;

/// The data plane is behind by milliseconds, unless it is away, and then it is not waited for.
const GRACE: Duration = Duration::from_secs(1);

/// The documents that were written last, and the tenants whose documents are held back.
#[derive(Debug, Default)]
pub(crate) struct SourceGrace {
    written: BTreeMap<TenantName, Vec<Arc<ShardDocument>>>,
    until: BTreeMap<TenantName, Instant>,
}

impl SourceGrace {
    /// Returns the documents to write now: those that are `wanted`, but a tenant that lost a payload source
    /// keeps its former ones until its grace is over.
    pub(crate) fn hold_back(&mut self, mut wanted: MappingDocuments, now: Instant) -> MappingDocuments {
        self.until.retain(|tenant, _| wanted.shards.contains_key(tenant));
        for (tenant, shards) in &mut wanted.shards {
            let Some(written) = self.written.get(tenant) else { continue };
            if sources(written).is_subset(&sources(shards)) {
                self.until.remove(tenant);
                continue;
            }
            if now < *self.until.entry(tenant.clone()).or_insert(now + GRACE) {
                shards.clone_from(written);
            } else {
                self.until.remove(tenant);
            }
        }
        self.written.clone_from(&wanted.shards);
        wanted
    }

    /// Returns when the grace of the next tenant is over.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.until.values().min().copied()
    }
}

fn sources(shards: &[Arc<ShardDocument>]) -> BTreeSet<SourceName> {
    shards
        .iter()
        .filter_map(|shard| shard.settings.as_ref())
        .flat_map(|settings| &settings.sources)
        .map(|source| source.name.clone())
        .collect()
}
