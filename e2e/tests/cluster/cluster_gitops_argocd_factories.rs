//! Three factories by one ApplicationSet of Argo CD, `manifests/argocd/factories.yaml`.

use std::time::Duration;

use flutecast_testbed::cluster::Cluster;
use flutecast_testbed::gitops::{Argocd, GitRepository};
use flutecast_testbed::release::Images;
use flutecast_testkit::{in_repository, wait_until};
use tokio::time::Instant;

use crate::gitops::make_bare;

const FACTORIES: [&str; 3] = ["plant-a", "plant-b", "plant-c"];
const PARTS: [&str; 4] = ["", "-release", "-tenants", "-devices"];
const HEALTHY: Duration = Duration::from_secs(150);
const GONE: Duration = Duration::from_secs(120);
/// Values of a small release.
const RELEASE: &str = "dataplane: {replicas: 1}\n\
                       nats: {bundled: {enabled: true, sourceSubjects: [plant.>, mes.out]}}\n";

#[tokio::test]
async fn three_factories_come_and_go_and_their_data_stays() {
    let cluster = Cluster::shared().await.unwrap();
    make_bare(&cluster).await;
    Images::of_workspace().unwrap().load_as_shipped(&cluster).await.unwrap();
    let argocd = Argocd::start(&cluster).await.unwrap();
    let git = GitRepository::of_checkout(&cluster, "flutecast").await.unwrap();
    for name in FACTORIES {
        git.copy_in(&in_repository("manifests/demo"), &format!("factories/{name}")).unwrap();
        git.write(&format!("factories/{name}/release.yaml"), RELEASE).unwrap();
    }
    git.commit("Three factories").await.unwrap();
    let begin = Instant::now();
    // Of this file only what all factories share.
    let plant = git.read("manifests/argocd/plant-1.yaml").unwrap();
    cluster.apply(plant.split("\n---\n").next().unwrap()).await.unwrap();
    cluster.apply(&git.read("manifests/argocd/factories.yaml").unwrap()).await.unwrap();
    for name in FACTORIES {
        for part in PARTS {
            let left = HEALTHY.saturating_sub(begin.elapsed());
            argocd.wait_healthy(&format!("{name}{part}"), None, left).await.unwrap();
        }
    }
    eprintln!("three factories are Synced and Healthy {:.1?} after kubectl apply", begin.elapsed());

    let begin = Instant::now();
    let delete = ["-n", "argocd", "delete", "applicationset", "flutecast-factories", "--timeout=50s"];
    cluster.kubectl(&delete).await.unwrap();
    wait_until("only the kinds to be left", GONE, async || {
        let left = cluster.kubectl(&["-n", "argocd", "get", "applications.argoproj.io", "-o", "name"]).await;
        let left = left.map_err(|error| format!("{error:#}"))?;
        if left.trim() == "application.argoproj.io/flutecast-kinds" { Ok(()) } else { Err(left) }
    })
    .await
    .unwrap();
    eprintln!("and are gone {:.1?} after the ApplicationSet", begin.elapsed());
    for name in FACTORIES {
        let left = cluster.kubectl(&["-n", name, "get", "pods,ft,fd,fpf", "-o", "name"]).await.unwrap();
        assert!(left.is_empty(), "{left}");
        // What the values keep.
        for kept in ["persistentvolumeclaim/data-flutecast-nats-0", "secret/flutecast-nats-passwords"] {
            cluster.kubectl(&["-n", name, "get", kept]).await.unwrap();
        }
    }
    let delete = ["delete", "namespaces", "--timeout=50s"];
    cluster.kubectl(&[&delete[..], &FACTORIES].concat()).await.unwrap();
    make_bare(&cluster).await;
}
