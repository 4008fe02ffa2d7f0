//! Clients come and go.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use flutecast_contract::name::DeviceCode;
use tokio::time::Instant;

use super::client::Client;
use super::resume::Replay;
use super::timers::Due;
use super::{HubState, Trouble};
use crate::catalog::{Device, TenantCatalog};
use crate::fanout::SubscribeRequest;
use crate::fanout::arena::Key;
use crate::fanout::hello::{self, ByeReason, HelloFacts, RefusedReason};
use crate::fanout::outbox::{Outbox, Push};
use crate::pipeline::Moment;
use flutecast_contract::stream_position::Epoch;

/// How long a client with an event id waits for `hello` while the stream's epoch isn't known.
const EPOCH_WAIT: Duration = Duration::from_secs(2);

/// A client that comes.
#[derive(Debug)]
pub(in crate::fanout) struct Arrival {
    /// The connection's number.
    pub(in crate::fanout) connection: u64,
    pub(in crate::fanout) outbox: Arc<Outbox>,
    pub(in crate::fanout) request: SubscribeRequest,
    /// When it came.
    pub(in crate::fanout) since: Instant,
}

/// The devices of the catalog that a client may read and wants, by code.
pub(in crate::fanout) fn matched(
    request: &SubscribeRequest,
    catalog: Option<&Arc<TenantCatalog>>,
) -> BTreeMap<DeviceCode, Arc<Device>> {
    let Some(catalog) = catalog else { return BTreeMap::new() };
    let mut matched = BTreeMap::new();
    let wanted = &request.wanted;
    let mut add = |device: &Arc<Device>| {
        if request.scope.allows(&device.code) {
            matched.insert(device.code.clone(), Arc::clone(device));
        }
    };
    if wanted.all {
        catalog.by_code.values().for_each(&mut add);
        return matched;
    }
    wanted.codes.iter().filter_map(|code| catalog.by_code.get(code)).for_each(&mut add);
    if let Some(selector) = &wanted.selector {
        catalog.by_code.values().filter(|device| selector.matches(&device.labels)).for_each(&mut add);
    }
    matched
}

impl HubState {
    /// A client comes. One that resumes waits a little for the epoch if it isn't known, as `hello` says
    /// whether its id belongs to it.
    pub(in crate::fanout) fn attach(&mut self, arrival: Arrival, now: Moment) {
        if arrival.request.resume.is_some() && self.epoch.is_none() && self.trouble.is_none() {
            self.ask_epoch = true;
            self.timers.add(arrival.since + EPOCH_WAIT, Due::Arrivals);
            self.arrivals.push(arrival);
        } else {
            self.admit(arrival, now);
        }
    }

    /// The epoch is known now, or asking for it failed: nobody waits for it any more.
    pub(super) fn admit_arrivals(&mut self, now: Moment) {
        self.ask_epoch = false;
        for arrival in std::mem::take(&mut self.arrivals) {
            self.admit(arrival, now);
        }
    }

    pub(super) fn arrivals_due(&mut self, now: Moment) {
        if self.arrivals.iter().any(|arrival| arrival.since + EPOCH_WAIT <= now.instant) {
            self.admit_arrivals(now);
        }
    }

