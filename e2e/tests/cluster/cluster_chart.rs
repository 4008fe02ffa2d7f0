//! Promises of the chart that can be tested only with real pods.

use std::time::Duration;

use flutecast_testbed::cluster::Cluster;
use flutecast_testbed::release::{Images, Release};
use flutecast_testkit::{http_client, wait_until};
use serde_json::Value;

use crate::counting;

const SOON: Duration = Duration::from_secs(60);

/// Returns a device's `power` channel from the factory's HTTP API.
async fn power(factory: &Release<'_>) -> Result<Value, String> {
    let dataplane = factory.dataplane().await.map_err(|error| format!("{error:#}"))?;
    let url = format!("http://{}/v1/demo/devices/CORR-01", dataplane.address);
    let device = http_client::get_json(&url).await.map_err(|error| format!("{error:#}"))?;
    Ok(device["channels"]["power"].clone())
}

async fn wait_for_power(factory: &Release<'_>, what: &str) {
    wait_until(what, SOON, async || match power(factory).await {
        Ok(power) if power["values"]["on"] == true => Ok(()),
        Ok(power) => Err(power.to_string()),
        Err(error) => Err(error),
    })
    .await
    .unwrap();
}

/// Changes all passwords by the commands of docs/nats.md. The operator follows without a restart.
async fn passwords_can_be_changed(factory: &Release<'_>) {
    let operators = factory.wait_for_pods("operator", 1).await.unwrap();
    let [secret, set, dataplane] = [
        factory.full_name("-nats-passwords"),
        format!("statefulset/{}", factory.full_name("-nats")),
        format!("deployment/{}", factory.full_name("-dataplane")),
    ];
    let patch =
        r#"{"stringData": {"operator": "another-1", "dataplane": "another-2", "devices": "another-3"}}"#;
    factory.kubectl(&["patch", "secret", &secret, "--patch", patch]).await.unwrap();
    factory.kubectl(&["rollout", "restart", &set, &dataplane]).await.unwrap();
    for restarted in [&set, &dataplane] {
        factory.kubectl(&["rollout", "status", restarted, "--timeout=80s"]).await.unwrap();
    }
    wait_for_power(factory, "the value with other passwords").await;
    factory.nats().await.unwrap().connect("devices").await.unwrap();
    // The operator answers a change, for which it needs NATS.
    let tenant = r#"{"spec": {"retention": {"maxAge": "2h"}}}"#;
    factory.kubectl(&["patch", "tenant", "demo", "--type=merge", "--patch", tenant]).await.unwrap();
    factory.wait_ready().await.unwrap();
    assert_eq!(factory.wait_for_pods("operator", 1).await.unwrap(), operators, "the same pod, not restarted");
}

#[tokio::test]
async fn bundled_nats_data_survives_pod_deletion_and_uninstall() {
    let cluster = Cluster::shared().await.unwrap();
    let namespace = cluster.namespace("chart").await.unwrap();
    let images = Images::of_workspace().unwrap();
    let values = "nats: {bundled: {persistence: {enabled: true}}}\npriorityClass: {create: true}";
    let mut factory = Release::install(&cluster, &namespace, "factory", &images, values).await.unwrap();
    factory.apply_folder("manifests/demo").await.unwrap();
    factory.wait_ready().await.unwrap();

    let id = counting::iot_id("demo", "CORR-01");
    let reach = factory.nats().await.unwrap();
    let devices = reach.connect("devices").await.unwrap();
    let ts = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    let payload = format!("{{\"ts\": {ts}, \"on\": 1}}");
    devices.publish(format!("iot.demo.{id}.power"), payload.into()).await.unwrap();
    devices.flush().await.unwrap();
    wait_for_power(&factory, "the value").await;

    let nats = factory.full_name("-nats");
    let (pod, set) = (format!("{nats}-0"), format!("statefulset/{nats}"));
    let uid = ["get", "pod", &pod, "-o", "jsonpath={.metadata.uid}"];
    let before = factory.kubectl(&uid).await.unwrap();
    factory.kubectl(&["delete", "pod", &pod]).await.unwrap();
    factory.kubectl(&["rollout", "status", &set, "--timeout=80s"]).await.unwrap();
    assert_ne!(factory.kubectl(&uid).await.unwrap(), before, "another pod");
    // The value is read from the stream: no device has sent it again.
    wait_for_power(&factory, "the value after the restart of NATS").await;

    passwords_can_be_changed(&factory).await;

    factory.uninstall().await.unwrap();
    let claims = factory.kubectl(&["get", "persistentvolumeclaims", "-o", "name"]).await.unwrap();
    assert_eq!(
        claims.trim(),
        format!("persistentvolumeclaim/data-{nats}-0"),
        "nats.bundled.persistence.keep"
    );
    let rest =
        "all,configmaps,secrets,roles,rolebindings,networkpolicies,poddisruptionbudgets,serviceaccounts";
    let left = factory
        .kubectl(&["get", rest, "-l", "app.kubernetes.io/instance=factory", "-o", "name"])
        .await
        .unwrap();
    assert_eq!(left.trim(), "");
    // The stored data can't be accessed without the passwords, which the operator made.
    factory.kubectl(&["get", "secret", &format!("{nats}-passwords")]).await.unwrap();
    let kinds = factory.kubectl(&["get", "tenants,devices", "-o", "name"]).await.unwrap();
    assert_eq!(kinds.lines().count(), 6, "the factory's objects are the user's: {kinds}");
    namespace.delete(&cluster).await.unwrap();
}
