//! One channel of one device that clients watch.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flutecast_contract::document::DeliveryPolicy;
use flutecast_contract::name::{ChannelName, TenantName};
use flutecast_contract::subject;
use tokio::time::Instant;

use super::HubState;
use super::freshness::{Freshness, FreshnessChange, FreshnessEvent};
use super::phase::Phase;
use super::progress::ChannelProgress;
use super::throttle::Throttle;
use super::timers::Timer;
use crate::catalog::{Channel, Device};
use crate::fanout::ChannelValues;
use crate::fanout::backlog::FrameKind;
use crate::fanout::hello::millis;
use crate::fanout::keys::{ClientKey, WatchKey};
use crate::pipeline::{ChannelPipeline, Frame, Now};
use crate::sources::ordered::SlotKey;

/// One channel of one device that clients watch.
#[derive(Debug)]
pub(super) struct Watch {
    pub(super) device: Arc<Device>,
    pub(super) channel: ChannelName,
    /// The subject under which the channel's messages are stored.
    pub(super) stored: String,
    /// The subject under which they are republished.
    pub(super) live: String,
    pub(super) pipeline: ChannelPipeline,
    pub(super) every: bool,
    /// The subscription to `live`.
    pub(super) subscription: Option<SlotKey>,
    pub(super) phase: Phase,
    pub(super) progress: ChannelProgress,
    /// Whether the format has changed and the viewers have yet to get the current value in the new form.
    pub(super) renewed: bool,
    /// The newest frame, for clients that come.
    pub(super) latest: Option<Frame>,
    /// The clients that watch the channel, sorted.
    pub(super) viewers: Vec<ClientKey>,
    pub(super) freshness: Freshness,
    /// The format's `minInterval`, if the channel is a `Latest` one.
    pub(super) throttle: Option<Throttle<Frame>>,
    /// The time since which no client watches the channel.
    idle_since: Option<Instant>,
}

impl Watch {
    fn new(tenant: &TenantName, device: &Arc<Device>, channel: &Channel, now: Now) -> Self {
        let Channel { name, program, stale_after } = channel;
        let every = program.policy() == DeliveryPolicy::Every;
        let interval = program.min_interval_ms().filter(|_| !every).map(Duration::from_millis);
        Self {
            stored: subject::stored(tenant, &device.iot_id, name),
            live: subject::live(tenant, &device.iot_id, name),
            pipeline: ChannelPipeline::new(&device.code, name, Arc::clone(program)),
            every,
            device: Arc::clone(device),
            channel: name.clone(),
            subscription: None,
            phase: Phase::reading(now.instant),
            progress: ChannelProgress::default(),
            renewed: false,
            latest: None,
            viewers: Vec::new(),
            freshness: Freshness::new(*stale_after),
            throttle: interval.map(Throttle::new),
            idle_since: None,
        }
    }

    /// Changes the format of an `Every` channel. Its place in the stream stays.
    pub(super) fn renew(&mut self, device: &Arc<Device>, channel: &Channel) {
        let Channel { name, program, stale_after } = channel;
        self.device = Arc::clone(device);
        self.pipeline = ChannelPipeline::new(&device.code, name, Arc::clone(program));
        self.latest = None;
        self.renewed = true;
        self.freshness.change(*stale_after);
    }

    /// Forgets everything that was seen, as the stream starts again.
    pub(super) fn restart(&mut self) {
        self.progress = ChannelProgress::default();
        self.latest = None;
        if let Some(throttle) = &mut self.throttle {
            throttle.clear();
        }
        self.pipeline.reset();
        self.phase.clear_buffer();
    }

    /// Adds a viewer. Returns whether it is new.
    pub(super) fn add_viewer(&mut self, client: ClientKey) -> bool {
        let Err(at) = self.viewers.binary_search(&client) else { return false };
        self.viewers.insert(at, client);
        self.idle_since = None;
        true
    }

    /// Removes a viewer. Returns whether it was one.
    fn remove_viewer(&mut self, client: ClientKey) -> bool {
        let Ok(at) = self.viewers.binary_search(&client) else { return false };
        self.viewers.remove(at);
        true
    }

    /// Writes `stale` or `fresh`.
    pub(super) fn event(&self, event: FreshnessEvent) -> Bytes {
        let Freshness { stale_after, since, .. } = &self.freshness;
        match event {
            FreshnessEvent::Stale => self.pipeline.writer.stale(*since, stale_after.map_or(0, millis)),
            FreshnessEvent::Fresh => self.pipeline.writer.fresh(),
        }
    }

