//! Whether an event is shown: `when`, `onChange` and `deadband`.

use flutecast_contract::document::DeliveryPolicy;

use super::expression::Operand;
use super::outcome::Output;
use super::reason::DropReason;
use super::state::{ChannelState, Pushed};
use super::values::{Slot, WrittenValues, number};
use super::{Field, Program, PushTrigger};

impl Program {
    /// Decides whether an event is shown, and remembers what the next one is compared with.
    #[inline]
    pub(super) fn decide(
        &self,
        output: &Output,
        slots: &[Slot],
        state: &mut ChannelState,
    ) -> Result<(), DropReason> {
        let shown = self.when_is_true(output, slots);
        if !self.conditional {
            return if shown { Ok(()) } else { Err(DropReason::Filtered) };
        }
        // What was pushed last need not be in the stream any more. The event before is.
        let every = self.policy == DeliveryPolicy::Every;
        let changed = state.pushed(every).is_none_or(|before| {
            let fields = self.fields.iter().zip(slots);
            fields.zip(before).any(|((field, slot), before)| field.causes_push(output, slot, before))
        });
        if every || shown && changed {
            let pushed = state.pushed_mut(self.fields.len());
            for ((field, slot), pushed) in self.fields.iter().zip(slots).zip(pushed) {
                field.remember(output, slot, pushed);
            }
        }
        match (shown, changed) {
            (false, _) => Err(DropReason::Filtered),
            (true, false) => Err(DropReason::Unchanged),
            (true, true) => Ok(()),
        }
    }

    /// Returns whether `when` is true. If it needs a field that can't be read, the event is shown rather than
    /// hidden.
    fn when_is_true(&self, output: &Output, slots: &[Slot]) -> bool {
        let Some(when) = &self.when else { return true };
        let values = WrittenValues::new(&output.values, slots);
        match when.evaluate(&values) {
            Some(result) => result == Operand::Bool(true),
            None => values.read_bad(),
        }
    }
}

impl Field {
    /// Returns whether the value in `slot` causes a push after `before` was pushed.
    fn causes_push(&self, output: &Output, slot: &Slot, before: &Pushed) -> bool {
        let now = match slot {
            Slot::Absent => return *before != Pushed::Absent,
            Slot::Bad(text) => {
                let same =
                    matches!(before, Pushed::Bad(before) if output.bad.get(text.clone()) == Some(before));
                return self.trigger == PushTrigger::Always || !same;
            }
            Slot::Value(range) => output.values.get(range.clone()).unwrap_or_default(),
        };
        match (self.trigger, before) {
            (PushTrigger::Always, _) => true,
            (PushTrigger::Deadband(deadband), Pushed::Number(before)) => number(now).is_none_or(|now| {
                // A difference of exactly the deadband counts in spite of rounding errors.
                let noise = 4.0 * f64::EPSILON * now.abs().max(before.abs());
                (now - before).abs() + noise >= deadband
            }),
            (_, Pushed::Json(before)) => now != before,
            (_, _) => true,
        }
    }

    /// Stores the value in `slot` as pushed.
    fn remember(&self, output: &Output, slot: &Slot, pushed: &mut Pushed) {
        match (slot, self.trigger) {
            (Slot::Absent, _) => *pushed = Pushed::Absent,
            (_, PushTrigger::Always) => *pushed = Pushed::Present,
            (Slot::Bad(text), _) => {
                *pushed = Pushed::Bad(output.bad.get(text.clone()).unwrap_or_default().to_vec());
            }
            (Slot::Value(range), trigger) => {
                let json = output.values.get(range.clone()).unwrap_or_default();
                match if trigger == PushTrigger::OnChange { None } else { number(json) } {
                    Some(number) => *pushed = Pushed::Number(number),
                    None => pushed.remember(json),
                }
            }
        }
    }
}
