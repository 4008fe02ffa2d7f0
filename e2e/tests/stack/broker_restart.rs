//! nats-server is killed and restarted: no stored message of an `Every` channel is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use flutecast_testkit::{Publisher, SseClient};

use crate::factory::{SOON, numbers_until, resume, stack, switch, watch};

/// Publishes increasing numbers until `stop` is set, each when the broker has acknowledged the one before. A
/// number without acknowledgement is sent again with the same message id, so that it is stored once.
async fn publish_until_stopped(
    publisher: Publisher,
    subject: String,
    stop: Arc<AtomicBool>,
    stored: Arc<AtomicU64>,
) {
    let mut n = 0;
    while !stop.load(Ordering::Acquire) {
        n += 1;
        let id = format!("{subject}-{n}");
        // The client has its own timeout of five seconds; a refused connection fails at once.
        while publisher.publish_once(&subject, &id, switch(n)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        stored.store(n, Ordering::Release);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn wait_for_count(stored: &AtomicU64, count: u64) -> anyhow::Result<()> {
    flutecast_testkit::wait_until("stored messages", SOON * 2, async || {
        match stored.load(Ordering::Acquire) {
            now if now >= count => Ok(()),
            now => Err(format!("{now} of {count}")),
        }
    })
    .await
}

#[tokio::test]
async fn stored_messages_reach_clients_despite_broker_crashes() -> anyhow::Result<()> {
    let mut stack = stack().await?;
    let dataplane = stack.dataplane().await?;
    let subject = stack.subject("A-1", "switch")?;
    let mut stays = watch(&dataplane, "device=A-1&channel=switch").await?;
    let mut leaves = watch(&dataplane, "device=A-1&channel=switch").await?;
    let stop = Arc::new(AtomicBool::new(false));
    let stored = Arc::new(AtomicU64::new(0));
    let publishing =
        tokio::spawn(publish_until_stopped(stack.publisher().await?, subject, stop.clone(), stored.clone()));
    wait_for_count(&stored, 100).await?;

    // This client disconnects and keeps only its last event id.
    let mut before = numbers_until(&mut leaves, "switch", 50).await?;
    let id = next_id(&mut leaves, &mut before).await?;
    drop(leaves);

    stack.nats.kill().await?;
    // The broker stays down until the data plane has noticed.
    flutecast_testkit::wait_until("the data plane to notice the broker's absence", SOON, async || {
        match dataplane.metric("flutecast_broker_connected").await {
            Ok(0.0) => Ok(()),
            Ok(connected) => Err(format!("flutecast_broker_connected {connected}")),
            Err(error) => Err(format!("{error:#}")),
        }
    })
    .await?;
    stack.nats.restart().await?;
    let restarted_at = stored.load(Ordering::Acquire);
    wait_for_count(&stored, restarted_at + 100).await?;
    // The broker is restarted a second time, gracefully, while the client is still disconnected.
    stack.nats.restart().await?;
    let restarted_at = stored.load(Ordering::Acquire);
    wait_for_count(&stored, restarted_at + 100).await?;
    stop.store(true, Ordering::Release);
    publishing.await?;
    let last = stored.load(Ordering::Acquire);
    let all: Vec<u64> = (1..=last).collect();

    // The connected client has received everything once and in order.
    assert_eq!(numbers_until(&mut stays, "switch", last).await?, all, "the client that stayed connected");
    // The returning client receives everything after its last id, and nothing twice.
    let mut back = resume(&dataplane, "device=A-1&channel=switch", &id).await?;
    before.extend(numbers_until(&mut back, "switch", last).await?);
    assert_eq!(before, all, "the client that came back with {id}");
    // A new data plane, which has seen none of it, can resume the client too.
    let another = stack.dataplane().await?;
    let mut elsewhere = resume(&another, "device=A-1&channel=switch", &id).await?;
    let first = before.iter().position(|n| *n > before[49]).unwrap_or(50);
    let rest = numbers_until(&mut elsewhere, "switch", last).await?;
    assert!(all.ends_with(&rest) && rest.len() <= all.len() - first, "on another data plane: {rest:?}");
    Ok(())
}

/// Reads until an event carries an id, and appends the numbers read to `numbers`. Returns the id.
async fn next_id(client: &mut SseClient, numbers: &mut Vec<u64>) -> anyhow::Result<String> {
    loop {
        if let Some(id) = client.last_event_id() {
            return Ok(id.to_owned());
        }
        let event = client.next(SOON).await?;
        numbers.extend(crate::factory::value(&event).map(|(.., n)| n));
    }
}
