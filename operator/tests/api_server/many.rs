//! Many devices: few writes, and none when nothing changes.

use flutecast_testkit::wait_until;

use crate::manifests::{device, format, tenant};
use crate::support::{Cluster, Running, SOON};

const DEVICES: usize = 300;
/// The allowed number of writes.
const WRITES_PER_DEVICE: f64 = 2.2;

/// Returns the number of all writes to the API server, except those of the Lease.
async fn writes(operator: &Running) -> f64 {
    operator.api_writes(&[]).await - operator.api_writes(&["kind=\"Lease\""]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_costs_few_writes() {
    let cluster = Cluster::with_operator().await;
    let devices: Vec<String> =
        (0..DEVICES).map(|n| device(&format!("d{n}"), "t", &format!("C-{n}"), "on-off")).collect();
    // The devices come before the objects they refer to.
    cluster.apply(&devices[..DEVICES / 3].join("---\n")).await;
    cluster.apply(&format!("{}---\n{}", tenant("t", ""), format("on-off"))).await;
    cluster.apply(&devices[DEVICES / 3..].join("---\n")).await;
    cluster.until_all_ready().await;
    let operator = cluster.operator.as_ref().unwrap();
    let count = writes(operator).await;
    assert!(count <= WRITES_PER_DEVICE * DEVICES as f64, "{count} writes for {DEVICES} devices");

    // A small change causes no other write.
    let settled = cluster.versions().await;
    cluster.kubectl(&["label", "fd", "d7", "line=l1"]).await;
    wait_until("the label in the mapping", SOON, async || {
        let mapping = cluster.mapping().await;
        if mapping["flutecast-t-0"].contains("line: l1") { Ok(()) } else { Err("not there") }
    })
    .await
    .unwrap();
    let after = cluster.versions().await;
    let changed: Vec<&String> = after.keys().filter(|name| after.get(*name) != settled.get(*name)).collect();
    assert_eq!(changed, ["ConfigMap/flutecast-t-0", "Device/d7"]);
}
