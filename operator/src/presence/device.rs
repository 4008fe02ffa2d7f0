//! The presence of one device: what is known of its last messages, what follows from that, and when to look
//! again. Pure.

use std::time::Duration;

use flutecast_crds::Presence;
use k8s_openapi::jiff::Timestamp;
use tokio::time::Instant;

use super::{PresenceState, whole_seconds};

/// The time for which a device can't become Silent after tracking began or the broker came back: devices need
/// time to reconnect too. Devices with a shorter `staleAfter` have that much.
const GRACE: Duration = Duration::from_secs(60);
/// The shortest time between two lookups of an Online device. With a shorter `staleAfter` its silence is
/// noticed later by this much.
const MIN_LOOKUP_INTERVAL: Duration = Duration::from_secs(2);
/// The interval at which a device that is not Online and has no subscription is looked up.
const POLL_INTERVAL: Duration = Duration::from_secs(10);
/// The interval at which a device with a subscription is looked up. In a cluster of brokers it takes a moment
/// until a subscription is known everywhere, and messages that were republished before that are missed.
const RECHECK_INTERVAL: Duration = Duration::from_secs(120);
/// The time over which first lookups are spread.
const FIRST_LOOKUPS: Duration = Duration::from_secs(2);

/// One moment on two clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ClockReading {
    /// The monotonic clock of this machine.
    pub(super) local: Instant,
    pub(super) broker: Timestamp,
}

/// The channels whose last message is looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LookupScope {
    /// The channel that keeps the device Online for longest. It can show that the device is still Online, but
    /// not that it is Silent.
    Channel(usize),
    /// All channels with a `staleAfter`.
    AllChannels,
}

/// A channel's last message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LastMessage {
    /// The index of the channel in [`super::Target::channels`].
    pub(super) channel: usize,
    /// The sequence in the stream.
    pub(super) sequence: u64,
    /// The time at which the broker stored it.
    pub(super) stored: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sighting {
    sequence: u64,
    stored: Timestamp,
    /// Until when the message keeps the device Online.
    fresh_until: Instant,
}

/// State machine of one device.
///
/// `spread`, here and below, is a random number from 0 to 1 that keeps devices apart that start together.
#[derive(Debug, Clone)]
pub(super) struct DevicePresence {
    stale_after: Box<[Duration]>,
    sightings: Box<[Option<Sighting>]>,
    state: PresenceState,
    /// The device doesn't become Silent before.
    grace_until: Instant,
    is_subscribed: bool,
    next_lookup: (Instant, LookupScope),
}

impl DevicePresence {
    pub(super) fn new(stale_after: &[Duration], before: PresenceState, now: Instant, spread: f64) -> Self {
        let mut this = Self {
            stale_after: stale_after.into(),
            sightings: vec![None; stale_after.len()].into(),
            state: before,
            grace_until: now,
            is_subscribed: false,
            next_lookup: (now, LookupScope::AllChannels),
        };
        this.restart(now, spread);
        this
    }

    /// The broker is available, again or for the first time: messages in between are looked up, and silence
    /// counts from now on.
    pub(super) fn restart(&mut self, now: Instant, spread: f64) {
        let longest = self.stale_after.iter().max().copied().unwrap_or(GRACE);
        self.grace_until = now + longest.min(GRACE);
        self.next_lookup = (now + FIRST_LOOKUPS.mul_f64(spread), LookupScope::AllChannels);
    }

    pub(super) fn state(&self) -> PresenceState {
        self.state
    }

    /// Returns when the next lookup is due, and its scope.
    pub(super) fn next_lookup(&self) -> (Instant, LookupScope) {
        self.next_lookup
    }

    /// Returns `true` if the device is not Online and has no subscription yet.
    pub(super) fn needs_subscription(&self) -> bool {
        self.state.presence != Presence::Online && !self.is_subscribed
    }

