//! The messages of a channel's tail that can still decide something.
//!
//! Times of storing rise along a window. Where the broker's clock steps back, what was stored before counts
//! as stored at that moment, with a time not after it: then nothing can be newer than the clock that judges.

use std::collections::VecDeque;
use std::collections::vec_deque::Iter;

use flutecast_contract::tail;

use super::time::Timestamp;

/// Where a message stands in its channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// The number of messages before it.
    pub(super) index: u64,
    pub(super) stored_at: Timestamp,
    /// The time of the event, never after `stored_at`.
    pub(super) time: Timestamp,
}

impl Place {
    /// Returns whether the message is in the tail of `newest`, and was stored at most `micros` before it.
    pub(super) fn is_within(&self, newest: &Self, micros: Option<i64>) -> bool {
        let Self { index, stored_at, .. } = newest;
        (index - self.index) < tail::MESSAGES as u64
            && micros.is_none_or(|micros| stored_at.0.saturating_sub(self.stored_at.0) <= micros)
    }
}

/// Messages in the order of the stream, each with something that is remembered of it.
#[derive(Debug, Clone)]
pub(super) struct Window<T> {
    entries: VecDeque<(Place, T)>,
}

// Without the bound on `T` that a derived one has.
impl<T> Default for Window<T> {
    fn default() -> Self {
        Self { entries: VecDeque::new() }
    }
}

impl<T> Window<T> {
    /// Takes note that the broker's clock stepped back to `clock`.
    pub(super) fn step_back(&mut self, clock: Timestamp) {
        for (place, _) in self.entries.iter_mut().rev().take_while(|(place, _)| place.stored_at > clock) {
            place.stored_at = clock;
            place.time = place.time.min(clock);
        }
    }

    /// Forgets what is no longer in the tail of `newest`, or was stored more than `micros` before it.
    pub(super) fn expire(&mut self, newest: &Place, micros: Option<i64>) {
        while self.entries.front().is_some_and(|(place, _)| !place.is_within(newest, micros)) {
            self.entries.pop_front();
        }
    }

    pub(super) fn push(&mut self, place: Place, what: T) {
        self.entries.push_back((place, what));
    }

    /// Adds a message, and forgets those before it that aren't newer: the first one is the newest of all
    /// then.
    pub(super) fn push_newest(&mut self, place: Place, what: T) {
        // The usual message is newer than the only one that is remembered.
        if let ([(before, _)], []) = self.entries.as_slices()
            && before.time <= place.time
        {
            self.entries[0] = (place, what);
            return;
        }
        while self.entries.back().is_some_and(|(before, _)| before.time <= place.time) {
            self.entries.pop_back();
        }
        self.entries.push_back((place, what));
    }

    pub(super) fn first(&self) -> Option<&(Place, T)> {
        self.entries.front()
    }

    pub(super) fn iter(&self) -> Iter<'_, (Place, T)> {
        self.entries.iter()
    }

    /// Forgets the last messages beyond this number.
    pub(super) fn truncate(&mut self, count: usize) {
        self.entries.truncate(count);
    }
}
