//! Data planes subscribe only to watched devices, according to nats-server's own list of subscriptions.

use std::collections::BTreeSet;

use flutecast_testkit::{LocalStack, SseEvent, http_client, wait_until};

use crate::factory::{SOON, level, now_ms, stack, switch, value, watch};

/// Returns the subjects under `live.` with at least one subscription.
async fn live_subscriptions(stack: &LocalStack) -> anyhow::Result<BTreeSet<String>> {
    let answer = http_client::get_json(&format!("{}/connz?subs=1", stack.nats.monitor_url())).await?;
    let connections = answer["connections"].as_array().cloned().unwrap_or_default();
    let lists = connections.iter().filter_map(|connection| connection["subscriptions_list"].as_array());
    let subjects = lists.flatten().filter_map(|subject| subject.as_str());
    Ok(subjects.filter(|subject| subject.starts_with("live.")).map(str::to_owned).collect())
}

async fn wait_for_subscriptions(stack: &LocalStack, what: &str, wanted: &[String]) -> anyhow::Result<()> {
    let wanted: BTreeSet<_> = wanted.iter().cloned().collect();
    wait_until(what, SOON, async || match live_subscriptions(stack).await {
        Ok(seen) if seen == wanted => Ok(()),
        Ok(seen) => Err(format!("{seen:?} instead of {wanted:?}")),
        Err(error) => Err(format!("{error:#}")),
    })
    .await
}

#[tokio::test]
async fn only_watched_devices_are_subscribed() -> anyhow::Result<()> {
    let stack = stack().await?;
    let dataplane = stack.dataplane().await?;
    assert!(live_subscriptions(&stack).await?.is_empty(), "there are subscriptions without clients");

    let a = [stack.live_subject("A-1", "level")?, stack.live_subject("A-1", "switch")?];
    let first = watch(&dataplane, "device=A-1").await?;
    wait_for_subscriptions(&stack, "the subscriptions of A-1", &a).await?;
    // A second client of the same device shares its subscriptions.
    let second = watch(&dataplane, "device=A-1").await?;
    wait_for_subscriptions(&stack, "the same subscriptions", &a).await?;
    drop(first);
    // The server notices a closed connection only when it writes a message to it.
    let publisher = stack.publisher().await?;
    publisher.publish(&stack.subject("A-1", "level")?, level(now_ms(), 1)).await?;
    wait_for_subscriptions(&stack, "the subscriptions of the client that stays", &a).await?;
    drop(second);
    wait_for_subscriptions(&stack, "no subscriptions when the last client has left", &[]).await?;

    let both = [a.to_vec(), vec![stack.live_subject("B-1", "level")?, stack.live_subject("B-1", "switch")?]]
        .concat();
    let _both = watch(&dataplane, "selector=line%3Dl1").await?;
    wait_for_subscriptions(&stack, "the subscriptions of a selector", &both).await
}

#[tokio::test]
async fn messages_of_unwatched_devices_do_not_reach_the_data_plane() -> anyhow::Result<()> {
    let stack = stack().await?;
    let dataplane = stack.dataplane().await?;
    let mut client = watch(&dataplane, "device=A-1").await?;
    let publisher = stack.publisher().await?;
    for n in 1..=50 {
        publisher.publish(&stack.subject("B-1", "switch")?, switch(n)).await?;
    }
    publisher.publish(&stack.subject("A-1", "switch")?, switch(99)).await?;
    let event = client.next_where("A-1's message", SOON, |event: &SseEvent| value(event).is_some()).await?;
    assert_eq!(value(&event), Some(("A-1".into(), "switch".into(), 99)));
    let live = [stack.live_subject("A-1", "level")?, stack.live_subject("A-1", "switch")?];
    wait_for_subscriptions(&stack, "no subscription on B-1", &live).await
}
