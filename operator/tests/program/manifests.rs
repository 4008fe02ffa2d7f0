//! Manifests for tests.

/// Returns a Tenant. `spec` is one line of its spec.
pub(crate) fn tenant(name: &str, spec: &str) -> String {
    let spec = if spec.is_empty() { "displayName: Test" } else { spec };
    format!("apiVersion: flutecast.io/v1alpha1\nkind: Tenant\nmetadata: {{name: {name}}}\nspec:\n  {spec}\n")
}

/// Returns a PushFormat with one Bool.
pub(crate) fn format(name: &str) -> String {
    format!(
        "apiVersion: flutecast.io/v1alpha1\nkind: PushFormat\nmetadata: {{name: {name}}}\nspec:\n  delivery: \
         {{policy: Every}}\n  fields:\n  - {{name: running, pointer: /on, type: Bool}}\n"
    )
}

/// Returns a Device with one channel, `power`.
pub(crate) fn device(name: &str, tenant: &str, code: &str, format: &str) -> String {
    format!(
        "apiVersion: flutecast.io/v1alpha1\nkind: Device\nmetadata: {{name: {name}}}\nspec:\n  tenant: \
         {tenant}\n  deviceCode: {code}\n  channels:\n  - {{name: power, format: {format}}}\n"
    )
}
