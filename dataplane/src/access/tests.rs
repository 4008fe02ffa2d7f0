use flutecast_contract::document::TokenAccess;
use flutecast_contract::name::DeviceCode;
use proptest::prelude::*;

use super::*;

fn digest(token: &str) -> String {
    data_encoding::HEXLOWER.encode(&Sha256::digest(token.as_bytes()))
}

fn access(yaml: &str) -> Access {
    let document = serde_yaml::from_str(yaml).unwrap();
    let (access, problems) = Access::from_document(document).unwrap();
    assert_eq!(problems, []);
    access
}

fn code(text: &str) -> DeviceCode {
    DeviceCode::new(text).unwrap()
}

fn example() -> Access {
    access(&format!(
        "apiVersion: {API_VERSION}
tenants:
  open: {{anonymous: true}}
  shut: {{}}
  acme:
    tokens:
      all: {{sha256: {}}}
      some: {{sha256: {}, devices: [CORR-01]}}
      none: {{sha256: {}, devices: []}}
",
        digest("all"),
        digest("some"),
        digest("none"),
    ))
}

#[test]
fn default_access_grants_nothing() {
    let nobody = Access::default();
    for credential in [Credential::None, Credential::token(b"all")] {
        assert_eq!(nobody.decide("acme", &credential), Err(Denied));
        assert_eq!(example().decide("shut", &credential), Err(Denied));
        assert_eq!(example().decide("missing", &credential), Err(Denied));
    }
    assert_eq!(example().decide("acme", &Credential::None), Err(Denied));
}

#[test]
fn token_grants_its_devices() {
    let scope =
        |token: &str| example().decide("acme", &Credential::token(token.as_bytes())).map(|grant| grant.scope);
    assert_eq!(scope("all"), Ok(Scope::All));
    let some = scope("some").unwrap();
    assert!(some.allows(&code("CORR-01")) && !some.allows(&code("CORR-02")));
    // An empty list grants no device; above all not every device.
    assert!(!scope("none").unwrap().allows(&code("CORR-01")));
    assert_eq!(scope("wrong"), Err(Denied));
    assert_eq!(scope(""), Err(Denied));
    assert_eq!(scope(&digest("all")), Err(Denied), "the digest itself is no token");
}

#[test]
fn anonymous_tenant_is_readable_without_token() {
    for credential in [Credential::None, Credential::token(b"whatever")] {
        let grant = example().decide("open", &credential).unwrap();
        assert_eq!((grant.tenant.as_str(), grant.scope), ("open", Scope::All));
    }
}

#[test]
fn token_with_an_invalid_digest_grants_nothing() {
    for bad in ["", "ab", &"g".repeat(64), &digest("x").to_uppercase()] {
        let yaml = format!(
            "apiVersion: {API_VERSION}
tenants: {{acme: {{tokens: {{bad: {{sha256: \"{bad}\"}}, good: {{sha256: {}}}}}}}}}",
            digest("good")
        );
        let (access, problems) = Access::from_document(serde_yaml::from_str(&yaml).unwrap()).unwrap();
        assert_eq!(problems.len(), 1, "{bad}");
        assert!(problems[0].to_string().starts_with("tenant acme, token bad: "), "{}", problems[0]);
        assert!(access.decide("acme", &Credential::token(b"good")).is_ok());
        assert_eq!(access.decide("acme", &Credential::token(b"x")), Err(Denied));
    }
}

#[test]
fn unknown_version_is_refused() {
    let document =
        serde_yaml::from_str("apiVersion: mapping.flutecast.io/v9\ntenants: {open: {anonymous: true}}")
            .unwrap();
    assert!(Access::from_document(document).unwrap_err().message.contains(API_VERSION));
}

#[test]
fn neither_tokens_nor_digests_are_printed() {
    let printed = format!("{:?} {:?}", example(), Credential::token(b"all"));
    assert!(!printed.contains(&digest("all")) && printed.contains("Token(…)"), "{printed}");
    // Nor as a list of numbers.
    assert!(!printed.contains(&format!("{}, ", Sha256::digest(b"all")[0])), "{printed}");
}

proptest! {
    /// A token grants exactly the tenants that list it.
    #[test]
    fn token_grants_no_other_tenant(
        tenants in prop::collection::btree_map(
            "[a-z]{1,3}", prop::collection::btree_set("[a-c]{1,2}", 0..4), 1..5
        ),
        token in "[a-c]{1,2}",
        wanted in "[a-z]{1,3}",
    ) {
        let documents = tenants.iter().map(|(name, tokens)| {
            let tokens = tokens.iter().map(|token| {
                (format!("name-{token}"), TokenAccess { sha256: digest(token), devices: None })
            });
            let access = TenantAccess { tokens: tokens.collect(), ..TenantAccess::default() };
            (TenantName::new(name).unwrap(), access)
        });
        let document = AccessDocument { api_version: API_VERSION.to_owned(), tenants: documents.collect() };
        let (access, _) = Access::from_document(document).unwrap();
        let credential = Credential::token(token.as_bytes());
        for tenant in tenants.keys().chain([&wanted]) {
            let listed = tenants.get(tenant).is_some_and(|tokens| tokens.contains(&token));
            prop_assert_eq!(access.decide(tenant, &credential).is_ok(), listed);
            prop_assert!(access.decide(tenant, &Credential::None).is_err());
        }
    }
}
