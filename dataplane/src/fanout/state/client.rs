//! One connected client.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flutecast_contract::name::DeviceCode;
use tokio::time::Instant;

use super::HubState;
use super::resume::{Replay, Resume};
use super::timers::Due;
use crate::catalog::{Channel, Device};
use crate::fanout::SubscribeRequest;
use crate::fanout::arena::Key;
use crate::fanout::hello::{self, ByeReason};
use crate::fanout::metrics::FanoutMetrics;
use crate::fanout::outbox::{Outbox, Push};
use crate::pipeline::{Frame, Moment, id_only};
use flutecast_contract::stream_position::EventId;

/// A client with more devices than this gets a place that is worked out for all clients together, as looking
/// at each of its channels takes long.
const MANY_DEVICES: usize = 64;

/// One connected client.
#[derive(Debug)]
pub(super) struct Client {
    /// The connection's number.
    pub(super) connection: u64,
    pub(super) outbox: Arc<Outbox>,
    pub(super) request: SubscribeRequest,
    /// The devices that it gets, by code.
    pub(super) matched: BTreeMap<DeviceCode, Arc<Device>>,
    /// How many of its channels are being read, and how many are being replayed for it.
    pub(super) unsettled: usize,
    /// The sequence of the last id that it got.
    pub(super) last_id: Option<u64>,
    /// Up to here it has everything of `Every` channels from a connection before.
    pub(super) had: u64,
    /// Where it resumes, as long as that isn't settled for all of its `Every` channels.
    pub(super) resume: Option<Resume>,
    /// What waits until older events of the same channel were replayed.
    pub(super) replaying: HashMap<Key, Replay>,
    /// What its `interval` holds back.
    pub(super) thinned: HashMap<Key, Thinned>,
    /// When something was last pushed.
    pub(super) last_push: Instant,
}

/// What a client's `interval` holds back of one channel.
#[derive(Debug)]
pub(super) struct Thinned {
    pub(super) not_before: Instant,
    pub(super) held: Option<Frame>,
}

impl Client {
    /// The channels of a device that it wants.
    pub(super) fn wants<'a>(&'a self, device: &'a Device) -> impl Iterator<Item = &'a Channel> {
        let wanted = self.request.channels.as_ref();
        device
            .channels
            .values()
            .filter(move |channel| wanted.is_none_or(|names| names.contains(&channel.name)))
    }

    pub(super) fn push(&mut self, push: Push, bytes: Bytes, now: Moment, metrics: &FanoutMetrics) {
        self.last_push = now.instant;
        metrics.frames.inc();
        let lost = self.outbox.push(push, bytes, now.instant);
        if lost > 0 {
            metrics.overflowed.inc_by(lost);
        }
    }

    /// Pushes a data event, with its id if nothing older is owed.
    pub(super) fn push_frame(&mut self, push: Push, frame: &Frame, now: Moment, metrics: &FanoutMetrics) {
        let id = self.unsettled == 0 && self.last_id.is_none_or(|last| frame.sequence > last);
        if id {
            self.last_id = Some(frame.sequence);
        }
        let bytes = if id { frame.with_id() } else { frame.without_id() };
        self.push(push, bytes, now, metrics);
    }

    /// So many of the things that it is owed are done.
    pub(super) fn owe_less(&mut self, done: usize) {
        debug_assert!(self.unsettled >= done, "{} is owed, not {done}", self.unsettled);
        self.unsettled = self.unsettled.saturating_sub(done);
    }

    /// How long a client that is sent away waits before it comes back: between one and two times `retry`, so
    /// that many don't come at once.
    pub(super) fn spread(retry: Duration) -> Duration {
        retry.mul_f64(rand::random_range(1.0..2.0))
    }
}

impl HubState {
    /// Tells a client that is owed nothing the place up to which that is so.
    pub(super) fn settle(&mut self, key: Key, now: Moment) {
        let Some(client) = self.clients.get(key) else { return };
        if client.unsettled > 0 {
            return;
        }
        let Some(epoch) = self.epoch else {
            self.unplaced = true;
            self.ask_epoch = true;
            return;
        };
        let sequence = if client.matched.len() > MANY_DEVICES {
            self.position.max(self.floor())
        } else {
            self.safe_position(client)
        };
        let Some(client) = self.clients.get_mut(key) else { return };
        // A device that appears from now on has nothing to do with what the client had seen before it came.
        client.resume = None;
        if client.last_id.is_none_or(|last| sequence > last) {
            client.last_id = Some(sequence);
            client.push(Push::Control, id_only(EventId { epoch, sequence }), now, &self.metrics);
        }
    }

