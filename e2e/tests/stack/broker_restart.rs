//! nats-server is killed and comes back: no `Every` message that was stored is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use flutecast_testkit::{Publisher, SseClient};

use crate::factory::{SOON, numbers_until, resume, stack, switch, watch};

/// Publishes rising numbers one after the other, each until the broker says that it has stored it, until told
/// to stop. A number whose acknowledgement got lost is sent again with the same message id, so that it is
/// stored once.
async fn publish_until_told(
    publisher: Publisher,
    subject: String,
    stop: Arc<AtomicBool>,
    stored: Arc<AtomicU64>,
) {
    let mut n = 0;
    while !stop.load(Ordering::Acquire) {
        n += 1;
        let id = format!("{subject}-{n}");
        // The time limit is the client's own, five seconds; a refused connection answers at once.
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
async fn every_stored_message_reaches_clients_through_a_crash_of_the_broker() -> anyhow::Result<()> {
    let mut stack = stack().await?;
    let dataplane = stack.dataplane().await?;
    let subject = stack.subject("A-1", "switch")?;
    let mut stays = watch(&dataplane, "device=A-1&channel=switch").await?;
    let mut leaves = watch(&dataplane, "device=A-1&channel=switch").await?;
    let stop = Arc::new(AtomicBool::new(false));
    let stored = Arc::new(AtomicU64::new(0));
    let publishing =
        tokio::spawn(publish_until_told(stack.publisher().await?, subject, stop.clone(), stored.clone()));
    wait_for_count(&stored, 100).await?;

    // One client has seen some of it and goes; its last event id is all that it takes along.
    let mut before = numbers_until(&mut leaves, "switch", 50).await?;
    let id = next_id(&mut leaves, &mut before).await?;
    drop(leaves);

    stack.nats.kill().await?;
    // The broker stays away until the data plane has seen that it is.
    flutecast_testkit::wait_until("the data plane without a broker", SOON, async || {
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
    // The broker goes a second time, in order, while the client is still away.
    stack.nats.restart().await?;
    let restarted_at = stored.load(Ordering::Acquire);
    wait_for_count(&stored, restarted_at + 100).await?;
    stop.store(true, Ordering::Release);
    publishing.await?;
    let last = stored.load(Ordering::Acquire);
    let all: Vec<u64> = (1..=last).collect();

    // The client that stayed has everything, in order, once.
    assert_eq!(numbers_until(&mut stays, "switch", last).await?, all, "the client that stayed connected");
    // The client that comes back gets what came after its last id, and nothing twice.
    let mut back = resume(&dataplane, "device=A-1&channel=switch", &id).await?;
    before.extend(numbers_until(&mut back, "switch", last).await?);
    assert_eq!(before, all, "the client that came back with {id}");
    // A data plane that has never seen any of it serves it just as well.
    let another = stack.dataplane().await?;
    let mut elsewhere = resume(&another, "device=A-1&channel=switch", &id).await?;
    let first = before.iter().position(|n| *n > before[49]).unwrap_or(50);
    let rest = numbers_until(&mut elsewhere, "switch", last).await?;
    assert!(all.ends_with(&rest) && rest.len() <= all.len() - first, "on another data plane: {rest:?}");
    Ok(())
}

/// Reads on until an event carries an id, and keeps the numbers before it.
async fn next_id(client: &mut SseClient, numbers: &mut Vec<u64>) -> anyhow::Result<String> {
    loop {
        if let Some(id) = client.last_event_id() {
            return Ok(id.to_owned());
        }
        let event = client.next(SOON).await?;
        numbers.extend(crate::factory::value(&event).map(|(.., n)| n));
    }
}
