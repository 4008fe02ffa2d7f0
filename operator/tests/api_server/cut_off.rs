//! An operator whose watches receive nothing any more, and which then becomes the leader: it lists all
//! objects again before it does anything.
//!
//! A connection that is not closed and on which nothing arrives (a firewall forgot it, a node slept) can't be
//! distinguished from an idle one for two minutes. The Lease is requested over other connections.

use flutecast_nats::JetStreamApi;
use flutecast_testkit::wait_until;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::manifests::{device, format, tenant};
use crate::support::{Cluster, OWN, SOON};

/// A proxy to the API server whose connections can be cut without closing them. New connections work.
struct Way {
    address: String,
    /// Connections with a lower number are cut.
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
                let is_closed = *cut.borrow() == CLOSED;
                tokio::spawn(async move {
                    if is_closed {
                        // The connection is accepted, and nothing is forwarded.
                        let _near = near;
                        return std::future::pending().await;
                    }
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

    /// Cuts all connections, also new ones.
    fn close(&self) {
        self.cuts.send_replace(CLOSED);
    }

    /// Lets new connections work again.
    fn open(&self) {
        self.cuts.send_replace(0);
    }
}

/// The count of cuts of a closed proxy.
const CLOSED: u32 = u32::MAX;

/// Returns a kubeconfig of the operator that uses another address.
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
async fn an_operator_that_was_cut_off_lists_again_before_it_works() {
    let mut cluster = Cluster::with_operator().await;
    cluster.apply(&format!("{}---\n{}", tenant("old", ""), format("on-off"))).await;
    cluster.until_all_ready().await;
    let (way, kubeconfig) = over_a_way(&cluster).await;
    cluster.env.push(("KUBECONFIG".into(), kubeconfig.into()));
    let stands_by = cluster.spawn_operator("stands-by").await;
    stands_by.wait_until_ready().await;
    way.cut();

    // Meanwhile a Tenant comes, whose stream would be deleted with it, and its devices publish.
    let new = tenant("new", "retention: {onDelete: Delete}");
    cluster.apply(&format!("{new}---\n{}", device("d", "new", "C-1", "on-off"))).await;
    cluster.until_all_ready().await;
    let status = cluster.get("device", "d", "default").await.unwrap()["status"].clone();
    let subject = status["subjects"][0].as_str().unwrap().to_owned();
    let nats = cluster.nats.client().await.unwrap();
    nats.publish(subject.clone(), r#"{"on":true}"#.into()).await.unwrap();
    let streams = JetStreamApi::new(nats);
    let stored = wait_until("the message in the stream", SOON, async || {
        streams.last_sequence_on("IOT_new", &subject).await.unwrap().ok_or("not there")
    })
    .await
    .unwrap();
    let map = cluster.get("configmap", "flutecast-new-0", OWN).await.unwrap();

    // It becomes the leader, lists all objects, finds the Tenant, and continues with it.
    let mut first = cluster.operator.replace(stands_by).unwrap();
    assert!(first.process.terminate(SOON).await.unwrap().success());
    cluster.apply(&device("e", "new", "C-2", "on-off")).await;
    cluster.until("device", "e", "Ready=True Accepted").await;
    assert!(cluster.operator_log().contains("this operator is the one that works"));
    // If it took the stream for an orphan, it would delete it before that.
    assert_eq!(streams.last_sequence_on("IOT_new", &subject).await.unwrap(), Some(stored));
    let now = cluster.get("configmap", "flutecast-new-0", OWN).await.unwrap();
    assert_eq!(now["metadata"]["uid"], map["metadata"]["uid"], "the mapping was removed for a while");
    for line in cluster.operator.as_ref().unwrap().process.output() {
        assert!(!line.contains("the Tenant is gone"), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_that_loses_the_lease_in_the_middle_of_its_work_stops_at_once() {
    let mut cluster = Cluster::start().await;
    let (way, kubeconfig) = over_a_way(&cluster).await;
    cluster.env.push(("KUBECONFIG".into(), kubeconfig.into()));
    let loses = cluster.spawn_operator("loses").await;
    loses.wait_until_ready().await;
    let old: Vec<String> = (0..20).map(|number| format!("old-{number}")).collect();
    let tenants: Vec<String> = old.iter().map(|name| tenant(name, "access: {anonymous: true}")).collect();
    cluster.apply(&format!("{}---\n{}", tenants.join("---\n"), format("on-off"))).await;
    cluster.until_all_ready().await;
    cluster.env.clear();
    cluster.operator = Some(cluster.spawn_operator("takes-over").await);

    // The connection to the API server is cut, but not the one to NATS. What it learns from NATS makes it
    // write: the streams of its Tenants have another owner. Its requests get no answer, one after the other,
    // for longer than another operator waits for the Lease.
    way.close();
    let nats = cluster.nats.client().await.unwrap();
    let streams = JetStreamApi::new(nats.clone());
    for name in &old {
        let stream = format!("IOT_{name}");
        let mut config = streams.stream(&stream).await.unwrap().unwrap().config;
        config["metadata"]["flutecast.io/owner-name"] = "somebody-else".into();
        streams.update_stream(&stream, config).await.unwrap();
    }
    let works = |line: &str| line.contains("this operator is the one that works");
    cluster.operator.as_mut().unwrap().process.wait_for_line("another to lead", SOON, works).await.unwrap();

    // The operator that lost the Lease doesn't know the objects that come now, and must not take their
    // streams for orphans.
    let new = tenant("new", "retention: {onDelete: Delete}");
    cluster.apply(&format!("{new}---\n{}", device("d", "new", "C-1", "on-off"))).await;
    cluster.until("device", "d", "Ready=True Accepted").await;
    let status = cluster.get("device", "d", "default").await.unwrap()["status"].clone();
    let subject = status["subjects"][0].as_str().unwrap().to_owned();
    nats.publish(subject.clone(), r#"{"on":true}"#.into()).await.unwrap();
    let stored = wait_until("the message in the stream", SOON, async || {
        streams.last_sequence_on("IOT_new", &subject).await.unwrap().ok_or("not there")
    })
    .await
    .unwrap();
    // It compares the streams within 30 s, and soon after one of them changed.
    for number in 0..3 {
        cluster
            .apply(&tenant(
                "new",
                &format!("retention: {{onDelete: Delete, maxMessagesPerSubject: {}}}", 7 + number),
            ))
            .await;
        cluster.until("tenant", "new", "Ready=True Accepted").await;
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }
    assert_eq!(streams.last_sequence_on("IOT_new", &subject).await.unwrap(), Some(stored));
    way.open();
    for line in loses.process.output() {
        assert!(!line.contains("the Tenant is gone"), "{line}");
    }
}
