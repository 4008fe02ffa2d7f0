//! The values of an event, as they are written, and as expressions see them.

use std::borrow::Cow;
use std::cell::Cell;
use std::ops::Range;

use super::expression::{Operand, Values};
use crate::json::unescape;

/// What an event has of a field.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Slot {
    #[default]
    Absent,
    /// The range of its value in the output.
    Value(Range<usize>),
    /// It is there but can't be read, or is computed from one that can't be: `null` in the output. The range
    /// of its raw text among those of the output; empty if it is computed.
    Bad(Range<usize>),
}

/// The values of an event, parsed from the output when an expression needs them, which is rare.
pub(super) struct WrittenValues<'a> {
    json: &'a [u8],
    slots: &'a [Slot],
    /// `true` once an expression needed the value of a bad field.
    read_bad: Cell<bool>,
}

impl<'a> WrittenValues<'a> {
    pub(super) fn new(json: &'a [u8], slots: &'a [Slot]) -> Self {
        Self { json, slots, read_bad: Cell::new(false) }
    }

    pub(super) fn read_bad(&self) -> bool {
        self.read_bad.get()
    }
}

impl Values for WrittenValues<'_> {
    fn has(&self, field: usize) -> bool {
        self.slots.get(field).is_some_and(|slot| *slot != Slot::Absent)
    }

    fn value(&self, field: usize) -> Option<Operand<'_>> {
        let range = match self.slots.get(field)? {
            Slot::Value(range) => range.clone(),
            Slot::Absent => return None,
            Slot::Bad(_) => {
                self.read_bad.set(true);
                return None;
            }
        };
        Some(match self.json.get(range)? {
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

/// Parses a number of the output; `None` for other values.
pub(super) fn number(json: &[u8]) -> Option<f64> {
    let first = json.first()?;
    if *first != b'-' && !first.is_ascii_digit() {
        return None;
    }
    std::str::from_utf8(json).ok()?.parse().ok()
}
