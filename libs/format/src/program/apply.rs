//! Applies a program to a message: the hot path.

use std::borrow::Cow;
use std::cell::RefCell;
use std::ops::Range;

use super::expression::{Operand, Values};
use super::number::write_double;
use super::state::Pushed;
use super::time::Timestamp;
use super::{
    ChannelState, Conversion, DropReason, Field, FieldSource, FormattedMessage, MAX_STRING, Message, Program,
    PushTrigger,
};
use crate::json::{Matches, RawValue, escape, unescape};
use flutecast_contract::document::DeliveryPolicy;

/// Buffers that are reused for each message.
#[derive(Debug, Default)]
struct Scratch {
    found: Matches,
    /// For each field the range of its value in the output; `None` if it is left out.
    ranges: Vec<Option<Range<usize>>>,
    text: String,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Why a field is left out of a message.
enum SkipReason {
    /// The message doesn't hold the field.
    Missing,
    /// The field can't be formatted or computed.
    Unusable,
}

impl Program {
    /// Formats a message: appends the JSON object of its values to `out` and updates `state`. If the message
    /// is dropped, `out` stays as it was.
    ///
    /// Allocates nothing once `out` and this thread's buffers have grown, except in expressions and for times
    /// that are not in the calendar.
    ///
    /// # Errors
    /// [`DropReason`] if the message is dropped. `state` is updated with the time of a message that was
    /// [`DropReason::Filtered`] or [`DropReason::Unchanged`], and unchanged otherwise.
    pub fn apply(
        &self,
        message: Message<'_>,
        state: &mut ChannelState,
        out: &mut Vec<u8>,
    ) -> Result<FormattedMessage, DropReason> {
        let start = out.len();
        let applied = SCRATCH.with_borrow_mut(|scratch| self.apply_with(message, state, out, scratch));
        if applied.is_err() {
            out.truncate(start);
        }
        applied
    }

    fn apply_with(
        &self,
        message: Message<'_>,
        state: &mut ChannelState,
        out: &mut Vec<u8>,
        scratch: &mut Scratch,
    ) -> Result<FormattedMessage, DropReason> {
        let text =
            self.pointers.find(message.payload, &mut scratch.found).map_err(|_| DropReason::Malformed)?;
        let time = self.time(message, text, &scratch.found)?;
        // Two events may share a millisecond; two measurements of a device don't.
        let payload = (self.policy == DeliveryPolicy::Every).then_some(message.payload);
        let time = if self.timestamp.is_some() {
            state.check(time, payload)?;
            time
        } else {
            // The order of the stream is the order of events. The clock of the broker may be set back, or be
            // that of another server, which must not hide a message.
            state.newest().map_or(time, |newest| time.max(newest))
        };
        let skipped_fields = self.format(text, out, scratch)?;
        state.advance(time, payload.filter(|_| self.timestamp.is_some()));
        let values = FormattedValues { json: out, ranges: &scratch.ranges };
        let shown = self.when.as_ref().is_none_or(|when| when.evaluate(&values) == Some(Operand::Bool(true)));
        if !shown {
            return Err(DropReason::Filtered);
        }
        if self.conditional {
            self.record_push(&values, state)?;
        }
        Ok(FormattedMessage { time, skipped_fields })
    }

    /// Returns the time of the event, if the format accepts it.
    fn time(&self, message: Message<'_>, text: &str, found: &Matches) -> Result<Timestamp, DropReason> {
        let Some(rule) = &self.timestamp else { return Ok(message.stored_at) };
        let value = self.pointers.value_at(rule.pointer, text, found);
        let time =
            value.and_then(|value| Timestamp::read(value, rule.unit)).ok_or(DropReason::BadTimestamp)?;
        let age_ms = message.now.millis_since(time);
        if rule.max_ahead_ms.is_some_and(|limit| time.millis_since(message.now) > limit) {
            Err(DropReason::TooFarAhead)
        } else if rule.max_age_ms.is_some_and(|limit| age_ms > limit) {
            Err(DropReason::TooOld)
        } else {
            Ok(time)
        }
    }

    /// Appends the object of all values. Returns the number of fields that are unusable.
    fn format(&self, text: &str, out: &mut Vec<u8>, scratch: &mut Scratch) -> Result<u32, DropReason> {
        let Scratch { found, ranges, text: buffer } = scratch;
        ranges.clear();
        let mut skipped = 0;
        let mut empty = true;
        out.push(b'{');
        for field in &self.fields {
            let start = out.len();
            if !empty {
                out.push(b',');
            }
            out.extend_from_slice(&field.key);
            let value_start = out.len();
            let written = match &field.source {
                FieldSource::Raw(pointer, conversion) => {
                    match self.pointers.value_at(*pointer, text, found) {
                        Some(raw) => conversion.write(raw, buffer, out),
                        None => Err(SkipReason::Missing),
                    }
                }
                FieldSource::Computed(expression, decimals) => {
                    let values = FormattedValues { json: out, ranges };
                    match expression.evaluate(&values).map(Operand::into_owned) {
                        Some(result) => write_computed(&result, *decimals, out),
                        None => Err(SkipReason::Unusable),
                    }
                }
            };
            if let Err(reason) = written {
                skipped += u32::from(matches!(reason, SkipReason::Unusable));
                out.truncate(start);
                ranges.push(None);
            } else {
                empty = false;
                ranges.push(Some(value_start..out.len()));
            }
        }
        out.push(b'}');
        if empty { Err(DropReason::NoFields) } else { Ok(skipped) }
    }

