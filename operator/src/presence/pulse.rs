//! One device: what is known of its last messages, what follows from that, and when to look again. Pure.

use std::time::Duration;

use flutecast_crds::Presence;
use k8s_openapi::jiff::Timestamp;
use tokio::time::Instant;

use super::{Told, whole_seconds};

/// The longest time for which nobody is called silent after it began to be observed, or the broker came back:
/// devices need a moment to come back too. It is shorter for those whose `staleAfter` is.
pub const GRACE: Duration = Duration::from_secs(60);
/// No device is looked up again sooner than this. One with a shorter `staleAfter` is noticed to be silent so
/// much later.
pub const LOOK_APART: Duration = Duration::from_secs(2);
/// How often a device that is not Online and that nobody listens to is looked up.
pub const POLL: Duration = Duration::from_secs(10);
/// How often a device that is listened to is looked up: in a cluster of brokers a subscription takes a moment
/// to be known everywhere, and what was republished before that is missed.
pub const RECHECK: Duration = Duration::from_secs(120);
/// Over how long the first looks are spread.
pub const FIRST_LOOKS: Duration = Duration::from_secs(2);

/// One moment on two clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct At {
    /// On the monotonic clock of this machine.
    pub local: Instant,
    /// On the broker's clock.
    pub broker: Timestamp,
}

/// Of which channels the last message is looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// Of the one that keeps the device Online for longest. It can show that the device still is, but not
    /// that it isn't.
    One(usize),
    /// Of all that have a `staleAfter`.
    All,
}

/// A message of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heard {
    /// The channel, by its place.
    pub channel: usize,
    /// The message's sequence in the stream.
    pub sequence: u64,
    /// When the broker stored it.
    pub stored: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Last {
    sequence: u64,
    stored: Timestamp,
    /// Until when it keeps the device Online.
    until: Instant,
}

/// What is known of one device.
#[derive(Debug, Clone)]
pub struct Pulse {
    stale_after: Box<[Duration]>,
    last: Box<[Option<Last>]>,
    told: Told,
    /// Nobody is called silent before.
    floor: Instant,
    listened_to: bool,
    next: (Instant, Look),
}

impl Pulse {
    /// A device that was said to be `before`. `spread`, here and below: a random number from 0 to 1, which
    /// keeps those apart that begin together.
    #[must_use]
    pub fn new(stale_after: &[Duration], before: Told, now: Instant, spread: f64) -> Self {
        let mut this = Self {
            stale_after: stale_after.into(),
            last: vec![None; stale_after.len()].into(),
            told: before,
            floor: now,
            listened_to: false,
            next: (now, Look::All),
        };
        this.begin_again(now, spread);
        this
    }

    /// The broker is there, again or for the first time: what happened meanwhile is looked up, and silence
    /// counts from now on.
    pub fn begin_again(&mut self, now: Instant, spread: f64) {
        let longest = self.stale_after.iter().max().copied().unwrap_or(GRACE);
        self.floor = now + longest.min(GRACE);
        self.next = (now + FIRST_LOOKS.mul_f64(spread), Look::All);
    }

    /// What is the case, as far as is known.
    #[must_use]
    pub fn told(&self) -> Told {
        self.told
    }

    /// When to look next, and at what.
    #[must_use]
    pub fn next(&self) -> (Instant, Look) {
        self.next
    }

    /// Whether somebody should listen to it: it is Silent, or was never heard of.
    #[must_use]
    pub fn needs_ears(&self) -> bool {
        self.told.presence != Presence::Online && !self.listened_to
    }

    /// Somebody listens from now on, or no longer does. What came just before is looked up.
    pub fn listened_to(&mut self, listened_to: bool, now: Instant) {
        self.listened_to = listened_to;
        if listened_to {
            self.next = (now, Look::All);
        }
    }

    /// Takes in the last messages that a look found. Answers whether the device became another.
    pub fn answered(&mut self, look: Look, heard: &[Heard], at: At, spread: f64) -> bool {
        let before = self.lead().map(|(_, last)| last.until);
        for message in heard {
            self.take(look, message, at);
        }
        let lead = self.lead();
        if let Some((channel, last)) = lead.filter(|(_, last)| last.until > at.local) {
            self.next = if before == Some(last.until) {
                (last.until, Look::All)
            } else {
                // Somewhat before it is due, so that those that were looked up together are not for ever.
                let early = (last.until - at.local).mul_f64(0.75 + 0.25 * spread);
                (at.local + early.max(LOOK_APART), Look::One(channel))
            };
            return self.become_(Presence::Online, last.stored);
        }
        if look != Look::All {
            self.next = (at.local, Look::All);
            return false;
        }
        let again = if self.listened_to { RECHECK } else { POLL };
        let again = at.local + again.mul_f64(0.5 + 0.5 * spread);
        if at.local < self.floor {
            self.next = (self.floor.min(again), Look::All);
            return false;
        }
        self.next = (again, Look::All);
        let since = lead.and_then(|(channel, last)| last.stored.checked_add(self.stale_after[channel]).ok());
        self.become_(Presence::Silent, since.unwrap_or(at.broker).min(at.broker))
    }

    /// Takes in a message that was heard as it was stored. Answers whether the device became another.
    pub fn heard(&mut self, message: &Heard, now: Instant, spread: f64) -> bool {
        let at = At { local: now, broker: message.stored };
        self.answered(Look::All, std::slice::from_ref(message), at, spread)
    }

    /// The channel that keeps the device Online for longest.
    fn lead(&self) -> Option<(usize, Last)> {
        let all = self.last.iter().enumerate().filter_map(|(channel, last)| Some((channel, (*last)?)));
        all.max_by_key(|(_, last)| last.until)
    }

    fn take(&mut self, look: Look, message: &Heard, at: At) {
        let Heard { channel, sequence, stored } = *message;
        let (Some(last), Some(stale_after)) = (self.last.get_mut(channel), self.stale_after.get(channel))
        else {
            return;
        };
        // Its age is taken once: a clock of the broker that is set back must not make it young again at each
        // look. A smaller sequence is news too: the stream was made anew.
        if last.is_none_or(|last| last.sequence != sequence) {
            // A message from the future is one of now.
            let age = Duration::try_from(at.broker.duration_since(stored)).unwrap_or(Duration::ZERO);
            let left = stale_after.saturating_sub(age);
            // A look at one channel goes by what the broker's clock showed some time ago. It may have been
            // set since: who is too old by it is looked at again by the clock as it is.
            if look == Look::All || left > Duration::ZERO {
                *last = Some(Last { sequence, stored, until: at.local + left });
            }
        }
    }

    fn become_(&mut self, presence: Presence, since: Timestamp) -> bool {
        if self.told.presence == presence {
            return false;
        }
        // Times that are said of a device don't go backwards.
        let since = Some(whole_seconds(since)).max(self.told.since);
        self.told = Told { presence, since };
        true
    }
}
