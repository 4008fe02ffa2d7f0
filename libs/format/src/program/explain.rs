//! Describes what is wrong with a message, for people. This is the slow path.

use flutecast_contract::document::TimestampUnit;

use super::convert::{MAX_TOLD, told};
use super::outcome::Message;
use super::problem::Problem;
use super::reason::{DropReason, ProblemReason};
use super::record::RecordValue;
use super::state::ChannelState;
use super::time::Timestamp;
use super::times::Times;
use super::{Conversion, Field, FieldSource, MAX_STRING, Program, RawField, TimestampRule};
use crate::json::{InvalidJson, MAX_DEPTH, Matches, RawValue};

/// The most pointers and raw values that a sentence lists.
const MAX_LISTED: usize = 8;

/// The microseconds by which a time may differ from now if its unit is right.
const PLAUSIBLE: i64 = 86_400_000_000;

const UNITS: [(TimestampUnit, &str, &str); 5] = [
    (TimestampUnit::Seconds, "Seconds", "1795341600"),
    (TimestampUnit::Milliseconds, "Milliseconds", "1795341600123"),
    (TimestampUnit::Microseconds, "Microseconds", "1795341600123000"),
    (TimestampUnit::Nanoseconds, "Nanoseconds", "1795341600123000000"),
    (TimestampUnit::Rfc3339, "RFC3339", "\"2026-11-22T10:00:00.123Z\""),
];

impl Program {
    /// Returns all problems of a message, the worst first. `dropped` is why it isn't shown, if it isn't, and
    /// `state` that after it was applied.
    ///
    /// Nothing of the payload is told but the raw texts of declared fields and of the time.
    #[must_use]
    pub fn explain(
        &self,
        message: Message<'_>,
        dropped: Option<DropReason>,
        state: &ChannelState,
    ) -> Vec<Problem> {
        let mut found = Matches::default();
        let text = match self.pointers.find(message.payload, &mut found) {
            Ok(text) => text,
            Err(error) => return vec![malformed(message.payload, error, &found)],
        };
        let mut problems = Vec::new();
        if let Some(reason) = dropped {
            problems.extend(self.explain_drop(reason, &message, text, &found, state));
        }
        // Of a message that is dropped for its time, nothing was read but the time.
        if dropped.is_none_or(DropReason::is_understood) {
            for (at, field) in self.fields.iter().enumerate() {
                // A value that came late may not be the one that the record shows.
                let is_bad = |(_, value): (_, &RecordValue)| !value.bad.is_empty();
                if !self.is_record() || state.record.value(at).is_some_and(is_bad) {
                    problems.extend(self.explain_field(field, text, &found));
                }
            }
            problems.extend(self.explain_record(&problems, state));
            problems.extend(self.explain_clock(&message, text, &found));
            problems.extend(self.unfound_fields(state).map(|at| self.fields[at].unfound()));
        }
        problems
    }

    /// Returns the fields of which the pointer matches nothing in the payload, as numbers of
    /// [`Program::fields`]; none if the payload has none of the fields, or can't be read.
    #[must_use]
    pub fn missing_fields(&self, payload: &[u8]) -> Vec<usize> {
        let mut found = Matches::default();
        let Ok(text) = self.pointers.find(payload, &mut found) else { return Vec::new() };
        let raw = self.fields.iter().enumerate().filter_map(|(at, field)| Some((at, field.raw()?)));
        let (missing, present): (Vec<_>, Vec<_>) =
            raw.partition(|(_, raw)| self.pointers.value_at(raw.pointer, text, &found).is_none());
        if present.is_empty() { Vec::new() } else { missing.into_iter().map(|(at, _)| at).collect() }
    }

    fn explain_drop(
        &self,
        dropped: DropReason,
        message: &Message<'_>,
        text: &str,
        found: &Matches,
        state: &ChannelState,
    ) -> Option<Problem> {
        let reason = dropped.problem()?;
        if reason == ProblemReason::NoFields {
            let raw = self.fields.iter().filter_map(|field| field.raw().map(|raw| &*raw.place));
            let remedy = format!(
                "it has none of the format's fields; compare their pointers ({}) with a payload",
                list(raw, self.fields.len())
            );
            return Some(Problem::new(reason, "", remedy));
        }
        if reason == ProblemReason::Malformed {
            let remedy = "a text in it has control characters; the device must escape them".to_owned();
            return Some(Problem::new(reason, "", remedy));
        }
        let rule = self.timestamp.as_ref()?;
        let value = self.pointers.value_at(rule.pointer, text, found);
        let arrived = Times::arrival(message);
        let (detail, remedy) = match value.and_then(|value| Timestamp::read(value, rule.unit)) {
            None => (None, rule.unreadable(value, arrived)),
            Some(own) => {
                let (detail, remedy) = rule.refused(reason, own, arrived, value, state);
                (Some(detail), remedy)
            }
        };
        Some(Problem { found: value.map(shown), detail, ..Problem::new(reason, &rule.place, remedy) })
    }

