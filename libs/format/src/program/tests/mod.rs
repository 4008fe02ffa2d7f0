//! Tests of programs. Formats are written in YAML.

mod apply;
mod cel_agreement;
mod compile;
mod expressions;
mod number;
mod properties;
mod pushes;
mod stale_filter;
mod time;

use super::{ChannelState, CompileError, DropReason, FormattedMessage, Message, Program, Timestamp};
use flutecast_contract::document::FormatDocument;

/// The current time in these tests, 2026-11-22T10:00:00Z, in milliseconds.
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
    pub(super) now: Timestamp,
    pub(super) stored_at: Timestamp,
}

impl Channel {
    pub(super) fn new(format: &str) -> Self {
        let program = compile(format).unwrap_or_else(|errors| panic!("{format}\n{errors:?}"));
        let now = Timestamp::from_millis(NOW_MS);
        Self { program, state: ChannelState::default(), now, stored_at: now }
    }

    /// Returns a channel whose format has these fields and no timestamp.
    pub(super) fn with_fields(fields: &str) -> Self {
        Self::new(&format!("{{codec: JSON, fields: [{fields}]}}"))
    }

    pub(super) fn apply_in_full(
        &mut self,
        payload: impl AsRef<[u8]>,
    ) -> Result<(String, FormattedMessage), DropReason> {
        // `apply` must not change what `out` held before.
        let mut out = b"before".to_vec();
        let message = Message { payload: payload.as_ref(), stored_at: self.stored_at, now: self.now };
        let applied = self.program.apply(message, &mut self.state, &mut out);
        let out = String::from_utf8(out).unwrap();
        let values = out.strip_prefix("before").unwrap();
        assert!(applied.is_ok() || values.is_empty(), "dropped, but wrote {values}");
        applied.map(|applied| (values.to_owned(), applied))
    }

    pub(super) fn apply(&mut self, payload: impl AsRef<[u8]>) -> Result<String, DropReason> {
        self.apply_in_full(payload).map(|(values, _)| values)
    }

    /// Applies the payload as the first message of a channel.
    pub(super) fn apply_alone(&mut self, payload: impl AsRef<[u8]>) -> Result<(String, u32), DropReason> {
        self.state = ChannelState::default();
        self.apply_in_full(payload).map(|(values, applied)| (values, applied.skipped_fields))
    }
}
