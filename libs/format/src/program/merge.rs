//! Merges messages to records.

use super::convert::told;
use super::outcome::Output;
use super::reason::DropReason;
use super::record::RecordValue;
use super::state::ChannelState;
use super::time::Timestamp;
use super::values::Slot;
use super::window::Place;
use super::write::{FieldOutcome, Scratch};
use super::{FieldSource, Program, RecordRule};
use crate::json::escape;

impl Program {
    /// Merges the message at `place` into the record, and writes the whole record. Returns its time, and the
    /// number of fields that can't be read or computed.
    pub(super) fn write_record(
        &self,
        rule: &RecordRule,
        text: &str,
        place: Place,
        state: &mut ChannelState,
        output: &mut Output,
        scratch: &mut Scratch,
    ) -> Result<(Timestamp, u32), DropReason> {
        state.record.expire(self.fields.len(), &place, rule.expire);
        let found_any = self.merge(text, place, state, scratch);
        if !found_any {
            return Err(DropReason::NoFields);
        }
        let Scratch { slots, times, .. } = scratch;
        let record = &state.record;
        let skipped = self.write_fields(output, slots, |at, field, _, output| {
            let Some((_, value)) = record.value(at) else { return FieldOutcome::Absent };
            if value.bad.is_empty() {
                output.values.extend_from_slice(&value.json);
                return FieldOutcome::Value;
            }
            FieldOutcome::Bad(output.write_bad(&field.key, |bad| bad.extend_from_slice(&value.bad)))
        });
        let time = (0..self.fields.len()).filter_map(|at| record.value(at)).map(|(time, _)| time).max();
        let time = time.unwrap_or(place.time);
        self.read_times(time, state, times);
        for ((field, slot), at) in self.fields.iter().zip(&*slots).zip(&*times) {
            // Clients get times in milliseconds.
            if *slot != Slot::Absent && at.as_millis() < time.as_millis() {
                output.write_at(&field.key, Timestamp::from_millis(at.as_millis()));
            }
        }
        if !output.at.is_empty() {
            output.at.push(b'}');
        }
        Ok((time, skipped))
    }

    /// Merges the fields of a message. Returns whether it has any.
    fn merge(&self, text: &str, place: Place, state: &mut ChannelState, scratch: &mut Scratch) -> bool {
        let Scratch { found, slots, text: buffer, .. } = scratch;
        slots.clear();
        for (at, field) in self.fields.iter().enumerate() {
            let FieldSource::Raw(raw) = &field.source else {
                slots.push(Slot::Absent);
                continue;
            };
            let Some(value) = self.pointers.value_at(raw.pointer, text, found) else {
                slots.push(Slot::Absent);
                continue;
            };
            slots.push(Slot::Value(0..0));
            let (mut json, mut bad) = (Vec::new(), Vec::new());
            if raw.conversion.write(&value, buffer, &mut json).is_none() {
                json.clear();
                escape(&told(value), &mut bad);
            }
            state.record.merge(at, place, RecordValue { json: json.into(), bad: bad.into() });
        }
        let found_any = slots.iter().any(|slot| *slot != Slot::Absent);
        if found_any {
            state.count_lacking(slots.iter().map(|slot| *slot != Slot::Absent));
        }
        found_any
    }

    /// Reads the time of each field of the record: that of the value, or of the oldest one that it is
    /// computed from.
    fn read_times(&self, newest: Timestamp, state: &ChannelState, times: &mut Vec<Timestamp>) {
        times.clear();
        for (at, field) in self.fields.iter().enumerate() {
            times.push(match &field.source {
                FieldSource::Raw(_) => state.record.value(at).map_or(newest, |(time, _)| time),
                FieldSource::Computed(expression, _) => {
                    let inputs = expression.fields().iter().filter_map(|field| times.get(*field));
                    inputs.min().copied().unwrap_or(newest)
                }
            });
        }
    }
}

impl Output {
    fn write_at(&mut self, key: &[u8], time: Timestamp) {
        self.at.push(if self.at.is_empty() { b'{' } else { b',' });
        self.at.extend_from_slice(key);
        self.at.push(b'"');
        time.to_rfc3339(&mut self.at);
        self.at.push(b'"');
    }
}
