//! One connected client.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use flutecast_contract::name::DeviceCode;
use flutecast_contract::stream_position::EventId;
use tokio::time::Instant;

use super::HubState;
use super::delivery::Delivery;
use super::freshness::FreshnessEvent;
use super::resume::Replay;
use super::throttle::Throttle;
use super::timers::Timer;
use super::watched_channel::WatchedChannel;
use crate::catalog::{Channel, Device};
use crate::fanout::SubscribeRequest;
use crate::fanout::backlog::{Backlog, FrameKind};
use crate::fanout::control_events::{self, ByeReason};
use crate::fanout::keys::{ChannelId, ChannelKey, ClientKey, channel_id};
use crate::fanout::metrics::FanoutMetrics;
use crate::fanout::query::wanted_channels;
use crate::pipeline::{Frame, Now, id_only};

/// A client that matches more devices than this. For such a client the safe place is computed once for all
/// channels, as looking at each of its own takes long.
const MANY_DEVICES: usize = 64;

#[derive(Debug)]
pub(super) struct Client {
    pub(super) connection: u64,
    pub(super) backlog: Arc<Backlog>,
    pub(super) request: SubscribeRequest,
    pub(super) matched: BTreeMap<DeviceCode, Arc<Device>>,
    pub(super) delivery: Delivery,
    /// The place where the client resumes, until it is settled for the first time.
    pub(super) resume: Option<EventId>,
    /// The channels of which older events are replayed first.
    pub(super) replaying: HashMap<ChannelKey, Replay>,
    /// The channels for which the client's `interval` is running.
    pub(super) throttled: HashMap<ChannelKey, Throttle<Frame>>,
    pub(super) last_push: Instant,
}

impl Client {
    pub(super) fn wants<'a>(&'a self, device: &'a Device) -> impl Iterator<Item = &'a Channel> {
        wanted_channels(device, self.request.channels.as_ref())
    }

    fn channels(&self) -> impl Iterator<Item = ChannelId> {
        let devices = self.matched.values();
        devices.flat_map(|device| self.wants(device).map(move |channel| channel_id(device, channel)))
    }

    pub(super) fn enqueue(&mut self, kind: FrameKind, bytes: Bytes, now: Now, metrics: &FanoutMetrics) {
        self.last_push = now.instant;
        metrics.frames.inc();
        let lost = self.backlog.push(kind, bytes, now.instant);
        if lost > 0 {
            metrics.overflowed.inc_by(lost);
        }
    }

    /// Appends a data event. Decides whether it carries its id.
    pub(super) fn enqueue_data(&mut self, kind: FrameKind, frame: &Frame, now: Now, metrics: &FanoutMetrics) {
        let id = self.delivery.claim(frame.sequence);
        let bytes = if id { frame.with_id() } else { frame.without_id() };
        self.enqueue(kind, bytes, now, metrics);
    }

    /// Enqueues an event of a watched channel unless the client already has it, must get older ones first, or
    /// is rate-limited by its `interval`. Returns when a timer for the `interval` has to be set. At most
    /// `bound` events wait for a replay.
    pub(super) fn offer(
        &mut self,
        key: ChannelKey,
        kind: FrameKind,
        frame: &Frame,
        bound: usize,
        now: Now,
        metrics: &FanoutMetrics,
    ) -> Option<Instant> {
        let mut timer = None;
        if let FrameKind::Latest(_) = kind {
            if let Some(interval) = self.request.interval {
                let throttle = self.throttled.entry(key).or_insert_with(|| Throttle::new(interval));
                timer = Some(throttle.offer(frame, now.instant)?);
            }
        } else if matches!(kind, FrameKind::Every(_)) && self.delivery.has(frame.sequence) {
            // The client reconnected from a pod that was further ahead.
            return None;
        } else if let Some(replay) = self.replaying.get_mut(&key) {
            replay.hold(frame.clone(), bound);
            return None;
        }
        self.enqueue_data(kind, frame, now, metrics);
        timer
    }

    /// Appends the current value of a channel. It carries no id: the frames behind it may be older.
    pub(super) fn show_value(
        &mut self,
        key: ChannelKey,
        watched: &WatchedChannel,
        now: Now,
        metrics: &FanoutMetrics,
    ) {
        if let Some(frame) = &watched.latest {
            let kind = if watched.every { FrameKind::Snapshot(key) } else { FrameKind::Latest(key) };
            self.enqueue(kind, frame.without_id(), now, metrics);
        }
        self.show_staleness(key, watched, now, metrics);
    }

