//! A factory by Argo CD, from `manifests/argocd` as shipped.

use std::time::Duration;

use flutecast_testbed::cluster::Cluster;

use crate::counting;
use crate::gitops::make_bare;
use crate::plant_1::{ENROLLED, Plant};

#[tokio::test]
async fn comes_up_without_a_hand_and_stays_synced_while_devices_send() {
    let cluster = Cluster::shared().await.unwrap();
    let plant = Plant::bring_up(&cluster, &[], |_| ()).await;
    eprintln!("all Applications are Synced and Healthy {:.1?} after kubectl apply", plant.took);
    plant.add_everything().await;

    let seen = plant.send_for(Duration::from_secs(120)).await;
    eprintln!("{seen:#?}");
    let others: Vec<_> = seen.states.keys().filter(|state| !state.ends_with(" Synced Healthy")).collect();
    assert!(others.is_empty(), "{seen:#?}");
    assert!(seen.sent > 2_000, "{seen:#?}");
    // Neither a status nor anything else that the operator writes is a reason to compare with git. When a
    // device enrolls, and when it is Healthy, the project looks at what it has (level 1), and not into git.
    let enrolled = format!("Device self-1-{}, level 1", counting::iot_id("demo", ENROLLED));
    let expected = |(object, times): (&String, &u32)| object.ends_with(&enrolled) && *times <= 2;
    assert!(seen.refreshes.by_object.iter().all(expected), "{seen:#?}");
    assert_eq!(seen.refreshes.syncs, 0, "{seen:#?}");

    plant.delete().await;
    make_bare(&cluster).await;
}