    /// Returns the newest values of the channel.
    pub(super) fn values(&self) -> ChannelValues {
        ChannelValues {
            name: self.channel.clone(),
            time: self.latest.as_ref().map(|frame| frame.time),
            stale: self.freshness.is_stale(),
            values: self.latest.as_ref().map(Frame::values),
        }
    }
}

impl HubState {
    /// Returns the watch of a channel of a device; a new one if no client watches the channel yet.
    pub(super) fn watch(&mut self, device: &Arc<Device>, channel: &Channel, now: Now) -> WatchKey {
        let name = (device.iot_id.clone(), channel.name.clone());
        if let Some(key) = self.watches.find(&name) {
            return key;
        }
        let key = self.watches.add(name, Watch::new(&self.tenant, device, channel, now));
        self.metrics.channels.inc();
        self.progress.forget_floor();
        self.reads.request(key, now.instant, &mut self.timers);
        self.change_freshness(key, now, |freshness| freshness.touch(Duration::ZERO, now.instant));
        key
    }

    /// Reads a channel whose format has changed: the current value, and what has come meanwhile, follow in
    /// the new form.
    pub(super) fn read_renewed(&mut self, key: WatchKey, now: Now) {
        if self.watches.get(key).is_some_and(|watch| !watch.freshness.is_stale()) {
            self.change_freshness(key, now, |freshness| freshness.touch(Duration::ZERO, now.instant));
        }
        self.read_again(key, now);
    }

    /// Ends a watch, with all of its viewers.
    pub(super) fn unwatch(&mut self, key: WatchKey, now: Now) {
        let Some(watch) = self.watches.get(key) else { return };
        let name = (watch.device.iot_id.clone(), watch.channel.clone());
        let Some(watch) = self.watches.take(&name) else { return };
        self.metrics.channels.dec();
        self.io.close.extend(watch.subscription);
        for &viewer in &watch.viewers {
            if let Some(client) = self.clients.get_mut(viewer) {
                client.forget_channel(key, &watch);
                self.settle(viewer, now);
            }
        }
    }

    /// Changes the freshness of a channel. Sets the timer that follows, and tells the viewers if the channel
    /// has become stale or fresh.
    pub(super) fn change_freshness(
        &mut self,
        key: WatchKey,
        now: Now,
        change: impl FnOnce(&mut Freshness) -> FreshnessChange,
    ) {
        let Some(watch) = self.watches.get_mut(key) else { return };
        let FreshnessChange { timer, event } = change(&mut watch.freshness);
        if let Some(at) = timer {
            self.timers.add(at, Timer::Stale(key));
        }
        if let Some(event) = event {
            let frame = watch.event(event);
            self.tell_viewers(key, FrameKind::freshness(key), &frame, now);
        }
    }

    /// Sends a frame to the viewers of a channel.
    pub(super) fn tell_viewers(&mut self, key: WatchKey, kind: FrameKind, frame: &Bytes, now: Now) {
        let Some(watch) = self.watches.get(key) else { return };
        for &viewer in &watch.viewers {
            if let Some(client) = self.clients.get_mut(viewer) {
                client.enqueue(kind, frame.clone(), now, &self.metrics);
            }
        }
    }

    /// Ends a watch that has had no viewer for long enough.
    pub(super) fn linger_due(&mut self, key: WatchKey, now: Now) {
        let Some(watch) = self.watches.get(key) else { return };
        if let Some(since) = watch.idle_since {
            let end = since + self.settings.linger;
            if end <= now.instant {
                self.unwatch(key, now);
            } else {
                self.timers.add(end, Timer::Linger(key));
            }
        }
    }

    /// Removes a client from the viewers of a channel.
    pub(super) fn leave(&mut self, client: ClientKey, key: WatchKey, now: Now) {
        let Some(watch) = self.watches.get_mut(key) else { return };
        if !watch.remove_viewer(client) {
            return;
        }
        if watch.viewers.is_empty() {
            watch.idle_since = Some(now.instant);
            self.timers.add(now.instant + self.settings.linger, Timer::Linger(key));
        }
        if let Some(client) = self.clients.get_mut(client) {
            client.forget_channel(key, watch);
        }
    }
}
