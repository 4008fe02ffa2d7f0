//! What the mapping is to hold.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use flutecast_contract::document::{AccessDocument, ShardDocument};
use flutecast_contract::name::TenantName;

use crate::controller::build::Built;

/// The documents, shared with whoever else holds them: a copy of this costs next to nothing, however many
/// devices there are.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Documents {
    /// The shards of each tenant, by their number.
    pub shards: BTreeMap<TenantName, Vec<Arc<ShardDocument>>>,
    /// Who may read what.
    pub access: AccessDocument,
}

impl Documents {
    /// The documents that were built, without the tenants whose stream belongs to somebody else: in their
    /// name, messages of others would be read.
    #[must_use]
    pub fn of(built: &Built, foreign: &BTreeSet<TenantName>) -> Self {
        let tenants = built.tenants.iter().filter(|(name, _)| !foreign.contains(*name));
        let mut access = built.access.clone();
        access.tenants.retain(|name, _| !foreign.contains(name));
        Self { shards: tenants.map(|(name, tenant)| (name.clone(), tenant.shards.clone())).collect(), access }
    }

    /// The shards of all tenants.
    pub fn all_shards(&self) -> impl Iterator<Item = &Arc<ShardDocument>> {
        self.shards.values().flatten()
    }
}
