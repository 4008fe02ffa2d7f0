//! `--clean-up` removes what an installation leaves, with rights of its own and while it holds the Lease.

use std::time::Duration;

use flutecast_testkit::{Process, ProcessOptions, free_port};
use serde_json::Value;

use crate::support::{Cluster, OWN, SOON, repository};

/// The time until a Lease expires that is not given back, and the wait for NATS.
const TURN: Duration = Duration::from_secs(60);
const PASSWORDS: &str = "flutecast-nats-passwords";
const OBJECTS: &str = "
apiVersion: flutecast.io/v1alpha1
kind: Tenant
metadata: {name: acme, namespace: flutecast-system}
spec:
  retention: {onDelete: Keep}
  sources: [{name: gw, subject: plant.*.power, channel: power, iotId: {subjectToken: 2}}]
---
apiVersion: flutecast.io/v1alpha1
kind: PushFormat
metadata: {name: on-off, namespace: flutecast-system}
spec:
  fields: [{name: running, pointer: /on, type: Bool}]
---
apiVersion: flutecast.io/v1alpha1
kind: Device
metadata: {name: one, namespace: flutecast-system}
spec: {tenant: acme, deviceCode: D-1, channels: [{name: power, format: on-off}]}
";

/// Runs the program with the rights of manifests/operator/clean-up.yaml.
async fn clean_up(cluster: &Cluster, identity: &str, nats: &str) -> Process {
    let kubeconfig = cluster.api.kubeconfig_of(OWN, "flutecast-clean-up").await.unwrap();
    let what = "--clean-up=finalizers,streams,mapping,nats-passwords";
    let arguments = [
        "--kubernetes",
        what,
        "--namespace",
        OWN,
        "--mapping-namespace",
        OWN,
        "--identity",
        identity,
        "--nats",
        nats,
        "--nats-passwords-secret",
        PASSWORDS,
    ];
    let options = ProcessOptions {
        env: vec![("KUBECONFIG".into(), kubeconfig.into_os_string())],
        ..ProcessOptions::default()
    };
    Process::spawn_with(env!("CARGO_BIN_EXE_flutecast-operator"), arguments, options).unwrap()
}

async fn finalizers(cluster: &Cluster) -> Vec<Value> {
    let objects = cluster.list("tenants,pushformats", OWN).await;
    objects.iter().filter(|object| !object["metadata"]["finalizers"].is_null()).cloned().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn clean_up_removes_what_an_installation_leaves() {
    let mut cluster = Cluster::start().await;
    for manifest in ["manifests/operator/finalizers.yaml", "manifests/operator/clean-up.yaml"] {
        cluster.kubectl(&["apply", "--server-side", "-f", &repository(manifest)]).await;
    }
    cluster.arguments = vec!["--namespace", OWN, "--protection", "finalizer"];
    cluster.start_operator().await;
    cluster.apply(OBJECTS).await;
    let ready =
        ["wait", "--for=condition=Ready", "--timeout=30s", "--all", "tenants,devices,pushformats", "-n", OWN];
    cluster.kubectl(&ready).await;
    let held = [
        "wait",
        "ft/acme",
        "fpf/on-off",
        "-n",
        OWN,
        "--for=jsonpath={.metadata.finalizers[0]}=flutecast.io/in-use",
        "--timeout=30s",
    ];
    cluster.kubectl(&held).await;
    // A stream of another owner on the same NATS.
    let jetstream = async_nats::jetstream::new(async_nats::connect(cluster.nats.url()).await.unwrap());
    let foreign = async_nats::jetstream::stream::Config { name: "IOT_other".into(), ..Default::default() };
    jetstream.create_stream(foreign).await.unwrap();
    assert_eq!(cluster.streams().await, ["IOT_acme", "IOT_other", "LAST_acme", "SRC_acme_gw"]);

    for name in [PASSWORDS, "of-somebody-else"] {
        cluster
            .kubectl(&["create", "secret", "generic", name, "-n", OWN, "--from-literal=devices=p-1"])
            .await;
    }

    // It waits for an operator that leads, and for the Lease of one that was killed. NATS is not available:
    // it removes what it can, names the rest, and keeps what identifies the streams for the next attempt.
    let nowhere = format!("nats://127.0.0.1:{}", free_port().unwrap());
    let mut first = clean_up(&cluster, "first", &nowhere).await;
    assert!(first.exit_status().unwrap().is_none(), "{}", first.tail());
    cluster.operator.take().unwrap().process.kill().await.unwrap();
    assert!(!first.wait(TURN).await.unwrap().success(), "{}", first.tail());
    assert!(
        first.tail().contains("not everything is removed: streams: NATS is not there"),
        "{}",
        first.tail()
    );
    assert_eq!(finalizers(&cluster).await, Vec::<Value>::new());
    assert_eq!(cluster.mapping().await.len(), 1);
    assert!(cluster.access().await.is_some());

    let mut second = clean_up(&cluster, "second", &cluster.nats.url()).await;
    assert!(second.wait(SOON).await.unwrap().success(), "{}", second.tail());
    assert_eq!(cluster.streams().await, ["IOT_other"]);
    assert!(cluster.mapping().await.is_empty());
    assert_eq!(cluster.access().await, None);
    let secrets = cluster.list("secrets", OWN).await;
    let secrets: Vec<_> = secrets.iter().map(|secret| &secret["metadata"]["name"]).collect();
    assert_eq!(secrets, ["of-somebody-else"]);
    assert_eq!(cluster.list("leases", OWN).await, Vec::<Value>::new());
    // The objects belong to the user who applied them.
    assert_eq!(cluster.list("tenants,devices,pushformats", OWN).await.len(), 3);
    // A second run has nothing to do.
    let mut third = clean_up(&cluster, "third", &nowhere).await;
    assert!(third.wait(SOON).await.unwrap().success(), "{}", third.tail());
}
