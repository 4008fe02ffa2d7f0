//! Delays and duplicates on the way from a machine to the broker.

use std::collections::BTreeMap;

use rand::RngExt;

use super::message::Message;
use super::physics::{Noise, between, noise};

/// The way in which a message is delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// In order.
    OnTime,
    /// After newer messages of its channel.
    Late,
    /// A repeat of a message already sent.
    Duplicate,
}

/// The shares of the traffic that are disturbed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Disturbance {
    /// Share of the cyclic messages that come after a newer one, in percent.
    pub late_percent: f64,
    /// Share of all messages that come twice, in percent.
    pub duplicate_percent: f64,
    /// Share of the MES messages with a malformed item, in percent.
    pub malformed_percent: f64,
}

impl Default for Disturbance {
    fn default() -> Self {
        Self { late_percent: 1.0, duplicate_percent: 1.0, malformed_percent: 4.0 }
    }
}

impl Disturbance {
    /// No disturbances.
    pub const NONE: Self = Self { late_percent: 0.0, duplicate_percent: 0.0, malformed_percent: 0.0 };
}

/// One in this many late messages is very late, as after a gateway lost its uplink and sends its stored
/// messages.
const VERY_LATE_ONE_IN: u32 = 12;
/// The delay of very late messages, in milliseconds: more than the 30 s that the demo's formats accept.
const VERY_LATE_MS: (f64, f64) = (33_000.0, 45_000.0);
/// The delay of a duplicate, in milliseconds.
const DUPLICATE_MS: (f64, f64) = (2.0, 1500.0);

/// The messages in transit, in the order in which they will be sent.
#[derive(Debug, Clone)]
pub(crate) struct Delays {
    noise: Noise,
    disturbance: Disturbance,
    waiting: BTreeMap<(u64, u64), Message>,
    serial: u64,
}

impl Delays {
    pub(crate) fn new(seed: u64, disturbance: Disturbance) -> Self {
        Self { noise: noise(seed, 8), disturbance, waiting: BTreeMap::new(), serial: 0 }
    }

    /// Accepts a message. `period_ms` is the time until the next one of its channel if the channel is cyclic.
    /// Only cyclic messages may be late, since a newer one has to overtake them.
    pub(crate) fn send(&mut self, mut message: Message, period_ms: Option<u64>) {
        // Both random numbers are drawn for every message, so that one setting does not affect the other.
        let late = self.chance(self.disturbance.late_percent);
        let twice = self.chance(self.disturbance.duplicate_percent);
        match period_ms {
            Some(period_ms) if late => {
                message.due_ms += self.lateness(period_ms);
                message.delivery = Delivery::Late;
            }
            _ if twice => {
                let mut copy = message.clone();
                copy.due_ms += millis(between(&mut self.noise, DUPLICATE_MS));
                copy.delivery = Delivery::Duplicate;
                self.put(copy);
            }
            _ => {}
        }
        self.put(message);
    }

    /// Removes and returns the messages due by `until_ms`.
    pub(crate) fn due(&mut self, until_ms: u64) -> impl Iterator<Item = Message> + use<> {
        let later = self.waiting.split_off(&(until_ms + 1, 0));
        std::mem::replace(&mut self.waiting, later).into_values()
    }

    fn put(&mut self, message: Message) {
        self.serial += 1;
        self.waiting.insert((message.due_ms, self.serial), message);
    }

    fn chance(&mut self, percent: f64) -> bool {
        self.noise.random::<f64>() * 100.0 < percent
    }

    fn lateness(&mut self, period_ms: u64) -> u64 {
        if self.noise.random_ratio(1, VERY_LATE_ONE_IN) {
            return millis(between(&mut self.noise, VERY_LATE_MS));
        }
        // This exceeds a period plus the jitter of two messages, so the next message overtakes this one.
        period_ms * self.noise.random_range(2..=4) / 2 + 45
    }
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "drawn from small positive ranges"
)]
fn millis(value: f64) -> u64 {
    value as u64
}
