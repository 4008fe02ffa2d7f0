//! Who may read what, over all tenants.

use std::collections::BTreeMap;

use flutecast_mapping::document::{API_VERSION, AccessDocument, TenantAccess, TokenAccess};
use flutecast_mapping::name::TenantName;

use super::Secrets;
use crate::validate::secret;
use crate::validate::tenant::{ValidAccess, ValidTenant};
use crate::verdict::{Finding, Kind, ObjectRef, Reason, Verdicts};

/// Where a Tenant names its Secret.
const SECRET_FIELD: &str = "spec.access.tokens.secretName";

/// The document. Whatever is missing or wrong opens nothing.
pub(super) fn document(
    tenants: &BTreeMap<TenantName, ValidTenant>,
    secrets: &Secrets<'_>,
    verdicts: &mut Verdicts,
) -> AccessDocument {
    let tenants = tenants
        .iter()
        .filter_map(|(name, tenant)| {
            Some((name.clone(), tenant_access(tenant, tenant.access.as_ref()?, secrets, verdicts)))
        })
        .collect();
    AccessDocument { api_version: API_VERSION.to_owned(), tenants }
}

fn tenant_access(
    tenant: &ValidTenant,
    access: &ValidAccess,
    secrets: &Secrets<'_>,
    verdicts: &mut Verdicts,
) -> TenantAccess {
    let ValidAccess { anonymous, secret, restricted: _, allowed_origins } = access;
    let tokens = match secret {
        Some(name) => tokens(tenant, access, name, secrets, verdicts),
        None => BTreeMap::new(),
    };
    TenantAccess { anonymous: *anonymous, allowed_origins: allowed_origins.clone(), tokens }
}

fn tokens(
    tenant: &ValidTenant,
    access: &ValidAccess,
    name: &str,
    secrets: &Secrets<'_>,
    verdicts: &mut Verdicts,
) -> BTreeMap<String, TokenAccess> {
    let object = tenant.meta.object_ref(Kind::Tenant);
    let namespace = &tenant.meta.namespace;
    let Some(secret) = secrets.get(&(namespace.clone(), name.to_owned())) else {
        let message = format!(
            "there is no Secret {name:?} in namespace {namespace}; nobody can read with a token until then"
        );
        verdicts.degrade(&object, Finding::new(Reason::SecretMissing, SECRET_FIELD, message));
        return BTreeMap::new();
    };
    let secret_ref = ObjectRef::new(Kind::Secret, namespace, name);
    let Some(valid) = super::noted(verdicts, Kind::Secret, secret, secret::validate(secret)) else {
        let message = format!("{secret_ref} can't be used; see its verdict");
        verdicts.degrade(&object, Finding::new(Reason::SecretInvalid, SECRET_FIELD, message));
        return BTreeMap::new();
    };
    for (index, (token, _)) in access.restricted.iter().enumerate() {
        if !secret.spec.0.contains_key(token) {
            let field = format!("spec.access.tokens.restricted[{index}].name");
            let message = format!("{secret_ref} has no key {token:?}; add it, or remove the restriction");
            verdicts.degrade(&object, Finding::new(Reason::SecretInvalid, field, message));
        }
    }
    let devices = |token: &str| {
        access.restricted.iter().find(|(name, _)| name == token).map(|(_, devices)| devices.clone())
    };
    valid
        .digests
        .into_iter()
        .map(|(token, sha256)| {
            let devices = devices(&token);
            (token, TokenAccess { sha256, devices })
        })
        .collect()
}
