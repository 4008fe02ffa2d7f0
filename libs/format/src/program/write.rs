//! Writes the fields of an event.

use super::convert::told;
use super::expression::{Expression, Operand};
use super::number::write_double;
use super::outcome::Output;
use super::reason::DropReason;
use super::state::ChannelState;
use super::time::Timestamp;
use super::values::{Slot, WrittenValues};
use super::{Field, FieldSource, MAX_STRING, Program, RawField};
use crate::json::{Matches, RawValue, escape};

/// Buffers that are reused for each message.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    pub(super) found: Matches,
    /// What the event has of each field.
    pub(super) slots: Vec<Slot>,
    /// The times of a record's fields.
    pub(super) times: Vec<Timestamp>,
    pub(super) text: String,
}

/// What was written for a field.
pub(super) enum FieldOutcome {
    /// Nothing: the event doesn't have the field.
    Absent,
    /// Nothing that counts: the field can't be computed.
    Unusable,
    Value,
    /// Its raw text, from there in [`Output::bad`].
    Bad(usize),
}

impl Program {
    /// Writes the event of a message that stands for itself. Returns the number of fields that can't be read
    /// or computed.
    pub(super) fn write_event(
        &self,
        text: &str,
        state: &mut ChannelState,
        output: &mut Output,
        scratch: &mut Scratch,
    ) -> Result<u32, DropReason> {
        let Scratch { found, slots, text: buffer, .. } = scratch;
        let skipped = self.write_fields(output, slots, |_, field, raw, output| {
            let Some(value) = self.pointers.value_at(raw.pointer, text, found) else {
                return FieldOutcome::Absent;
            };
            let start = output.values.len();
            if raw.conversion.write(&value, buffer, &mut output.values).is_some() {
                return FieldOutcome::Value;
            }
            output.values.truncate(start);
            output.write_unreadable(&field.key, value)
        });
        let present = slots.iter().filter(|slot| **slot != Slot::Absent).count();
        if present == 0 {
            return Err(DropReason::NoFields);
        }
        if present < slots.len() || state.lacks_fields() {
            state.count_lacking(slots.iter().map(|slot| *slot != Slot::Absent));
        }
        Ok(skipped)
    }

    /// Writes all fields: raw ones with `write`, computed ones from those before them. Returns the number of
    /// fields that can't be read or computed.
    #[inline]
    pub(super) fn write_fields(
        &self,
        output: &mut Output,
        slots: &mut Vec<Slot>,
        mut write: impl FnMut(usize, &Field, &RawField, &mut Output) -> FieldOutcome,
    ) -> u32 {
        slots.clear();
        let mut skipped = 0;
        output.values.push(b'{');
        for (at, field) in self.fields.iter().enumerate() {
            let start = output.values.len();
            if start > 1 {
                output.values.push(b',');
            }
            output.values.extend_from_slice(&field.key);
            let value = output.values.len();
            let written = match &field.source {
                FieldSource::Raw(raw) => write(at, field, raw, output),
                FieldSource::Computed(expression, decimals) => compute(expression, *decimals, output, slots),
            };
            match written {
                FieldOutcome::Value => slots.push(Slot::Value(value..output.values.len())),
                FieldOutcome::Bad(text) => {
                    skipped += 1;
                    output.values.extend_from_slice(b"null");
                    slots.push(Slot::Bad(text..output.bad.len()));
                }
                FieldOutcome::Absent | FieldOutcome::Unusable => {
                    skipped += u32::from(matches!(written, FieldOutcome::Unusable));
                    output.values.truncate(start);
                    slots.push(Slot::Absent);
                }
            }
        }
        output.values.push(b'}');
        if !output.bad.is_empty() {
            output.bad.push(b'}');
        }
        skipped
    }
}

/// Writes the value of a computed field.
#[inline(never)]
fn compute(
    expression: &Expression,
    decimals: Option<u8>,
    output: &mut Output,
    slots: &[Slot],
) -> FieldOutcome {
    let values = WrittenValues::new(&output.values, slots);
    let result = expression.evaluate(&values).map(Operand::into_owned);
    let read_bad = values.read_bad();
    let out = &mut output.values;
    match result {
        Some(Operand::Null) => out.extend_from_slice(b"null"),
        Some(Operand::Bool(value)) => out.extend_from_slice(if value { b"true" } else { b"false" }),
        Some(Operand::Number(number)) if write_double(number, decimals, out) => {}
        Some(Operand::Text(text)) if text.len() <= MAX_STRING => escape(&text, out),
        None if read_bad => return FieldOutcome::Bad(output.bad.len()),
        _ => return FieldOutcome::Unusable,
    }
    FieldOutcome::Value
}

impl Output {
    #[cold]
    fn write_unreadable(&mut self, key: &[u8], value: RawValue<'_>) -> FieldOutcome {
        FieldOutcome::Bad(self.write_bad(key, |bad| escape(&told(value), bad)))
    }

    /// Appends the raw text of a field that can't be read, which `write` writes as JSON. Returns where it
    /// starts.
    pub(super) fn write_bad(&mut self, key: &[u8], write: impl FnOnce(&mut Vec<u8>)) -> usize {
        self.bad.push(if self.bad.is_empty() { b'{' } else { b',' });
        self.bad.extend_from_slice(key);
        let start = self.bad.len();
        write(&mut self.bad);
        start
    }
}
