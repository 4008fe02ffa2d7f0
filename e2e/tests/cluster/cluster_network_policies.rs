//! NetworkPolicies: the cluster enforces them, and the chart's policies allow only the required connections.

use std::collections::BTreeMap;
use std::time::Duration;

use flutecast_testbed::cluster::{Cluster, Namespace};
use flutecast_testbed::release::{Images, Release};
use flutecast_testkit::wait_until;
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::web;

const SOON: Duration = Duration::from_secs(60);
/// Time limit for a change of policies or labels to take effect. One probe of an address whose packets are
/// dropped takes 3 s of it.
const POLICY_APPLIED: Duration = Duration::from_secs(20);
/// With these values the uninstall runs a clean-up pod, after the release's policies were deleted.
const VALUES: &str = "
dataplane: {replicas: 2, drain: {delay: 0s, window: 1s}}
protection: finalizer
uninstall: {keepMapping: false}
nats: {bundled: {mqtt: {enabled: true}}}
";

/// Connects from a pod to each address. Returns `open`, `refused` or `silent` (no answer) by address.
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

/// Waits until a connection from a pod to an address has the expected outcome.
async fn wait_for_outcome(
    cluster: &Cluster,
    namespace: &str,
    pod: &str,
    address: &str,
    expected: &str,
) -> anyhow::Result<()> {
    let what = format!("{expected} for {pod} of {namespace} to {address}");
    wait_until(&what, POLICY_APPLIED, async || {
        let seen = outcomes(cluster, namespace, pod, &[address]).await;
        if seen.values().eq([expected]) { Ok(()) } else { Err(format!("{seen:?}")) }
    })
    .await
}

/// Waits until a policy blocks a connection. Returns `false` on an existing cluster that doesn't enforce
/// policies, so that the test can end early.
///
/// # Panics
/// On this machine's own cluster, if the connection isn't blocked in time.
async fn is_enforced(cluster: &Cluster, namespace: &str, pod: &str, address: &str) -> bool {
    let silent = wait_for_outcome(cluster, namespace, pod, address, "silent").await;
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
    wait_for_outcome(&cluster, name, "client", server, "open").await.unwrap();

    // Ingress to the servers is denied. The client's egress isn't restricted, so DNS still works.
    let servers = json!({"matchLabels": {"app": "web"}});
    apply(&cluster, name, &policy("servers", &json!({"podSelector": servers}))).await;
    if !is_enforced(&cluster, name, "client", server).await {
        return;
    }
    web::probe(&cluster, &namespace, &["lookup", "web"]).await.unwrap();

    // Pods with the label are allowed. The client doesn't have it yet.
    let guests = json!({"matchLabels": {"role": "guest"}});
    let spec = json!({"podSelector": servers, "ingress": [{"from": [{"podSelector": guests}],
     "ports": [{"port": 8080}]}]});
    apply(&cluster, name, &policy("guests", &spec)).await;
    assert!(outcomes(&cluster, name, "client", &[server]).await.values().eq(["silent"]), "no label yet");
    cluster.kubectl(&["--namespace", name, "label", "pod", "client", "role=guest"]).await.unwrap();
    wait_for_outcome(&cluster, name, "client", server, "open").await.unwrap();
    // Readiness probes come from the kubelet, which policies never block.
    web::rolled_out(&cluster, &namespace).await;

    // A policy without egress rules denies all egress of the client, DNS included.
    let spec = json!({"podSelector": guests, "policyTypes": ["Egress"]});
    apply(&cluster, name, &policy("silence", &spec)).await;
    wait_for_outcome(&cluster, name, "client", server, "silent").await.unwrap();
    web::probe(&cluster, &namespace, &["lookup", "web"]).await.unwrap_err();
    cluster.kubectl(&["--namespace", name, "delete", "networkpolicy", "silence"]).await.unwrap();
    wait_for_outcome(&cluster, name, "client", server, "open").await.unwrap();
}

/// Returns a pod that passes the Pod Security level "restricted". It is never ready, so that no Service
/// selects it as an endpoint.
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

/// Starts pods and waits until all of them are running.
async fn start(cluster: &Cluster, namespace: &Namespace, pods: &[String]) {
    let name = namespace.name();
    apply(cluster, name, &pods.join("\n---\n")).await;
    let running = ["wait", "--for=jsonpath={.status.phase}=Running", "pods", "--all", "--timeout=50s"];
    cluster.kubectl_with(&[&["--namespace", name][..], &running].concat(), "", SOON).await.unwrap();
}

/// The addresses that pods try to reach, by purpose: those of a factory, of the cluster and of a stranger.
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

    /// Returns the addresses that are open to a pod.
    ///
    /// # Panics
    /// If any other address refuses the connection: a policy drops packets, it doesn't reject them.
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

/// Open to all pods with the chart's default values.
const OPEN_BY_DEFAULT: [&str; 7] =
    ["MQTT", "NATS", "NATS' metrics", "a pod's screens", "metrics", "screens", "the operator's metrics"];
/// Addresses outside the release, which its ingress policies don't cover.
const OUTSIDE_RELEASE: [&str; 3] = ["DNS", "a stranger", "the API"];
const COMPONENTS: [&str; 3] = ["operator", "dataplane", "nats"];

/// Returns an idle pod with a role label that policies select.
fn guest(role: &str, image: &str) -> String {
    pod(role, &json!({"role": role}), image, &["/probe", "pause"])
}

