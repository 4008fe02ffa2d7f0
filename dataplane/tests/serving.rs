//! A pod tells which mapping revisions it serves: docs/protocol-internal.md, "Serving announcements".
#![allow(clippy::unwrap_used, reason = "it is test code, which clippy sees only where #[test] is")]

mod http_support;

use std::time::{Duration, Instant};

use async_nats::Subscriber;
use flutecast_e2e::wait_until;
use futures_util::StreamExt;
use http_support::{Box, DEADLINE, shard};
use serde_json::{Value, json};

const SECOND: Duration = Duration::from_secs(1);

async fn next(announcements: &mut Subscriber, deadline: Duration) -> Value {
    let message = tokio::time::timeout(deadline, announcements.next()).await.unwrap().unwrap();
    serde_json::from_slice(&message.payload).unwrap()
}

async fn listen(setup: &Box, subject: &str) -> Subscriber {
    let announcements = setup.client.subscribe(subject.to_owned()).await.unwrap();
    setup.client.flush().await.unwrap();
    announcements
}

fn tenants(open: &str) -> Value {
    let shards = |revision: &str| json!({"shards": {"0": revision}});
    json!({"open": shards(open), "acme": shards("r1"), "other": shards("r1"), "shut": shards("r1")})
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_served_is_told_at_once_when_asked_and_again_and_again() {
    let mut setup = Box::start(&["--server-name", "pod.1", "--release", "plant a"]).await;
    let mut announcements = listen(&setup, "flutecast.serving.plant_a.pod_1").await;

    // From the start on, and without a reason every 4 to 6 s.
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

    // When asked.
    setup.client.publish("flutecast.serving.plant_a.query", "".into()).await.unwrap();
    assert_eq!(next(&mut announcements, SECOND).await["server"], "pod.1");

    // When the mapping changes: at once, and it is what clients get from then on.
    setup.write("flutecast-open-0.yaml", &shard("open", "").replace("revision: r1", "revision: r2"));
    wait_until("the newer revision", SECOND, async || {
        let announcement = next(&mut announcements, SECOND).await;
        if announcement["tenants"] == tenants("r2") { Ok(()) } else { Err(announcement.to_string()) }
    })
    .await
    .unwrap();

    // A broken document is not served, so it isn't told.
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

    // When the broker is back, without waiting for the next turn.
    setup.nats.restart().await.unwrap();
    let client = setup.nats.client().await.unwrap();
    let mut announcements = client.subscribe("flutecast.serving.>").await.unwrap();
    client.flush().await.unwrap();
    assert_eq!(next(&mut announcements, DEADLINE).await["tenants"], tenants("r2"));
    assert!(setup.dataplane.metric("flutecast_announcements_total").await.unwrap() >= 6.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_release_it_is_local() {
    let setup = Box::start(&["--server-name", "query"]).await;
    let mut announcements = listen(&setup, "flutecast.serving.local.*").await;
    // A pod of that name doesn't mistake its own announcements for questions.
    let message = tokio::time::timeout(DEADLINE, announcements.next()).await.unwrap().unwrap();
    assert_eq!(message.subject.as_str(), "flutecast.serving.local.query_");
}
