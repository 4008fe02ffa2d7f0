//! The state of one channel of one device.

use std::hash::Hasher;

use flutecast_contract::tail;

use super::record::Record;
use super::time::Timestamp;
use super::times::TIME_TOLERANCE;
use super::window::{Place, Window};

/// A field is said not to be found if so many messages with other fields lacked it.
pub(super) const LACKING: u8 = 20;

/// The microseconds of [`tail::LATENESS_WINDOW`].
const LATENESS_WINDOW: i64 = tail::LATENESS_WINDOW.as_micros() as i64;

/// The state of one channel of one device: what its messages are compared with.
///
/// It is a function of the newest [`tail::MESSAGES`] messages, whether they were applied as they came or were
/// read back. The default is that of a channel whose past isn't known: then [`super::Program::apply`] says
/// [`super::NeedsTail`] for messages that depend on it. It belongs to one [`super::Program`], and starts anew
/// if another one is applied with it.
#[derive(Debug, Clone, Default)]
pub struct ChannelState {
    /// The id of the program; 0 before the first message.
    program: u64,
    past: Past,
    /// The number of messages that were applied.
    count: u64,
    /// When the newest message was stored.
    stored_at: Timestamp,
    /// With [`super::DeliveryPolicy::Latest`]: the messages that those after them are compared with.
    newest: Window<()>,
    /// With [`super::DeliveryPolicy::Every`]: the events.
    events: Window<SeenEvent>,
    pub(super) record: Record,
    /// For each field the number of messages with other fields that lacked it, at most [`LACKING`]; empty if
    /// none is lacking.
    lacking: Vec<u8>,
    /// The number of messages before the one that `pushed` belongs to.
    pushed_index: u64,
    /// The last pushed value of each field; empty before the first push, and if each message is pushed.
    pushed: Vec<Pushed>,
}

/// What is known of the messages before the first one that was applied.
#[derive(Debug, Clone, Copy)]
enum Past {
    /// Nothing but that they were stored before this time; `None` before the first message.
    Unknown(Option<Timestamp>),
    /// They don't matter.
    Known,
}

impl Default for Past {
    fn default() -> Self {
        Self::Unknown(None)
    }
}

/// An event that later ones may repeat.
#[derive(Debug, Clone, Copy)]
pub(super) struct SeenEvent {
    pub(super) digest: u64,
    /// `true` if it was not shown, since it repeats one that need not be the one before it.
    pub(super) was_late_repeat: bool,
}

/// The last pushed value of a field.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) enum Pushed {
    /// The message didn't have the field.
    #[default]
    Absent,
    /// Any value; each value of the field causes a push.
    Present,
    /// A number, for the comparison with a deadband.
    Number(f64),
    /// The value as JSON.
    Json(Vec<u8>),
    /// The text of a value that can't be read.
    Bad(Vec<u8>),
}

impl ChannelState {
    /// Returns the state of a channel before its first message, or before the first message of the tail that
    /// is going to be applied: nothing before can matter.
    #[must_use]
    pub fn complete() -> Self {
        Self { past: Past::Known, ..Self::default() }
    }

    /// Makes this the state of a program with this id.
    pub(super) fn claim(&mut self, program: u64) {
        if self.program != program {
            if self.program != 0 {
                *self = Self::default();
            }
            self.program = program;
        }
    }

