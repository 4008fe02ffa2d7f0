//! NetworkPolicies: that the cluster enforces them at all, and what the chart's let through and what not.

use std::collections::BTreeMap;
use std::time::Duration;

use flutecast_testbed::cluster::{Cluster, Namespace};
use flutecast_testbed::release::{Images, Release};
use flutecast_testkit::wait_until;
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::web;

const SOON: Duration = Duration::from_secs(60);
/// Longest time that a change of policies or labels may take to be heard of; a look at a silent address takes
/// 3 s of it.
const HEARD: Duration = Duration::from_secs(20);
/// What the release removes at its end beside its own objects needs a pod, which runs when the release's
/// policies are gone.
const VALUES: &str = "
dataplane: {replicas: 2, drain: {delay: 0s, window: 1s}}
protection: finalizer
uninstall: {keepMapping: false}
nats: {bundled: {mqtt: {enabled: true}}}
";

/// How connections of a pod to these addresses go: `open`, `refused`, `silent`.
async fn outcomes(
    cluster: &Cluster,
    namespace: &str,
    pod: &str,
    addresses: &[&str],
) -> BTreeMap<String, String> {
    let exec = ["--namespace", namespace, "exec", pod, "--", "/probe", "connect"];
    let lines = cluster.kubectl(&[&exec[..], addresses].concat()).await.unwrap();
    let outcome = |line: &str| {
        let (address, outcome) = line.split_once(' ').unwrap();
        (address.to_owned(), outcome.to_owned())
    };
    lines.lines().map(outcome).collect()
}

/// Waits until a pod's connections to one address go like this.
async fn becomes(
    cluster: &Cluster,
    namespace: &str,
    pod: &str,
    address: &str,
    expected: &str,
) -> anyhow::Result<()> {
    let what = format!("{expected} for {pod} of {namespace} to {address}");
    wait_until(&what, HEARD, async || {
        let seen = outcomes(cluster, namespace, pod, &[address]).await;
        if seen.values().eq([expected]) { Ok(()) } else { Err(format!("{seen:?}")) }
    })
    .await
}

/// Waits for the first thing that a policy forbids. A cluster of this machine has to forbid it; of an
/// existing one that doesn't it is said, and that the test ends here (`false`).
async fn is_enforced(cluster: &Cluster, namespace: &str, pod: &str, address: &str) -> bool {
    let silent = becomes(cluster, namespace, pod, address, "silent").await;
    if cluster.node().is_ok() {
        silent.unwrap();
        return true;
    }
    if let Err(error) = &silent {
        eprintln!("NOT TESTED: the network of this cluster doesn't enforce NetworkPolicies: {error:#}");
    }
    silent.is_ok()
}

fn policy(name: &str, spec: &Value) -> String {
    let metadata = json!({"name": name});
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec})
        .to_string()
}

async fn apply(cluster: &Cluster, namespace: &str, objects: &str) {
    cluster
        .kubectl_with(&["--namespace", namespace, "apply", "--filename", "-"], objects, SOON)
        .await
        .unwrap();
}

#[tokio::test]
async fn policies_are_enforced() {
    let cluster = Cluster::shared().await.unwrap();
    let namespace = cluster.namespace("policies").await.unwrap();
    let name = namespace.name();
    web::start(&cluster, &namespace).await;
    let list =
        ["--namespace", name, "get", "pods", "-l", "app=web", "-o", "jsonpath={.items[0].status.podIP}"];
    let server = format!("{}:8080", cluster.kubectl(&list).await.unwrap());
    let server = server.as_str();
    becomes(&cluster, name, "client", server, "open").await.unwrap();

    // No pod reaches the servers; whom the client reaches otherwise is its own affair.
    let servers = json!({"matchLabels": {"app": "web"}});
    apply(&cluster, name, &policy("servers", &json!({"podSelector": servers}))).await;
    if !is_enforced(&cluster, name, "client", server).await {
        return;
    }
    web::probe(&cluster, &namespace, &["lookup", "web"]).await.unwrap();

    // But who is invited.
    let guests = json!({"matchLabels": {"role": "guest"}});
    let spec = json!({"podSelector": servers, "ingress": [{"from": [{"podSelector": guests}],
     "ports": [{"port": 8080}]}]});
    apply(&cluster, name, &policy("guests", &spec)).await;
    assert!(outcomes(&cluster, name, "client", &[server]).await.values().eq(["silent"]), "not invited yet");
    cluster.kubectl(&["--namespace", name, "label", "pod", "client", "role=guest"]).await.unwrap();
    becomes(&cluster, name, "client", server, "open").await.unwrap();
    // The kubelet has asked the servers all the time whether they are ready.
    web::rolled_out(&cluster, &namespace).await;

    // And the other direction: the guest may call nobody, not even for a name.
    let spec = json!({"podSelector": guests, "policyTypes": ["Egress"]});
    apply(&cluster, name, &policy("silence", &spec)).await;
    becomes(&cluster, name, "client", server, "silent").await.unwrap();
    web::probe(&cluster, &namespace, &["lookup", "web"]).await.unwrap_err();
    cluster.kubectl(&["--namespace", name, "delete", "networkpolicy", "silence"]).await.unwrap();
    becomes(&cluster, name, "client", server, "open").await.unwrap();
}

