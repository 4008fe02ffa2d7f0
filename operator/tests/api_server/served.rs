//! A Device is Ready when every ready data-plane pod serves it: real pods as processes, and their endpoints
//! as Kubernetes would write them.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use flutecast_testkit::{Process, ProcessOptions, free_ports, http_client, program, wait_until};
use serde_json::{Value, json};

use crate::manifests::{device, format, tenant};
use crate::support::{Cluster, OWN, Running, SOON, repository, said};

const SERVICE: &str = "flutecast-dataplane";
const READY: &str = "Ready=True Accepted";
const LATE: &str = "Ready=False NotServed Reconciling=True";
/// A frozen pod counts as silent after 15 s, and 10 s later the Tenant has a condition about it.
const LONG: Duration = Duration::from_secs(60);

/// A data-plane pod as a process.
struct Pod {
    name: &'static str,
    process: Process,
}

/// Returns a kubeconfig with the rights of the data plane's service account, which
/// manifests/dataplane/rbac.yaml has in another namespace.
async fn kubeconfig_of_pods(cluster: &Cluster) -> PathBuf {
    let rights = std::fs::read_to_string(repository("manifests/dataplane/rbac.yaml")).unwrap();
    cluster.apply(&rights.replace("namespace: flutecast\n", &format!("namespace: {OWN}\n"))).await;
    cluster.api.kubeconfig_of(OWN, "flutecast-dataplane").await.unwrap()
}

async fn start_pod(cluster: &Cluster, kubeconfig: &PathBuf, name: &'static str) -> Pod {
    let [port, admin] = free_ports().unwrap();
    let (listen, admin) = (format!("127.0.0.1:{port}"), format!("127.0.0.1:{admin}"));
    let nats = cluster.nats.url();
    let arguments: Vec<OsString> = [
        "--kubernetes",
        "--nats",
        &nats,
        "--listen",
        &listen,
        "--admin",
        &admin,
        "--server-name",
        name,
        "--service",
        SERVICE,
    ]
    .iter()
    .map(Into::into)
    .collect();
    let options =
        ProcessOptions { env: vec![("KUBECONFIG".into(), kubeconfig.into())], ..ProcessOptions::default() };
    let process = Process::spawn_with(program("flutecast-dataplane").unwrap(), arguments, options).unwrap();
    let ready = format!("http://{admin}/readyz");
    wait_until("the pod to be ready", SOON, async || http_client::get_text(&ready).await)
        .await
        .unwrap_or_else(|error| panic!("{error:#}\n{}", process.tail()));
    Pod { name, process }
}

/// Applies the endpoints as the endpoint controller writes them: the pods, and whether they are ready.
async fn endpoints(cluster: &Cluster, pods: &[(&str, bool)]) {
    let endpoint = |(pod, ready): &(&str, bool)| {
        let conditions = json!({"ready": ready, "serving": ready, "terminating": false});
        json!({"addresses": ["10.1.0.1"], "conditions": conditions,
            "targetRef": {"kind": "Pod", "name": pod, "namespace": OWN}})
    };
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "flutecast-dataplane-x", "namespace": OWN,
            "labels": {"kubernetes.io/service-name": SERVICE}},
        "endpoints": pods.iter().map(endpoint).collect::<Vec<_>>(), "ports": [],
    });
    cluster.apply(&slice.to_string()).await;
}

/// Like [`Cluster::until`] with a deadline longer than the silence of a pod.
async fn until(cluster: &Cluster, kind: &str, name: &str, expected: &str) -> String {
    cluster.until_within(LONG, kind, name, expected).await
}

async fn until_pods(operator: &Running, state: &str, count: f64) {
    let name = format!("flutecast_operator_pods{{state=\"{state}\"}}");
    wait_until(&format!("{name} to be {count}"), LONG, async || {
        let seen = operator.metric(&name).await;
        if (seen - count).abs() < 0.1 { Ok(()) } else { Err(seen.to_string()) }
    })
    .await
    .unwrap();
}

