//! Components of the cluster are killed in turn: what keeps working without them, and that they come back.

use std::time::Duration;

use flutecast_testbed::cluster::{Cluster, Component, Request};
use flutecast_testkit::{http_client, wait_until};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::web;

const SOON: Duration = Duration::from_secs(60);

#[tokio::test]
async fn pods_survive_kills_of_kubelet_and_containerd() {
    let cluster = Cluster::shared().await.unwrap();
    let namespace = cluster.namespace("kubelet").await.unwrap();
    web::start(&cluster, &namespace).await;
    let before = web::pods(&cluster, &namespace).await;
    let reach = cluster.reach(namespace.name(), "web", 80).await.unwrap();
    for component in [Component::Kubelet, Component::Containerd] {
        let fault = cluster.kill(component).await.unwrap();
        for _ in 0..20 {
            let answer = http_client::get(&format!("http://{}/", reach.address)).await.unwrap();
            assert!(answer.status.is_success(), "without {component}: {}", answer.text());
        }
        fault.mend().await.unwrap();
        cluster.wait_until_whole().await.unwrap();
        assert_eq!(
            web::pods(&cluster, &namespace).await,
            before,
            "pods were replaced or restarted when {component} came back"
        );
    }
    // The node still starts new pods.
    let victim = format!("pod/{}", before.keys().next().unwrap());
    cluster.kubectl(&["-n", namespace.name(), "delete", "--wait=false", &victim]).await.unwrap();
    wait_until("a replacement pod", SOON, async || {
        let now = web::pods(&cluster, &namespace).await;
        if now.len() == 2 && now != before { Ok(()) } else { Err(format!("{now:?}")) }
    })
    .await
    .unwrap();
    web::rolled_out(&cluster, &namespace).await;
}

#[tokio::test]
async fn control_plane_keeps_its_state_across_restarts() {
    let cluster = Cluster::shared().await.unwrap();
    let namespace = cluster.namespace("control").await.unwrap();
    web::start(&cluster, &namespace).await;
    let reach = cluster.reach(namespace.name(), "web", 80).await.unwrap();
    for component in [
        Component::Etcd,
        Component::KubeApiserver,
        Component::KubeControllerManager,
        Component::KubeScheduler,
    ] {
        let fault = cluster.kill(component).await.unwrap();
        let ready = cluster.kubectl(&["get", "--raw", "/readyz", "--request-timeout=5s"]).await;
        let needs_it = matches!(component, Component::Etcd | Component::KubeApiserver);
        assert_eq!(ready.is_err(), needs_it, "without {component}: {ready:?}");
        web::is_served(&reach.address).await;
        fault.mend().await.unwrap();
        cluster.wait_until_whole().await.unwrap();
    }
    // Scaling needs both the controller manager and the scheduler.
    cluster.kubectl(&["-n", namespace.name(), "scale", "deployment/web", "--replicas=3"]).await.unwrap();
    web::rolled_out(&cluster, &namespace).await;
    assert_eq!(web::pods(&cluster, &namespace).await.len(), 3);
}

#[tokio::test]
async fn frozen_api_server_hangs_and_recovers() {
    let cluster = Cluster::shared().await.unwrap();
    let fault = cluster.freeze(Component::KubeApiserver).await.unwrap();
    let hung = cluster.kubectl(&["get", "--raw", "/readyz", "--request-timeout=2s"]).await;
    assert!(hung.is_err(), "{hung:?}");
    fault.mend().await.unwrap();
    cluster.wait_until_whole().await.unwrap();
}

#[tokio::test]
async fn component_that_exits_is_restarted() {
    let cluster = Cluster::shared().await.unwrap();
    let node = cluster.node().unwrap();
    let proxy = async || {
        let statuses = node.request(Request::Status).await.unwrap();
        statuses.into_iter().find(|status| status.component == Component::KubeProxy).unwrap()
    };
    let before = proxy().await;
    node.exec("kill", &["-9", &before.pid.unwrap().to_string()]).await.unwrap();
    wait_until("the restart of kube-proxy", SOON, async || match proxy().await {
        now if now.pid.is_some() && now.restarts == before.restarts + 1 => Ok(()),
        now => Err(format!("{now:?}")),
    })
    .await
    .unwrap();
    // Dropping a fault also mends it.
    drop(cluster.kill(Component::KubeProxy).await.unwrap());
    assert!(proxy().await.pid.is_some());
}

/// Sends a request over an existing connection. Returns the response.
async fn ask(connection: &mut TcpStream) -> std::io::Result<String> {
    connection.write_all(b"GET / HTTP/1.1\r\nHost: web\r\n\r\n").await?;
    let mut answer = vec![0; 1024];
    let length = connection.read(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
}

#[tokio::test]
async fn without_the_policy_program_only_established_connections_work() {
    let cluster = Cluster::shared().await.unwrap();
    let namespace = cluster.namespace("judge").await.unwrap();
    web::start(&cluster, &namespace).await;
    let reach = cluster.reach(namespace.name(), "web", 80).await.unwrap();
    let connect = async || timeout(Duration::from_secs(2), TcpStream::connect(&reach.address)).await;
    let mut before = connect().await.unwrap().unwrap();
    assert!(ask(&mut before).await.unwrap().starts_with("HTTP/1.1 200"));

    let fault = cluster.kill(Component::NetworkPolicies).await.unwrap();
    assert!(ask(&mut before).await.unwrap().starts_with("HTTP/1.1 200"), "the old connection works");
    connect().await.expect_err("a new connection that no policy program has allowed");
    fault.mend().await.unwrap();
    cluster.wait_until_whole().await.unwrap();
    web::is_served(&reach.address).await;
    assert!(ask(&mut before).await.unwrap().starts_with("HTTP/1.1 200"), "the old connection still works");
}
