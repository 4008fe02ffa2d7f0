//! Tests of programs. Formats are written in YAML.

mod apply;
mod bad_fields;
mod cel_agreement;
mod compile;
mod explain;
mod expressions;
mod lateness;
mod number;
mod properties;
mod pushes;
mod record;
mod repeats;
mod tail;
mod time;

use super::{
    Applied, ChannelState, CompileError, DropReason, Event, Message, NeedsTail, Output, ProblemReason,
    Program, Timestamp,
};
use flutecast_contract::document::FormatDocument;

/// The time at which the first message is stored in these tests, 2026-11-22T10:00:00Z, in milliseconds.
pub(super) const NOW_MS: i64 = 1_795_341_600_000;

pub(super) fn compile(format: &str) -> Result<Program, Vec<CompileError>> {
    let document: FormatDocument =
        serde_yaml::from_str(format).unwrap_or_else(|error| panic!("{format}\n{error}"));
    Program::compile(&document)
}

/// A program and the state of one channel.
pub(super) struct Channel {
    program: Program,
    pub(super) state: ChannelState,
    pub(super) stored_at: Timestamp,
    pub(super) captured_at: Option<Timestamp>,
    pub(super) output: Output,
}

impl Channel {
    /// Returns a channel before its first message.
    pub(super) fn new(format: &str) -> Self {
        let program = compile(format).unwrap_or_else(|errors| panic!("{format}\n{errors:?}"));
        let stored_at = Timestamp::from_millis(NOW_MS);
        let state = ChannelState::complete();
        Self { program, state, stored_at, captured_at: None, output: Output::default() }
    }

    /// Returns a channel whose format has these fields and no timestamp.
    pub(super) fn with_fields(fields: &str) -> Self {
        Self::new(&format!("{{codec: JSON, fields: [{fields}]}}"))
    }

    pub(super) fn message<'a>(&self, payload: &'a [u8]) -> Message<'a> {
        Message { payload, stored_at: self.stored_at, captured_at: self.captured_at }
    }

    pub(super) fn try_apply(&mut self, payload: impl AsRef<[u8]>) -> Result<Applied, NeedsTail> {
        let message = self.message(payload.as_ref());
        let applied = self.program.apply(message, &mut self.state, &mut self.output);
        let Output { values, bad, at } = &self.output;
        let is_shown = applied.is_ok_and(|applied| applied.verdict.is_ok());
        assert!(is_shown || values.is_empty() && bad.is_empty() && at.is_empty(), "not shown, but written");
        applied
    }

    pub(super) fn apply_in_full(&mut self, payload: impl AsRef<[u8]>) -> Applied {
        self.try_apply(payload).unwrap()
    }

    /// Applies a message and returns its values.
    pub(super) fn apply(&mut self, payload: impl AsRef<[u8]>) -> Result<String, DropReason> {
        self.apply_in_full(payload).verdict.map(|_| self.values())
    }

    /// Applies a message that is stored at `offset_ms`, and returns its values.
    pub(super) fn apply_at(
        &mut self,
        offset_ms: i64,
        payload: impl AsRef<[u8]>,
    ) -> Result<String, DropReason> {
        self.stored_at = at(offset_ms);
        self.apply(payload)
    }

    /// Applies the payload as the first message of a channel. Returns the values and the skipped fields.
    pub(super) fn apply_alone(&mut self, payload: impl AsRef<[u8]>) -> Result<(String, u32), DropReason> {
        self.state = ChannelState::complete();
        let applied = self.apply_in_full(payload);
        applied.verdict.map(|_| (self.values(), applied.skipped_fields))
    }

    pub(super) fn values(&self) -> String {
        String::from_utf8(self.output.values.clone()).unwrap()
    }

    pub(super) fn bad(&self) -> &str {
        std::str::from_utf8(&self.output.bad).unwrap()
    }

    pub(super) fn at(&self) -> &str {
        std::str::from_utf8(&self.output.at).unwrap()
    }
}

/// Returns the time `offset_ms` after the first message.
pub(super) fn at(offset_ms: i64) -> Timestamp {
    Timestamp::from_millis(NOW_MS + offset_ms)
}