    /// Stores the values as pushed if one of them causes a push.
    fn record_push(&self, values: &FormattedValues<'_>, state: &mut ChannelState) -> Result<(), DropReason> {
        let json =
            |at: usize| values.ranges.get(at)?.as_ref().and_then(|range| values.json.get(range.clone()));
        if let Some(before) = state.pushed(self.id) {
            let mut fields = self.fields.iter().zip(before).enumerate();
            if !fields.any(|(at, (field, before))| field.causes_push(json(at), before)) {
                return Err(DropReason::Unchanged);
            }
        }
        let pushed = state.pushed_mut(self.id, self.fields.len());
        for (at, (field, pushed)) in self.fields.iter().zip(pushed).enumerate() {
            match (json(at), field.trigger) {
                (None, _) => *pushed = Pushed::Absent,
                (Some(_), PushTrigger::Always) => *pushed = Pushed::Present,
                (Some(json), PushTrigger::OnChange) => pushed.remember(json),
                (Some(json), PushTrigger::Deadband(_)) => match number(json) {
                    Some(number) => *pushed = Pushed::Number(number),
                    None => pushed.remember(json),
                },
            }
        }
        Ok(())
    }
}

impl Field {
    /// Returns whether the value `now` causes a push after `before` was pushed.
    fn causes_push(&self, now: Option<&[u8]>, before: &Pushed) -> bool {
        let Some(now) = now else { return *before != Pushed::Absent };
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
}

impl Conversion {
    /// Appends the converted value.
    fn write(&self, raw: RawValue<'_>, buffer: &mut String, out: &mut Vec<u8>) -> Result<(), SkipReason> {
        let done = |written: bool| if written { Ok(()) } else { Err(SkipReason::Unusable) };
        if raw == RawValue::Null {
            out.extend_from_slice(b"null");
            return Ok(());
        }
        match self {
            Self::Number(rule) => match raw {
                RawValue::Number(number) => done(rule.write(number, out)),
                // Some gateways quote every value.
                RawValue::String(text) if text.is_number() => done(rule.write(text.raw, out)),
                _ => Err(SkipReason::Unusable),
            },
            Self::String => {
                let RawValue::String(text) = raw else { return Err(SkipReason::Unusable) };
                let text = text.resolve(buffer).filter(|text| text.len() <= MAX_STRING);
                text.map(|text| escape(text, out)).ok_or(SkipReason::Unusable)
            }
            Self::Bool => {
                let value = match raw {
                    RawValue::Bool(value) => value,
                    RawValue::Number("0" | "0.0") => false,
                    RawValue::Number("1" | "1.0") => true,
                    _ => return Err(SkipReason::Unusable),
                };
                out.extend_from_slice(if value { b"true" } else { b"false" });
                Ok(())
            }
            Self::Enum(values) => {
                let raw = match raw {
                    RawValue::String(text) => text.resolve(buffer),
                    RawValue::Number(number) => Some(number),
                    RawValue::Bool(value) => Some(if value { "true" } else { "false" }),
                    RawValue::Null | RawValue::Container(_) => None,
                };
                let raw = raw.ok_or(SkipReason::Unusable)?;
                // Devices with only one type of number write 1 as `1.0`.
                let word = word_of(values, raw).or_else(|| word_of(values, raw.strip_suffix(".0")?));
                word.map(|word| out.extend_from_slice(word)).ok_or(SkipReason::Unusable)
            }
        }
    }
}

/// Returns the word of a raw value.
fn word_of<'a>(values: &'a [(Box<str>, Box<[u8]>)], raw: &str) -> Option<&'a [u8]> {
    let at = values.binary_search_by(|(value, _)| (**value).cmp(raw)).ok()?;
    Some(&values[at].1)
}

fn write_computed(result: &Operand<'_>, decimals: Option<u8>, out: &mut Vec<u8>) -> Result<(), SkipReason> {
    match result {
        Operand::Null => out.extend_from_slice(b"null"),
        Operand::Bool(value) => out.extend_from_slice(if *value { b"true" } else { b"false" }),
        Operand::Number(number) if write_double(*number, decimals, out) => {}
        Operand::Text(text) if text.len() <= MAX_STRING => escape(text, out),
        Operand::Number(_) | Operand::Text(_) => return Err(SkipReason::Unusable),
    }
    Ok(())
}

fn number(json: &[u8]) -> Option<f64> {
    let first = json.first()?;
    if *first != b'-' && !first.is_ascii_digit() {
        return None;
    }
    std::str::from_utf8(json).ok()?.parse().ok()
}

/// The values of a message, parsed from the output when an expression needs them, which is rare.
struct FormattedValues<'a> {
    json: &'a [u8],
    ranges: &'a [Option<Range<usize>>],
}

impl Values for FormattedValues<'_> {
    fn value(&self, field: usize) -> Option<Operand<'_>> {
        let json = self.json.get(self.ranges.get(field)?.clone()?)?;
        Some(match json {
            b"null" => Operand::Null,
            b"true" => Operand::Bool(true),
            b"false" => Operand::Bool(false),
            [b'"', text @ .., b'"'] => {
                let text = std::str::from_utf8(text).ok()?;
                if text.contains('\\') {
                    let mut unescaped = String::new();
                    unescape(text, &mut unescaped);
                    Operand::Text(Cow::Owned(unescaped))
                } else {
                    Operand::Text(Cow::Borrowed(text))
                }
            }
            json => Operand::Number(number(json)?),
        })
    }
}
