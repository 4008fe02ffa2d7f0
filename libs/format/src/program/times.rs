//! The times of a message, and which of them a format accepts.

use flutecast_contract::tail;

use super::outcome::Message;
use super::reason::DropReason;
use super::time::Timestamp;
use super::{Program, TimestampRule};
use crate::json::Matches;

/// The microseconds of [`tail::TIME_TOLERANCE`].
pub(super) const TIME_TOLERANCE: i64 = tail::TIME_TOLERANCE.as_micros() as i64;

/// The times of a message.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    /// The time that the device wrote; `None` if the format has no `timestamp`.
    pub(super) own: Option<Timestamp>,
    /// When the message was there, by the clocks of the broker: `own` is compared with it.
    pub(super) arrived: Timestamp,
    /// The time of the event.
    pub(super) time: Timestamp,
}

impl Times {
    /// Reads the time of a message, if the format accepts it.
    pub(super) fn read(
        program: &Program,
        message: &Message<'_>,
        text: &str,
        found: &Matches,
    ) -> Result<Self, DropReason> {
        let arrived = Self::arrival(message);
        let Some(rule) = &program.timestamp else {
            return Ok(Self { own: None, arrived, time: arrived });
        };
        let TimestampRule { place: _, pointer, unit, max_age, max_ahead } = rule;
        let value = program.pointers.value_at(*pointer, text, found);
        let own = value.and_then(|value| Timestamp::read(value, *unit)).ok_or(DropReason::BadTimestamp)?;
        let ahead = own.micros_since(arrived);
        if max_ahead.is_some_and(|limit| ahead > limit) {
            Err(DropReason::TooFarAhead)
        } else if max_age.is_some_and(|limit| -ahead > limit) {
            Err(DropReason::TooOld)
        } else {
            Ok(Self { own: Some(own), arrived, time: own.min(arrived) })
        }
    }

    /// Returns when a message was there, by the clocks of the broker.
    pub(super) fn arrival(message: &Message<'_>) -> Timestamp {
        message.captured_at.map_or(message.stored_at, |at| at.min(message.stored_at))
    }

    /// Returns whether the device's clock is ahead.
    pub(super) fn is_ahead(&self) -> bool {
        self.own.is_some_and(|own| own.micros_since(self.arrived) > TIME_TOLERANCE)
    }
}
