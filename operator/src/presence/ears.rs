//! Listens to devices that are silent: nothing is heard, and nothing costs, until one speaks.
//!
//! Only so many at once: each subscription takes some kilobytes here, and a whole plant may be switched off.
//! The others are looked up from time to time.

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::{Client, Subscriber};
use flutecast_contract::subject;
use futures_util::StreamExt;
use futures_util::stream::select_all;
use tokio::task::{AbortHandle, JoinSet};

use super::board::Followed;
use super::crowd::Id;
use super::lookup::place_of;
use super::pulse::Heard;

/// How many subscriptions there are at most, one for each channel with a `staleAfter`. One takes 5 KiB here
/// (measured), so all of them 10 MiB.
pub const MOST: usize = 2048;
/// How long it may take to subscribe: as long as the connection holds, the request is only put into a queue.
const DEADLINE: Duration = Duration::from_secs(1);

/// The subscriptions.
#[derive(Debug)]
pub struct Ears {
    client: Client,
    tasks: JoinSet<(Id, Heard)>,
    open: BTreeMap<Id, (AbortHandle, usize)>,
    subscriptions: usize,
}

impl Ears {
    /// None yet.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client, tasks: JoinSet::new(), open: BTreeMap::new(), subscriptions: 0 }
    }

    /// Listens to a device, until it is heard for the first time. Answers whether it can: what is asked of
    /// the broker from here on over the same connection is answered after the subscription holds.
    pub async fn listen(&mut self, id: Id, followed: &Followed) -> bool {
        let count = followed.channels.len();
        if self.open.contains_key(&id) {
            return true;
        }
        if self.subscriptions + count > MOST {
            return false;
        }
        let subscribed = tokio::time::timeout(DEADLINE, subscribe(&self.client, followed)).await;
        let Ok(Some(channels)) = subscribed else { return false };
        let task = self.tasks.spawn(async move { (id, first(channels).await) });
        self.open.insert(id, (task, count));
        self.subscriptions += count;
        true
    }

    /// Listens to a device no longer.
    pub fn forget(&mut self, id: Id) {
        if let Some((task, count)) = self.open.remove(&id) {
            task.abort();
            self.subscriptions -= count;
        }
    }

    /// The next device that is heard; it is no longer listened to. For ever pending while none is.
    pub async fn next(&mut self) -> (Id, Heard) {
        loop {
            match self.tasks.join_next().await {
                Some(Ok((id, heard))) if self.open.contains_key(&id) => {
                    self.forget(id);
                    return (id, heard);
                }
                // Somebody who was forgotten.
                Some(Ok(_) | Err(_)) => {}
                None => std::future::pending().await,
            }
        }
    }

    /// How many subscriptions there are.
    #[must_use]
    pub fn subscriptions(&self) -> usize {
        self.subscriptions
    }
}

async fn subscribe(client: &Client, followed: &Followed) -> Option<Vec<Subscriber>> {
    let mut channels = Vec::with_capacity(followed.channels.len());
    for (channel, _) in &followed.channels {
        let subject = subject::live(&followed.tenant, &followed.iot_id, channel);
        channels.push(client.subscribe(subject).await.ok()?);
    }
    Some(channels)
}

/// The first message that the stream republished. Whatever else is published there is none of it.
async fn first(channels: Vec<Subscriber>) -> Heard {
    let numbered = channels
        .into_iter()
        .enumerate()
        .map(|(channel, messages)| messages.map(move |message| (channel, message)));
    let mut messages = select_all(numbered);
    while let Some((channel, message)) = messages.next().await {
        if let Some((sequence, stored)) = place_of(&message) {
            return Heard { channel, sequence, stored };
        }
    }
    // The connection is gone for good, and with it the program.
    std::future::pending().await
}
