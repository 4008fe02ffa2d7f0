//! An API server goes away and comes back, and operators take over from each other: the end is the same.
//! `faults` has outages of a minute, `kills` kills operators.

use crate::manifests::{device, format, tenant};
use crate::support::mapping_of;
use crate::support::{Cluster, SOON};

#[tokio::test(flavor = "multi_thread")]
async fn outages_of_the_api_server_and_takeovers_lose_nothing() {
    let mut cluster = Cluster::with_operator().await;
    let mut all = vec![tenant("t", ""), format("on-off"), device("d1", "t", "C-1", "on-off")];
    cluster.apply(&all.join("---\n")).await;
    cluster.until_mapped(&mapping_of(&all).await).await;

    cluster.api.kill_api().await.unwrap();
    // The operator notices: a watch that ended can't be started again.
    let operator = cluster.operator.as_mut().unwrap();
    let broke_off = |line: &str| line.contains("the watch broke off");
    operator.process.wait_for_line("broken watch", SOON, broke_off).await.unwrap();
    cluster.api.start_api().await.unwrap();
    all.push(device("d2", "t", "C-2", "on-off"));
    cluster.apply(&all[3]).await;
    cluster.until_mapped(&mapping_of(&all).await).await;

    // A second operator waits for the Lease, and writes nothing.
    let second = cluster.spawn_operator("another").await;
    second.wait_until_ready().await;
    all.push(device("d3", "t", "C-3", "on-off"));
    cluster.apply(&all[4]).await;
    cluster.until_mapped(&mapping_of(&all).await).await;
    assert_eq!(second.metric("flutecast_operator_leading").await, 0.0);
    assert_eq!(second.metric("flutecast_operator_mapping_writes_total").await, 0.0);

    // An operator that ends in order gives the Lease back at once; one that is killed loses it after fifteen
    // seconds.
    let mut first = cluster.operator.take().unwrap();
    first.process.kill().await.unwrap();
    cluster.operator = Some(second);
    all.push(device("d4", "t", "C-4", "on-off"));
    cluster.apply(&all[5]).await;
    cluster.until_mapped(&mapping_of(&all).await).await;
    cluster.until_all_ready().await;
    let third = cluster.spawn_operator("a-third").await;
    let mut second = cluster.operator.replace(third).unwrap();
    second.process.terminate(SOON).await.unwrap();
    all.push(device("d5", "t", "C-5", "on-off"));
    cluster.apply(&all[6]).await;
    cluster.until_mapped(&mapping_of(&all).await).await;
}
