//! An operator whose watches went deaf, and which then begins to lead: it looks at everything anew before it does anything.
//!
//! A connection that nobody closes and nothing comes through (a firewall forgot it, a node slept) looks like one on which nothing
//! happens, for two minutes. The Lease is asked for over other connections.
#![allow(clippy::unwrap_used, clippy::panic)] // Also in helpers, which clippy does not take for tests.

mod kube_support;
mod manifests;

use flutecast_e2e::wait_until;
use flutecast_operator::jetstream::api::Api;
use kube_support::{Cluster, OWN, SOON};
use manifests::{device, format, tenant};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// A way to the API server whose connections can be cut without their ends hearing of it. New ones work.
struct Way {
    address: String,
    /// Connections that were made before this count are cut.
    cuts: watch::Sender<u32>,
}

impl Way {
    async fn to(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("https://{}", listener.local_addr().unwrap());
        let (cuts, cut) = watch::channel(0);
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let (server, mut cut) = (server.clone(), cut.clone());
                cut.mark_unchanged();
                tokio::spawn(async move {
                    let Ok(mut far) = TcpStream::connect(server).await else { return };
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                        Ok(()) = cut.changed() => std::future::pending().await,
                    }
                });
            }
        });
        Self { address, cuts }
    }

    fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }
}

/// A kubeconfig of the operator that leads over another way.
async fn over_a_way(cluster: &Cluster) -> (Way, std::path::PathBuf) {
    let path = cluster.kubeconfig_of_the_operator().await;
    let mut kubeconfig: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    let server = &mut kubeconfig["clusters"][0]["cluster"]["server"];
    let way = Way::to(server.as_str().unwrap().trim_start_matches("https://").to_owned()).await;
    *server = way.address.clone().into();
    let path = path.with_file_name("cut-off.kubeconfig.yaml");
    std::fs::write(&path, kubeconfig.to_string()).unwrap();
    (way, path)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_that_was_cut_off_looks_again_before_it_works() {
    let mut cluster = Cluster::with_operator().await;
    cluster.apply(&format!("{}---\n{}", tenant("old", ""), format("on-off"))).await;
    cluster.until_all_ready().await;
    let (way, kubeconfig) = over_a_way(&cluster).await;
    cluster.env.push(("KUBECONFIG".into(), kubeconfig.into()));
    let stands_by = cluster.spawn_operator("stands-by").await;
    stands_by.wait_until_ready().await;
    way.cut();

    // While it is deaf a Tenant comes, whose stream goes with it, and its devices send.
    let new = tenant("new", "retention: {onDelete: Delete}");
    cluster.apply(&format!("{new}---\n{}", device("d", "new", "C-1", "on-off"))).await;
    cluster.until_all_ready().await;
    let status = cluster.get("device", "d", "default").await.unwrap()["status"].clone();
    let subject = status["subjects"][0].as_str().unwrap().to_owned();
    let nats = cluster.nats.client().await.unwrap();
    nats.publish(subject.clone(), r#"{"on":true}"#.into()).await.unwrap();
    let streams = Api::new(nats);
    let stored = wait_until("the message in the stream", SOON, async || {
        streams.last_sequence_on("IOT_new", &subject).await.unwrap().ok_or("not there")
    })
    .await
    .unwrap();
    let map = cluster.get("configmap", "flutecast-new-0", OWN).await.unwrap();

    // Its turn: it lists everything, finds the Tenant, and goes on with it.
    let mut first = cluster.operator.replace(stands_by).unwrap();
    assert!(first.process.terminate(SOON).await.unwrap().success());
    cluster.apply(&device("e", "new", "C-2", "on-off")).await;
    cluster.until("device", "e", "Ready=True Accepted").await;
    assert!(cluster.operator_log().contains("this operator is the one that works"));
    // Where it takes something for a leftover it does so before that.
    assert_eq!(streams.last_sequence_on("IOT_new", &subject).await.unwrap(), Some(stored));
    let now = cluster.get("configmap", "flutecast-new-0", OWN).await.unwrap();
    assert_eq!(now["metadata"]["uid"], map["metadata"]["uid"], "the mapping was removed for a while");
    for line in cluster.operator.as_ref().unwrap().process.output() {
        assert!(!line.contains("the Tenant is gone"), "{line}");
    }
}
