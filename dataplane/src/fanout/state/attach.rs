//! Clients come and go.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flutecast_contract::name::DeviceCode;
use tokio::time::Instant;

use super::HubState;
use super::client::Client;
use super::delivery::Delivery;
use super::resume::Replay;
use super::timers::Timer;
use crate::catalog::Device;
use crate::fanout::backlog::{Backlog, FrameKind};
use crate::fanout::control_events::{self, ByeReason, HelloFacts, RefusedReason};
use crate::fanout::keys::{ChannelKey, ClientKey};
use crate::fanout::{SubscribeRequest, Unavailable};
use crate::pipeline::Now;

/// The longest that a client with an event id waits for `hello` while the stream's epoch isn't known.
const EPOCH_WAIT: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(crate) struct NewClient {
    pub(crate) connection: u64,
    pub(crate) backlog: Arc<Backlog>,
    pub(crate) request: SubscribeRequest,
    pub(crate) since: Instant,
}

impl HubState {
    /// Adds a client. One that resumes waits a little for the epoch if it isn't known, as `hello` tells
    /// whether the client's id belongs to it.
    pub(crate) fn attach(&mut self, new: NewClient, now: Now) {
        let resumes = new.request.resume.is_some();
        if resumes && self.progress.epoch.is_none() && self.reads.failure.is_none() {
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
        let resumed = request.resume.filter(|resume| Some(resume.epoch) == self.progress.epoch);
        let devices: Vec<Arc<Device>> = matched.values().cloned().collect();
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
        let key = self.clients.add(connection, client);
        self.metrics.clients.inc();
        let first_look = now.instant + self.settings.ping.min(self.settings.take_timeout);
        self.timers.add(first_look, Timer::Client(key));
        self.say_hello(key, resumed.is_some(), now);
        for refusal in self.refusals(key) {
            self.tell(key, refusal, now);
        }
        for device in &devices {
            self.view(key, device, now);
        }
        self.owe_one_less(key, now);
    }

    /// Tells a client what it is connected to: when it comes, and when the stream starts again.
    pub(super) fn say_hello(&mut self, key: ClientKey, resumed: bool, now: Now) {
        let Some(client) = self.clients.get(key) else { return };
        let facts = HelloFacts {
            tenant: &self.tenant,
            connection: client.connection,
            settings: &self.settings,
            epoch: self.progress.epoch,
            resumed,
            retry: self.settings.retry,
        };
        let devices: Vec<_> = client.matched.values().cloned().collect();
        let hello = control_events::hello(facts, &devices, client.request.channels.as_ref());
        self.tell(key, hello, now);
    }

    /// Returns the devices that a client may read and asks for, by code.
    pub(super) fn matching(&self, request: &SubscribeRequest) -> BTreeMap<DeviceCode, Arc<Device>> {
        let Some(catalog) = &self.catalog else { return BTreeMap::new() };
        request.wanted.matching(&request.scope, catalog)
    }

    pub(super) fn tell(&mut self, key: ClientKey, frame: Bytes, now: Now) {
        if let Some(client) = self.clients.get_mut(key) {
            client.enqueue(FrameKind::Control, frame, now, &self.metrics);
        }
    }

    /// Returns a `refused` for each of the devices that a client asks for and doesn't get now.
    fn refusals(&self, key: ClientKey) -> Vec<Bytes> {
        let Some(client) = self.clients.get(key) else { return Vec::new() };
        if self.catalog.is_none() {
            let message = "the tenant isn't there yet; it is attached by itself when it is";
            return vec![control_events::refused(None, RefusedReason::Starting, message)];
        }
        let mut refusals = Vec::from_iter(self.reads.failure.map(refusal));
        for code in &client.request.wanted.codes {
            let (reason, message) = match client.matched.get(code) {
                None => (
                    RefusedReason::UnknownDevice,
                    format!("there is no device {code}; it is attached by itself when it appears"),
                ),
                Some(device) if client.wants(device).next().is_none() => (
                    RefusedReason::NoSuchChannel,
                    format!("{code} has none of the channels that were asked for"),
                ),
                Some(_) => continue,
            };
            refusals.push(control_events::refused(Some(code), reason, &message));
        }
        refusals
    }

    /// Gives a client the current values of a device, and from now on its messages.
    pub(super) fn view(&mut self, viewer: ClientKey, device: &Arc<Device>, now: Now) {
        let Some(client) = self.clients.get(viewer) else { return };
        let channels: Vec<_> = client.wants(device).cloned().collect();
        for channel in channels {
            let key = self.ensure_watched(device, &channel, now);
            self.view_channel(viewer, key, now);
        }
    }

    fn view_channel(&mut self, viewer: ClientKey, key: ChannelKey, now: Now) {
        let (Some(watched), Some(client)) = (self.watched.get_mut(key), self.clients.get_mut(viewer)) else {
            return;
        };
        if !watched.add_viewer(viewer) {
            return;
        }
        let live = watched.phase.is_live();
        if !live {
            client.delivery.owe();
        }
        let Some(resume) = client.resume.filter(|_| watched.every) else {
            return client.show_value(key, watched, now, &self.metrics);
        };
        // No event may come before those that the client missed.
        client.replaying.insert(key, Replay::waiting(!watched.phase.is_in_flight()));
        if live && self.progress.covers(resume) {
            self.begin_resume(viewer, key, now);
        } else if live {
            self.read_again(key, now);
        }
        if let (Some(watched), Some(client)) = (self.watched.get(key), self.clients.get_mut(viewer)) {
            client.show_staleness(key, watched, now, &self.metrics);
        }
    }

    pub(crate) fn detach(&mut self, connection: u64, now: Now) {
        self.waiting.retain(|new| new.connection != connection);
        if let Some(key) = self.clients.find(&connection) {
            self.remove_client(key, now);
        }
    }

    /// Ends every connection. Each client gets a reconnect time of its own.
    pub(crate) fn end_all(&mut self, reason: ByeReason, spread: Duration, now: Now) {
        self.admit_waiting(now);
        let keys = self.clients.all_keys();
        let count = u32::try_from(keys.len()).unwrap_or(u32::MAX).max(1);
        for (index, key) in (0_u32..).zip(keys) {
            let Some(client) = self.clients.get(key) else { continue };
            // Evenly over the time, each at a random moment of its part.
            let part = spread / count;
            let retry = part * index + part.mul_f64(rand::random_range(0.0..1.0));
            client.backlog.finish(Some(control_events::bye(reason, retry.max(Duration::from_millis(100)))));
            self.remove_client(key, now);
        }
    }
}

pub(super) fn refusal(failure: Unavailable) -> Bytes {
    let (reason, message) = match failure {
        Unavailable::Starting => {
            (RefusedReason::Starting, "the tenant's stream isn't there yet; data comes when it is")
        }
        Unavailable::BrokerAway => {
            (RefusedReason::BrokerAway, "the broker can't be reached; data comes when it is back")
        }
    };
    control_events::refused(None, reason, message)
}
