use std::collections::BTreeMap;

use flutecast_kube::WatchFault;
use k8s_openapi::ByteString;

use super::super::*;
use super::*;
use crate::access::Credential;
use crate::catalog::ProblemKind;
use crate::catalog::publisher::MappingSnapshot;

fn fault<C>(text: &str) -> Observed<C> {
    Observed::Fault(WatchFault { text: text.to_owned(), is_forbidden: false })
}

fn map(name: &str, version: u32, key: &str, content: &str) -> ConfigMap {
    let mut map = ConfigMap::default();
    map.metadata.name = Some(name.to_owned());
    map.metadata.uid = Some(name.to_owned());
    map.metadata.resource_version = Some(version.to_string());
    map.data = Some(BTreeMap::from([(key.to_owned(), content.to_owned())]));
    map
}

fn shard(tenant: &str, number: u32, version: u32) -> ConfigMap {
    let content = format!(
        "apiVersion: mapping.flutecast.io/v1
tenant: {tenant}
shard: {number}
shards: 1
revision: r{version}
settings: {{stream: S}}
"
    );
    map(&format!("flutecast-{tenant}-{number}"), version, "mapping.yaml", &content)
}

fn access(name: &str, content: &str) -> Secret {
    let mut secret = Secret::default();
    secret.metadata.name = Some(name.to_owned());
    secret.data = Some(BTreeMap::from([("access.yaml".to_owned(), ByteString(content.into()))]));
    secret
}

const OPEN: &str = "{apiVersion: mapping.flutecast.io/v1, tenants: {acme: {anonymous: true}}}";

fn complete(objects: &MappingObjects) -> MappingSnapshot {
    match objects.snapshot() {
        Ok(reading) => reading,
        Err(reason) => panic!("incomplete: {reason}"),
    }
}

fn opens(reading: &MappingSnapshot) -> Option<bool> {
    let access = reading.access.as_ref()?;
    Some(access.decide("acme", &Credential::None).is_ok())
}

/// Returns objects after complete lists of both kinds.
fn loaded(maps: Vec<ConfigMap>, secrets: Vec<Secret>) -> MappingObjects {
    let mut objects = MappingObjects::default();
    objects.observe_map(Observed::Change(Change::All(maps)));
    objects.observe_secret(Observed::Change(Change::All(secrets)));
    objects
}

#[test]
fn snapshot_is_incomplete_before_both_lists_are_complete() {
    let mut objects = MappingObjects::default();
    assert!(matches!(objects.snapshot(), Err(reason) if reason.contains("not read")));
    objects.observe_map(fault("no maps"));
    objects.observe_secret(fault("no secret"));
    assert!(matches!(objects.snapshot(), Err(reason) if reason == "no maps; no secret"));
    objects.observe_map(Observed::Change(Change::All(vec![shard("acme", 0, 1)])));
    assert!(matches!(objects.snapshot(), Err(reason) if reason == "no secret"));
    objects.observe_secret(Observed::Change(Change::All(vec![])));
    let reading = complete(&objects);
    assert_eq!((reading.documents.documents.len(), opens(&reading)), (1, None));
    assert_eq!(reading.problems, []);
}

#[test]
fn list_replaces_all_objects() {
    let mut objects = loaded(vec![shard("acme", 0, 1), shard("gone", 0, 1)], vec![]);
    objects.observe_map(Observed::Change(Change::Applied(shard("new", 0, 2))));
    assert_eq!(complete(&objects).documents.documents.len(), 3);
    objects.observe_map(Observed::Change(Change::All(vec![shard("acme", 0, 7)])));
    let documents = complete(&objects).documents.documents;
    assert_eq!((documents.len(), documents[0].revision.as_str()), (1, "r7"));
    objects.observe_map(Observed::Change(Change::Deleted(shard("acme", 0, 8))));
    assert!(complete(&objects).documents.documents.is_empty());
}

#[test]
fn other_objects_are_ignored() {
    let objects = loaded(
        vec![
            shard("acme", 0, 1),
            map("flutecast-acme", 1, "mapping.yaml", "x"),
            map("flutecast-acme-01", 1, "mapping.yaml", "x"),
            map("elsewhere", 1, "mapping.yaml", "x"),
        ],
        vec![access("another", OPEN)],
    );
    let reading = complete(&objects);
    assert_eq!((reading.documents.documents.len(), reading.problems.len(), opens(&reading)), (1, 0, None));
}

