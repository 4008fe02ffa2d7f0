//! The names of the files that hold the documents.

use crate::name::TenantName;
use crate::object;

/// The name of the file that holds the access document.
pub const ACCESS_FILE: &str = "flutecast-access.yaml";

const SUFFIX: &str = ".yaml";

/// Returns the name of the file that holds a shard: `flutecast-acme-0.yaml`.
#[must_use]
pub fn file_name(tenant: &TenantName, shard: u32) -> String {
    object::shard_name(tenant, shard) + SUFFIX
}

/// Returns the tenant and the shard that a file holds, or `None` if its name is no shard's name.
#[must_use]
pub fn parse_file_name(name: &str) -> Option<(TenantName, u32)> {
    object::parse_shard_name(name.strip_suffix(SUFFIX)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_called_like_the_objects() {
        assert_eq!(ACCESS_FILE, format!("{}{SUFFIX}", object::ACCESS_SECRET));
    }
}