/// A pod that restricted pod security lets run. It is never ready, so that no Service leads to it.
fn pod(name: &str, labels: &Value, image: &str, command: &[&str]) -> String {
    let never = json!({"exec": {"command": ["/probe", "read", "/nothing"]}, "periodSeconds": 60});
    let container = json!({
        "name": "probe", "image": image, "imagePullPolicy": "IfNotPresent", "command": command,
         "readinessProbe": never,
        "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
    });
    let security =
        json!({"runAsNonRoot": true, "runAsUser": 65_532, "seccompProfile": {"type": "RuntimeDefault"}});
    let spec =
        json!({"containers": [container], "securityContext": security, "terminationGracePeriodSeconds": 1});
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec})
        .to_string()
}

/// Starts these pods and waits until they run.
async fn start(cluster: &Cluster, namespace: &Namespace, pods: &[String]) {
    let name = namespace.name();
    apply(cluster, name, &pods.join("\n---\n")).await;
    let running = ["wait", "--for=jsonpath={.status.phase}=Running", "pods", "--all", "--timeout=50s"];
    cluster.kubectl_with(&[&["--namespace", name][..], &running].concat(), "", SOON).await.unwrap();
}

/// The addresses of a factory, by what they are for.
struct Addresses(BTreeMap<&'static str, String>);

impl Addresses {
    async fn of(cluster: &Cluster, factory: &Release<'_>, stranger: String) -> Self {
        let pod = async |component: &str| factory.pods(component).await.unwrap()[0].ip.clone();
        let (operator, dataplane, nats) = (pod("operator").await, pod("dataplane").await, pod("nats").await);
        let service = async |namespace: &str, name: &str, port: u16| {
            let get = ["--namespace", namespace, "get", "service", name, "-o", "jsonpath={.spec.clusterIP}"];
            format!("{}:{port}", cluster.kubectl(&get).await.unwrap())
        };
        Self(BTreeMap::from([
            ("screens", service(factory.namespace(), &factory.full_name(""), 80).await),
            ("a pod's screens", format!("{dataplane}:8080")),
            ("metrics", format!("{dataplane}:8081")),
            ("the operator's metrics", format!("{operator}:8081")),
            ("NATS", format!("{nats}:4222")),
            ("MQTT", format!("{nats}:1883")),
            ("NATS' metrics", format!("{nats}:8222")),
            ("the API", service("default", "kubernetes", 443).await),
            ("DNS", service("kube-system", "kube-dns", 53).await),
            ("a stranger", stranger),
        ]))
    }

    /// What of them is open to a pod; all else has to be silent.
    async fn open_to(&self, cluster: &Cluster, namespace: &str, pod: &str) -> Vec<&'static str> {
        let all: Vec<&str> = self.0.values().map(String::as_str).collect();
        let seen = outcomes(cluster, namespace, pod, &all).await;
        let outcome = |address: &String| seen[address].as_str();
        for (what, address) in &self.0 {
            assert!(["open", "silent"].contains(&outcome(address)), "{pod} to {what}: {seen:?}");
        }
        self.0.iter().filter(|(_, address)| outcome(address) == "open").map(|(what, _)| *what).collect()
    }
}

/// What is open to everybody with the chart's own values.
const EVERYBODYS: [&str; 7] =
    ["MQTT", "NATS", "NATS' metrics", "a pod's screens", "metrics", "screens", "the operator's metrics"];
/// What is none of the chart's.
const CLUSTERS: [&str; 3] = ["DNS", "a stranger", "the API"];
const PARTS: [&str; 3] = ["operator", "dataplane", "nats"];

/// A pod that waits, with a role by which policies know it.
fn guest(role: &str, image: &str) -> String {
    pod(role, &json!({"role": role}), image, &["/probe", "pause"])
}

/// Starts the pods of another namespace, and returns the address of the one that serves something.
async fn start_outside(cluster: &Cluster, outside: &Namespace, image: &str) -> String {
    let stranger = pod("stranger", &json!({}), image, &["/probe", "serve", ":9999"]);
    let guests = ["gateway", "monitor", "device"].map(|role| guest(role, image));
    start(cluster, outside, &[&guests[..], &[stranger]].concat()).await;
    let get = ["--namespace", outside.name(), "get", "pod", "stranger", "-o", "jsonpath={.status.podIP}"];
    format!("{}:9999", cluster.kubectl(&get).await.unwrap())
}

