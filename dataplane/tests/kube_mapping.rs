//! The mapping from a real Kubernetes API: what is there is served, what changes is followed, what is broken
//! changes nothing.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test says what is wrong by failing"
)]

mod http_support;
mod kube_support;

use std::time::Duration;

use http_support::{DEADLINE, reason, shard};
use kube_support::{Cluster, config_map};
use serde_json::json;

/// What the target gives a change on its way from the API to the clients.
const SECOND: Duration = Duration::from_secs(1);

const ACCESS: &str =
    "{apiVersion: mapping.flutecast.io/v1, tenants: {open: {anonymous: true}, acme: {anonymous: true}}}";
const UNREADABLE: &str = "flutecast_catalog_problems{kind=\"Unreadable\"}";

/// The shard of http_support, with another revision and a device more.
fn with_slitter(revision: &str) -> String {
    shard("open", "").replace("revision: r1", &format!("revision: {revision}"))
        + "  slit1open: {code: SLIT-01, name: slitter-1, channels: {telemetry: {format: telemetry}}}\n"
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mapping_is_read_from_the_api_and_followed() {
    let cluster = Cluster::with_rights().await;
    let mut announcements = cluster.announcements().await;
    cluster.apply_shard("open", &shard("open", "")).await;
    // An object of somebody else, without our label, and one of ours that is no shard.
    let mut foreign = config_map("flutecast-foreign-0", &shard("foreign", ""));
    foreign["metadata"]["labels"] = json!({});
    cluster.apply(&foreign).await;
    cluster.apply(&config_map("flutecast-settings", "x: y")).await;

    // Without the Secret nobody may read, and the pod says what it waits for.
    let pod = cluster.dataplane(&["--server-name", "pod-1", "--ping", "500ms"]);
    pod.wait_for_readiness(false, "no Secret flutecast-access in the namespace flutecast").await;
    cluster.apply_access(ACCESS).await;
    pod.wait_for_readiness(true, "\"revisions\":{\"open\":[\"r1\"]}").await;
    let (subject, content) =
        announcements.wait_for(DEADLINE, &json!({"open": {"shards": {"0": "r1"}}})).await;
    assert_eq!(subject, "flutecast.serving.flutecast.pod-1");
    assert_eq!(content["server"], "pod-1");

    // What is subscribed to is pushed.
    let mut client = pod.connect("/v1/open/events?device=CORR-01").await;
    client.next_named("hello", DEADLINE).await.unwrap();
    cluster.publish("open", "corr1", 17).await;
    let data = client.next_named("message", DEADLINE).await.unwrap().json().unwrap();
    assert_eq!(data["values"]["v"], 17.0);

    // A change is there within a second, and so is its announcement.
    cluster.apply_shard("open", &with_slitter("r2")).await;
    pod.wait_for_codes(&["CORR-01", "FLEX-01", "SLIT-01"], SECOND).await;
    announcements.wait_for(SECOND, &json!({"open": {"shards": {"0": "r2"}}})).await;

    // A broken document changes nothing but the count of problems; the other tenant is taken up meanwhile.
    cluster.apply_shard("open", "tenant: [").await;
    pod.wait_for_metric(UNREADABLE, 1).await;
    cluster.apply_shard("acme", &shard("acme", "")).await;
    let both = json!({"open": {"shards": {"0": "r2"}}, "acme": {"shards": {"0": "r1"}}});
    announcements.wait_for(SECOND, &both).await;
    pod.wait_for_codes(&["CORR-01", "FLEX-01", "SLIT-01"], SECOND).await;
    // So does a broken access document.
    cluster.apply_access("tenants: [").await;
    pod.wait_for_metric(UNREADABLE, 2).await;
    cluster.apply_access(ACCESS).await;
    cluster.apply_shard("open", &with_slitter("r3")).await;
    pod.wait_for_metric(UNREADABLE, 0).await;
    cluster.publish("open", "corr1", 18).await;
    let data = client.next_named("message", DEADLINE).await.unwrap().json().unwrap();
    assert_eq!(data["values"]["v"], 18.0);

    // A tenant whose ConfigMap is gone is gone.
    cluster.kubectl(&["delete", "configmap", "flutecast-open-0"], "").await;
    let bye = client.next_named("bye", DEADLINE).await.unwrap();
    assert_eq!(reason(&bye), "TenantRemoved");
    announcements.wait_for(SECOND, &json!({"acme": {"shards": {"0": "r1"}}})).await;

    // A Secret that is gone opens nothing any more.
    let mut client = pod.connect("/v1/acme/events?device=CORR-01").await;
    client.next_named("hello", DEADLINE).await.unwrap();
    cluster.kubectl(&["delete", "secret", "flutecast-access"], "").await;
    let bye = client.next_named("bye", DEADLINE).await.unwrap();
    assert_eq!(reason(&bye), "AccessRevoked");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_is_away_takes_nothing_away() {
    let mut cluster = Cluster::with_rights().await;
    cluster.apply_shard("open", &shard("open", "")).await;
    cluster.apply_access(ACCESS).await;
    let pod = cluster.dataplane(&["--ping", "500ms"]);
    pod.wait_for_readiness(true, "").await;
    let mut client = pod.connect("/v1/open/events?selector=line%3Dl1").await;
    client.next_named("hello", DEADLINE).await.unwrap();

    cluster.api.kill_api().await.unwrap();
    pod.wait_for_metric("flutecast_catalog_problems{kind=\"Unreadable\"}", 2).await;
    assert!(pod.ready().await.status.is_success(), "{}", pod.ready().await.text());
    cluster.publish("open", "corr1", 1).await;
    let mut seen = vec![client.next_where("data", DEADLINE, |event| event.is_data()).await.unwrap()];
    pod.wait_for_codes(&["CORR-01", "FLEX-01"], SECOND).await;
    // A pod that starts meanwhile waits, and says for what.
    let late = cluster.dataplane(&[]);
    late.wait_for_readiness(false, "the Kubernetes API does not answer").await;

    cluster.api.start_api().await.unwrap();
    let changed = with_slitter("r2").replace("name: slitter-1,", "name: slitter-1, labels: {line: l1},");
    cluster.apply_shard("open", &changed).await;
    // Nothing came and went in between: what the client hears first is the change.
    loop {
        let event = client.next(DEADLINE).await.unwrap();
        let is_the_change = event.name() == "devices";
        seen.push(event);
        if is_the_change {
            break;
        }
    }
    let change = seen.last().unwrap().json().unwrap();
    assert!(change.to_string().contains("SLIT-01"), "{change}");
    let unexpected = seen.iter().filter(|event| ["bye", "gap", "refused"].contains(&event.name()));
    assert_eq!(unexpected.count(), 0, "{seen:?}");
    pod.wait_for_metric(UNREADABLE, 0).await;
    late.wait_for_readiness(true, "r2").await;
    late.wait_for_codes(&["CORR-01", "FLEX-01", "SLIT-01"], SECOND).await;
}
