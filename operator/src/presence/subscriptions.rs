//! Subscriptions to the live subjects of Silent devices.
//!
//! Their number is bounded: each takes some kilobytes here, and a whole plant may be switched off. The
//! remaining devices are polled.

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::{Client, Subscriber};
use flutecast_contract::subject;
use flutecast_nats::LiveMessage;
use futures_util::StreamExt;
use futures_util::stream::select_all;
use tokio::task::{AbortHandle, JoinSet};

use super::device::LastMessage;
use super::scheduler::DeviceId;
use super::table::Target;

/// One subscription for each channel with a `staleAfter`. One takes 5 KiB here (measured), so all of them
/// 10 MiB.
const MAX_SUBSCRIPTIONS: usize = 2048;
/// Timeout for subscribing. While the connection holds, the request is only put into a queue.
const DEADLINE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Subscriptions {
    client: Client,
    tasks: JoinSet<(DeviceId, LastMessage)>,
    open: BTreeMap<DeviceId, (AbortHandle, usize)>,
    count: usize,
}

impl Subscriptions {
    pub(super) fn new(client: Client) -> Self {
        Self { client, tasks: JoinSet::new(), open: BTreeMap::new(), count: 0 }
    }

    /// Subscribes to a device until its first message. Returns `false` if that isn't possible.
    ///
    /// Requests that are sent over the same connection after this returns are answered after the subscription
    /// is in force.
    pub(super) async fn subscribe(&mut self, id: DeviceId, target: &Target) -> bool {
        let count = target.channels.len();
        if self.open.contains_key(&id) {
            return true;
        }
        if self.count + count > MAX_SUBSCRIPTIONS {
            return false;
        }
        let subscribed = tokio::time::timeout(DEADLINE, subscribe(&self.client, target)).await;
        let Ok(Some(channels)) = subscribed else { return false };
        let task = self.tasks.spawn(async move { (id, first_message(channels).await) });
        self.open.insert(id, (task, count));
        self.count += count;
        true
    }

    pub(super) fn unsubscribe(&mut self, id: DeviceId) {
        if let Some((task, count)) = self.open.remove(&id) {
            task.abort();
            self.count -= count;
        }
    }

    /// Returns the next message of a device, and ends its subscriptions. Pending while there is none.
    ///
    /// # Cancel safety
    /// No message gets lost.
    pub(super) async fn next(&mut self) -> (DeviceId, LastMessage) {
        loop {
            match self.tasks.join_next().await {
                Some(Ok((id, message))) if self.open.contains_key(&id) => {
                    self.unsubscribe(id);
                    return (id, message);
                }
                // Of a device that was unsubscribed meanwhile.
                Some(Ok(_) | Err(_)) => {}
                None => std::future::pending().await,
            }
        }
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }
}

async fn subscribe(client: &Client, target: &Target) -> Option<Vec<Subscriber>> {
    let mut channels = Vec::with_capacity(target.channels.len());
    for (channel, _) in &target.channels {
        let subject = subject::live(&target.tenant, &target.iot_id, channel);
        channels.push(client.subscribe(subject).await.ok()?);
    }
    Some(channels)
}

/// Waits for the first message that the stream republished. Other messages on these subjects don't count.
async fn first_message(channels: Vec<Subscriber>) -> LastMessage {
    let numbered = channels
        .into_iter()
        .enumerate()
        .map(|(channel, messages)| messages.map(move |message| (channel, message)));
    let mut messages = select_all(numbered);
    while let Some((channel, message)) = messages.next().await {
        if let Some(message) = LiveMessage::read(message) {
            return LastMessage { channel, sequence: message.sequence.0, stored: message.stored_at };
        }
    }
    // The connection is closed for good, which ends the program.
    std::future::pending().await
}