    /// The epoch is known now: tells their place to clients that are owed nothing.
    pub(super) fn place_clients(&mut self, now: Moment) {
        if std::mem::take(&mut self.unplaced) {
            for key in self.clients.keys() {
                self.settle(key, now);
            }
        }
    }

    /// The place up to which a settled client has got everything of its `Every` channels: up to `position` by
    /// what came live, or up to what the reads of all of them have told.
    fn safe_position(&self, client: &Client) -> u64 {
        let mut read_to = self.newest_known;
        for device in client.matched.values() {
            for channel in client.wants(device) {
                let key = self.by_channel.get(&(device.iot_id.clone(), channel.name.clone()));
                if let Some(watch) = key.and_then(|&key| self.watches.get(key)).filter(|watch| watch.every) {
                    read_to = read_to.min(watch.proven_to.max(watch.last_sequence));
                }
            }
        }
        self.position.max(read_to)
    }

    /// As [`Self::safe_position`], for a client of all channels: an older place perhaps, but worked out once
    /// for all of them.
    fn floor(&mut self) -> u64 {
        let watches = self.watches.iter().filter(|(_, watch)| watch.every);
        let known =
            || watches.map(|(_, watch)| watch.proven_to.max(watch.last_sequence)).min().unwrap_or(u64::MAX);
        (*self.floor.get_or_insert_with(known)).min(self.newest_known)
    }

    /// A client may need a `ping`, or take nothing.
    pub(super) fn client_due(&mut self, key: Key, now: Moment) {
        let Some(client) = self.clients.get_mut(key) else { return };
        let waiting = client.outbox.waiting_since();
        if waiting.is_some_and(|since| since + self.settings.take_timeout <= now.instant) {
            self.metrics.slow_clients.inc();
            client.outbox.abandon(hello::bye(ByeReason::SlowClient, Client::spread(self.settings.retry)));
            self.remove_client(key, now);
            return;
        }
        if client.last_push + self.settings.ping <= now.instant {
            let settled = client.unsettled == 0;
            let id = self.epoch.filter(|_| settled).and_then(|epoch| {
                let sequence = client.last_id?.max(self.position);
                client.last_id = Some(sequence);
                Some(EventId { epoch, sequence })
            });
            client.push(Push::Control, hello::ping(id, now.wall), now, &self.metrics);
        }
        let ping = client.last_push + self.settings.ping;
        let waiting = client.outbox.waiting_since().map(|since| since + self.settings.take_timeout);
        self.timers.add(waiting.map_or(ping, |waiting| waiting.min(ping)).max(now.instant), Due::Client(key));
    }

    /// The value that a client's `interval` held back.
    pub(super) fn thin_due(&mut self, key: Key, watch: Key, now: Moment) {
        let Some(client) = self.clients.get_mut(key) else { return };
        let Some(interval) = client.request.interval else { return };
        let Some(thinned) = client.thinned.get_mut(&watch) else { return };
        if thinned.not_before > now.instant {
            // The timer was meant for an earlier subscription of the same channel.
            return;
        }
        match thinned.held.take() {
            Some(frame) => {
                thinned.not_before = now.instant + interval;
                client.push_frame(Push::Latest(watch), &frame, now, &self.metrics);
                self.timers.add(now.instant + interval, Due::Thin(key, watch));
            }
            // Nothing came for a whole interval.
            None => {
                client.thinned.remove(&watch);
            }
        }
    }

    /// Forgets a client.
    pub(super) fn remove_client(&mut self, key: Key, now: Moment) {
        let Some(client) = self.clients.get(key) else { return };
        self.by_connection.remove(&client.connection);
        for watch in self.watches_of(key) {
            self.leave(key, watch, now);
        }
        self.clients.remove(key);
        self.metrics.clients.dec();
    }

    /// The channels that a client watches.
    pub(super) fn watches_of(&self, key: Key) -> Vec<Key> {
        let Some(client) = self.clients.get(key) else { return Vec::new() };
        let mut watches = Vec::new();
        for device in client.matched.values() {
            for channel in client.wants(device) {
                let name = (device.iot_id.clone(), channel.name.clone());
                watches.extend(self.by_channel.get(&name).copied());
            }
        }
        watches
    }
}
