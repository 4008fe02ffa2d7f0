//! A Deployment of two pods behind a Service, and a pod that sends requests to them.

use std::collections::BTreeMap;
use std::time::Duration;

use flutecast_testbed::cluster::{Cluster, Namespace};
use flutecast_testkit::{http_client, wait_until};
use serde_json::json;

/// Time limit for a rollout on a busy machine.
const ROLLOUT: Duration = Duration::from_secs(90);

/// Starts two replicas of `web` and the pod `client`, and waits until all are ready.
pub(crate) async fn start(cluster: &Cluster, namespace: &Namespace) {
    let image = cluster.probe_image().await.unwrap();
    let labels = json!({"app": "web"});
    let container = |command: &[&str]| {
        json!({"name": "probe", "image": image,
     "imagePullPolicy": "IfNotPresent", "command": command})
    };
    let mut server = container(&["/probe", "serve", ":8080"]);
    server["readinessProbe"] = json!({"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1});
    let objects = json!({"apiVersion": "v1", "kind": "List", "items": [
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "web"},
            "spec": {
                "replicas": 2,
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": {"containers": [server]}},
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "web"},
            "spec": {"selector": labels, "ports": [{"port": 80, "targetPort": 8080}]},
        },
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "client"},
            "spec": {"containers": [container(&["/probe", "pause"])], "terminationGracePeriodSeconds": 1},
        },
    ]});
    let name = namespace.name();
    cluster.kubectl_with(&["-n", name, "apply", "-f", "-"], &objects.to_string(), ROLLOUT).await.unwrap();
    rolled_out(cluster, namespace).await;
    let ready = ["-n", name, "wait", "--for=condition=Ready", "pod/client", "--timeout=80s"];
    cluster.kubectl_with(&ready, "", ROLLOUT).await.unwrap();
}

/// Waits until the rollout of `web` is complete.
pub(crate) async fn rolled_out(cluster: &Cluster, namespace: &Namespace) {
    let rollout = ["-n", namespace.name(), "rollout", "status", "deployment/web", "--timeout=80s"];
    cluster.kubectl_with(&rollout, "", ROLLOUT).await.unwrap();
}

/// Runs the probe in the pod `client`.
pub(crate) async fn probe(cluster: &Cluster, namespace: &Namespace, args: &[&str]) -> anyhow::Result<String> {
    let mut all = vec!["-n", namespace.name(), "exec", "client", "--", "/probe"];
    all.extend(args);
    cluster.kubectl(&all).await
}

/// Sends `times` requests from the pod `client`, each on a new connection. Returns the number of responses by
/// server.
pub(crate) async fn answers(
    cluster: &Cluster,
    namespace: &Namespace,
    url: &str,
    times: u32,
) -> BTreeMap<String, u32> {
    let text = probe(cluster, namespace, &["get", url, &times.to_string()]).await.unwrap();
    let answer = |line: &str| {
        let (count, name) = line.split_once(' ').unwrap();
        (name.to_owned(), count.parse().unwrap())
    };
    text.lines().map(answer).collect()
}

/// Returns the number of restarts by name of the `web` pods.
pub(crate) async fn pods(cluster: &Cluster, namespace: &Namespace) -> BTreeMap<String, u64> {
    let list = ["-n", namespace.name(), "get", "pods", "-l", "app=web", "-o", "json"];
    let list: serde_json::Value = serde_json::from_str(&cluster.kubectl(&list).await.unwrap()).unwrap();
    let pod = |pod: &serde_json::Value| {
        // A new pod has no container status yet.
        let restarts = pod["status"]["containerStatuses"][0]["restartCount"].as_u64().unwrap_or(0);
        (pod["metadata"]["name"].as_str().unwrap().to_owned(), restarts)
    };
    list["items"].as_array().unwrap().iter().map(pod).collect()
}

/// Waits until the Service responds to requests from this machine.
pub(crate) async fn is_served(address: &str) {
    let url = format!("http://{address}/");
    let answered = async || http_client::get_text(&url).await;
    wait_until("a response from the Service", Duration::from_secs(30), answered).await.unwrap();
}
