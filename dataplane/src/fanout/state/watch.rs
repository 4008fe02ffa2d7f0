//! One channel of one device that somebody watches.

use std::sync::Arc;
use std::time::Duration;

use flutecast_contract::document::DeliveryPolicy;
use flutecast_contract::name::{ChannelName, TenantName};
use flutecast_contract::subject;
use flutecast_format::program::Timestamp;
use tokio::time::Instant;

use super::HubState;
use super::timers::Due;
use crate::catalog::{Channel, Device};
use crate::fanout::arena::Key;
use crate::fanout::hello::millis;
use crate::fanout::outbox::Push;
use crate::pipeline::{ChannelPipeline, Frame, Moment};
use crate::sources::message::LiveMessage;
use crate::sources::ordered::SlotKey;

/// How many live messages of an `Every` channel wait while it is read from the stream. If there are more they
/// are forgotten and read from the stream too.
const BUFFER: usize = 1_024;
/// How many bytes of them wait: a device may send 1 MiB at a time.
const BUFFER_BYTES: usize = 8 * 1_024 * 1_024;

/// One channel of one device that somebody watches.
#[derive(Debug)]
pub(super) struct Watch {
    pub(super) device: Arc<Device>,
    pub(super) channel: ChannelName,
    /// Where its messages are stored.
    pub(super) stored: String,
    /// Where they are republished.
    pub(super) live: String,
    pub(super) pipeline: ChannelPipeline,
    pub(super) every: bool,
    pub(super) min_interval: Option<Duration>,
    /// Its subscription.
    pub(super) slot: Option<SlotKey>,
    pub(super) phase: Phase,
    /// Whether it was read at least once, so that everything up to `proven_to` is known.
    pub(super) known: bool,
    /// The sequence of the newest message that was seen on its subject.
    pub(super) last_sequence: u64,
    /// Up to here reading has told what is stored on its subject.
    pub(super) proven_to: u64,
    /// Up to here retention had taken everything when nothing at all was found on its subject. As long as
    /// nothing has come since, it isn't known what was stored there before.
    pub(super) gone_to: u64,
    /// Whether its format has changed and those who are here have still to get the current value in the new
    /// form.
    pub(super) renewed: bool,
    /// The newest frame, for those who come.
    pub(super) latest: Option<Frame>,
    /// The clients, sorted.
    pub(super) viewers: Vec<Key>,
    pub(super) freshness: Freshness,
    pub(super) hold: Hold,
    /// Since when nobody watches it.
    pub(super) idle_since: Option<Instant>,
}

/// Whether what comes live can be passed on.
#[derive(Debug)]
pub(super) enum Phase {
    /// It is being read from the stream, or waits for it.
    Reading(Reading),
    /// What comes live continues what was seen.
    Live,
}

/// A read that is asked for or under way.
#[derive(Debug)]
pub(super) struct Reading {
    /// Since when.
    pub(super) since: Instant,
    /// Whether a task reads it now.
    pub(super) in_flight: bool,
    /// Whether it has to be read once more after that.
    pub(super) again: bool,
    /// What came live meanwhile; only of an `Every` channel.
    pub(super) buffer: Vec<LiveMessage>,
}

/// Whether a channel has been silent for too long.
#[derive(Debug)]
pub(super) struct Freshness {
    pub(super) stale_after: Option<Duration>,
    /// When it will have been.
    pub(super) deadline: Option<Instant>,
    pub(super) stale: bool,
    /// The time of its last message.
    pub(super) since: Option<Timestamp>,
    /// When the timer that counts is due; others, of deadlines that have moved, don't.
    armed: Option<Instant>,
}

/// What the format's `minInterval` holds back.
#[derive(Debug, Default)]
pub(super) struct Hold {
    pub(super) not_before: Option<Instant>,
    pub(super) held: Option<Frame>,
}

