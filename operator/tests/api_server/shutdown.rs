//! An operator that gets SIGTERM ends in order: soon, with complete objects, and another one leads at
//! once.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use flutecast_contract::document::{AccessDocument, ShardDocument};
use flutecast_operator::lease::{self, Candidate, Leadership, LeaseMetrics};
use flutecast_testkit::wait_until;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tokio_util::sync::CancellationToken;

use crate::manifests::{device, format, tenant};
use crate::support::{Cluster, OWN, Running, SOON, said};

const DEVICES: usize = 200;
/// After this many statuses the operator is in the middle of its work.
const MIDST: f64 = 25.0;
/// Timeout for an orderly end. Kubernetes gives a pod thirty seconds.
const END: Duration = Duration::from_secs(10);
/// The time for which a Lease that was not given back is respected.
const LEASE: Duration = Duration::from_secs(15);

const STATUSES: [&str; 2] = ["verb=\"ApplyStatus\"", "kind=\"Device\""];

impl Cluster {
    async fn holder(&self, name: &str) -> Option<String> {
        let lease = self.get("lease", name, OWN).await?;
        let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default();
        (!holder.is_empty()).then(|| holder.to_owned())
    }

    /// Returns the versions of the Devices that have conditions. Each status is complete.
    async fn told(&self) -> BTreeMap<String, String> {
        let devices = self.list("devices", "default").await;
        let told = devices.iter().filter(|device| device["status"].is_object()).map(|device| {
            let (said, message) = said(device);
            assert_eq!(said, "Ready=True Accepted", "{message}");
            assert!(device["status"]["subjects"].is_array(), "{device:#}");
            let text = |field: &str| device["metadata"][field].as_str().unwrap().to_owned();
            (text("name"), text("resourceVersion"))
        });
        told.collect()
    }
}

