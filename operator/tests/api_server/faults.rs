//! A minute without an API server, a minute without NATS, two operators at once, and a clock that is set:
//! nothing is lost, and the log describes it in few lines. The minutes pass at the same time, on two
//! clusters.

use std::time::Duration;

use flutecast_testkit::{FakeClock, wait_until};
use k8s_openapi::jiff::Timestamp;

use crate::manifests::{device, format, tenant};
use crate::support::mapping_of;
use crate::support::{Cluster, OWN, Running, SOON};

const MINUTE: Duration = Duration::from_secs(60);
/// The number of log lines that such a minute and the recovery may have: about one for each attempt, which
/// are some seconds apart.
const FEW: usize = 120;
const DELETED: &str = "retention: {onDelete: Delete}";

async fn until_streams(cluster: &Cluster, expected: &[&str]) {
    wait_until(&format!("the streams {expected:?}"), SOON, async || {
        let streams = cluster.streams().await;
        if streams == expected { Ok(()) } else { Err(format!("{streams:?}")) }
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}\n{}", cluster.operator_log()));
}

/// Checks that the lines since `from` include these, and are few.
fn says(operator: &Running, from: usize, told: &[&str]) {
    let lines: Vec<String> = operator.process.output().split_off(from);
    for told in told {
        assert!(lines.iter().any(|line| line.contains(told)), "no {told:?} in\n{}", lines.join("\n"));
    }
    assert!(lines.len() < FEW, "{} lines:\n{}", lines.len(), lines.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn outages_of_a_minute_and_set_clocks_lose_nothing() {
    tokio::join!(Box::pin(no_api_server_for_a_minute()), Box::pin(no_broker_for_a_minute()));
}

async fn no_api_server_for_a_minute() {
    let mut cluster = Cluster::with_operator().await;
    let all = vec![
        tenant("t", ""),
        tenant("gone", DELETED),
        format("on-off"),
        device("stays", "t", "C-1", "on-off"),
        device("changes", "t", "C-2", "on-off"),
        device("goes", "t", "C-3", "on-off"),
    ];
    cluster.apply(&all.join("---\n")).await;
    cluster.until_mapped(&mapping_of(&all).await).await;
    cluster.until_all_ready().await;
    let before = cluster.versions().await;
    let from = cluster.operator.as_ref().unwrap().process.line_count();

    cluster.api.kill_api().await.unwrap();
    // Meanwhile a stream is changed; it is repaired too.
    let nats = async_nats::jetstream::new(cluster.nats.client().await.unwrap());
    nats.delete_stream("IOT_t").await.unwrap();
    tokio::time::sleep(MINUTE).await;
    cluster.api.start_api().await.unwrap();

    cluster.kubectl(&["delete", "fd", "goes"]).await;
    cluster.kubectl(&["delete", "ft", "gone"]).await;
    let changed = device("changes", "t", "C-2", "other");
    let new = [format("other"), changed, device("new", "t", "C-4", "on-off")];
    cluster.apply(&new.join("---\n")).await;
    let all: Vec<String> = [all[0].clone(), all[2].clone(), all[3].clone()].into_iter().chain(new).collect();
    cluster.until_mapped(&mapping_of(&all).await).await;
    cluster.until_all_ready().await;
    until_streams(&cluster, &["IOT_t", "LAST_t"]).await;
    // Documents that didn't change were not written.
    let after = cluster.versions().await;
    for name in ["Device/stays", "Secret/flutecast-access"] {
        assert_eq!(after.get(name), before.get(name), "{name}");
    }
    let told = [
        "the watch broke off; it is taken up again",
        "the Lease can't be asked for",
        "this operator stops to work: it doesn't hold the Lease",
        "the watch is taken up again",
        "this operator is the one that works",
    ];
    says(cluster.operator.as_ref().unwrap(), from, &told);
}

async fn no_broker_for_a_minute() {
    let mut cluster = Cluster::start().await;
    let clock = FakeClock::new().unwrap();
    cluster.env = clock.env();
    // Two operators that start at the same time.
    let (one, two) = tokio::join!(cluster.spawn_operator("one"), cluster.spawn_operator("two"));
    tokio::join!(one.wait_until_ready(), two.wait_until_ready());
    let mut all = vec![
        tenant("t", ""),
        tenant("gone", DELETED),
        format("on-off"),
        device("d1", "t", "C-1", "on-off"),
        device("d2", "t", "C-2", "on-off"),
    ];
    cluster.apply(&all.join("---\n")).await;
    cluster.until_mapped(&mapping_of(&all).await).await;
    cluster.until_all_ready().await;
    let one_leads = one.metric("flutecast_operator_leading").await == 1.0;
    let (leader, standby) = if one_leads { (one, two) } else { (two, one) };
    cluster.operator = Some(leader);
    until_streams(&cluster, &["IOT_gone", "IOT_t", "LAST_gone", "LAST_t"]).await;
    wrote_nothing(&standby).await;
    a_clock_that_is_set(&cluster, &clock, &mut all).await;
    wrote_nothing(&standby).await;

    let from = cluster.operator.as_ref().unwrap().process.line_count();
    cluster.nats.stop().await.unwrap();
    cluster.until("tenant", "t", "Ready=False BrokerAway Reconciling=True").await;
    // All processes of Kubernetes continue.
    cluster.kubectl(&["delete", "fd", "d2"]).await;
    cluster.kubectl(&["delete", "ft", "gone"]).await;
    all.retain(|yaml| !yaml.contains("name: d2") && !yaml.contains("name: gone"));
    let new = [tenant("new", ""), device("d3", "new", "C-1", "on-off"), device("d4", "t", "C-4", "on-off")];
    cluster.apply(&new.join("---\n")).await;
    all.extend(new);
    cluster.until_mapped(&mapping_of(&all).await).await;
    cluster.until("device", "d4", "Ready=False BrokerAway Reconciling=True").await;
    cluster.until("device", "d1", "Ready=True Accepted").await;
    tokio::time::sleep(MINUTE).await;
    cluster.nats.restart().await.unwrap();
    cluster.until_all_ready().await;
    until_streams(&cluster, &["IOT_new", "IOT_t", "LAST_new", "LAST_t"]).await;
    cluster.until_mapped(&mapping_of(&all).await).await;
    wrote_nothing(&standby).await;
    let told =
        ["NATS is away; connecting again", "connected to NATS", "the Tenant is gone, and its stream with it"];
    says(cluster.operator.as_ref().unwrap(), from, &told);
    says(&standby, 0, &["NATS is away; connecting again"]);
}

/// Of two operators one writes; the other one only reads.
async fn wrote_nothing(standby: &Running) {
    assert_eq!(standby.metric("flutecast_operator_leading").await, 0.0);
    assert_eq!(standby.api_writes(&[]).await, 0.0, "{}", standby.process.tail());
    assert_eq!(standby.metric("flutecast_operator_stream_changes_total").await, 0.0);
}

/// The clock of the machine goes two hours ahead, then two and a half hours back. The leader stays the same,
/// and continues.
async fn a_clock_that_is_set(cluster: &Cluster, clock: &FakeClock, all: &mut Vec<String>) {
    let lease = async || cluster.get("lease", "flutecast-operator", OWN).await.unwrap()["spec"].clone();
    let before = lease().await;
    for (seconds, name, code) in [(7200, "ahead", "C-5"), (-1800, "back", "C-6")] {
        clock.set(seconds).unwrap();
        // The Lease shows that the operator has the new time.
        wait_until("the Lease to be renewed by the new time", SOON, async || {
            let lease = lease().await;
            let renewed: Timestamp = lease["renewTime"].as_str().unwrap().parse().unwrap();
            let off = renewed.duration_since(Timestamp::now()).as_secs() - seconds;
            if off.abs() < 600 { Ok(()) } else { Err(format!("{lease}, {off} s off")) }
        })
        .await
        .unwrap();
        let yaml = device(name, "t", code, "on-off");
        cluster.apply(&yaml).await;
        all.push(yaml);
        cluster.until_mapped(&mapping_of(all).await).await;
        cluster.until("device", name, "Ready=True Accepted").await;
        // Renewed with the new time by the same operator, without a pause.
        let renewed = lease().await;
        wait_until("the Lease to be renewed", SOON, async || {
            let now = lease().await;
            if now["renewTime"] == renewed["renewTime"] { Err(now.to_string()) } else { Ok(()) }
        })
        .await
        .unwrap();
    }
    let after = lease().await;
    for field in ["holderIdentity", "leaseTransitions", "acquireTime"] {
        assert_eq!(after[field], before[field], "{field}");
    }
    let lines = cluster.operator.as_ref().unwrap().process.output();
    assert!(!lines.iter().any(|line| line.contains("stops to work")), "{}", cluster.operator_log());
}