    /// Appends `stale` if the channel is: behind values, as a client may take any value for a fresh one.
    pub(super) fn show_staleness(
        &mut self,
        key: ChannelKey,
        watched: &WatchedChannel,
        now: Now,
        metrics: &FanoutMetrics,
    ) {
        if watched.freshness.is_stale() {
            self.enqueue(FrameKind::Freshness(key), watched.event(FreshnessEvent::Stale), now, metrics);
        }
        self.show_problem(key, watched, now, metrics);
    }

    pub(super) fn forget_channel(&mut self, key: ChannelKey, watched: &WatchedChannel) {
        self.throttled.remove(&key);
        let replaying = self.replaying.remove(&key).is_some_and(|replay| replay.started());
        self.delivery.owe_less(usize::from(replaying) + usize::from(!watched.phase.is_live()));
    }
}

impl HubState {
    /// Sends a client that is settled the place up to which it has everything.
    pub(super) fn send_place_if_settled(&mut self, key: ClientKey, now: Now) {
        let Some(client) = self.clients.get_mut(key) else { return };
        if !client.delivery.is_settled() {
            return;
        }
        let Some(epoch) = self.progress.epoch else {
            self.progress.unplaced = true;
            self.reads.ask_epoch = true;
            return;
        };
        let sequence = if client.matched.len() > MANY_DEVICES {
            let every = self.watched.values().filter(|watched| watched.every);
            self.progress.safe_place_of_all(every.map(|watched| watched.progress.covered()))
        } else {
            let watched = client.channels().filter_map(|name| self.watched.get(self.watched.find(&name)?));
            let every = watched.filter(|watched| watched.every);
            self.progress.safe_place(every.map(|watched| watched.progress.covered()))
        };
        // A device that appears from now on has nothing to do with what the client saw before it came.
        client.resume = None;
        if client.delivery.claim(sequence) {
            let id = EventId { epoch, sequence };
            client.enqueue(FrameKind::Control, id_only(id), now, &self.metrics);
        }
    }

    /// Records that one of the things that a client was owed is done, which may settle it.
    pub(super) fn owe_one_less(&mut self, key: ClientKey, now: Now) {
        if let Some(client) = self.clients.get_mut(key) {
            client.delivery.owe_less(1);
            self.send_place_if_settled(key, now);
        }
    }

    /// Sends a client a `ping` if nothing else was sent for a while, and closes one that takes nothing.
    pub(super) fn client_due(&mut self, key: ClientKey, now: Now) {
        let Some(client) = self.clients.get_mut(key) else { return };
        let waiting = client.backlog.waiting_since();
        if waiting.is_some_and(|since| since + self.settings.take_timeout <= now.instant) {
            self.metrics.slow_clients.inc();
            // Spread, so that not all come back at once.
            let retry = self.settings.retry.mul_f64(rand::random_range(1.0..2.0));
            client.backlog.abandon(control_events::bye(ByeReason::SlowClient, retry));
            self.remove_client(key, now);
            return;
        }
        if client.last_push + self.settings.ping <= now.instant {
            let id = self.progress.epoch.and_then(|epoch| {
                let sequence = client.delivery.ping_id(self.progress.processed)?;
                Some(EventId { epoch, sequence })
            });
            client.enqueue(FrameKind::Control, control_events::ping(id, now.wall), now, &self.metrics);
        }
        let ping = client.last_push + self.settings.ping;
        let waiting = client.backlog.waiting_since().map(|since| since + self.settings.take_timeout);
        let next = waiting.map_or(ping, |waiting| waiting.min(ping)).max(now.instant);
        self.timers.add(next, Timer::Client(key));
    }

    pub(super) fn interval_due(&mut self, key: ClientKey, channel: ChannelKey, now: Now) {
        let Some(client) = self.clients.get_mut(key) else { return };
        let Some(throttle) = client.throttled.get_mut(&channel) else { return };
        if let Some((frame, next)) = throttle.timer_due(now.instant) {
            client.enqueue_data(FrameKind::Latest(channel), &frame, now, &self.metrics);
            self.timers.add(next, Timer::Interval(key, channel));
        } else if throttle.is_open() {
            // Nothing came for a whole interval.
            client.throttled.remove(&channel);
        }
    }

    pub(super) fn remove_client(&mut self, key: ClientKey, now: Now) {
        let Some(client) = self.clients.get(key) else { return };
        let channels: Vec<_> = client.channels().filter_map(|name| self.watched.find(&name)).collect();
        for channel in channels {
            self.leave(key, channel, now);
        }
        if let Some(connection) = self.clients.get(key).map(|client| client.connection) {
            self.clients.take(&connection);
            self.metrics.clients.dec();
        }
    }
}
