//! Push-format programs: compiled once, applied to each message.

use crate::document::{DeliveryPolicy, FormatDocument};

/// A moment, in microseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(pub i64);

/// A message as it came from the broker.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// The payload.
    pub payload: &'a [u8],
    /// When the broker stored it.
    pub stored_at: Timestamp,
    /// What our clock says now.
    pub now: Timestamp,
}

/// A message that was formatted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Applied {
    /// When it happened.
    pub time: Timestamp,
    /// How many fields were left out, because their raw value had the wrong type or no meaning.
    pub skipped_fields: u32,
}

/// Why a message reaches no client. A closed set, used as a metric label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dropped {
    /// The payload is not what the codec says.
    Malformed,
    /// It has no time where the format says, or one that can't be read.
    BadTimestamp,
    /// It is older than the newest message of its channel.
    OutOfOrder,
    /// It was here already.
    Duplicate,
    /// It is older than the format's `maxAge`.
    TooOld,
    /// Its time is further ahead than the format's `maxAhead`.
    TooFarAhead,
    /// No field of it could be formatted.
    NoFields,
    /// The format's `when` is false, or can't be evaluated on it.
    Filtered,
    /// No field gives a reason to push (`onChange`, `deadband`).
    Unchanged,
}

/// What one channel of one device has seen so far; the memory of the stale filter, of `onChange` and of `deadband`.
#[derive(Debug, Clone, Default)]
pub struct ChannelState {}

/// One thing that is wrong with a format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}; {expected}")]
pub struct CompileError {
    /// Which field of the format, as a path: `fields[1].pointer`.
    pub field: String,
    /// What is wrong, with the value.
    pub problem: String,
    /// What would be right.
    pub expected: String,
}

/// A field as clients are told of it in `hello`.
#[derive(Debug, Clone, PartialEq)]
pub struct FieldInfo {
    /// Its name in `values`.
    pub name: String,
    /// `Number`, `String`, `Bool`, `Enum` or `Computed`.
    pub kind: &'static str,
    /// The unit that people read.
    pub unit: Option<String>,
    /// The number of decimals.
    pub decimals: Option<u8>,
}

/// A compiled push format.
#[derive(Debug)]
pub struct Program {}

impl Program {
    /// Compiles a format.
    ///
    /// # Errors
    /// Everything that is wrong with it, not only the first thing.
    pub fn compile(_format: &FormatDocument) -> Result<Self, Vec<CompileError>> {
        Ok(Self {})
    }

    /// Which messages matter.
    #[must_use]
    pub fn policy(&self) -> DeliveryPolicy {
        DeliveryPolicy::Latest
    }

    /// At most one message per channel in this time, in milliseconds.
    #[must_use]
    pub fn min_interval_ms(&self) -> Option<u64> {
        None
    }

    /// The fields, in order.
    #[must_use]
    pub fn fields(&self) -> &[FieldInfo] {
        &[]
    }

    /// Formats one message: appends the JSON object of its values to `out`, and moves `state` on. When the message is dropped,
    /// `out` is as it was.
    ///
    /// # Errors
    /// Why the message reaches no client. `state` remembers what has to be remembered of a dropped message too.
    pub fn apply(&self, _message: Message<'_>, _state: &mut ChannelState, _out: &mut Vec<u8>) -> Result<Applied, Dropped> {
        Err(Dropped::Malformed)
    }
}