impl Watch {
    pub(super) fn new(tenant: &TenantName, device: &Arc<Device>, channel: &Channel, now: Moment) -> Self {
        let Channel { name, program, stale_after } = channel;
        Self {
            stored: subject::stored(tenant, &device.iot_id, name),
            live: subject::live(tenant, &device.iot_id, name),
            pipeline: ChannelPipeline::new(&device.code, name, Arc::clone(program)),
            every: program.policy() == DeliveryPolicy::Every,
            min_interval: program.min_interval_ms().map(Duration::from_millis),
            device: Arc::clone(device),
            channel: name.clone(),
            slot: None,
            phase: Phase::Reading(Reading::new(now)),
            known: false,
            last_sequence: 0,
            proven_to: 0,
            gone_to: 0,
            renewed: false,
            latest: None,
            viewers: Vec::new(),
            freshness: Freshness {
                stale_after: *stale_after,
                deadline: None,
                stale: false,
                since: None,
                armed: None,
            },
            hold: Hold::default(),
            idle_since: None,
        }
    }

    /// The channel of an `Every` watch works in another way from now on. Where the watch stands in the stream
    /// stays.
    pub(super) fn renew(&mut self, device: &Arc<Device>, channel: &Channel) {
        let Channel { name, program, stale_after } = channel;
        self.device = Arc::clone(device);
        self.pipeline = ChannelPipeline::new(&device.code, name, Arc::clone(program));
        self.latest = None;
        self.renewed = true;
        let freshness = &mut self.freshness;
        freshness.stale_after = *stale_after;
        freshness.deadline = None;
        freshness.armed = None;
        freshness.stale &= stale_after.is_some();
    }

    pub(super) fn is_live(&self) -> bool {
        matches!(self.phase, Phase::Live)
    }

    /// Whether a task reads it now.
    pub(super) fn is_read_now(&self) -> bool {
        matches!(&self.phase, Phase::Reading(reading) if reading.in_flight)
    }

    /// The sequence after which a read must tell everything; none: only the newest message matters.
    pub(super) fn read_after(&self) -> Option<u64> {
        (self.every && self.known).then(|| self.last_sequence.max(self.proven_to))
    }

    pub(super) fn add_viewer(&mut self, client: Key) -> bool {
        match self.viewers.binary_search(&client) {
            Ok(_) => false,
            Err(at) => {
                self.viewers.insert(at, client);
                self.idle_since = None;
                true
            }
        }
    }

    pub(super) fn remove_viewer(&mut self, client: Key) -> bool {
        match self.viewers.binary_search(&client) {
            Ok(at) => {
                self.viewers.remove(at);
                true
            }
            Err(_) => false,
        }
    }

    /// `stale`, as clients are told of it.
    pub(super) fn stale_frame(&self) -> bytes::Bytes {
        let stale_after = self.freshness.stale_after.map_or(0, millis);
        self.pipeline.frames.stale(self.freshness.since, stale_after)
    }
}

impl Reading {
    pub(super) fn new(now: Moment) -> Self {
        Self { since: now.instant, in_flight: false, again: false, buffer: Vec::new() }
    }

    /// Keeps what came live, to be passed on after the read.
    pub(super) fn keep(&mut self, message: LiveMessage) {
        let bytes = || self.buffer.iter().map(|message| message.payload.len()).sum::<usize>();
        // Summed up only for large messages, of which few wait.
        let large = message.payload.len() > BUFFER_BYTES / BUFFER;
        if self.buffer.len() >= BUFFER || large && bytes() + message.payload.len() > BUFFER_BYTES {
            self.buffer.clear();
            self.again = true;
        }
        // What follows a forgotten message will be read from the stream with it.
        if !self.again {
            self.buffer.push(message);
        }
    }
}

impl HubState {
    /// The watch of a channel of a device, new if nobody watches it yet.
    pub(super) fn watch(&mut self, device: &Arc<Device>, channel: &Channel, now: Moment) -> Key {
        let name = (device.iot_id.clone(), channel.name.clone());
        if let Some(&key) = self.by_channel.get(&name) {
            return key;
        }
        let key = self.watches.insert(Watch::new(&self.tenant, device, channel, now));
        self.by_channel.insert(name, key);
        self.metrics.channels.inc();
        self.floor = None;
        self.unread.push(key);
        self.arm_overdue(now);
        self.heard(key, now, Duration::ZERO);
        key
    }

    /// A watch was renewed: what has come meanwhile, and the current value, is read and passed on in the new
    /// form.
    pub(super) fn renewed(&mut self, key: Key, now: Moment) {
        if self.watches.get(key).is_some_and(|watch| !watch.freshness.stale) {
            self.heard(key, now, Duration::ZERO);
        }
        self.read_again(key, now);
    }

