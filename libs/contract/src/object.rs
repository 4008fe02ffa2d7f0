//! The Kubernetes objects that hold the mapping: their names, keys and labels.
//!
//! Each shard of a tenant is a ConfigMap `flutecast-<tenant>-<shard>` with the document under
//! [`MAPPING_KEY`]. The access document is the Secret [`ACCESS_SECRET`] with the document under
//! [`ACCESS_KEY`]. In folder mode the files have the same names with `.yaml` behind them: see
//! [`shard`](crate::shard).

use crate::name::TenantName;

/// The label of every object that the operator writes for the data plane: its key and its value.
pub const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "flutecast");
/// The selector that finds the objects with the label [`MANAGED_BY`].
pub const MANAGED_BY_SELECTOR: &str = "app.kubernetes.io/managed-by=flutecast";
/// The annotation of what the operator writes and changes again, for Argo CD: it belongs to no Application,
/// and its changes are no reason to look at one. `manifests/argocd/argocd-cm.yaml` says which fields don't
/// count.
pub const IGNORE_UPDATES: (&str, &str) = ("argocd.argoproj.io/ignore-resource-updates", "true");
/// The key of a mapping document in its ConfigMap.
pub const MAPPING_KEY: &str = "mapping.yaml";
/// The name of the Secret that holds the access document.
pub const ACCESS_SECRET: &str = "flutecast-access";
/// The key of the access document in its Secret.
pub const ACCESS_KEY: &str = "access.yaml";
/// The label of an EndpointSlice that names its Service.
pub const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// Returns the name of the ConfigMap that holds a shard: `flutecast-acme-0`.
#[must_use]
pub fn shard_name(tenant: &TenantName, shard: u32) -> String {
    format!("flutecast-{tenant}-{shard}")
}

/// Returns the tenant and the shard that the name of a ConfigMap stands for, or `None` if it is no shard's
/// name.
#[must_use]
pub fn parse_shard_name(name: &str) -> Option<(TenantName, u32)> {
    let (tenant, shard) = name.strip_prefix("flutecast-")?.rsplit_once('-')?;
    let parsed = (TenantName::new(tenant).ok()?, shard.parse().ok()?);
    // A shard has one name: neither `+1` nor `01`.
    (shard_name(&parsed.0, parsed.1) == name).then_some(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_has_one_name() {
        let tenant = TenantName::new("plant-2").unwrap();
        assert_eq!(shard_name(&tenant, 3), "flutecast-plant-2-3");
        assert_eq!(parse_shard_name("flutecast-plant-2-3"), Some((tenant, 3)));
        for other in
            ["flutecast-acme", "flutecast-acme-01", "flutecast-acme-+1", "flutecast--0", ACCESS_SECRET]
        {
            assert_eq!(parse_shard_name(other), None, "{other}");
        }
    }

    #[test]
    fn the_selector_is_the_label() {
        assert_eq!(MANAGED_BY_SELECTOR, format!("{}={}", MANAGED_BY.0, MANAGED_BY.1));
    }
}