#[test]
fn broken_config_map_is_a_problem_of_its_tenant() {
    for broken in [
        map("flutecast-acme-0", 2, "mapping.yaml", "tenant: ["),
        map("flutecast-acme-0", 2, "mapping.yml", "a: b"),
        ConfigMap { data: None, ..map("flutecast-acme-0", 2, "", "") },
        ConfigMap { data: shard("other", 0, 1).data, ..map("flutecast-acme-0", 2, "", "") },
    ] {
        let mut objects = loaded(vec![shard("acme", 0, 1), shard("other", 0, 1)], vec![]);
        objects.observe_map(Observed::Change(Change::Applied(broken)));
        let reading = complete(&objects);
        let tenants: Vec<_> = reading.documents.unreadable.iter().map(ToString::to_string).collect();
        assert_eq!((tenants, reading.documents.documents.len()), (vec!["acme".to_owned()], 1));
        let problem = &reading.problems[0];
        assert_eq!(
            (problem.kind, problem.place.as_str()),
            (ProblemKind::Unreadable, "ConfigMap flutecast-acme-0")
        );
    }
}

#[test]
fn access_is_kept_until_replaced_or_removed() {
    let mut objects = loaded(vec![], vec![access("flutecast-access", OPEN)]);
    let first = complete(&objects).access.unwrap();
    for broken in ["tenants: [", "{apiVersion: v9}", "\u{0}"] {
        objects.observe_secret(Observed::Change(Change::Applied(access("flutecast-access", broken))));
        let reading = complete(&objects);
        assert_eq!((opens(&reading), reading.problems.len()), (Some(true), 1), "{broken}");
        assert_eq!(reading.problems[0].place, "Secret flutecast-access");
    }
    // Equal rules keep their `Arc`, so that no stream is checked again.
    objects.observe_secret(Observed::Change(Change::All(vec![access("flutecast-access", OPEN)])));
    assert!(std::sync::Arc::ptr_eq(&first, &complete(&objects).access.unwrap()));
    objects.observe_secret(Observed::Change(Change::All(vec![])));
    assert_eq!(opens(&complete(&objects)), Some(false));
}

#[test]
fn broken_watch_keeps_all_objects() {
    let mut objects = loaded(vec![shard("acme", 0, 1)], vec![access("flutecast-access", OPEN)]);
    objects.observe_map(fault("away"));
    let reading = complete(&objects);
    assert_eq!((reading.documents.documents.len(), opens(&reading)), (1, Some(true)));
    assert_eq!(reading.problems[0].place, "Kubernetes API");
    objects.observe_map(Observed::Recovered);
    assert_eq!(complete(&objects).problems, []);
}

#[test]
fn unchanged_objects_change_no_state() {
    let mut objects = loaded(vec![shard("acme", 0, 1)], vec![access("flutecast-access", OPEN)]);
    assert!(objects.observe_map(fault("away")));
    assert!(!objects.observe_map(fault("away")));
    assert!(objects.observe_map(fault("refused")));
    assert!(objects.observe_map(Observed::Recovered));
    assert!(!objects.observe_map(Observed::Recovered));
    assert!(objects.observe_secret(fault("away")));
    assert!(!objects.observe_secret(fault("away")));
    assert!(objects.observe_secret(Observed::Recovered));
    assert!(!objects.observe_secret(Observed::Recovered));
    let all = |maps| Observed::Change(Change::All(maps));
    assert!(!objects.observe_map(all(vec![shard("acme", 0, 1)])));
    assert!(objects.observe_map(all(vec![shard("acme", 0, 2)])));
    assert!(objects.observe_map(all(vec![])));
    assert!(!objects.observe_map(all(vec![])));
    assert!(!objects.observe_map(Observed::Change(Change::Deleted(shard("acme", 0, 2)))));
    assert!(!objects.observe_map(Observed::Change(Change::Applied(map("flutecast-x", 1, "a", "b")))));
    assert!(objects.observe_map(Observed::Change(Change::Applied(shard("acme", 0, 3)))));
}