async fn status_writes(operator: &Running) -> f64 {
    operator.api_writes(&["verb=\"ApplyStatus\""]).await
}

/// A pod that isn't ready, and serves nothing.
const NOT_READY: (&str, bool) = ("pod-3", false);

#[tokio::test(flavor = "multi_thread")]
async fn a_device_is_ready_when_every_ready_pod_serves_it() {
    let mut cluster = Cluster::start().await;
    let kubeconfig = kubeconfig_of_pods(&cluster).await;
    cluster.arguments = vec!["--service", SERVICE];
    cluster.start_operator().await;
    cluster.apply(&format!("{}---\n{}", tenant("t", ""), format("on-off"))).await;
    let early = without_pods_a_device_is_ready(&cluster).await;

    let one = start_pod(&cluster, &kubeconfig, "pod-1").await;
    let two = start_pod(&cluster, &kubeconfig, "pod-2").await;
    endpoints(&cluster, &[("pod-1", true), ("pod-2", true), NOT_READY]).await;
    until_pods(cluster.operator.as_ref().unwrap(), "Confirmed", 2.0).await;
    many_devices_cost_few_writes(&cluster).await;
    a_frozen_pod_delays_a_device(&mut cluster, &two).await;
    a_pod_that_goes_delays_nothing(&cluster, &two).await;
    a_new_generation_waits_again(&mut cluster, &two, &early).await;
    an_outage_of_nats_changes_nothing(&mut cluster).await;
    assert_eq!((one.name, two.name), ("pod-1", "pod-2"));
}

/// Returns the Device, which no pod serves.
async fn without_pods_a_device_is_ready(cluster: &Cluster) -> Value {
    cluster.apply(&device("early", "t", "C-0", "on-off")).await;
    let message = cluster.until("device", "early", READY).await;
    assert!(message.contains("no data-plane pod was ready to confirm"), "{message}");
    cluster.get("device", "early", "default").await.unwrap()
}

async fn a_frozen_pod_delays_a_device(cluster: &mut Cluster, two: &Pod) {
    two.process.freeze().unwrap();
    cluster.apply(&device("held", "t", "C-1", "on-off")).await;
    let message = cluster.until("device", "held", LATE).await;
    assert!(message.contains("pod-2 serves an older one"), "{message}");
    assert!(!message.contains("pod-1") && !message.contains("pod-3"), "{message}");
    assert!(message.contains("of flutecast-t-0 or a later one"), "{message}");
    // After a while the Tenant says so too; Devices that were Ready stay so.
    let message = until(cluster, "tenant", "t", LATE).await;
    assert!(message.contains("1 of 2 ready data-plane pods does not serve"), "{message}");
    assert!(message.contains("pod-2"), "{message}");
    until_pods(cluster.operator.as_ref().unwrap(), "Silent", 1.0).await;
    for name in ["d0", "d199", "early"] {
        let device = cluster.get("device", name, "default").await.unwrap();
        assert_eq!(said(&device).0, READY, "{device:#}");
    }
    nothing_is_written_by_another_operator(cluster, "held", LATE).await;
    two.process.thaw().unwrap();
    let message = until(cluster, "device", "held", READY).await;
    assert!(message.contains("every ready data-plane pod serves it"), "{message}");
    until(cluster, "tenant", "t", READY).await;
}

async fn a_pod_that_goes_delays_nothing(cluster: &Cluster, two: &Pod) {
    two.process.freeze().unwrap();
    cluster.apply(&device("left", "t", "C-2", "on-off")).await;
    cluster.until("device", "left", LATE).await;
    endpoints(cluster, &[("pod-1", true), NOT_READY]).await;
    cluster.until("device", "left", READY).await;
    two.process.thaw().unwrap();
}