    fn explain_clock(&self, message: &Message<'_>, text: &str, found: &Matches) -> Option<Problem> {
        let times = Times::read(self, message, text, found).ok().filter(Times::is_ahead)?;
        let rule = self.timestamp.as_ref()?;
        let detail =
            format!("its time is {} after it was stored", span(times.own?.micros_since(times.arrived)));
        let remedy = "the time of storing is shown instead; set the device's clock (NTP)".to_owned();
        let found = self.pointers.value_at(rule.pointer, text, found).map(shown);
        let problem = Problem::new(ProblemReason::ClockAhead, &rule.place, remedy);
        Some(Problem { found, detail: Some(detail), ..problem })
    }

    fn explain_field(&self, field: &Field, text: &str, found: &Matches) -> Option<Problem> {
        let raw = field.raw()?;
        let value = self.pointers.value_at(raw.pointer, text, found)?;
        if raw.conversion.write(&value, &mut String::new(), &mut Vec::new()).is_some() {
            return None;
        }
        Some(field.bad(raw, shown(value), &raw.conversion.takes(value)))
    }

    /// Returns the problems of values that a record still has of earlier messages.
    fn explain_record(&self, told: &[Problem], state: &ChannelState) -> Vec<Problem> {
        let of = |at: usize| {
            let field = &self.fields[at];
            let raw = field.raw()?;
            let (_, value) = state.record.value(at).filter(|(_, value)| !value.bad.is_empty())?;
            let is_new = told.iter().all(|problem| problem.field.as_deref() != Some(field.name()));
            let mut text = String::new();
            crate::json::unescape(std::str::from_utf8(&value.bad).ok()?.trim_matches('"'), &mut text);
            let takes = "an earlier message had it, and none since has one that can be read".to_owned();
            is_new.then(|| field.bad(raw, escape_controls(&text), &takes))
        };
        (0..self.fields.len()).filter_map(of).collect()
    }
}

impl Field {
    fn raw(&self) -> Option<&RawField> {
        match &self.source {
            FieldSource::Raw(raw) => Some(raw),
            FieldSource::Computed(..) => None,
        }
    }

    /// Returns the name, which needs no escapes.
    fn name(&self) -> &str {
        std::str::from_utf8(&self.key).unwrap_or_default().trim_matches(['"', ':'])
    }

    fn bad(&self, raw: &RawField, found: String, takes: &str) -> Problem {
        let remedy = format!("field {} can't be read; {takes}", self.name());
        let problem = Problem::new(ProblemReason::BadField, &raw.place, remedy);
        Problem { field: Some(self.name().into()), found: Some(found), ..problem }
    }

    fn unfound(&self) -> Problem {
        let place = self.raw().map_or("", |raw| &raw.place);
        let remedy = format!(
            "the pointer of field {} matched nothing in the last 20 messages, which had other fields; \
             compare it with a payload of the device (capitals count)",
            self.name()
        );
        let problem = Problem::new(ProblemReason::FieldNotFound, place, remedy);
        Problem { field: Some(self.name().into()), ..problem }
    }
}

impl Conversion {
    /// Returns what a field takes that can't read `value`.
    fn takes(&self, value: RawValue<'_>) -> String {
        match self {
            Self::Number(_) if matches!(value, RawValue::NotFinite(_)) => {
                "the device has no value for it: look at its sensor".into()
            }
            Self::Number(_) => {
                "type Number takes a number, or a string that holds just one (with a point)".into()
            }
            Self::String if matches!(value, RawValue::String(_)) => {
                format!("type String takes Unicode text of at most {MAX_STRING} bytes")
            }
            Self::String => {
                "type String takes a string; use type Number, Bool or Enum for other values".into()
            }
            Self::Bool => "type Bool takes true, false, 0 or 1; use type Enum for other values".into(),
            Self::Enum(words, _) => format!(
                "its values have words for {}; add one for this, or a word for all others as `otherwise`",
                list(words.iter().map(|(raw, _)| &**raw), words.len())
            ),
        }
    }
}

impl TimestampRule {
    /// Returns the remedy for a time that can't be read.
    fn unreadable(&self, value: Option<RawValue<'_>>, arrived: Timestamp) -> String {
        let (_, unit, example) = UNITS.iter().find(|(unit, ..)| *unit == self.unit).unwrap_or(&UNITS[0]);
        let wanted =
            format!("the format expects a time in unit {unit} at {:?}, such as {example}", self.place);
        match value {
            None => format!("there is nothing where the time should be; {wanted}"),
            Some(value) => self.other_unit(value, arrived).unwrap_or(wanted),
        }
    }

