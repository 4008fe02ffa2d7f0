//! Applies a program to a message: the hot path.

use std::cell::RefCell;

use flutecast_contract::document::DeliveryPolicy;
use flutecast_contract::tail;

use super::outcome::{Applied, Event, Message, NeedsTail, Output};
use super::reason::{DropReason, ProblemReason};
use super::state::{ChannelState, SeenEvent, digest, is_behind};
use super::times::{TIME_TOLERANCE, Times};
use super::window::Place;
use super::write::Scratch;
use super::{FieldSource, Program};

/// An event is late if its time is more than these microseconds before it was stored.
const LATE_EVENT: i64 = tail::LATE_EVENT.as_micros() as i64;

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

impl Program {
    /// Judges a message of a channel, writes what clients get of it to `output` and updates `state`. If it is
    /// not shown, `output` is empty.
    ///
    /// Allocates nothing once `output`, `state` and this thread's buffers have grown, except in expressions,
    /// in records, for fields that can't be read and for times that are not in the calendar.
    ///
    /// # Errors
    /// [`NeedsTail`] if messages decide that were stored before the first one that `state` has seen. `state`
    /// is as it was then, and `output` is empty. Read the tail, start from [`ChannelState::complete`] and
    /// apply its messages.
    pub fn apply(
        &self,
        message: Message<'_>,
        state: &mut ChannelState,
        output: &mut Output,
    ) -> Result<Applied, NeedsTail> {
        output.clear();
        let applied = SCRATCH.with_borrow_mut(|scratch| self.apply_with(message, state, output, scratch));
        if !applied.is_ok_and(|applied| applied.verdict.is_ok()) {
            output.clear();
        }
        applied
    }

    fn apply_with(
        &self,
        message: Message<'_>,
        state: &mut ChannelState,
        output: &mut Output,
        scratch: &mut Scratch,
    ) -> Result<Applied, NeedsTail> {
        state.claim(self.id);
        let found = self.pointers.find(message.payload, &mut scratch.found);
        let times = found.map_err(|_| DropReason::Malformed).and_then(|text| {
            let times = Times::read(self, &message, text, &scratch.found)?;
            Ok((text, times))
        });
        let (text, times) = match times {
            Ok(read) => read,
            Err(reason) => {
                state.advance(message.stored_at);
                return Ok(Applied::dropped(reason));
            }
        };
        let order = self.check_place(&message, &times, state)?;
        if order == Err(DropReason::OutOfOrder) {
            return Ok(Applied::dropped(DropReason::OutOfOrder));
        }
        let written = match &self.record {
            None => self.write_event(text, state, output, scratch).map(|skipped| (times.time, skipped)),
            Some(rule) => {
                let place =
                    Place { index: state.last_index(), stored_at: message.stored_at, time: times.time };
                self.write_record(rule, text, place, state, output, scratch)
            }
        };
        let (time, skipped_fields) = match written {
            Ok(written) => written,
            Err(reason) => return Ok(Applied::dropped(reason)),
        };
        let late =
            self.policy == DeliveryPolicy::Every && time.0 < message.stored_at.0.saturating_sub(LATE_EVENT);
        // A repeat has the problems of what it repeats.
        let shown = order.and_then(|()| self.decide(output, &scratch.slots, state));
        let verdict = shown.map(|()| Event { time, late });
        let problem = if !output.bad.is_empty() {
            Some(ProblemReason::BadField)
        } else if times.is_ahead() {
            Some(ProblemReason::ClockAhead)
        } else if !state.lacks_fields() {
            None
        } else {
            self.unfound_fields(state).next().map(|_| ProblemReason::FieldNotFound)
        };
        Ok(Applied { verdict, skipped_fields, problem })
    }

    /// Compares a message with those before it, and counts it.
    fn check_place(
        &self,
        message: &Message<'_>,
        times: &Times,
        state: &mut ChannelState,
    ) -> Result<Result<(), DropReason>, NeedsTail> {
        if self.needs_whole_tail() && !state.is_complete() {
            return Err(NeedsTail);
        }
        let place = state.next_place(message.stored_at, times.time);
        // Without a time of their own, the order of messages is that in which they were stored.
        let (Some(own), false) = (times.own, self.is_record()) else {
            state.advance(message.stored_at);
            return Ok(Ok(()));
        };
        let unknown = state.latest_unknown(message.stored_at);
        if self.policy == DeliveryPolicy::Latest {
            let newer = state.newer_than(&place);
            let tolerated = place.time.0.saturating_add(TIME_TOLERANCE);
            if newer.is_none() && unknown.is_some_and(|unknown| unknown.0 > tolerated) {
                return Err(NeedsTail);
            }
            state.advance(message.stored_at);
            state.remember_time(place);
            return Ok(if newer.is_some() { Err(DropReason::OutOfOrder) } else { Ok(()) });
        }
        // Two events may share a second. They don't share a microsecond and all of their payload.
        let digest = digest(message.payload, own);
        let may_repeat = own.is_finer_than_seconds();
        let repeats_last = may_repeat && state.repeats_last(&place, digest);
        let was_late_repeat = may_repeat && !repeats_last && state.is_late_repeat(&place, digest);
        let is_repeat = repeats_last || was_late_repeat;
        if !is_repeat && may_repeat && is_behind(&place) && unknown.is_some() {
            return Err(NeedsTail);
        }
        state.advance(message.stored_at);
        state.remember_event(place, SeenEvent { digest, was_late_repeat });
        Ok(if is_repeat { Err(DropReason::Repeat) } else { Ok(()) })
    }

    /// Returns the fields with a pointer that matched nothing for long, by number.
    pub(super) fn unfound_fields(&self, state: &ChannelState) -> impl Iterator<Item = usize> {
        let is_raw = |at: &usize| matches!(self.fields[*at].source, FieldSource::Raw(_));
        let lacking = (0..self.fields.len()).filter(|at| state.is_lacking(*at));
        lacking.filter(is_raw).filter(|at| state.record.value(*at).is_none())
    }
}
