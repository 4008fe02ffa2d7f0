//! Features of the cluster that all other tests rely on.

use std::time::Duration;

use flutecast_testbed::cluster::Cluster;
use flutecast_testkit::wait_until;
use serde_json::json;

use crate::web;

#[tokio::test]
async fn service_balances_its_pods_and_dns_resolves_names() {
    let cluster = Cluster::shared().await.unwrap();
    let namespace = cluster.namespace("smoke").await.unwrap();
    let name = namespace.name();
    web::start(&cluster, &namespace).await;

    // Each pod gets about half of the requests. Fewer than ten of sixty on one side happens by chance once in
    // ten million runs.
    let pods = web::pods(&cluster, &namespace).await;
    let answers = web::answers(&cluster, &namespace, "http://web", 60).await;
    assert!(answers.keys().eq(pods.keys()), "{answers:?} by {pods:?}");
    assert!(answers.values().all(|count| *count >= 10), "{answers:?}");
    let reach = cluster.reach(name, "web", 80).await.unwrap();
    web::is_served(&reach.address).await;

    let service = cluster
        .kubectl(&["-n", name, "get", "service", "web", "-o", "jsonpath={.spec.clusterIP}"])
        .await
        .unwrap();
    for host in ["web".to_owned(), format!("web.{name}.svc.cluster.local")] {
        assert_eq!(
            web::probe(&cluster, &namespace, &["lookup", &host]).await.unwrap().trim(),
            service,
            "{host}"
        );
    }
    let unknown =
        web::probe(&cluster, &namespace, &["lookup", "nowhere.flutecast.invalid"]).await.unwrap_err();
    assert!(unknown.to_string().contains("no such host"), "{unknown:#}");

    let logs = cluster.kubectl(&["-n", name, "logs", "-l", "app=web", "--tail=-1"]).await.unwrap();
    assert_eq!(logs.matches("serving as web-").count(), 2, "{logs}");
}

#[tokio::test]
async fn claim_survives_its_pod_and_is_writable_without_root() {
    let cluster = Cluster::shared().await.unwrap();
    let namespace = cluster.namespace("claim").await.unwrap();
    let image = cluster.probe_image().await.unwrap();
    let claim = json!({
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    });
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "client"},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "securityContext": {
                "runAsNonRoot": true, "runAsUser": 1234, "runAsGroup": 1234, "fsGroup": 1234,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [{
                "name": "probe",
                "image": image,
                "imagePullPolicy": "IfNotPresent",
                "securityContext": {
                    "allowPrivilegeEscalation": false,
                    "readOnlyRootFilesystem": true,
                    "capabilities": {"drop": ["ALL"]},
                },
                "volumeMounts": [{"name": "data", "mountPath": "/data"}],
            }],
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
        },
    });
    let start = async || {
        let objects = format!("{claim}\n---\n{pod}");
        let name = namespace.name();
        let deadline = Duration::from_secs(90);
        cluster.kubectl_with(&["-n", name, "apply", "-f", "-"], &objects, deadline).await.unwrap();
        let ready = ["-n", name, "wait", "--for=condition=Ready", "pod/client", "--timeout=80s"];
        cluster.kubectl_with(&ready, "", deadline).await.unwrap();
    };
    start().await;
    web::probe(&cluster, &namespace, &["write", "/data/kept", "still here"]).await.unwrap();
    cluster.kubectl(&["-n", namespace.name(), "delete", "pod", "client"]).await.unwrap();
    start().await;
    assert_eq!(web::probe(&cluster, &namespace, &["read", "/data/kept"]).await.unwrap(), "still here");
}

#[tokio::test]
async fn namespace_is_deleted_when_its_handle_is_dropped() {
    let cluster = Cluster::shared().await.unwrap();
    let namespace = cluster.namespace("short").await.unwrap();
    let name = namespace.name().to_owned();
    drop(namespace);
    wait_until("the deletion of the namespace", Duration::from_secs(60), async || {
        match cluster.kubectl(&["get", "namespace", &name, "--ignore-not-found", "-o", "name"]).await {
            Ok(text) if text.is_empty() => Ok(()),
            Ok(text) => Err(text),
            Err(error) => Err(format!("{error:#}")),
        }
    })
    .await
    .unwrap();
}
