//! What one channel of one device has seen so far.

use std::hash::Hasher;

use super::DropReason;
use super::time::Timestamp;

/// Payloads that are remembered for the newest time. Devices whose clock counts seconds send several messages
/// with one time; of more than this many, the oldest are forgotten, and would be shown again rather than
/// lost.
const MAX_AT_NEWEST: usize = 64;

/// What one channel of one device has seen so far; the memory of the stale filter, of `onChange` and of
/// `deadband`.
///
/// It belongs to one [`super::Program`]. If another one is applied with it, the time moves on as before, and
/// the first message is pushed as a first message is.
#[derive(Debug, Clone, Default)]
pub struct ChannelState {
    newest: Option<Timestamp>,
    /// Digests of the payloads with the newest time.
    at_newest: Vec<u64>,
    /// The program that `pushed` belongs to.
    program: u64,
    /// What was last pushed, for each field; empty before the first push, and if no field has a condition.
    pushed: Vec<Pushed>,
}

/// What was last pushed of one field.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) enum Pushed {
    /// Nothing: the message didn't have it.
    #[default]
    Absent,
    /// Some value. It doesn't matter which one, since each value is a reason to push.
    Present,
    /// This number, to compare within a deadband.
    Number(f64),
    /// This value, as JSON.
    Json(Vec<u8>),
}

impl ChannelState {
    /// The event time of the newest message that was taken; messages that were [`DropReason::Filtered`] or
    /// [`DropReason::Unchanged`] count.
    #[must_use]
    pub fn newest(&self) -> Option<Timestamp> {
        self.newest
    }

    /// Whether a message comes too late: the stale filter. `payload` is compared for messages that may share
    /// a time; none if they can't.
    pub(super) fn check(&self, time: Timestamp, payload: Option<&[u8]>) -> Result<(), DropReason> {
        let Some(newest) = self.newest else { return Ok(()) };
        if time != newest {
            return if time > newest { Ok(()) } else { Err(DropReason::OutOfOrder) };
        }
        let seen = payload.is_none_or(|payload| self.at_newest.contains(&digest(payload)));
        if seen { Err(DropReason::Duplicate) } else { Ok(()) }
    }

    /// Takes note of a message that passed [`Self::check`].
    pub(super) fn move_on(&mut self, time: Timestamp, payload: Option<&[u8]>) {
        if self.newest != Some(time) {
            self.newest = Some(time);
            self.at_newest.clear();
        }
        if let Some(payload) = payload {
            if self.at_newest.len() == MAX_AT_NEWEST {
                self.at_newest.remove(0);
            }
            self.at_newest.push(digest(payload));
        }
    }

    /// What was last pushed by this program, by field; none before the first push.
    pub(super) fn pushed(&self, program: u64) -> Option<&[Pushed]> {
        (self.program == program && !self.pushed.is_empty()).then_some(&self.pushed)
    }

    /// The memory of what is pushed, with one place for each field.
    pub(super) fn pushed_mut(&mut self, program: u64, fields: usize) -> &mut [Pushed] {
        if self.program != program {
            self.pushed.clear();
            self.program = program;
        }
        self.pushed.resize(fields, Pushed::Absent);
        &mut self.pushed
    }
}

impl Pushed {
    /// Remembers `json`, in the memory of the value before it if it can.
    pub(super) fn remember(&mut self, json: &[u8]) {
        if let Self::Json(before) = self {
            before.clear();
            before.extend_from_slice(json);
        } else {
            *self = Self::Json(json.to_vec());
        }
    }
}

/// SipHash with a fixed key: two payloads of one device and one time that differ and have the same 64 bits
/// don't happen by chance.
fn digest(payload: &[u8]) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    hasher.write(payload);
    hasher.finish()
}
