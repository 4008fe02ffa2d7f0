//! Somebody changes a ConfigMap of the mapping again and again: the operator repairs it at a decreasing rate.

use std::time::Duration;

use flutecast_testkit::wait_until;
use tokio::time::Instant;

use crate::manifests::{device, format, tenant};
use crate::support::{Cluster, OWN, SOON};

/// The ConfigMap that is changed.
const MAP: &str = "flutecast-t-0";
/// The time for which the changes are repeated. The operator repairs at 0, and about 1, 3 and 6 s later.
const WAR: Duration = Duration::from_secs(8);
/// The field manager of the changes.
const EDITOR: &str = "somebody-else";

async fn edit(cluster: &Cluster) {
    let patch = r#"{"data": {"mapping.yaml": "broken: ["}}"#;
    let manager = format!("--field-manager={EDITOR}");
    cluster.kubectl(&["patch", "configmap", MAP, "-n", OWN, "--type=merge", "-p", patch, &manager]).await;
}

async fn until_in_mapping(cluster: &Cluster, map: &str, text: &str, deadline: Duration) {
    wait_until(&format!("{text:?} in {map}"), deadline, async || {
        let mapping = cluster.mapping().await;
        if mapping.get(map).is_some_and(|document| document.contains(text)) {
            Ok(())
        } else {
            Err(format!("{mapping:?}"))
        }
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}\n{}", cluster.operator_log()));
}

#[tokio::test(flavor = "multi_thread")]
async fn repeated_edits_are_repaired_less_and_less_often() {
    let cluster = Cluster::with_operator().await;
    let devices = [device("d1", "t", "C-1", "on-off"), device("d2", "u", "C-2", "on-off")];
    cluster.apply(&format!("{}---\n{}---\n{}", tenant("t", ""), tenant("u", ""), format("on-off"))).await;
    cluster.apply(&devices.join("---\n")).await;
    cluster.until_all_ready().await;
    let operator = cluster.operator.as_ref().unwrap();
    let repairs = "flutecast_operator_mapping_repairs_total{kind=\"ConfigMap\"}";
    assert_eq!(operator.metric(repairs).await, 0.0);

    // A single change is repaired at once.
    edit(&cluster).await;
    until_in_mapping(&cluster, MAP, "C-1", Duration::from_secs(5)).await;
    assert_eq!(operator.metric(repairs).await, 1.0);

    // Repeated changes are not.
    let (begun, mut edits, mut waited) = (Instant::now(), 0, false);
    while begun.elapsed() < WAR {
        edit(&cluster).await;
        edits += 1;
        waited |= operator.metric("flutecast_operator_mapping_repairs_waiting").await > 0.0;
    }
    let made = operator.metric(repairs).await;
    eprintln!("{edits} edits, put right {made} times");
    assert!(waited, "nothing ever waited");
    assert!(edits >= 20, "the machine is too slow for a war: {edits} edits");
    assert!((2.0..=7.0).contains(&made), "{edits} edits were put right {made} times");
    let log = cluster.operator_log();
    assert!(log.contains("somebody keeps on changing it") && log.contains(EDITOR), "{log}");

    // Other documents are not delayed, and neither are real changes.
    edit(&cluster).await;
    cluster.kubectl(&["label", "fd", "d2", "line=l2"]).await;
    until_in_mapping(&cluster, "flutecast-u-0", "line: l2", Duration::from_secs(5)).await;
    cluster.kubectl(&["label", "fd", "d1", "line=l1"]).await;
    until_in_mapping(&cluster, MAP, "line: l1", Duration::from_secs(5)).await;

    // In the end the mapping is as wanted.
    edit(&cluster).await;
    until_in_mapping(&cluster, MAP, "line: l1", SOON).await;
    assert_eq!(operator.metric("flutecast_operator_mapping_repairs_waiting").await, 0.0);
}