    fn admit(&mut self, arrival: Arrival, now: Moment) {
        let Arrival { connection, outbox, request, since: _ } = arrival;
        if outbox.is_closed() {
            return;
        }
        let matched = matched(&request, self.catalog.as_ref());
        let in_epoch = |epoch: Epoch| request.resume.filter(|resume| resume.epoch == epoch);
        let resumed = self.epoch.and_then(in_epoch);
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
            outbox,
            resume: request.resume,
            request,
            matched,
            // Until all of its channels were looked at: nothing of the snapshot gets an id.
            unsettled: 1,
            last_id: resumed.map(|id| id.sequence),
            had: resumed.map_or(0, |id| id.sequence),
            replaying: HashMap::new(),
            thinned: HashMap::new(),
            last_push: now.instant,
        };
        let key = self.clients.insert(client);
        self.by_connection.insert(connection, key);
        self.metrics.clients.inc();
        self.timers.add(now.instant + self.settings.ping.min(self.settings.take_timeout), Due::Client(key));
        self.tell(key, hello, now);
        self.tell_refusals(key, now);
        for device in &devices {
            self.view(key, device, now);
        }
        self.client_settles(key, now);
    }

    pub(super) fn tell(&mut self, key: Key, frame: bytes::Bytes, now: Moment) {
        if let Some(client) = self.clients.get_mut(key) {
            client.push(Push::Control, frame, now, &self.metrics);
        }
    }

    /// Says what of its wishes a client doesn't get now.
    fn tell_refusals(&mut self, key: Key, now: Moment) {
        let Some(client) = self.clients.get(key) else { return };
        let mut refusals = Vec::new();
        match (&self.catalog, self.trouble) {
            (None, _) => {
                let message = "the tenant isn't there yet; it is attached by itself when it is";
                refusals.push(hello::refused(None, RefusedReason::Starting, message));
            }
            (Some(_), Some(trouble)) => refusals.push(trouble.refusal()),
            (Some(_), None) => {}
        }
        if self.catalog.is_some() {
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

    /// A client gets a device: what is known of it now, and from now on what comes.
    pub(super) fn view(&mut self, client_key: Key, device: &Arc<Device>, now: Moment) {
        let Some(client) = self.clients.get(client_key) else { return };
        let channels: Vec<_> = client.wants(device).cloned().collect();
        for channel in channels {
            let key = self.watch(device, &channel, now);
            self.view_channel(client_key, key, now);
        }
    }

    fn view_channel(&mut self, client_key: Key, key: Key, now: Moment) {
        let (Some(watch), Some(client)) = (self.watches.get_mut(key), self.clients.get_mut(client_key))
        else {
            return;
        };
        if !watch.add_viewer(client_key) {
            return;
        }
        let (live, every, latest) = (watch.is_live(), watch.every, watch.latest.clone());
        let stale = watch.freshness.stale.then(|| watch.stale_frame());
        if !live {
            client.unsettled += 1;
        }
        if every && client.resume.is_some() {
            // Nothing of it may come before what was missed.
            client.replaying.insert(key, Replay::waiting(!watch.is_read_now()));
            if live && self.knows_place(client_key) {
                self.begin(client_key, key, now);
            } else if live {
                self.read_again(key, now);
            }
        } else if let Some(frame) = latest {
            // A snapshot carries no id: what comes next in it may be older.
            let bytes = frame.without_id();
            let push = if every { Push::Snapshot(key) } else { Push::Latest(key) };
            client.push(push, bytes, now, &self.metrics);
        }
        // Behind the value: a client may take any value for a fresh one.
        if let (Some(stale), Some(client)) = (stale, self.clients.get_mut(client_key)) {
            client.push(Push::Freshness(key), stale, now, &self.metrics);
        }
    }

    /// Whether the place where a client resumes is one that this hub has seen. It may come from a pod that
    /// has seen more.
    pub(super) fn knows_place(&self, client: Key) -> bool {
        let resume = self.clients.get(client).and_then(|client| client.resume);
        resume.is_none_or(|id| {
            id.sequence <= self.position.max(self.newest_known) || Some(id.epoch) != self.epoch
        })
    }

    /// A client is gone.
    pub(in crate::fanout) fn detach(&mut self, connection: u64, now: Moment) {
        self.arrivals.retain(|arrival| arrival.connection != connection);
        if let Some(&key) = self.by_connection.get(&connection) {
            self.remove_client(key, now);
        }
    }

    /// Ends every connection, telling each to come back after a time of its own.
    pub(in crate::fanout) fn end_all(&mut self, reason: ByeReason, spread: Duration, now: Moment) {
        self.admit_arrivals(now);
        let keys = self.clients.keys();
        let count = u32::try_from(keys.len()).unwrap_or(u32::MAX).max(1);
        for (index, key) in (0_u32..).zip(keys) {
            let Some(client) = self.clients.get(key) else { continue };
            // Evenly over the time, each at a random moment of its part.
            let part = spread / count;
            let retry = part * index + part.mul_f64(rand::random_range(0.0..1.0));
            client.outbox.finish(Some(hello::bye(reason, retry.max(Duration::from_millis(100)))));
            self.remove_client(key, now);
        }
    }
}

impl Trouble {
    pub(super) fn refusal(self) -> bytes::Bytes {
        match self {
            Self::NoStream => hello::refused(
                None,
                RefusedReason::Starting,
                "the tenant's stream isn't there yet; data comes when it is",
            ),
            Self::BrokerAway => hello::refused(
                None,
                RefusedReason::BrokerAway,
                "the broker can't be reached; data comes when it is back",
            ),
        }
    }
}
