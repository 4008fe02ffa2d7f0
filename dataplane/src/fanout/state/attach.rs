//! Clients come and go.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use flutecast_contract::name::DeviceCode;
use tokio::time::Instant;

use super::HubState;
use super::client::Client;
use super::delivery::Delivery;
use super::resume::Replay;
use super::timers::Timer;
use crate::catalog::Device;
use crate::fanout::backlog::{Backlog, FrameKind};
use crate::fanout::hello::{self, ByeReason, HelloFacts, RefusedReason};
use crate::fanout::keys::{ClientKey, WatchKey};
use crate::fanout::{SubscribeRequest, Unavailable};
use crate::pipeline::Now;

/// How long a client with an event id waits for `hello` while the stream's epoch isn't known.
const EPOCH_WAIT: Duration = Duration::from_secs(2);

/// A client that comes.
#[derive(Debug)]
pub(in crate::fanout) struct NewClient {
    /// The number of the connection.
    pub(in crate::fanout) connection: u64,
    pub(in crate::fanout) backlog: Arc<Backlog>,
    pub(in crate::fanout) request: SubscribeRequest,
    pub(in crate::fanout) since: Instant,
}

impl HubState {
    /// Adds a client. One that resumes waits a little for the epoch if it isn't known, as `hello` tells
    /// whether the client's id belongs to it.
    pub(in crate::fanout) fn attach(&mut self, new: NewClient, now: Now) {
        let resumes = new.request.resume.is_some();
        if resumes && self.progress.epoch().is_none() && self.reads.failure.is_none() {
            self.reads.ask_epoch = true;
            self.timers.add(new.since + EPOCH_WAIT, Timer::EpochWait);
            self.waiting.push(new);
        } else {
            self.admit(new, now);
        }
    }

    /// Admits the clients that wait for the epoch: it is known now, or asking for it failed.
    pub(super) fn admit_waiting(&mut self, now: Now) {
        self.reads.ask_epoch = false;
        for new in std::mem::take(&mut self.waiting) {
            self.admit(new, now);
        }
    }

    pub(super) fn epoch_wait_due(&mut self, now: Now) {
        if self.waiting.iter().any(|new| new.since + EPOCH_WAIT <= now.instant) {
            self.admit_waiting(now);
        }
    }

    fn admit(&mut self, new: NewClient, now: Now) {
        let NewClient { connection, backlog, request, since: _ } = new;
        if backlog.is_closed() {
            return;
        }
        let matched = self.matching(&request);
        let resumed = request.resume.filter(|resume| Some(resume.epoch) == self.progress.epoch());
        let devices: Vec<Arc<Device>> = matched.values().cloned().collect();
        let facts = HelloFacts {
            tenant: &self.tenant,
            connection,
            server: &self.settings.server_name,
            resumed: resumed.is_some(),
            ping: self.settings.ping,
            retry: self.settings.retry,
        };
        let hello = hello::hello(facts, &devices, request.channels.as_ref());
        let client = Client {
            connection,
            backlog,
            resume: request.resume,
            request,
            matched,
            delivery: Delivery::new(resumed),
            replaying: HashMap::new(),
            throttled: HashMap::new(),
            last_push: now.instant,
        };
        let key = self.clients.insert(client);
        self.metrics.clients.inc();
        let first_look = now.instant + self.settings.ping.min(self.settings.take_timeout);
        self.timers.add(first_look, Timer::Client(key));
        self.tell(key, hello, now);
        self.tell_refusals(key, now);
        for device in &devices {
            self.view(key, device, now);
        }
        self.pay(key, now);
    }

    /// Returns the devices that a client may read and asks for, by code.
    pub(super) fn matching(&self, request: &SubscribeRequest) -> BTreeMap<DeviceCode, Arc<Device>> {
        let Some(catalog) = &self.catalog else { return BTreeMap::new() };
        request.wanted.matching(&request.scope, catalog)
    }

    /// Sends a control frame to one client.
    pub(super) fn tell(&mut self, key: ClientKey, frame: bytes::Bytes, now: Now) {
        if let Some(client) = self.clients.items.get_mut(key) {
            client.enqueue(FrameKind::Control, frame, now, &self.metrics);
        }
    }

