//! What is in use can't be deleted, and nothing ever hangs for want of an operator.
#![allow(clippy::unwrap_used, clippy::panic)] // Also in helpers, which clippy does not take for tests.

mod kube_support;
mod manifests;

use flutecast_e2e::wait_until;
use kube_support::{Cluster, SOON, repository};
use manifests::{device, format, tenant};

fn plant(name: &str) -> String {
    format!("{}---\n{}---\n{}", tenant(name, ""), format("on-off"), device("d", name, "C-1", "on-off"))
}

/// What kubectl says when it is refused.
async fn refused(cluster: &Cluster, args: &[&str]) -> String {
    match cluster.api.kubectl(args, "").await {
        Err(error) => error.to_string(),
        Ok(output) => panic!("kubectl {args:?} should be refused: {output}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_use_stays_and_a_namespace_goes() {
    let mut cluster = Cluster::with_operator().await;
    cluster
        .kubectl(&["apply", "--server-side", "-f", &repository("manifests/operator/protection.yaml")])
        .await;
    cluster.apply(&plant("t")).await;
    cluster.until("device", "d", "Ready=True Accepted").await;
    the_policy_is_in_force(&cluster).await;

    let said = refused(&cluster, &["delete", "ft", "t"]).await;
    assert!(said.contains("Tenant t is used by Device d (C-1); delete the Devices"), "{said}");
    let said = refused(&cluster, &["delete", "fpf", "on-off"]).await;
    assert!(
        said.contains("PushFormat on-off is used by Device d (C-1), channel power; change or delete"),
        "{said}"
    );
    for (kind, name) in [("tenant", "t"), ("pushformat", "on-off"), ("device", "d")] {
        let object = cluster.get(kind, name, "default").await.unwrap();
        assert_eq!(object["metadata"].get("deletionTimestamp"), None, "{object:#}");
        assert_eq!(object["metadata"].get("finalizers"), None, "{object:#}");
        cluster.until(kind, name, "Ready=True Accepted").await;
    }
    what_nobody_uses_goes_at_once(&cluster).await;
    a_namespace_goes_without_an_operator(&mut cluster).await;
}

/// The API server compiles a policy in its own time.
async fn the_policy_is_in_force(cluster: &Cluster) {
    for (kind, name) in [("tenant", "t"), ("pushformat", "on-off")] {
        wait_until("the policy to be in force", SOON, async || {
            let probe = ["delete", kind, name, "--dry-run=server"];
            match cluster.api.kubectl(&probe, "").await {
                Err(error) if error.to_string().contains("is used by Device d") => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await
        .unwrap();
    }
}

async fn what_nobody_uses_goes_at_once(cluster: &Cluster) {
    cluster.apply(&format("spare")).await;
    cluster.kubectl(&["delete", "fpf", "spare", "--timeout=5s"]).await;
    // As soon as the last user is gone, the operator has no part in it.
    cluster.kubectl(&["delete", "fd", "d", "--timeout=5s"]).await;
    wait_until("the format and the Tenant to go", SOON, async || {
        let delete = ["delete", "fpf/on-off", "ft/t", "--ignore-not-found", "--timeout=5s"];
        cluster.api.kubectl(&delete, "").await.map_err(|error| error.to_string())
    })
    .await
    .unwrap();
}

async fn a_namespace_goes_without_an_operator(cluster: &mut Cluster) {
    cluster.kubectl(&["create", "namespace", "plant-2"]).await;
    let apply = ["apply", "--server-side", "-n", "plant-2", "-f", "-"];
    cluster.api.kubectl(&apply, &plant("t2")).await.unwrap();
    wait_until("the device of the namespace to be ready", SOON, async || {
        let wait = ["wait", "fd", "d", "-n", "plant-2", "--for=condition=Ready", "--timeout=5s"];
        cluster.api.kubectl(&wait, "").await.map_err(|error| error.to_string())
    })
    .await
    .unwrap();
    // The operator dies, and nobody starts it again.
    cluster.operator.take().unwrap().process.kill().await.unwrap();
    let said = refused(cluster, &["delete", "ft", "t2", "-n", "plant-2"]).await;
    assert!(said.contains("is used by Device d"), "{said}");
    cluster.kubectl(&["delete", "namespace", "plant-2", "--wait=false"]).await;
    // There is no controller-manager here: this is what its namespace controller does, in the order that is worst for us.
    for kinds in ["tenants", "pushformats", "devices"] {
        let path = format!("/apis/flutecast.io/v1alpha1/namespaces/plant-2/{kinds}");
        cluster.kubectl(&["delete", "--raw", &path]).await;
    }
    let left = cluster.list("tenants,pushformats,devices", "plant-2").await;
    assert!(left.is_empty(), "{left:#?}");
    let namespace = cluster.kubectl(&["get", "namespace", "plant-2", "-o", "json"]).await;
    let mut namespace: serde_json::Value = serde_json::from_str(&namespace).unwrap();
    assert_eq!(namespace["status"]["phase"], "Terminating");
    namespace["spec"]["finalizers"] = serde_json::json!([]);
    let finalize = ["replace", "--raw", "/api/v1/namespaces/plant-2/finalize", "-f", "-"];
    cluster.api.kubectl(&finalize, &namespace.to_string()).await.unwrap();
    let gone = cluster.kubectl(&["get", "namespace", "plant-2", "--ignore-not-found"]).await;
    assert_eq!(gone, "");
}
