//! The documents of the mapping.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use flutecast_contract::document::{AccessDocument, ShardDocument};
use flutecast_contract::name::TenantName;

use crate::controller::build::Built;

/// All documents. They are shared, so a clone costs next to nothing, however many devices there are.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct MappingDocuments {
    /// The shards of each tenant, by their number.
    pub(crate) shards: BTreeMap<TenantName, Vec<Arc<ShardDocument>>>,
    pub(crate) access: AccessDocument,
}

impl MappingDocuments {
    /// Returns the documents that were built, without the tenants whose stream belongs to somebody else:
    /// under their names, messages of others would be read.
    pub(crate) fn of(built: &Built, foreign: &BTreeSet<TenantName>) -> Self {
        let tenants = built.tenants.iter().filter(|(name, _)| !foreign.contains(*name));
        let mut access = built.access.clone();
        access.tenants.retain(|name, _| !foreign.contains(name));
        Self { shards: tenants.map(|(name, tenant)| (name.clone(), tenant.shards.clone())).collect(), access }
    }

    pub(crate) fn all_shards(&self) -> impl Iterator<Item = &Arc<ShardDocument>> {
        self.shards.values().flatten()
    }
}