/// Values that limit each port to the pods that it is for.
fn limited_to_guests(outside: &Namespace) -> String {
    let limits =
        [("clients", "gateway"), ("monitoring", "monitor"), ("devices", "device")].map(|(value, role)| {
            let namespaces = json!({"matchLabels": {"kubernetes.io/metadata.name": outside.name()}});
            let pods = json!({"matchLabels": {"role": role}});
            format!("{value}: {}", json!([{"namespaceSelector": namespaces, "podSelector": pods}]))
        });
    format!("{VALUES}\nnetworkPolicy:\n  {}\n", limits.join("\n  "))
}

/// Pods of the namespace with the labels of the programs, and one without.
async fn start_impostors(cluster: &Cluster, namespace: &Namespace, image: &str) {
    let impostors = PARTS.map(|component| {
        let labels = json!({
            "app.kubernetes.io/name": "flutecast",
            "app.kubernetes.io/instance": "factory",
            "app.kubernetes.io/component": component,
        });
        pod(component, &labels, image, &["/probe", "pause"])
    });
    start(cluster, namespace, &[&impostors[..], &[guest("nobody", image)]].concat()).await;
}

/// Each pod reaches what its role is for, and nothing else.
async fn each_reaches_its_own(
    cluster: &Cluster,
    addresses: &Addresses,
    namespace: &Namespace,
    outside: &Namespace,
) {
    let monitors = ["DNS", "NATS' metrics", "a stranger", "metrics", "the API", "the operator's metrics"];
    let expected: [(&Namespace, &str, &[&str]); 8] = [
        (outside, "stranger", &CLUSTERS),
        (outside, "gateway", &["DNS", "a pod's screens", "a stranger", "screens", "the API"]),
        (outside, "monitor", &monitors),
        (outside, "device", &["DNS", "MQTT", "NATS", "a stranger", "the API"]),
        (namespace, "operator", &["DNS", "NATS", "the API"]),
        (namespace, "dataplane", &["DNS", "NATS", "the API"]),
        (namespace, "nats", &[]),
        (namespace, "nobody", &[]),
    ];
    // All at once: what is silent takes its time.
    join_all(expected.map(async |(namespace, pod, open)| {
        assert_eq!(addresses.open_to(cluster, namespace.name(), pod).await, open, "{pod}");
    }))
    .await;
}

#[tokio::test]
async fn the_charts_policies_let_through_what_is_needed_and_nothing_else() {
    let cluster = Cluster::shared().await.unwrap();
    let images = Images::of_workspace().unwrap();
    let [namespace, outside] =
        [cluster.namespace("guarded").await.unwrap(), cluster.namespace("outside").await.unwrap()];
    let image = cluster.probe_image().await.unwrap();
    let stranger = start_outside(&cluster, &outside, &image).await;

    // As some companies have it: what isn't allowed in so many words is forbidden.
    let none = json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]});
    apply(&cluster, namespace.name(), &policy("default-deny", &none)).await;
    let mut factory = Release::install(&cluster, &namespace, "factory", &images, VALUES).await.unwrap();
    factory.apply_folder("manifests/demo").await.unwrap();
    factory.wait_ready().await.unwrap();

    // With the chart's own values its ports are open to everybody, and its pods still call only whom they
    // need.
    let addresses = Addresses::of(&cluster, &factory, stranger).await;
    let mut all: Vec<_> = EVERYBODYS.iter().chain(&CLUSTERS).copied().collect();
    all.sort_unstable();
    assert_eq!(addresses.open_to(&cluster, outside.name(), "stranger").await, all);

    // And limited to whom they are for.
    factory.upgrade(&images, &limited_to_guests(&outside)).await.unwrap();
    if !is_enforced(&cluster, outside.name(), "stranger", &addresses.0["MQTT"]).await {
        return;
    }
    start_impostors(&cluster, &namespace, &image).await;
    each_reaches_its_own(&cluster, &addresses, &namespace, &outside).await;
    // Probes come from the node: no pod was started again.
    for component in PARTS {
        let pods = factory.pods(component).await.unwrap();
        let alive = |pod: &&flutecast_testbed::release::Pod| pod.name.starts_with("factory-");
        assert!(pods.iter().filter(alive).all(|pod| pod.ready && pod.restarts == 0), "{pods:#?}");
    }

    // The pod that cleans up comes when all this is gone, but for the company's own policy.
    let delete = ["delete", "pod", "--now", "nobody"];
    factory.kubectl(&[&delete[..], &PARTS].concat()).await.unwrap();
    factory.uninstall().await.unwrap();
    let left = factory.kubectl(&["get", "configmaps,networkpolicies", "-o", "name"]).await.unwrap();
    let left: Vec<_> = left.lines().filter(|name| *name != "configmap/kube-root-ca.crt").collect();
    assert_eq!(left, ["networkpolicy.networking.k8s.io/default-deny"]);
}