    /// Returns the detail and the remedy for a time that is readable, but not accepted.
    fn refused(
        &self,
        reason: ProblemReason,
        own: Timestamp,
        arrived: Timestamp,
        value: Option<RawValue<'_>>,
        state: &ChannelState,
    ) -> (String, String) {
        let ahead = own.micros_since(arrived);
        let apart = if ahead < 0 {
            format!("its time is {} before it was stored", span(ahead.saturating_neg()))
        } else {
            format!("its time is {} after it was stored", span(ahead))
        };
        let limit = |limit: Option<i64>| span(limit.unwrap_or_default());
        let remedy = if reason == ProblemReason::OutOfOrder {
            let behind = state.newest_time().map_or(0, |newest| newest.micros_since(own.min(arrived)));
            let detail = format!("its time is {} before that of a message of the last minute", span(behind));
            let remedy = "policy Latest shows the newest; set the clocks of all that publish on this channel \
                          (NTP), or use policy Every";
            return (detail, remedy.to_owned());
        } else if let Some(other) = value.and_then(|value| self.other_unit(value, arrived)) {
            other
        } else if reason == ProblemReason::TooFarAhead {
            let limit = limit(self.max_ahead);
            format!("the format's maxAhead is {limit}; set the device's clock (NTP), or raise maxAhead")
        } else {
            let limit = limit(self.max_age);
            format!("the format's maxAge is {limit}; set the device's clock (NTP), or raise maxAge")
        };
        (apart, remedy)
    }

    /// Returns the remedy if `value` is a time of today in another unit.
    fn other_unit(&self, value: RawValue<'_>, arrived: Timestamp) -> Option<String> {
        let is_today = |time: Timestamp| time.micros_since(arrived).saturating_abs() < PLAUSIBLE;
        if Timestamp::read(value, self.unit).is_some_and(is_today) {
            return None;
        }
        let fits = |(unit, ..): &&(TimestampUnit, _, _)| Timestamp::read(value, *unit).is_some_and(is_today);
        let (_, name, _) = UNITS.iter().find(fits)?;
        Some(format!(
            "it is a time of today if it is read as {name}; correct `unit` in the format's timestamp"
        ))
    }
}

fn malformed(payload: &[u8], error: InvalidJson, found: &Matches) -> Problem {
    let InvalidJson { offset } = error;
    let wrong = match payload.get(offset..).unwrap_or_default() {
        _ if payload.is_empty() => "the payload is empty".into(),
        [] => format!(
            "the payload ends in the middle of {}; the device or a gateway cut it off",
            found.open_container().unwrap_or("a value")
        ),
        [0xef, 0xbb, 0xbf, ..] => {
            "the payload begins with a byte-order mark; the device must leave it out".into()
        }
        [0, ..] => "there is a zero byte; the device must send no more bytes than its text has".into(),
        [0x80..=0xff, ..] if std::str::from_utf8(payload).is_err() => {
            "this byte is not UTF-8; set the encoding of the device or gateway to UTF-8".into()
        }
        [1..0x20, ..] => "there is a control character, which JSON has to escape".into(),
        [b'{' | b'[', ..] if found.open_container().is_some() => {
            format!("there is an error in the JSON text, or it is nested deeper than {MAX_DEPTH}")
        }
        _ if found.open_container().is_some() => {
            let within = found.open_container().unwrap_or_default();
            format!(
                "what stands there within {within} is not JSON (RFC 8259); look at the program that writes it"
            )
        }
        _ => "the payload is not one JSON text (RFC 8259); look at what the device sends".into(),
    };
    Problem::new(ProblemReason::Malformed, &format!("byte {offset}"), wrong)
}

/// Returns what is told of a raw value.
fn shown(value: RawValue<'_>) -> String {
    escape_controls(&told(value))
}

/// Escapes control characters, in at most [`MAX_TOLD`] characters.
fn escape_controls(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        if c.is_control() { escaped.extend(c.escape_default()) } else { escaped.push(c) }
    }
    escaped.chars().take(MAX_TOLD).collect()
}

/// Returns the first of `count` texts, with commas.
fn list<'a>(texts: impl Iterator<Item = &'a str>, count: usize) -> String {
    let mut listed: Vec<String> = texts.take(MAX_LISTED + 1).map(escape_controls).collect();
    if listed.len() > MAX_LISTED {
        listed.truncate(MAX_LISTED);
        listed.push(format!("… ({count})"));
    }
    listed.join(", ")
}

/// Returns a length of time for people: `40 s`.
fn span(micros: i64) -> String {
    const UNITS: [(i64, &str); 5] =
        [(86_400_000_000, "d"), (3_600_000_000, "h"), (60_000_000, "min"), (1_000_000, "s"), (1_000, "ms")];
    let micros = micros.max(0);
    let (size, unit) = UNITS.iter().find(|(size, _)| micros >= *size).unwrap_or(&(1_000, "ms"));
    let tenths = micros / (size / 10);
    match (tenths / 10, tenths % 10) {
        (whole, 0) => format!("{whole} {unit}"),
        (whole, tenths) => format!("{whole}.{tenths} {unit}"),
    }
}
