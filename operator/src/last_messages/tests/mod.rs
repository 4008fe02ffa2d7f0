mod keep;
mod memory;
pub(super) mod real_nats;

use flutecast_contract::name::TenantName;

use super::TenantChannels;
use crate::tests::Folder;

/// Returns the channels of the one tenant of a folder.
pub(super) fn channels(folder: &Folder) -> TenantChannels {
    let built = folder.built();
    let tenant = &built.tenants[&TenantName::new("demo").unwrap()];
    TenantChannels {
        namespace: "default".to_owned(),
        max_age: tenant.streams.stream.max_age.unwrap(),
        shards: tenant.shards.clone(),
        left_out: tenant.left_out.clone(),
    }
}