    /// Returns whether all messages that can matter were applied.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        matches!(self.past, Past::Known) || self.count >= tail::MESSAGES as u64
    }

    /// Returns the latest time that a message may have that wasn't applied, but is compared with one that is
    /// stored now; `None` if there is no such message.
    pub(super) fn latest_unknown(&self, stored_at: Timestamp) -> Option<Timestamp> {
        let Past::Unknown(first) = self.past else { return None };
        let first = first.map_or(stored_at, |first| first.min(stored_at));
        let within = stored_at.0.saturating_sub(first.0) <= LATENESS_WINDOW;
        (!self.is_complete() && within).then_some(first)
    }

    /// Counts a message, of whatever content.
    pub(super) fn advance(&mut self, stored_at: Timestamp) {
        if stored_at < self.stored_at {
            self.newest.step_back(stored_at);
            self.events.step_back(stored_at);
            self.record.step_back(stored_at);
        }
        if let Past::Unknown(first) = &mut self.past {
            *first = Some(first.map_or(stored_at, |first| first.min(stored_at)));
        }
        self.stored_at = stored_at;
        self.count += 1;
    }

    /// Returns the place of the next message.
    pub(super) fn next_place(&self, stored_at: Timestamp, time: Timestamp) -> Place {
        Place { index: self.count, stored_at, time }
    }

    /// Returns the number of messages before the newest one.
    pub(super) fn last_index(&self) -> u64 {
        self.count.saturating_sub(1)
    }

    /// Returns the time of the newest message with which one at `place` is compared, if it is newer beyond
    /// the tolerance.
    pub(super) fn newer_than(&self, place: &Place) -> Option<Timestamp> {
        let compared = self.newest.iter().find(|(before, _)| before.is_within(place, Some(LATENESS_WINDOW)));
        let newest = compared?.0.time.min(place.stored_at);
        (newest.0 > place.time.0.saturating_add(TIME_TOLERANCE)).then_some(newest)
    }

    /// Returns the time of the newest message with which the next one is compared.
    pub(super) fn newest_time(&self) -> Option<Timestamp> {
        self.newest.first().map(|(place, ())| place.time)
    }

    /// Remembers the time of a message, for those after it.
    pub(super) fn remember_time(&mut self, place: Place) {
        self.newest.expire(&place, Some(LATENESS_WINDOW));
        self.newest.push_newest(place, ());
    }

    /// Returns whether this event was the last one before, leaving out late repeats, and so stands on the
    /// screens.
    pub(super) fn repeats_last(&self, place: &Place, event: u64) -> bool {
        let last = self.events.iter().rev().find(|(_, seen)| !seen.was_late_repeat);
        last.is_some_and(|(before, seen)| {
            seen.digest == event && before.is_within(place, Some(LATENESS_WINDOW))
        })
    }

    /// Returns whether this event comes late, and was at any place of the window before.
    pub(super) fn is_late_repeat(&self, place: &Place, event: u64) -> bool {
        let is_same = |(before, seen): &(Place, SeenEvent)| {
            seen.digest == event && before.is_within(place, Some(LATENESS_WINDOW))
        };
        is_behind(place) && self.events.iter().rev().any(is_same)
    }

    /// Remembers an event, for those after it.
    pub(super) fn remember_event(&mut self, place: Place, event: SeenEvent) {
        self.events.expire(&place, Some(LATENESS_WINDOW));
        self.events.push(place, event);
    }

    /// Returns whether the last message with fields lacked some.
    pub(super) fn lacks_fields(&self) -> bool {
        !self.lacking.is_empty()
    }

    /// Counts which fields a message lacks that has others.
    pub(super) fn count_lacking(&mut self, present: impl ExactSizeIterator<Item = bool>) {
        self.lacking.resize(present.len(), 0);
        for (lacking, present) in self.lacking.iter_mut().zip(present) {
            *lacking = if present { 0 } else { (*lacking + 1).min(LACKING) };
        }
        if self.lacking.iter().all(|lacking| *lacking == 0) {
            self.lacking.clear();
        }
    }

    /// Returns whether none of the last messages had the field.
    pub(super) fn is_lacking(&self, field: usize) -> bool {
        self.lacking.get(field) == Some(&LACKING)
    }

    /// Returns what was pushed last, by field, if that was in the tail; `None` before the first push.
    pub(super) fn pushed(&self, in_tail: bool) -> Option<&[Pushed]> {
        let gone = in_tail && self.count - self.pushed_index > tail::MESSAGES as u64;
        (!self.pushed.is_empty() && !gone).then_some(&self.pushed)
    }

    /// Returns the storage of the pushed values, with one entry for each field.
    pub(super) fn pushed_mut(&mut self, fields: usize) -> &mut [Pushed] {
        self.pushed_index = self.last_index();
        self.pushed.resize(fields, Pushed::Absent);
        &mut self.pushed
    }
}

/// Returns whether a message was stored so long after its time that others may have overtaken it.
pub(super) fn is_behind(place: &Place) -> bool {
    place.time.0 < place.stored_at.0.saturating_sub(TIME_TOLERANCE)
}

impl Pushed {
    /// Stores the value `json`, in the buffer of the value before if there is one.
    pub(super) fn remember(&mut self, json: &[u8]) {
        if let Self::Json(before) = self {
            before.clear();
            before.extend_from_slice(json);
        } else {
            *self = Self::Json(json.to_vec());
        }
    }
}

/// Returns the digest of an event. SipHash with a fixed key: a collision of 64 bits between payloads of one
/// device in a minute doesn't happen by chance.
pub(super) fn digest(payload: &[u8], time: Timestamp) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    hasher.write_i64(time.0);
    hasher.write(payload);
    hasher.finish()
}
