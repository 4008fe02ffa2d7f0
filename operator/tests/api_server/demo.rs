//! The demo factory, applied with kubectl: Ready, mapped as in folder mode, kept in force, and removed with
//! its Tenant.

use std::path::Path;

use flutecast_testkit::wait_until;

use crate::support::{Cluster, OWN, SOON, folder_mode, repository};

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_factory_from_apply_to_delete() {
    let mut cluster = Cluster::with_operator().await;
    let demo = repository("manifests/demo");
    cluster.kubectl(&["apply", "--server-side", "--recursive", "-f", &demo]).await;
    for kinds in ["tenants", "devices", "pushformats"] {
        let wait = ["wait", "--for=condition=Ready", "--timeout=30s", "--all", kinds];
        let waited = cluster.api.kubectl(&wait, "").await;
        waited.unwrap_or_else(|error| panic!("{error:#}\n{}", cluster.operator_log()));
    }
    the_mapping_is_that_of_the_folder_mode(&cluster, &demo).await;
    the_columns_answer(&cluster).await;
    a_restart_writes_nothing(&mut cluster).await;
    drift_is_repaired(&cluster).await;
    the_tenant_goes(&cluster).await;
}

async fn the_mapping_is_that_of_the_folder_mode(cluster: &Cluster, demo: &str) {
    let mut expected = folder_mode(Path::new(demo)).await;
    assert_eq!(cluster.access().await, expected.remove("flutecast-access"));
    assert_eq!(cluster.mapping().await, expected);
    let map = cluster.get("configmap", "flutecast-demo-0", OWN).await.unwrap();
    let labels = &map["metadata"]["labels"];
    assert_eq!(labels["app.kubernetes.io/managed-by"], "flutecast");
    assert_eq!(
        (&labels["flutecast.io/tenant"], &labels["flutecast.io/shard"]),
        (&"demo".into(), &"0".into())
    );
    assert_eq!(cluster.streams().await, ["IOT_demo", "LAST_demo", "SRC_demo_gw-line1", "SRC_demo_mes"]);
}

async fn the_columns_answer(cluster: &Cluster) {
    let devices = cluster.kubectl(&["get", "fd"]).await;
    let line = devices.lines().find(|line| line.contains("CORR-01")).unwrap();
    for word in ["demo", "Unknown", "True", "Accepted"] {
        assert!(line.contains(word), "no {word} in {line}");
    }
    let device = cluster.get("device", "corrugator-1", "default").await.unwrap();
    let status = &device["status"];
    let id = status["iotId"].as_str().unwrap();
    assert_eq!(status["subjects"][0], format!("iot.demo.{id}.telemetry"));
    assert_eq!(status["mqttTopics"][3], format!("iot/demo/{id}/alarms"));
    let tenants = cluster.kubectl(&["get", "ft"]).await;
    assert!(tenants.contains("IOT_demo") && tenants.contains(" 5 "), "{tenants}");
    let formats = cluster.kubectl(&["get", "fpf", "on-off"]).await;
    assert!(formats.lines().nth(1).unwrap().contains("Every      5"), "{formats}");
}

async fn a_restart_writes_nothing(cluster: &mut Cluster) {
    let before = cluster.versions().await;
    let mut operator = cluster.operator.take().unwrap();
    operator.process.terminate(SOON).await.unwrap();
    cluster.start_operator().await;
    // A change that is handled after all others shows that the operator is done with them.
    cluster.kubectl(&["label", "fd", "stacker-1", "shift=night"]).await;
    wait_until("the label in the mapping", SOON, async || {
        let mapping = cluster.mapping().await;
        let has_it = mapping["flutecast-demo-0"].contains("shift: night");
        if has_it { Ok(()) } else { Err(format!("{mapping:?}")) }
    })
    .await
    .unwrap();
    let mut after = cluster.versions().await;
    let changed = ["Device/stacker-1", "ConfigMap/flutecast-demo-0"];
    for name in changed {
        assert_ne!(after.get(name), before.get(name), "{name}");
        after.insert(name.to_owned(), before[name].clone());
    }
    assert_eq!(after, before);
    let operator = cluster.operator.as_ref().unwrap();
    assert_eq!(operator.api_writes(&["verb=\"ApplyStatus\""]).await, 0.0);
    assert_eq!(operator.api_writes(&["kind=\"ConfigMap\""]).await, 1.0);
}

async fn drift_is_repaired(cluster: &Cluster) {
    let wanted = cluster.mapping().await;
    let repaired = async |what: &str| {
        wait_until(what, SOON, async || {
            let mapping = cluster.mapping().await;
            if mapping == wanted { Ok(()) } else { Err(format!("{:?}", mapping.keys())) }
        })
        .await
        .unwrap_or_else(|error| panic!("{error:#}\n{}", cluster.operator_log()));
    };
    let edit = [
        "patch",
        "configmap",
        "flutecast-demo-0",
        "-n",
        OWN,
        "--type=merge",
        "-p",
        r#"{"data":{"mapping.yaml":"{}"}}"#,
    ];
    cluster.kubectl(&edit).await;
    repaired("an edited ConfigMap to be put right").await;
    cluster.kubectl(&["delete", "configmap", "flutecast-demo-0", "-n", OWN]).await;
    repaired("a deleted ConfigMap to come back").await;
    let unlabel =
        ["label", "configmap", "flutecast-demo-0", "-n", OWN, "flutecast.io/tenant-", "--overwrite"];
    cluster.kubectl(&unlabel).await;
    wait_until("the label to come back", SOON, async || {
        let map = cluster.get("configmap", "flutecast-demo-0", OWN).await.ok_or("gone")?;
        let label = map["metadata"]["labels"]["flutecast.io/tenant"].clone();
        if label == "demo" { Ok(()) } else { Err(label.to_string()) }
    })
    .await
    .unwrap();
    let access = cluster.access().await;
    cluster.kubectl(&["delete", "secret", "flutecast-access", "-n", OWN]).await;
    wait_until("the access Secret to come back", SOON, async || {
        let now = cluster.access().await;
        if now == access { Ok(()) } else { Err(format!("{now:?}")) }
    })
    .await
    .unwrap();
    // Fields of other managers stay, and objects of others are not touched.
    cluster.kubectl(&["create", "configmap", "flutecast-notes", "-n", OWN, "--from-literal=a=b"]).await;
}

async fn the_tenant_goes(cluster: &Cluster) {
    cluster
        .kubectl(&[
            "patch",
            "ft",
            "demo",
            "--type=merge",
            "-p",
            r#"{"spec":{"retention":{"onDelete":"Delete"}}}"#,
        ])
        .await;
    cluster.until("tenant", "demo", "Ready=True Accepted").await;
    cluster.kubectl(&["delete", "ft", "demo"]).await;
    wait_until("the mapping to go with its Tenant", SOON, async || {
        let mapping = cluster.mapping().await;
        if mapping.is_empty() { Ok(()) } else { Err(format!("{:?}", mapping.keys())) }
    })
    .await
    .unwrap();
    let message = cluster.until("device", "corrugator-1", "Ready=False TenantMissing Reconciling=True").await;
    assert!(message.contains("there is no Tenant \"demo\""), "{message}");
    wait_until("the streams to go with their Tenant", SOON, async || {
        let streams = cluster.streams().await;
        if streams.is_empty() { Ok(()) } else { Err(format!("{streams:?}")) }
    })
    .await
    .unwrap();
    assert!(cluster.get("configmap", "flutecast-notes", OWN).await.is_some());
    assert!(!cluster.access().await.unwrap().contains("demo"));
}