/// Starts the pods of another namespace. Returns the address of `stranger`, the only one that listens.
async fn start_outside(cluster: &Cluster, outside: &Namespace, image: &str) -> String {
    let stranger = pod("stranger", &json!({}), image, &["/probe", "serve", ":9999"]);
    let guests = ["gateway", "monitor", "device"].map(|role| guest(role, image));
    start(cluster, outside, &[&guests[..], &[stranger]].concat()).await;
    let get = ["--namespace", outside.name(), "get", "pod", "stranger", "-o", "jsonpath={.status.podIP}"];
    format!("{}:9999", cluster.kubectl(&get).await.unwrap())
}

/// Returns values that limit each port to the pods with the matching role.
fn limited_to_guests(outside: &Namespace) -> String {
    let limits =
        [("clients", "gateway"), ("monitoring", "monitor"), ("devices", "device")].map(|(value, role)| {
            let namespaces = json!({"matchLabels": {"kubernetes.io/metadata.name": outside.name()}});
            let pods = json!({"matchLabels": {"role": role}});
            format!("{value}: {}", json!([{"namespaceSelector": namespaces, "podSelector": pods}]))
        });
    format!("{VALUES}\nnetworkPolicy:\n  {}\n", limits.join("\n  "))
}

/// Starts idle pods with the labels of each component, which the release's policies select, and one pod
/// without those labels.
async fn start_impostors(cluster: &Cluster, namespace: &Namespace, image: &str) {
    let impostors = COMPONENTS.map(|component| {
        let labels = json!({
            "app.kubernetes.io/name": "flutecast",
            "app.kubernetes.io/instance": "factory",
            "app.kubernetes.io/component": component,
        });
        pod(component, &labels, image, &["/probe", "pause"])
    });
    start(cluster, namespace, &[&impostors[..], &[guest("unlabelled", image)]].concat()).await;
}

/// Asserts that each pod reaches exactly the addresses that its role needs.
async fn assert_reach_by_role(
    cluster: &Cluster,
    addresses: &Addresses,
    namespace: &Namespace,
    outside: &Namespace,
) {
    let monitors = ["DNS", "NATS' metrics", "a stranger", "metrics", "the API", "the operator's metrics"];
    let expected: [(&Namespace, &str, &[&str]); 8] = [
        (outside, "stranger", &OUTSIDE_RELEASE),
        (outside, "gateway", &["DNS", "a pod's screens", "a stranger", "screens", "the API"]),
        (outside, "monitor", &monitors),
        (outside, "device", &["DNS", "MQTT", "NATS", "a stranger", "the API"]),
        (namespace, "operator", &["DNS", "NATS", "the API"]),
        (namespace, "dataplane", &["DNS", "NATS", "the API"]),
        (namespace, "nats", &[]),
        (namespace, "unlabelled", &[]),
    ];
    // Concurrently, because each probe of a silent address lasts until its timeout.
    join_all(expected.map(async |(namespace, pod, open)| {
        assert_eq!(addresses.open_to(cluster, namespace.name(), pod).await, open, "{pod}");
    }))
    .await;
}

#[tokio::test]
async fn chart_policies_allow_only_required_connections() {
    let cluster = Cluster::shared().await.unwrap();
    let images = Images::of_workspace().unwrap();
    let [namespace, outside] =
        [cluster.namespace("guarded").await.unwrap(), cluster.namespace("outside").await.unwrap()];
    let image = cluster.probe_image().await.unwrap();
    let stranger = start_outside(&cluster, &outside, &image).await;

    // Some companies deny all traffic by default; the chart's policies have to work on top of that.
    let none = json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]});
    apply(&cluster, namespace.name(), &policy("default-deny", &none)).await;
    let mut factory = Release::install(&cluster, &namespace, "factory", &images, VALUES).await.unwrap();
    factory.apply_folder("manifests/demo").await.unwrap();
    factory.wait_ready().await.unwrap();

    // With the chart's default values its ports are open to all pods.
    let addresses = Addresses::of(&cluster, &factory, stranger).await;
    let mut all: Vec<_> = OPEN_BY_DEFAULT.iter().chain(&OUTSIDE_RELEASE).copied().collect();
    all.sort_unstable();
    assert_eq!(addresses.open_to(&cluster, outside.name(), "stranger").await, all);

    // Each port is limited to the pods with the matching role.
    factory.upgrade(&images, &limited_to_guests(&outside)).await.unwrap();
    if !is_enforced(&cluster, outside.name(), "stranger", &addresses.0["MQTT"]).await {
        return;
    }
    start_impostors(&cluster, &namespace, &image).await;
    assert_reach_by_role(&cluster, &addresses, &namespace, &outside).await;
    // Probes come from the node, which policies never block, so no pod was restarted.
    for component in COMPONENTS {
        let pods = factory.pods(component).await.unwrap();
        let alive = |pod: &&flutecast_testbed::release::Pod| pod.name.starts_with("factory-");
        assert!(pods.iter().filter(alive).all(|pod| pod.ready && pod.restarts == 0), "{pods:#?}");
    }

    // The clean-up pod works under the company's default-deny policy, when the release's policies are gone.
    let delete = ["delete", "pod", "--now", "unlabelled"];
    factory.kubectl(&[&delete[..], &COMPONENTS].concat()).await.unwrap();
    factory.uninstall().await.unwrap();
    let left = factory.kubectl(&["get", "configmaps,networkpolicies", "-o", "name"]).await.unwrap();
    let left: Vec<_> = left.lines().filter(|name| *name != "configmap/kube-root-ca.crt").collect();
    assert_eq!(left, ["networkpolicy.networking.k8s.io/default-deny"]);
}
