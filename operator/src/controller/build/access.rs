//! The access document: who may read which devices, of all tenants.

use std::collections::BTreeMap;

use flutecast_contract::document::{API_VERSION, AccessDocument, TenantAccess, TokenAccess};
use flutecast_contract::name::TenantName;

use super::Secrets;
use crate::controller::validate::tenant::{ValidAccess, ValidTenant};
use crate::controller::validate::{record_outcome, secret};
use crate::finding::{Finding, Outcomes, Reason};
use crate::object::{Kind, ObjectRef};

const SECRET_FIELD: &str = "spec.access.tokens.secretName";

/// The most bytes of the document that one tenant may take, some 2,500 tokens, so that it leaves room for
/// others.
const MOST_OF_TENANT: usize = 256 << 10;
/// The most bytes of the document, approximately; a Secret holds 1 MiB.
const MOST: usize = 1_000_000;

/// Returns the document. What is missing or wrong gives no access, and neither does what exceeds a tenant's
/// share. The oldest Tenants come first, so that no Tenant can delay another one's access or its withdrawal.
pub(super) fn document(
    tenants: &BTreeMap<TenantName, ValidTenant>,
    secrets: &Secrets<'_>,
    outcomes: &mut Outcomes,
) -> AccessDocument {
    let mut oldest_first: Vec<&ValidTenant> = tenants.values().collect();
    oldest_first.sort_by(|one, other| one.meta.age().cmp(&other.meta.age()));
    let mut document = AccessDocument { api_version: API_VERSION.to_owned(), tenants: BTreeMap::new() };
    let mut size = 0;
    for tenant in oldest_first {
        let Some(access) = &tenant.access else { continue };
        let mut access = tenant_access(tenant, access, secrets, outcomes);
        let own = size_of(&tenant.name, &access);
        let mut too_much = |message: String| {
            let object = tenant.meta.object_ref(Kind::Tenant);
            outcomes.degrade(&object, Finding::new(Reason::SecretInvalid, "spec.access", message));
        };
        if own > MOST_OF_TENANT {
            too_much(format!(
                "its tokens, with what restricts them, take about {own} bytes, and a tenant may take \
                 {MOST_OF_TENANT}; until there are fewer, no token opens anything"
            ));
            access.tokens.clear();
        }
        let own = size_of(&tenant.name, &access);
        if size + own > MOST {
            too_much(format!(
                "what opens the doors of all tenants of this installation may take {MOST} bytes, and older \
                 Tenants leave {} of them, where this one takes about {own}; until there are fewer tokens \
                 and restrictions, nobody can read it",
                MOST - size
            ));
            continue;
        }
        size += own;
        document.tenants.insert(tenant.name.clone(), access);
    }
    document
}

/// Returns an upper bound of the bytes of the document that a tenant takes.
fn size_of(name: &TenantName, access: &TenantAccess) -> usize {
    // Indents, quotes, a colon or a dash around each text.
    const AROUND: usize = 20;
    let TenantAccess { anonymous: _, allowed_origins, tokens } = access;
    let texts =
        |lengths: &mut dyn Iterator<Item = usize>| lengths.map(|length| length + AROUND).sum::<usize>();
    let tokens = tokens.iter().map(|(name, TokenAccess { sha256, devices })| {
        let devices = devices.as_deref().unwrap_or_default();
        let own = texts(&mut [name.len(), sha256.len() + "sha256".len(), "devices".len()].into_iter());
        own + texts(&mut devices.iter().map(|code| code.as_str().len()))
    });
    let own = texts(
        &mut [name.as_str().len(), "anonymous: false".len(), "allowedOrigins".len(), "tokens".len()]
            .into_iter(),
    );
    own + texts(&mut allowed_origins.iter().map(String::len)) + tokens.sum::<usize>()
}

fn tenant_access(
    tenant: &ValidTenant,
    access: &ValidAccess,
    secrets: &Secrets<'_>,
    outcomes: &mut Outcomes,
) -> TenantAccess {
    let ValidAccess { anonymous, secret, restricted: _, allowed_origins } = access;
    let tokens = match secret {
        Some(name) => tokens(tenant, access, name, secrets, outcomes),
        None => BTreeMap::new(),
    };
    TenantAccess { anonymous: *anonymous, allowed_origins: allowed_origins.clone(), tokens }
}

fn tokens(
    tenant: &ValidTenant,
    access: &ValidAccess,
    name: &str,
    secrets: &Secrets<'_>,
    outcomes: &mut Outcomes,
) -> BTreeMap<String, TokenAccess> {
    let object = tenant.meta.object_ref(Kind::Tenant);
    let namespace = &tenant.meta.namespace;
    let Some(secret) = secrets.get(&(namespace.clone(), name.to_owned())) else {
        let message = format!(
            "there is no Secret {name:?} in namespace {namespace}; nobody can read with a token until then"
        );
        outcomes.degrade(&object, Finding::new(Reason::SecretMissing, SECRET_FIELD, message));
        return BTreeMap::new();
    };
    let secret_ref = ObjectRef::new(Kind::Secret, namespace, name);
    let Some(valid) = record_outcome(outcomes, Kind::Secret, secret, secret::validate(secret)) else {
        let message = format!("{secret_ref} can't be used; see its verdict");
        outcomes.degrade(&object, Finding::new(Reason::SecretInvalid, SECRET_FIELD, message));
        return BTreeMap::new();
    };
    for (index, (token, _)) in access.restricted.iter().enumerate() {
        if !secret.spec.0.contains_key(token) {
            let field = format!("spec.access.tokens.restricted[{index}].name");
            let message = format!("{secret_ref} has no key {token:?}; add it, or remove the restriction");
            outcomes.degrade(&object, Finding::new(Reason::SecretInvalid, field, message));
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

#[cfg(test)]
mod tests {
    use flutecast_contract::name::DeviceCode;

    use super::*;

    #[test]
    fn the_estimated_size_is_an_upper_bound() {
        let access = |tokens: usize, devices: Option<usize>| TenantAccess {
            anonymous: true,
            allowed_origins: (0..tokens).map(|n| format!("https://screens-{n}.example")).collect(),
            tokens: (0..tokens)
                .map(|n| {
                    let code = |n| DeviceCode::new(&format!("1:{n}/x")).unwrap();
                    let devices = devices.map(|count| (0..count).map(code).collect());
                    (format!("{n}"), TokenAccess { sha256: "0".repeat(64), devices })
                })
                .collect(),
        };
        for access in
            [access(0, None), access(1, None), access(100, None), access(3, Some(0)), access(40, Some(50))]
        {
            let name = TenantName::new("123").unwrap();
            let mut document =
                AccessDocument { api_version: API_VERSION.to_owned(), tenants: BTreeMap::new() };
            let empty = document.to_yaml().unwrap().len();
            let size = size_of(&name, &access);
            document.tenants.insert(name, access);
            let real = document.to_yaml().unwrap().len() - empty;
            assert!(real <= size && size < real * 2 + 200, "{size} for {real}");
        }
    }
}
