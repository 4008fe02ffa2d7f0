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
use super::problems::ProblemNotifier;
use super::progress::ChannelProgress;
use super::read::{ChannelRead, ReadKind};
use super::throttle::Throttle;
use super::timers::Timer;
use crate::catalog::{Channel, Device};
use crate::fanout::ChannelValues;
use crate::fanout::backlog::FrameKind;
use crate::fanout::control_events::millis;
use crate::fanout::keys::{ChannelId, ChannelKey, ClientKey, channel_id};
use crate::ingest::ordered_merge::SlotKey;
use crate::pipeline::{ChannelPipeline, Frame, Now};

#[derive(Debug)]
pub(super) struct WatchedChannel {
    pub(super) device: Arc<Device>,
    pub(super) channel: ChannelName,
    pub(super) stored: String,
    pub(super) live: String,
    pub(super) pipeline: ChannelPipeline,
    pub(super) every: bool,
    pub(super) subscription: Option<SlotKey>,
    pub(super) phase: Phase,
    pub(super) progress: ChannelProgress,
    /// `true` if a live message couldn't be decided without the tail.
    pub(super) needs_tail: bool,
    /// `true` if the format has changed and the viewers have yet to get the current value in the new form.
    pub(super) renewed: bool,
    /// The newest frame, for clients that come.
    pub(super) latest: Option<Frame>,
    /// The clients that watch the channel, sorted.
    pub(super) viewers: Vec<ClientKey>,
    pub(super) freshness: Freshness,
    pub(super) notifier: ProblemNotifier,
    /// The format's `minInterval`, if the channel is a `Latest` one.
    pub(super) throttle: Option<Throttle<Frame>>,
    idle_since: Option<Instant>,
}

impl WatchedChannel {
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
            needs_tail: false,
            renewed: false,
            latest: None,
            viewers: Vec::new(),
            freshness: Freshness::new(*stale_after),
            notifier: ProblemNotifier::default(),
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
        self.pipeline = self.pipeline.renewed();
        // A client forgets all problems when it gets `hello` again.
        self.notifier = ProblemNotifier::default();
        self.phase.clear_buffer();
    }

    /// Adds a viewer. Returns whether it is new.
    pub(super) fn add_viewer(&mut self, client: ClientKey) -> bool {
        let Err(at) = self.viewers.binary_search(&client) else { return false };
        self.viewers.insert(at, client);
        self.idle_since = None;
        true
    }

    /// Returns a read that only tells which message is the newest one.
    pub(super) fn look(&self, key: ChannelKey) -> ChannelRead {
        ChannelRead { channel: key, stored: self.stored.clone(), open: None, kind: ReadKind::Look }
    }

    /// Returns what has to be read now.
    pub(super) fn read_kind(&self) -> ReadKind {
        match self.progress.read_after().filter(|_| self.every) {
            None => ReadKind::Tail { pipeline: self.pipeline.renewed(), whole: self.needs_tail },
            Some(after) => ReadKind::Missed { after, pipeline: self.pipeline.clone(), renew: self.renewed },
        }
    }

    fn id(&self) -> ChannelId {
        (self.device.iot_id.clone(), self.channel.clone())
    }

    pub(super) fn event(&self, event: FreshnessEvent) -> Bytes {
        let Freshness { stale_after, since, .. } = &self.freshness;
        match event {
            FreshnessEvent::Stale => self.pipeline.writer.stale(*since, stale_after.map_or(0, millis)),
            FreshnessEvent::Fresh => self.pipeline.writer.fresh(),
        }
    }

    pub(super) fn values(&self, now: Now) -> ChannelValues {
        ChannelValues {
            name: self.channel.clone(),
            stale: self.freshness.is_stale(),
            frame: self.latest.clone(),
            problem: self.pipeline.problems.json(now.wall),
        }
    }
}

impl HubState {
    /// Returns the key of a channel of a device; watches it if no client does yet.
    pub(super) fn ensure_watched(&mut self, device: &Arc<Device>, channel: &Channel, now: Now) -> ChannelKey {
        let name = channel_id(device, channel);
        if let Some(key) = self.watched.find(&name) {
            return key;
        }
        let key = self.watched.add(name, WatchedChannel::new(&self.tenant, device, channel, now));
        self.metrics.channels.inc();
        self.progress.forget_floor();
        self.reads.request(key, now.instant, &mut self.timers);
        self.change_freshness(key, now, |freshness| freshness.touch(Duration::ZERO, now.instant));
        key
    }

    /// Stops watching a channel, and takes it from all of its viewers.
    pub(super) fn unwatch(&mut self, key: ChannelKey, now: Now) {
        let Some(name) = self.watched.get(key).map(WatchedChannel::id) else { return };
        self.end_problem(key, now);
        let Some(watched) = self.watched.take(&name) else { return };
        self.metrics.channels.dec();
        self.io.close.extend(watched.subscription);
        for &viewer in &watched.viewers {
            if let Some(client) = self.clients.get_mut(viewer) {
                client.forget_channel(key, &watched);
                self.send_place_if_settled(viewer, now);
            }
        }
    }

    /// Changes the freshness of a channel. Sets the timer that follows, and tells the viewers if the channel
    /// has become stale or fresh.
    pub(super) fn change_freshness(
        &mut self,
        key: ChannelKey,
        now: Now,
        change: impl FnOnce(&mut Freshness) -> FreshnessChange,
    ) {
        let Some(watched) = self.watched.get_mut(key) else { return };
        let FreshnessChange { timer, event } = change(&mut watched.freshness);
        if let Some(at) = timer {
            self.timers.add(at, Timer::Stale(key));
        }
        if let Some(event) = event {
            let frame = watched.event(event);
            self.tell_viewers(key, FrameKind::Freshness(key), &frame, now);
        }
    }

    pub(super) fn tell_viewers(&mut self, key: ChannelKey, kind: FrameKind, frame: &Bytes, now: Now) {
        let Some(watched) = self.watched.get(key) else { return };
        for &viewer in &watched.viewers {
            if let Some(client) = self.clients.get_mut(viewer) {
                client.enqueue(kind, frame.clone(), now, &self.metrics);
            }
        }
    }

    /// Stops watching a channel that has had no viewer for long enough.
    pub(super) fn linger_due(&mut self, key: ChannelKey, now: Now) {
        let Some(since) = self.watched.get(key).and_then(|watched| watched.idle_since) else { return };
        let end = since + self.settings.linger;
        if end <= now.instant {
            self.unwatch(key, now);
        } else {
            self.timers.add(end, Timer::Linger(key));
        }
    }

    pub(super) fn leave(&mut self, client: ClientKey, key: ChannelKey, now: Now) {
        let Some(watched) = self.watched.get_mut(key) else { return };
        let Ok(at) = watched.viewers.binary_search(&client) else { return };
        watched.viewers.remove(at);
        if watched.viewers.is_empty() {
            watched.idle_since = Some(now.instant);
            self.timers.add(now.instant + self.settings.linger, Timer::Linger(key));
        }
        if let Some(client) = self.clients.get_mut(client) {
            client.forget_channel(key, watched);
        }
    }
}