/// Checks that the log has the lines of an orderly end in their order, and no warning.
fn assert_orderly(operator: &Running) {
    let output = operator.process.output();
    let end: Vec<&String> = output.iter().skip_while(|line| !line.contains("asked to end")).collect();
    let at = |what: &str| end.iter().position(|line| line.contains(what));
    let steps = ["asked to end", "the Lease is given back", "ended"].map(at);
    assert!(steps.iter().all(Option::is_some) && steps.is_sorted(), "{steps:?} {end:#?}");
    assert!(!end.iter().any(|line| line.contains(" WARN ") || line.contains("ERROR ")), "{end:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_ends_in_order_and_another_one_leads_at_once() {
    let mut cluster = Cluster::with_operator().await;
    let second = cluster.spawn_operator("the-second").await;
    second.wait_until_ready().await;
    assert_eq!(second.metric("flutecast_operator_leading").await, 0.0);
    let first = cluster.operator.take().unwrap();
    in_the_midst_of_work(&cluster, first, &second).await;
    cluster.operator = Some(second);
    the_next_start_writes_nothing(&mut cluster).await;
    the_lease_is_held_as_long_as_somebody_works(&cluster).await;
    without_an_api_server_it_ends_too(&mut cluster).await;
}

async fn in_the_midst_of_work(cluster: &Cluster, mut first: Running, second: &Running) {
    let devices = (0..DEVICES).map(|n| device(&format!("d{n}"), "t", &format!("C-{n}"), "on-off"));
    let all: Vec<String> = [tenant("t", ""), format("on-off")].into_iter().chain(devices).collect();
    let all = all.join("---\n");
    let end = async {
        wait_until("the operator to be in the midst of work", SOON, async || {
            let count = first.api_writes(&STATUSES).await;
            if count >= MIDST { Ok(()) } else { Err(count.to_string()) }
        })
        .await
        .unwrap();
        let asked = Instant::now();
        assert!(first.process.terminate(END).await.unwrap().success(), "{}", first.process.tail());
        let ended = Instant::now();
        assert_ne!(cluster.holder("flutecast-operator").await.as_deref(), Some("operator-of-a-test"));
        wait_until("the second operator to work", SOON, async || {
            match second.metric("flutecast_operator_leading").await {
                1.0 => Ok(()),
                _ => Err("not yet"),
            }
        })
        .await
        .unwrap();
        let took = (ended - asked, ended.elapsed());
        eprintln!("ended within {:?}; the second one works {:?} later", took.0, took.1);
        assert!(took.1 < LEASE / 2, "it waited for the end of the Lease");
        cluster.told().await
    };
    let ((), told) = tokio::join!(cluster.apply(&all), end);
    assert_orderly(&first);
    assert!(told.len() >= MIDST as usize, "{}", told.len());
    // The statuses that were being written are complete, and the second operator writes only the others.
    cluster.until_all_ready().await;
    for (name, text) in cluster.mapping().await {
        ShardDocument::from_yaml(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    AccessDocument::from_yaml(&cluster.access().await.unwrap()).unwrap();
    let after = cluster.told().await;
    assert_eq!(after.len(), DEVICES);
    let again: Vec<&String> = told.keys().filter(|name| after.get(*name) != told.get(*name)).collect();
    assert!(again.is_empty(), "said again: {again:?}");
    let rest = second.api_writes(&STATUSES).await;
    assert!(rest > 0.0, "the first one was through with everything: it was not in the midst of work");
    assert!(rest <= DEVICES as f64 - MIDST, "{rest} of {DEVICES} were said by the second one");
}

/// An operator that ends without work, and one that starts: neither writes.
async fn the_next_start_writes_nothing(cluster: &mut Cluster) {
    let before = cluster.versions().await;
    let mut second = cluster.operator.take().unwrap();
    assert!(second.process.terminate(END).await.unwrap().success());
    assert_orderly(&second);
    assert_eq!(cluster.holder("flutecast-operator").await, None);
    let began = Instant::now();
    cluster.start_operator().await;
    // A change that is handled after all others shows that the operator is done with them.
    cluster.kubectl(&["label", "fd", "d7", "shift=night"]).await;
    wait_until("the label in the mapping", SOON, async || {
        let mapping = cluster.mapping().await;
        let has_it = mapping.values().any(|text| text.contains("shift: night"));
        if has_it { Ok(()) } else { Err(format!("{:?}", mapping.keys())) }
    })
    .await
    .unwrap();
    assert!(began.elapsed() < LEASE, "a Lease that was given back is waited for");
    let mut after = cluster.versions().await;
    let changed: Vec<String> =
        after.keys().filter(|name| after.get(*name) != before.get(*name)).cloned().collect();
    assert_eq!(changed.len(), 2, "{changed:?}");
    assert!(after.remove("Device/d7").is_some() && changed.iter().any(|name| name.starts_with("ConfigMap/")));
    assert_eq!(cluster.operator.as_ref().unwrap().api_writes(&STATUSES).await, 0.0);
}

/// At most one operator leads: no other one gets the Lease while a task of the one that ends still works.
async fn the_lease_is_held_as_long_as_somebody_works(cluster: &Cluster) {
    let kubeconfig = Kubeconfig::read_from(cluster.api.kubeconfig()).unwrap();
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    let client = Client::try_from(config).unwrap();
    let candidate =
        Candidate { namespace: OWN.to_owned(), name: "a-turn".to_owned(), identity: "one".to_owned() };
    let cancel = CancellationToken::new();
    let (mut leading, task) = lease::spawn(client, candidate, LeaseMetrics::default(), cancel.clone());
    tokio::time::timeout(SOON, leading.wait_for(|lead| *lead == Leadership::Leader(1)))
        .await
        .unwrap()
        .unwrap();
    let works = leading.clone();
    drop(leading);
    cancel.cancel();
    // Much longer than giving the Lease back takes.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(cluster.holder("a-turn").await.as_deref(), Some("one"));
    assert!(!task.is_finished());
    drop(works);
    tokio::time::timeout(SOON, task).await.unwrap().unwrap();
    assert_eq!(cluster.holder("a-turn").await, None);
}

async fn without_an_api_server_it_ends_too(cluster: &mut Cluster) {
    cluster.api.kill_api().await.unwrap();
    let mut last = cluster.operator.take().unwrap();
    assert!(last.process.terminate(END).await.unwrap().success(), "{}", last.process.tail());
    let tail = last.process.tail();
    assert!(tail.contains("the Lease isn't given back") && tail.contains("ended"), "{tail}");
}