    /// Tells a client which of the devices that it asks for it doesn't get now.
    fn tell_refusals(&mut self, key: ClientKey, now: Now) {
        let Some(client) = self.clients.items.get(key) else { return };
        let mut refusals = Vec::new();
        if self.catalog.is_none() {
            let message = "the tenant isn't there yet; it is attached by itself when it is";
            refusals.push(hello::refused(None, RefusedReason::Starting, message));
        } else {
            refusals.extend(self.reads.failure.map(refusal));
            for code in &client.request.wanted.codes {
                match client.matched.get(code) {
                    None => {
                        let message =
                            format!("there is no device {code}; it is attached by itself when it appears");
                        refusals.push(hello::refused(Some(code), RefusedReason::UnknownDevice, &message));
                    }
                    Some(device) if client.wants(device).next().is_none() => {
                        let message = format!("{code} has none of the channels that were asked for");
                        refusals.push(hello::refused(Some(code), RefusedReason::NoSuchChannel, &message));
                    }
                    Some(_) => {}
                }
            }
        }
        for refusal in refusals {
            self.tell(key, refusal, now);
        }
    }

    /// Gives a client the current values of a device, and from now on its messages.
    pub(super) fn view(&mut self, client_key: ClientKey, device: &Arc<Device>, now: Now) {
        let Some(client) = self.clients.items.get(client_key) else { return };
        let channels: Vec<_> = client.wants(device).cloned().collect();
        for channel in channels {
            let key = self.watch(device, &channel, now);
            self.view_channel(client_key, key, now);
        }
    }

    fn view_channel(&mut self, client_key: ClientKey, key: WatchKey, now: Now) {
        let (Some(watch), Some(client)) =
            (self.watches.items.get_mut(key), self.clients.items.get_mut(client_key))
        else {
            return;
        };
        if !watch.add_viewer(client_key) {
            return;
        }
        let (live, every, latest) = (watch.phase.is_live(), watch.every, watch.latest.clone());
        let stale = watch.freshness.is_stale().then(|| watch.stale_frame());
        if !live {
            client.delivery.owe();
        }
        if let Some(resume) = client.resume.filter(|_| every) {
            // No event may come before those that the client missed.
            client.replaying.insert(key, Replay::waiting(!watch.phase.is_in_flight()));
            if live && self.progress.covers(resume) {
                self.begin_resume(client_key, key, now);
            } else if live {
                self.read_again(key, now);
            }
        } else if let Some(frame) = latest {
            // A snapshot carries no id: the frames behind it may be older.
            let kind = if every { FrameKind::snapshot(key) } else { FrameKind::latest(key) };
            client.enqueue(kind, frame.without_id(), now, &self.metrics);
        }
        // Behind the value: a client may take any value for a fresh one.
        if let (Some(stale), Some(client)) = (stale, self.clients.items.get_mut(client_key)) {
            client.enqueue(FrameKind::freshness(key), stale, now, &self.metrics);
        }
    }

    /// Forgets the client of a connection.
    pub(in crate::fanout) fn detach(&mut self, connection: u64, now: Now) {
        self.waiting.retain(|new| new.connection != connection);
        if let Some(key) = self.clients.find(connection) {
            self.remove_client(key, now);
        }
    }

    /// Ends every connection. Each client gets a reconnect time of its own.
    pub(in crate::fanout) fn end_all(&mut self, reason: ByeReason, spread: Duration, now: Now) {
        self.admit_waiting(now);
        let keys = self.clients.keys();
        let count = u32::try_from(keys.len()).unwrap_or(u32::MAX).max(1);
        for (index, key) in (0_u32..).zip(keys) {
            let Some(client) = self.clients.items.get(key) else { continue };
            // Evenly over the time, each at a random moment of its part.
            let part = spread / count;
            let retry = part * index + part.mul_f64(rand::random_range(0.0..1.0));
            client.backlog.finish(Some(hello::bye(reason, retry.max(Duration::from_millis(100)))));
            self.remove_client(key, now);
        }
    }
}

/// Writes the `refused` event for a stream that can't be read.
pub(super) fn refusal(failure: Unavailable) -> bytes::Bytes {
    match failure {
        Unavailable::Starting => hello::refused(
            None,
            RefusedReason::Starting,
            "the tenant's stream isn't there yet; data comes when it is",
        ),
        Unavailable::BrokerAway => hello::refused(
            None,
            RefusedReason::BrokerAway,
            "the broker can't be reached; data comes when it is back",
        ),
    }
}
