//! Messages that are older than the newest one or than `maxAge` reach no client and are counted.

use flutecast_testkit::{Dataplane, wait_until};

use crate::factory::{SOON, level, now_ms, numbers_until, stack, watch};

async fn dropped(dataplane: &Dataplane, reason: &str) -> anyhow::Result<u64> {
    let metric =
        dataplane.metric(&format!("flutecast_messages_dropped_total{{reason=\"{reason}\"}}")).await?;
    Ok(metric as u64)
}

async fn wait_for_drops(dataplane: &Dataplane, reason: &str, count: u64) -> anyhow::Result<()> {
    wait_until(&format!("{count} messages dropped as {reason}"), SOON, async || {
        match dropped(dataplane, reason).await {
            Ok(seen) if seen == count => Ok(()),
            Ok(seen) => Err(format!("{seen}")),
            Err(error) => Err(format!("{error:#}")),
        }
    })
    .await
}

#[tokio::test]
async fn stale_messages_reach_no_client_and_are_counted_by_reason() -> anyhow::Result<()> {
    let stack = stack().await?;
    let dataplane = stack.dataplane().await?;
    let publisher = stack.publisher().await?;
    let subject = stack.subject("A-1", "level")?;
    let mut client = watch(&dataplane, "device=A-1&channel=level").await?;
    let now = now_ms();

    publisher.publish(&subject, level(now, 1)).await?;
    assert_eq!(numbers_until(&mut client, "level", 1).await?, [1]);
    // Older than the message before by more than clocks may differ.
    publisher.publish(&subject, level(now - 1_500, 2)).await?;
    wait_for_drops(&dataplane, "OutOfOrder", 1).await?;
    // A little older, and of the same time: the message that was stored later counts. The client has got each
    // before the next one may replace it.
    publisher.publish(&subject, level(now - 500, 6)).await?;
    assert_eq!(numbers_until(&mut client, "level", 6).await?, [6]);
    publisher.publish(&subject, level(now, 7)).await?;
    assert_eq!(numbers_until(&mut client, "level", 7).await?, [7]);
    // Further ahead than `maxAhead`, 5 s.
    publisher.publish(&subject, level(now + 3_600_000, 3)).await?;
    wait_for_drops(&dataplane, "TooFarAhead", 1).await?;
    // Not JSON, and without a time.
    publisher.publish(&subject, "{\"ts\":").await?;
    wait_for_drops(&dataplane, "Malformed", 1).await?;
    publisher.publish(&subject, "{\"n\":4}").await?;
    wait_for_drops(&dataplane, "BadTimestamp", 1).await?;
    // A dropped message doesn't advance the newest time, so the next valid one passes.
    publisher.publish(&subject, level(now + 10, 5)).await?;
    assert_eq!(numbers_until(&mut client, "level", 5).await?, [5]);
    Ok(())
}

#[tokio::test]
async fn a_message_older_than_max_age_is_dropped_even_if_it_is_the_first() -> anyhow::Result<()> {
    let stack = stack().await?;
    let dataplane = stack.dataplane().await?;
    let publisher = stack.publisher().await?;
    let subject = stack.subject("B-1", "level")?;
    let mut client = watch(&dataplane, "device=B-1&channel=level").await?;
    let now = now_ms();
    publisher.publish(&subject, level(now - 31_000, 1)).await?;
    wait_for_drops(&dataplane, "TooOld", 1).await?;
    publisher.publish(&subject, level(now, 2)).await?;
    assert_eq!(numbers_until(&mut client, "level", 2).await?, [2]);
    Ok(())
}

#[tokio::test]
async fn silent_channel_becomes_stale_and_fresh_again() -> anyhow::Result<()> {
    let stack = stack().await?;
    stack.edit_manifest(
        "a.yaml",
        "{name: level, format: level}",
        "{name: level, format: level, staleAfter: 1s}",
    )?;
    let dataplane = stack.dataplane().await?;
    wait_until("the mapping with staleAfter", SOON, async || {
        let hello = async {
            let mut client =
                flutecast_testkit::SseClient::connect(&crate::factory::events(&dataplane, "device=A-1"), &[])
                    .await?;
            client.next_named("hello", SOON).await?.json()
        };
        let hello = hello.await.map_err(|error| format!("{error:#}"))?;
        let channel = hello["devices"][0]["channels"][0].clone();
        if channel["staleAfterMs"] == 1000 { Ok(()) } else { Err(hello.to_string()) }
    })
    .await?;
    let publisher = stack.publisher().await?;
    let subject = stack.subject("A-1", "level")?;
    let mut client = watch(&dataplane, "device=A-1&channel=level").await?;
    let stale = client.next_named("stale", SOON).await?.json()?;
    assert_eq!(stale["since"], serde_json::Value::Null, "the channel has no message yet: {stale}");
    let now = now_ms();
    publisher.publish(&subject, level(now, 1)).await?;
    let fresh = client
        .next_where("fresh or data", SOON, |event| event.data.is_some() && event.name() != "ping")
        .await?;
    assert_eq!(fresh.name(), "fresh", "fresh must come before its data");
    assert_eq!(numbers_until(&mut client, "level", 1).await?, [1]);
    let stale = client.next_named("stale", SOON).await?.json()?;
    assert_eq!((&stale["device"], &stale["channel"]), (&"A-1".into(), &"level".into()));
    assert_eq!(stale["staleAfterMs"], 1000);
    assert!(stale["since"].is_string(), "{stale}");
    Ok(())
}
