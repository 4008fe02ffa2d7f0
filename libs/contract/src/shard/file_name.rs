//! The names of the files that hold mapping documents.

use crate::name::TenantName;

/// The name of the file that holds the access document.
pub const ACCESS_FILE: &str = "flutecast-access.yaml";

const PREFIX: &str = "flutecast-";
const SUFFIX: &str = ".yaml";

/// The name of the file that holds a shard: `flutecast-acme-0.yaml`.
#[must_use]
pub fn file_name(tenant: &TenantName, shard: u32) -> String {
    format!("{PREFIX}{tenant}-{shard}{SUFFIX}")
}

/// The tenant and the shard that a file holds, by its name; none if it isn't the name of a shard's file.
#[must_use]
pub fn parse_file_name(name: &str) -> Option<(TenantName, u32)> {
    let (tenant, shard) = name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.rsplit_once('-')?;
    let parsed = (TenantName::new(tenant).ok()?, shard.parse().ok()?);
    // One shard has one name: not `+1`, not `01`.
    (file_name(&parsed.0, parsed.1) == name).then_some(parsed)
}
