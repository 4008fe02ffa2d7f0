//! What becomes of a message.

use super::reason::{DropReason, ProblemReason};
use super::time::Timestamp;

/// A message from the broker.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// The payload.
    pub payload: &'a [u8],
    /// The time at which the broker stored the message.
    pub stored_at: Timestamp,
    /// The time at which the stream of a payload source captured it, if it was split from a message there.
    pub captured_at: Option<Timestamp>,
}

/// What clients get of a message. Reuse it for the next message: its buffers stay.
#[derive(Debug, Clone, Default)]
pub struct Output {
    /// The values, as a JSON object by the name of the field.
    pub values: Vec<u8>,
    /// The raw texts of fields that are there and can't be read, as a JSON object by the name of the field;
    /// empty if there is none. Such a field is `null` in `values`.
    pub bad: Vec<u8>,
    /// The times of the fields of a record that are older than the event, as a JSON object by the name of the
    /// field; empty if there is none.
    pub at: Vec<u8>,
}

impl Output {
    pub(super) fn clear(&mut self) {
        self.values.clear();
        self.bad.clear();
        self.at.clear();
    }
}

/// The result of [`super::Program::apply`], beside the [`Output`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Applied {
    /// The event that is shown, or why the message isn't.
    pub verdict: Result<Event, DropReason>,
    /// The number of fields that can't be read, or can't be computed. Fields that the message doesn't hold
    /// are not counted.
    pub skipped_fields: u32,
    /// The worst problem of the message. If there is one, [`super::Program::explain`] describes all of them.
    pub problem: Option<ProblemReason>,
}

/// A message that is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// The time of the event: the message's own, but never after it was stored.
    pub time: Timestamp,
    /// `true` if the event is much older than its storing; only if no message is skipped.
    pub late: bool,
}

impl Applied {
    pub(super) fn dropped(reason: DropReason) -> Self {
        Self { verdict: Err(reason), skipped_fields: 0, problem: reason.problem() }
    }

    /// Returns whether the message says how its device is, also if that is no reason to show it.
    #[must_use]
    pub fn is_understood(&self) -> bool {
        self.verdict.map_or_else(DropReason::is_understood, |_| true)
    }
}

/// A message can't be judged, since its channel's past is not known: the tail must be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("what was stored before it decides, and is not known")]
pub struct NeedsTail;
