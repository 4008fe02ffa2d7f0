//! The rights of a data-plane pod, what it reports when one is missing, and the peers that it sees.

use flutecast_testkit::http_client::get;
use flutecast_testkit::{metrics_page, wait_until};
use serde_json::{Value, json};

use super::fixture::{KubeFixture, NAMESPACE, Pod};
use crate::fixture::{DEADLINE, shard};

/// A digest that must never be logged.
const DIGEST: &str = "5994471abb01112afcc18159f6cc74b4f511b99806da59b3caf5a9c173cacfc5";

fn access() -> String {
    format!(
        "{{apiVersion: mapping.flutecast.io/v1, tenants: {{open: {{tokens: {{a: {{sha256: {DIGEST}}}}}}}}}}}"
    )
}

/// An EndpointSlice of the Service `dp` with these endpoints: name, ready, serving, terminating.
fn slice(name: &str, endpoints: &[(&str, bool, bool, bool)]) -> Value {
    let endpoint = |(at, (pod, ready, serving, terminating)): (usize, &(&str, bool, bool, bool))| {
        json!({
            "addresses": [format!("10.0.0.{}", at + 1)],
            "conditions": {"ready": ready, "serving": serving, "terminating": terminating},
            "targetRef": {"kind": "Pod", "name": pod},
        })
    };
    let endpoints: Vec<Value> = endpoints.iter().enumerate().map(endpoint).collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": "dp"}},
        "endpoints": endpoints, "ports": [],
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_right_is_reported_and_used_once_granted() {
    let kube = KubeFixture::start().await;
    kube.apply_shard("open", &shard("open", "")).await;
    kube.apply_access(&access()).await;
    let mut pod = kube.dataplane(&["--service", "dp", "--log", "trace"]);
    let account = format!("system:serviceaccount:{NAMESPACE}:flutecast-dataplane");
    for resource in ["configmaps", "secrets"] {
        let role = format!("needs list and watch on {resource}");
        pod.wait_for_readiness(false, &role).await;
        pod.process
            .wait_for_line(&role, DEADLINE, |line| line.contains(&role) && line.contains(&account))
            .await
            .unwrap();
    }
    pod.process
        .wait_for_line("endpointslices", DEADLINE, |line| line.contains("on endpointslices"))
        .await
        .unwrap();

    kube.grant().await;
    pod.wait_for_readiness(true, "r1").await;
    pod.wait_for_metric("flutecast_catalog_problems{kind=\"Unreadable\"}", 0).await;

    // The peers, read with the same rights.
    kube.apply(&slice(
        "dp-1",
        &[("a", true, true, false), ("b", true, true, false), ("c", false, true, true)],
    ))
    .await;
    let mut other = slice("other", &[("x", true, true, false)]);
    other["metadata"]["labels"]["kubernetes.io/service-name"] = json!("other");
    kube.apply(&other).await;
    for (state, count) in [("Ready", 2), ("Serving", 3), ("Terminating", 1)] {
        pod.wait_for_metric(&format!("flutecast_peers{{state=\"{state}\"}}"), count).await;
    }
    kube.apply(&slice("dp-1", &[("a", true, true, false)])).await;
    kube.apply(&slice("dp-2", &[("d", false, false, false)])).await;
    for (state, count) in [("Ready", 1), ("Serving", 1), ("Terminating", 0)] {
        pod.wait_for_metric(&format!("flutecast_peers{{state=\"{state}\"}}"), count).await;
    }
    each_right_is_used(&kube, &account).await;
    documented_metrics_are_exactly_those_exported(&pod).await;
    kube.kubectl(&["delete", "endpointslice", "dp-1"], "").await;
    pod.wait_for_metric("flutecast_peers{state=\"Ready\"}", 0).await;

    // Credentials are not logged at any level, not even if they can't be parsed.
    kube.apply_access(&access().replace("tenants", "tenants: [")).await;
    pod.wait_for_metric("flutecast_catalog_problems{kind=\"Unreadable\"}", 1).await;
    let output = pod.process.output().join("\n");
    let encoded = data_encoding::BASE64.encode(access().as_bytes());
    for secret in [&kube.token(), DIGEST, &encoded] {
        assert!(!output.contains(secret), "the log shows {secret}");
    }
    assert!(output.contains("TRACE"), "the log is not at its finest level");
}

/// Compares the metrics page with the table in docs/operations.md.
async fn documented_metrics_are_exactly_those_exported(pod: &Pod) {
    // So that the metrics of requests have a sample.
    get(&format!("{}/v1/nobody/devices", pod.url)).await.unwrap();
    let text = get(&format!("{}/metrics", pod.admin_url)).await.unwrap().text();
    let page = include_str!("../../../../docs/operations.md");
    let is_ours = |name: &str| !name.starts_with("flutecast_operator_");
    let differences =
        metrics_page::differences(&text, page, |name| name.starts_with("flutecast_") && is_ours(name));
    assert!(differences.is_empty(), "{differences:#?}");
}

/// Checks in the audit log that the pod used each rule of the manifest, by verb and resource.
async fn each_right_is_used(kube: &KubeFixture, account: &str) {
    let rights = flutecast_dataplane::rights::RIGHTS.iter().copied().flatten();
    let stated = rights.flat_map(|right| {
        let uses = move |verb| {
            right.resources.iter().map(move |resource| format!("{verb} {}/{resource}", right.group))
        };
        right.verbs.iter().flat_map(uses)
    });
    let stated: Vec<String> = stated.collect();
    wait_until("each right to be used", DEADLINE, async || {
        let requests = kube.api.audit().unwrap();
        let granted = requests.iter().filter(|request| {
            request["user"]["username"] == account && request["responseStatus"]["code"].as_u64() != Some(403)
        });
        let used: Vec<String> = granted
            .map(|request| {
                let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                let object = &request["objectRef"];
                format!(
                    "{} {}/{}",
                    word(&request["verb"]),
                    word(&object["apiGroup"]),
                    word(&object["resource"])
                )
            })
            .collect();
        let idle: Vec<&String> = stated.iter().filter(|right| !used.contains(right)).collect();
        if idle.is_empty() { Ok(()) } else { Err(format!("not used: {idle:?}")) }
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn rights_are_minimal() {
    let kube = KubeFixture::with_rights().await;
    let account = format!("system:serviceaccount:{NAMESPACE}:flutecast-dataplane");
    let may = async |verb: &str, resource: &str, namespace: &str| {
        let args = ["-n", namespace, "auth", "can-i", verb, resource, "--as", &account];
        // kubectl fails if the answer is no.
        kube.api.kubectl(&args, "").await.is_ok_and(|answer| answer.trim() == "yes")
    };
    for (verb, resource) in [
        ("list", "configmaps"),
        ("watch", "configmaps"),
        ("watch", "endpointslices.discovery.k8s.io"),
        ("list", "secrets/flutecast-access"),
        ("watch", "secrets/flutecast-access"),
    ] {
        assert!(may(verb, resource, NAMESPACE).await, "{verb} {resource}");
    }
    for (verb, resource, namespace) in [
        ("list", "secrets", NAMESPACE),
        ("get", "secrets/acme-dashboards", NAMESPACE),
        ("get", "secrets/flutecast-access", NAMESPACE),
        ("get", "configmaps", NAMESPACE),
        ("update", "secrets/flutecast-access", NAMESPACE),
        ("create", "configmaps", NAMESPACE),
        ("delete", "configmaps", NAMESPACE),
        ("get", "pods", NAMESPACE),
        ("list", "configmaps", "default"),
        ("get", "secrets/flutecast-access", "default"),
    ] {
        assert!(!may(verb, resource, namespace).await, "{verb} {resource} in {namespace}");
    }
}
