//! The state of one channel of one device.

use std::hash::Hasher;

use super::DropReason;
use super::time::Timestamp;

/// The most payloads that are remembered for the newest time. Devices whose clock counts seconds send several
/// messages with the same time. Beyond this number, a duplicate of an older one is shown again.
const MAX_AT_NEWEST: usize = 64;

/// The state of one channel of one device, for the stale filter, `onChange` and `deadband`.
///
/// It belongs to one [`super::Program`]. If another program is applied with it, the stale filter goes on, and
/// the next message is pushed like the first one of a channel.
#[derive(Debug, Clone, Default)]
pub struct ChannelState {
    newest: Option<Timestamp>,
    /// Digests of the payloads with the newest time.
    at_newest: Vec<u64>,
    /// The id of the program to which `pushed` belongs.
    program: u64,
    /// The last pushed value of each field; empty before the first push, and if each message is pushed.
    pushed: Vec<Pushed>,
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
}

impl ChannelState {
    /// Returns the event time of the newest message that passed the stale filter, even if it was
    /// [`DropReason::Filtered`] or [`DropReason::Unchanged`]. `None` before the first message.
    #[must_use]
    pub fn newest(&self) -> Option<Timestamp> {
        self.newest
    }

    /// The stale filter: refuses messages that are older than the newest one, or duplicates. `payload` is
    /// compared if several messages may share a time; `None` if they can't.
    pub(super) fn check(&self, time: Timestamp, payload: Option<&[u8]>) -> Result<(), DropReason> {
        let Some(newest) = self.newest else { return Ok(()) };
        if time != newest {
            return if time > newest { Ok(()) } else { Err(DropReason::OutOfOrder) };
        }
        let seen = payload.is_none_or(|payload| self.at_newest.contains(&digest(payload)));
        if seen { Err(DropReason::Duplicate) } else { Ok(()) }
    }

    /// Stores a message that passed [`Self::check`].
    pub(super) fn advance(&mut self, time: Timestamp, payload: Option<&[u8]>) {
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

    /// Returns what this program pushed last, by field; `None` before the first push.
    pub(super) fn pushed(&self, program: u64) -> Option<&[Pushed]> {
        (self.program == program && !self.pushed.is_empty()).then_some(&self.pushed)
    }

    /// Returns the storage of the pushed values, with one entry for each field.
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
    /// Stores `json`, in the buffer of the value before if there is one.
    pub(super) fn remember(&mut self, json: &[u8]) {
        if let Self::Json(before) = self {
            before.clear();
            before.extend_from_slice(json);
        } else {
            *self = Self::Json(json.to_vec());
        }
    }
}

/// SipHash with a fixed key. A collision of 64 bits between payloads of one device with one time doesn't
/// happen by chance.
fn digest(payload: &[u8]) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    hasher.write(payload);
    hasher.finish()
}
