//! Records: the newest value of each field, merged from messages that carry only some of them.

use super::time::Timestamp;
use super::window::{Place, Window};

/// The most values of a field that wait for newer ones to expire. There are several only where messages come
/// in the reverse order of their times.
const MAX_WAITING: usize = 16;

/// The values of a record, by field. Of each field the value with the greatest time is shown; those stored
/// after it with lesser times wait, since it expires before them.
#[derive(Debug, Clone, Default)]
pub(super) struct Record {
    fields: Vec<Window<RecordValue>>,
}

/// A value of a field.
#[derive(Debug, Clone)]
pub(super) struct RecordValue {
    /// As JSON.
    pub(super) json: Box<[u8]>,
    /// If it can't be read, its raw text as JSON; empty if it can.
    pub(super) bad: Box<[u8]>,
}

impl Record {
    pub(super) fn step_back(&mut self, clock: Timestamp) {
        self.fields.iter_mut().for_each(|field| field.step_back(clock));
    }

    /// Makes room for so many fields, and removes the values that are expired when the message at `newest`
    /// is.
    pub(super) fn expire(&mut self, fields: usize, newest: &Place, micros: Option<i64>) {
        self.fields.resize_with(fields, Window::default);
        self.fields.iter_mut().for_each(|field| field.expire(newest, micros));
    }

    pub(super) fn merge(&mut self, field: usize, place: Place, value: RecordValue) {
        let Some(field) = self.fields.get_mut(field) else { return };
        field.push_newest(place, value);
        field.truncate(MAX_WAITING);
    }

    /// Returns the number of values, shown or waiting.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.fields.iter().map(|field| field.iter().count()).sum()
    }

    /// Returns the time and the value of a field; `None` if the record doesn't have it.
    pub(super) fn value(&self, field: usize) -> Option<(Timestamp, &RecordValue)> {
        let (place, value) = self.fields.get(field)?.first()?;
        Some((place.time, value))
    }
}
