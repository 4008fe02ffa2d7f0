//! The mapping from a Kubernetes API: it is served, changes are followed, broken objects change nothing.

use std::time::Duration;

use flutecast_testkit::SseClient;
use serde_json::json;

use super::fixture::{Announcements, KubeFixture, Pod, config_map};
use crate::fixture::{DEADLINE, reason, shard};

/// The target for a change on its way from the API to the clients.
const SECOND: Duration = Duration::from_secs(1);

const ACCESS: &str =
    "{apiVersion: mapping.flutecast.io/v1, tenants: {open: {anonymous: true}, acme: {anonymous: true}}}";
const UNREADABLE: &str = "flutecast_catalog_problems{kind=\"Unreadable\"}";

/// The shard of the tenant `open`, with another revision and one more device.
fn with_slitter(revision: &str) -> String {
    shard("open", "").replace("revision: r1", &format!("revision: {revision}"))
        + "  slit1open: {code: SLIT-01, name: slitter-1, channels: {telemetry: {format: telemetry}}}\n"
}

#[tokio::test(flavor = "multi_thread")]
async fn mapping_follows_the_api_server() {
    let kube = KubeFixture::with_rights().await;
    let mut announcements = kube.announcements().await;
    kube.apply_shard("open", &shard("open", "")).await;
    // An object of another owner, without our label, and one of ours that is no shard.
    let mut foreign = config_map("flutecast-foreign-0", &shard("foreign", ""));
    foreign["metadata"]["labels"] = json!({});
    kube.apply(&foreign).await;
    kube.apply(&config_map("flutecast-settings", "x: y")).await;

    let pod = kube.dataplane(&["--server-name", "pod-1", "--ping", "500ms"]);
    pod_is_ready_once_the_secret_exists(&kube, &pod, &mut announcements).await;

    let mut client = pod.connect("/v1/open/events?device=CORR-01").await;
    client.next_named("hello", DEADLINE).await.unwrap();
    value_reaches_client(&kube, &mut client, 17).await;

    // A change is served and announced within a second.
    kube.apply_shard("open", &with_slitter("r2")).await;
    pod.wait_for_codes(&["CORR-01", "FLEX-01", "SLIT-01"], SECOND).await;
    announcements.wait_for(SECOND, &json!({"open": {"shards": {"0": "r2"}}})).await;

    broken_objects_change_nothing(&kube, &pod, &mut announcements).await;
    value_reaches_client(&kube, &mut client, 18).await;
    deleted_objects_end_streams(&kube, &pod, client, &mut announcements).await;
}

/// Without the Secret nothing may be read, and the pod reports what is missing.
async fn pod_is_ready_once_the_secret_exists(
    kube: &KubeFixture,
    pod: &Pod,
    announcements: &mut Announcements,
) {
    pod.wait_for_readiness(false, "no Secret flutecast-access in the namespace flutecast").await;
    kube.apply_access(ACCESS).await;
    pod.wait_for_readiness(true, "\"revisions\":{\"open\":[\"r1\"]}").await;
    let (subject, content) =
        announcements.wait_for(DEADLINE, &json!({"open": {"shards": {"0": "r1"}}})).await;
    assert_eq!(subject, "flutecast.serving.flutecast.pod-1");
    assert_eq!(content["server"], "pod-1");
}

async fn value_reaches_client(kube: &KubeFixture, client: &mut SseClient, value: u32) {
    kube.publish("open", "corr1", value.into()).await;
    let data = client.next_named("message", DEADLINE).await.unwrap().json().unwrap();
    assert_eq!(data["values"]["v"], f64::from(value));
}

async fn broken_objects_change_nothing(kube: &KubeFixture, pod: &Pod, announcements: &mut Announcements) {
    // A broken document changes nothing but the count of problems; another tenant is still added.
    kube.apply_shard("open", "tenant: [").await;
    pod.wait_for_metric(UNREADABLE, 1).await;
    kube.apply_shard("acme", &shard("acme", "")).await;
    let both = json!({"open": {"shards": {"0": "r2"}}, "acme": {"shards": {"0": "r1"}}});
    announcements.wait_for(SECOND, &both).await;
    pod.wait_for_codes(&["CORR-01", "FLEX-01", "SLIT-01"], SECOND).await;
    // The same holds for a broken access document.
    kube.apply_access("tenants: [").await;
    pod.wait_for_metric(UNREADABLE, 2).await;
    kube.apply_access(ACCESS).await;
    kube.apply_shard("open", &with_slitter("r3")).await;
    pod.wait_for_metric(UNREADABLE, 0).await;
}

async fn deleted_objects_end_streams(
    kube: &KubeFixture,
    pod: &Pod,
    mut client: SseClient,
    announcements: &mut Announcements,
) {
    // Without its ConfigMap a tenant is removed.
    kube.kubectl(&["delete", "configmap", "flutecast-open-0"], "").await;
    let bye = client.next_named("bye", DEADLINE).await.unwrap();
    assert_eq!(reason(&bye), "TenantRemoved");
    announcements.wait_for(SECOND, &json!({"acme": {"shards": {"0": "r1"}}})).await;

    // Without the Secret nothing may be read.
    let mut client = pod.connect("/v1/acme/events?device=CORR-01").await;
    client.next_named("hello", DEADLINE).await.unwrap();
    kube.kubectl(&["delete", "secret", "flutecast-access"], "").await;
    let bye = client.next_named("bye", DEADLINE).await.unwrap();
    assert_eq!(reason(&bye), "AccessRevoked");
}

#[tokio::test(flavor = "multi_thread")]
async fn mapping_is_kept_while_the_api_server_is_away() {
    let mut kube = KubeFixture::with_rights().await;
    kube.apply_shard("open", &shard("open", "")).await;
    kube.apply_access(ACCESS).await;
    let pod = kube.dataplane(&["--ping", "500ms"]);
    pod.wait_for_readiness(true, "").await;
    let mut client = pod.connect("/v1/open/events?selector=line%3Dl1").await;
    client.next_named("hello", DEADLINE).await.unwrap();

    kube.api.kill_api().await.unwrap();
    pod.wait_for_metric("flutecast_catalog_problems{kind=\"Unreadable\"}", 2).await;
    assert!(pod.ready().await.status.is_success(), "{}", pod.ready().await.text());
    kube.publish("open", "corr1", 1).await;
    let mut seen = vec![client.next_where("data", DEADLINE, |event| event.is_data()).await.unwrap()];
    pod.wait_for_codes(&["CORR-01", "FLEX-01"], SECOND).await;
    // A pod that starts meanwhile isn't ready, and reports why.
    let late = kube.dataplane(&[]);
    late.wait_for_readiness(false, "the Kubernetes API does not answer").await;

    kube.api.start_api().await.unwrap();
    let changed = with_slitter("r2").replace("name: slitter-1,", "name: slitter-1, labels: {line: l1},");
    kube.apply_shard("open", &changed).await;
    // Nothing was removed in between: the first event that the client gets is the change.
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
