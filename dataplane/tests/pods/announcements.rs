//! A pod announces the mapping revisions that it serves: docs/protocol-internal.md, "Serving announcements".

use std::time::{Duration, Instant};

use async_nats::Subscriber;
use flutecast_testkit::wait_until;
use futures_util::StreamExt;
use serde_json::{Value, json};

use crate::fixture::{DEADLINE, PodFixture, shard};

const SECOND: Duration = Duration::from_secs(1);

async fn next(announcements: &mut Subscriber, deadline: Duration) -> Value {
    let message = tokio::time::timeout(deadline, announcements.next()).await.unwrap().unwrap();
    serde_json::from_slice(&message.payload).unwrap()
}

async fn listen(setup: &PodFixture, subject: &str) -> Subscriber {
    let announcements = setup.client.subscribe(subject.to_owned()).await.unwrap();
    setup.client.flush().await.unwrap();
    announcements
}

fn tenants(open: &str) -> Value {
    let shards = |revision: &str| json!({"shards": {"0": revision}});
    json!({"open": shards(open), "acme": shards("r1"), "other": shards("r1"), "shut": shards("r1")})
}

#[tokio::test(flavor = "multi_thread")]
async fn served_revisions_are_announced_on_change_on_request_and_periodically() {
    let mut setup = PodFixture::start(&["--server-name", "pod.1", "--release", "plant a"]).await;
    let mut announcements = listen(&setup, "flutecast.serving.plant_a.pod_1").await;

    // At the start, and periodically every 4 to 6 s.
    wait_until("the first", DEADLINE, async || {
        let announcement = next(&mut announcements, DEADLINE).await;
        if announcement["tenants"] == tenants("r1") { Ok(()) } else { Err(announcement.to_string()) }
    })
    .await
    .unwrap();
    let start = Instant::now();
    for _ in 0..3 {
        let announcement = next(&mut announcements, Duration::from_secs(7)).await;
        assert_eq!(announcement, json!({"server": "pod.1", "tenants": tenants("r1")}));
    }
    assert!(start.elapsed() > Duration::from_secs(7), "three announcements within {:?}", start.elapsed());

    // On request.
    setup.client.publish("flutecast.serving.plant_a.query", "".into()).await.unwrap();
    assert_eq!(next(&mut announcements, SECOND).await["server"], "pod.1");

    // On a change of the mapping, at once.
    setup.write("flutecast-open-0.yaml", &shard("open", "").replace("revision: r1", "revision: r2"));
    wait_until("the newer revision", SECOND, async || {
        let announcement = next(&mut announcements, SECOND).await;
        if announcement["tenants"] == tenants("r2") { Ok(()) } else { Err(announcement.to_string()) }
    })
    .await
    .unwrap();

    // A broken document is not served, so it is not announced.
    setup.write("flutecast-open-0.yaml", "tenant: [");
    wait_until("the problem", DEADLINE, async || {
        let count = setup.dataplane.metric("flutecast_catalog_problems{kind=\"Unreadable\"}").await;
        match count {
            Ok(1.0) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
    .unwrap();
    assert_eq!(next(&mut announcements, Duration::from_secs(7)).await["tenants"], tenants("r2"));

    // When the broker is back, without waiting for the next period.
    setup.nats.restart().await.unwrap();
    let client = setup.nats.client().await.unwrap();
    let mut announcements = client.subscribe("flutecast.serving.>").await.unwrap();
    client.flush().await.unwrap();
    assert_eq!(next(&mut announcements, DEADLINE).await["tenants"], tenants("r2"));
    assert!(setup.dataplane.metric("flutecast_announcements_total").await.unwrap() >= 6.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn release_defaults_to_local() {
    let setup = PodFixture::start(&["--server-name", "query"]).await;
    let mut announcements = listen(&setup, "flutecast.serving.local.*").await;
    // A pod of that name must not mistake its own announcements for requests.
    let message = tokio::time::timeout(DEADLINE, announcements.next()).await.unwrap().unwrap();
    assert_eq!(message.subject.as_str(), "flutecast.serving.local.query_");
}