/// A change of the spec waits for the pods, and changes no other Device.
async fn a_new_generation_waits_again(cluster: &mut Cluster, two: &Pod, early: &Value) {
    endpoints(cluster, &[("pod-1", true), ("pod-2", true), NOT_READY]).await;
    until_pods(cluster.operator.as_ref().unwrap(), "Confirmed", 2.0).await;
    two.process.freeze().unwrap();
    let changed =
        device("held", "t", "C-1", "on-off").replace("format: on-off}", "format: on-off, staleAfter: 10s}");
    cluster.apply(&changed).await;
    cluster.until("device", "held", LATE).await;
    assert_eq!(cluster.get("device", "early", "default").await.unwrap(), *early);
    two.process.thaw().unwrap();
    cluster.until("device", "held", READY).await;
    until(cluster, "tenant", "t", READY).await;
    nothing_is_written_by_another_operator(cluster, "held", READY).await;
}

/// Ready Devices stay so, and new Devices become Ready.
async fn an_outage_of_nats_changes_nothing(cluster: &mut Cluster) {
    let before = cluster.list("devices", "default").await;
    cluster.nats.restart().await.unwrap();
    cluster.apply(&device("after", "t", "C-3", "on-off")).await;
    until(cluster, "device", "after", READY).await;
    let after = cluster.list("devices", "default").await;
    let others: Vec<Value> =
        after.into_iter().filter(|device| device["metadata"]["name"] != "after").collect();
    assert_eq!(others, before);
}

/// With two pods that keep up, the first status of 200 Devices is Ready.
async fn many_devices_cost_few_writes(cluster: &Cluster) {
    const DEVICES: usize = 200;
    let path = "/apis/flutecast.io/v1alpha1/namespaces/default/devices";
    let list: Value = serde_json::from_str(&cluster.kubectl(&["get", "--raw", path]).await).unwrap();
    let start = list["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let devices: Vec<String> =
        (0..DEVICES).map(|n| device(&format!("d{n}"), "t", &format!("M-{n}"), "on-off")).collect();
    cluster.apply(&devices.join("---\n")).await;
    cluster.until_all_ready().await;
    // The events since then, from the API server's cache.
    let path = format!("{path}?watch=true&timeoutSeconds=2&resourceVersion={start}");
    let events = cluster.kubectl(&["get", "--raw", &path]).await;
    let events: Vec<Value> = events.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let created = events.iter().filter(|event| event["type"] == "ADDED").count();
    let written = events.len() - created;
    let late = events.iter().filter(|event| said(&event["object"]).0 == LATE).count();
    eprintln!("{created} created, {written} statuses written, of which {late} NotServed");
    assert_eq!(created, DEVICES);
    assert!(written <= 2 * DEVICES, "{written} writes");
    // On a busy machine a pod may take longer than a status is held back.
    assert!(late <= DEVICES / 4, "{late} of {DEVICES} were written as NotServed first");
    let words = said(&events.last().unwrap()["object"]).1;
    assert!(words.contains("every ready data-plane pod serves it"), "{words}");
}

/// Another operator evaluates everything, and writes nothing.
async fn nothing_is_written_by_another_operator(cluster: &mut Cluster, device: &str, expected: &str) {
    let before = cluster.versions().await;
    cluster.operator.as_mut().unwrap().process.kill().await.unwrap();
    cluster.start_operator().await;
    let operator = cluster.operator.as_ref().unwrap();
    until_pods(
        operator,
        if expected == READY { "Confirmed" } else { "Silent" },
        if expected == READY { 2.0 } else { 1.0 },
    )
    .await;
    // Longer than a first status is held back.
    let end = tokio::time::Instant::now() + Duration::from_secs(3);
    while tokio::time::Instant::now() < end {
        assert_eq!(status_writes(operator).await, 0.0, "{}", operator.process.tail());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    cluster.until("device", device, expected).await;
    assert_eq!(cluster.versions().await, before);
}