    /// Ends a watch, with whoever still watches it.
    pub(super) fn unwatch(&mut self, key: Key, now: Moment) {
        let Some(watch) = self.watches.remove(key) else { return };
        self.by_channel.remove(&(watch.device.iot_id.clone(), watch.channel.clone()));
        self.metrics.channels.dec();
        self.work.close.extend(watch.slot);
        for viewer in watch.viewers {
            if let Some(client) = self.clients.get_mut(viewer) {
                client.thinned.remove(&key);
                let replaying = client.replaying.remove(&key).is_some_and(|replay| replay.started());
                client.owe_less(usize::from(replaying) + usize::from(!matches!(watch.phase, Phase::Live)));
                self.settle(viewer, now);
            }
        }
    }

    /// A message came `age` ago: the channel isn't silent.
    pub(super) fn heard(&mut self, key: Key, now: Moment, age: Duration) {
        let Some(watch) = self.watches.get_mut(key) else { return };
        let Some(stale_after) = watch.freshness.stale_after else { return };
        let deadline = now.instant + stale_after.saturating_sub(age);
        watch.freshness.deadline = Some(deadline);
        // A later deadline is seen to when the timer is due, an earlier one needs a timer of its own.
        if watch.freshness.armed.is_none_or(|armed| deadline < armed) {
            watch.freshness.armed = Some(deadline);
            self.timers.add(deadline, Due::Stale(key));
        }
        if watch.freshness.stale && age < stale_after {
            watch.freshness.stale = false;
            let frame = watch.pipeline.frames.fresh();
            self.tell_freshness(key, &frame, now);
        }
    }

    /// A channel may have been silent for too long.
    pub(super) fn stale_due(&mut self, key: Key, now: Moment) {
        let Some(watch) = self.watches.get_mut(key) else { return };
        if watch.freshness.armed.is_some_and(|armed| armed > now.instant) {
            return;
        }
        watch.freshness.armed = None;
        let Some(deadline) = watch.freshness.deadline else { return };
        if deadline > now.instant {
            watch.freshness.armed = Some(deadline);
            self.timers.add(deadline, Due::Stale(key));
            return;
        }
        if !watch.freshness.stale {
            watch.freshness.stale = true;
            let frame = watch.stale_frame();
            self.tell_freshness(key, &frame, now);
        }
    }

    /// A channel was read: one that has no message, or only an old one, is stale at once and not when it has
    /// been silent for us.
    pub(super) fn judge_freshness(&mut self, key: Key, now: Moment) {
        let Some(watch) = self.watches.get_mut(key) else { return };
        let freshness = &mut watch.freshness;
        if freshness.stale_after.is_none() {
            return;
        }
        if freshness.since.is_none() {
            freshness.deadline = Some(now.instant);
        }
        if freshness.deadline.is_some_and(|deadline| deadline <= now.instant) {
            freshness.armed = None;
            self.stale_due(key, now);
        }
    }

    fn tell_freshness(&mut self, key: Key, frame: &bytes::Bytes, now: Moment) {
        let Some(watch) = self.watches.get(key) else { return };
        for &viewer in &watch.viewers {
            if let Some(client) = self.clients.get_mut(viewer) {
                client.push(Push::Freshness(key), frame.clone(), now, &self.metrics);
            }
        }
    }

    /// Nobody watches a channel any more, unless somebody came back.
    pub(super) fn linger_due(&mut self, key: Key, now: Moment) {
        let Some(watch) = self.watches.get(key) else { return };
        if let Some(since) = watch.idle_since {
            let end = since + self.settings.linger;
            if end <= now.instant {
                self.unwatch(key, now);
            } else {
                self.timers.add(end, Due::Linger(key));
            }
        }
    }

    /// A client no longer watches a channel.
    pub(super) fn leave(&mut self, client: Key, key: Key, now: Moment) {
        let Some(watch) = self.watches.get_mut(key) else { return };
        if !watch.remove_viewer(client) {
            return;
        }
        let reading = !watch.is_live();
        if watch.viewers.is_empty() {
            watch.idle_since = Some(now.instant);
            self.timers.add(now.instant + self.settings.linger, Due::Linger(key));
        }
        if let Some(client) = self.clients.get_mut(client) {
            client.thinned.remove(&key);
            let replaying = client.replaying.remove(&key).is_some_and(|replay| replay.started());
            client.owe_less(usize::from(replaying) + usize::from(reading));
        }
    }
}