    /// Notes that a subscription began or ended. Messages just before a new subscription are looked up.
    pub(super) fn set_subscribed(&mut self, is_subscribed: bool, now: Instant) {
        self.is_subscribed = is_subscribed;
        if is_subscribed {
            self.next_lookup = (now, LookupScope::AllChannels);
        }
    }

    /// Applies the last messages that a lookup found. Returns `true` if the presence changed.
    pub(super) fn apply_lookup(
        &mut self,
        scope: LookupScope,
        messages: &[LastMessage],
        now: ClockReading,
        spread: f64,
    ) -> bool {
        let before = self.freshest().map(|(_, sighting)| sighting.fresh_until);
        for message in messages {
            self.record(scope, message, now);
        }
        let freshest = self.freshest();
        if let Some((channel, sighting)) = freshest.filter(|(_, sighting)| sighting.fresh_until > now.local) {
            self.next_lookup = if before == Some(sighting.fresh_until) {
                (sighting.fresh_until, LookupScope::AllChannels)
            } else {
                // Somewhat before it is due, so that devices that were looked up together drift apart.
                let early = (sighting.fresh_until - now.local).mul_f64(0.75 + 0.25 * spread);
                (now.local + early.max(MIN_LOOKUP_INTERVAL), LookupScope::Channel(channel))
            };
            return self.transition(Presence::Online, sighting.stored);
        }
        if scope != LookupScope::AllChannels {
            self.next_lookup = (now.local, LookupScope::AllChannels);
            return false;
        }
        let interval = if self.is_subscribed { RECHECK_INTERVAL } else { POLL_INTERVAL };
        let again = now.local + interval.mul_f64(0.5 + 0.5 * spread);
        if now.local < self.grace_until {
            self.next_lookup = (self.grace_until.min(again), LookupScope::AllChannels);
            return false;
        }
        self.next_lookup = (again, LookupScope::AllChannels);
        let since = freshest
            .and_then(|(channel, sighting)| sighting.stored.checked_add(self.stale_after[channel]).ok());
        self.transition(Presence::Silent, since.unwrap_or(now.broker).min(now.broker))
    }

    /// Applies a message of a subscription. Returns `true` if the presence changed.
    pub(super) fn apply_message(&mut self, message: &LastMessage, now: Instant, spread: f64) -> bool {
        let now = ClockReading { local: now, broker: message.stored };
        self.apply_lookup(LookupScope::AllChannels, std::slice::from_ref(message), now, spread)
    }

    /// Returns the channel that keeps the device Online for longest.
    fn freshest(&self) -> Option<(usize, Sighting)> {
        let all = self.sightings.iter().enumerate();
        let all = all.filter_map(|(channel, sighting)| Some((channel, (*sighting)?)));
        all.max_by_key(|(_, sighting)| sighting.fresh_until)
    }

    fn record(&mut self, scope: LookupScope, message: &LastMessage, now: ClockReading) {
        let LastMessage { channel, sequence, stored } = *message;
        let (Some(known), Some(stale_after)) =
            (self.sightings.get_mut(channel), self.stale_after.get(channel))
        else {
            return;
        };
        // The age of a message is taken once: when the broker's clock is set back, the message must not get
        // younger with each lookup. A smaller sequence is new as well: the stream was created again.
        if known.is_none_or(|known| known.sequence != sequence) {
            // A message from the future has age zero.
            let age = Duration::try_from(now.broker.duration_since(stored)).unwrap_or(Duration::ZERO);
            let left = stale_after.saturating_sub(age);
            // A lookup of one channel uses an older reading of the broker's clock, which may have been set
            // since. A message that is too old by it is looked up again with a new reading.
            if scope == LookupScope::AllChannels || left > Duration::ZERO {
                *known = Some(Sighting { sequence, stored, fresh_until: now.local + left });
            }
        }
    }

    fn transition(&mut self, presence: Presence, since: Timestamp) -> bool {
        if self.state.presence == presence {
            return false;
        }
        // The time of the last transition never goes backwards.
        let since = Some(whole_seconds(since)).max(self.state.since);
        self.state = PresenceState { presence, since };
        true
    }
}
