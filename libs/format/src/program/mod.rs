//! Push-format programs: compiled once, applied to each message.
//!
//! [`Program::compile`] validates a [`FormatDocument`](flutecast_contract::document::FormatDocument) and
//! returns all its errors. [`Program::apply`] turns a message of a channel into the JSON object that clients
//! get, or returns why they don't get it:
//!
//! 1. the payload is read once, by pointer, without building a document ([`crate::json`]);
//! 2. its time is compared with the clock and with the newest message of its channel (the stale filter);
//! 3. each field is formatted, computed fields after those that they use;
//! 4. `when` decides whether the message is pushed, and so do `onChange` and `deadband`.
//!
//! A field that can't be formatted is left out and counted, and doesn't affect the others. Programs are
//! shared by threads. A [`ChannelState`] belongs to one channel of one device, whose messages are applied in
//! the order of the stream.

mod apply;
mod compile;
mod expression;
mod number;
mod state;
#[cfg(test)]
mod tests;
mod time;

pub use compile::{CompileError, MAX_FIELDS};
pub use state::ChannelState;
pub use time::Timestamp;

use crate::json::Pointers;
use expression::Expression;
use flutecast_contract::document::{DeliveryPolicy, TimestampUnit};
use number::NumberRule;

/// The longest string, in bytes of UTF-8; longer ones are left out. A screen has no room for them, and each
/// client would get them.
pub const MAX_STRING: usize = 4096;

/// A message from the broker.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// The payload.
    pub payload: &'a [u8],
    /// The time at which the broker stored the message.
    pub stored_at: Timestamp,
    /// The current time.
    pub now: Timestamp,
}

/// The result of [`Program::apply`], beside the JSON object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FormattedMessage {
    /// The time of the event.
    pub time: Timestamp,
    /// The number of fields that were left out, because their raw value has the wrong type or no meaning, or
    /// because they can't be computed. Fields that the message doesn't hold are not counted.
    pub skipped_fields: u32,
}

/// Why a message is dropped. A closed set, used as a metric label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum DropReason {
    /// The payload is not one JSON text.
    #[error("the payload is not what the codec says")]
    Malformed,
    /// The payload has no valid time at the format's pointer.
    #[error("there is no readable time where the format says")]
    BadTimestamp,
    /// The message is older than the newest one of its channel.
    #[error("it is older than the newest message of its channel")]
    OutOfOrder,
    /// The message was applied before.
    #[error("it was here already")]
    Duplicate,
    /// The message is older than the format's `maxAge`.
    #[error("it is older than the format's maxAge")]
    TooOld,
    /// The time is further ahead than the format's `maxAhead`.
    #[error("its time is further ahead than the format's maxAhead")]
    TooFarAhead,
    /// No field could be formatted.
    #[error("no field of it could be formatted")]
    NoFields,
    /// The format's `when` is false, or can't be evaluated for the message.
    #[error("the format's `when` is not true for it")]
    Filtered,
    /// No field causes a push (`onChange`, `deadband`).
    #[error("no field gives a reason to push")]
    Unchanged,
}

impl DropReason {
    /// All reasons.
    pub const ALL: [Self; 9] = [
        Self::Malformed,
        Self::BadTimestamp,
        Self::OutOfOrder,
        Self::Duplicate,
        Self::TooOld,
        Self::TooFarAhead,
        Self::NoFields,
        Self::Filtered,
        Self::Unchanged,
    ];

    /// Returns the metric label: `OutOfOrder`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "Malformed",
            Self::BadTimestamp => "BadTimestamp",
            Self::OutOfOrder => "OutOfOrder",
            Self::Duplicate => "Duplicate",
            Self::TooOld => "TooOld",
            Self::TooFarAhead => "TooFarAhead",
            Self::NoFields => "NoFields",
            Self::Filtered => "Filtered",
            Self::Unchanged => "Unchanged",
        }
    }
}

/// The description of a field in the event `hello`.
#[derive(Debug, Clone, PartialEq)]
pub struct FieldInfo {
    /// The name in `values`.
    pub name: String,
    /// `Number`, `String`, `Bool`, `Enum` or `Computed`.
    pub kind: &'static str,
    /// The unit to display.
    pub unit: Option<String>,
    /// The decimals to which numbers are rounded.
    pub decimals: Option<u8>,
}

/// A compiled push format.
#[derive(Debug)]
pub struct Program {
    /// Unique within the process, so that [`ChannelState`] detects another program.
    id: u64,
    pointers: Pointers,
    timestamp: Option<TimestampRule>,
    policy: DeliveryPolicy,
    min_interval_ms: Option<u64>,
    when: Option<Expression>,
    fields: Vec<Field>,
    infos: Vec<FieldInfo>,
    /// `true` if some field doesn't cause a push for each message.
    conditional: bool,
}

/// The place of the time in a message, and the times that are accepted.
#[derive(Debug)]
struct TimestampRule {
    /// The number of the pointer.
    pointer: usize,
    unit: TimestampUnit,
    max_age_ms: Option<i64>,
    max_ahead_ms: Option<i64>,
}

#[derive(Debug)]
struct Field {
    /// The name in the output with its colon, `"speed":`.
    key: Box<[u8]>,
    source: FieldSource,
    trigger: PushTrigger,
}

/// The source of a field's value.
#[derive(Debug)]
enum FieldSource {
    /// The number of the pointer, and the conversion of the raw value.
    Raw(usize, Conversion),
    /// An expression over the fields before this one, and the decimals of its result.
    Computed(Expression, Option<u8>),
}

/// The conversion of a raw value.
#[derive(Debug)]
enum Conversion {
    Number(NumberRule),
    String,
    Bool,
    /// The raw values as text, sorted, each with its word as JSON.
    Enum(Vec<(Box<str>, Box<[u8]>)>),
}

/// The condition on which a field causes a push.
#[derive(Debug, Clone, Copy, PartialEq)]
enum PushTrigger {
    Always,
    OnChange,
    Deadband(f64),
}

impl Program {
    /// Returns whether messages may be skipped.
    #[must_use]
    pub fn policy(&self) -> DeliveryPolicy {
        self.policy
    }

    /// Returns the least milliseconds between two pushes of a channel; `None` for no limit.
    #[must_use]
    pub fn min_interval_ms(&self) -> Option<u64> {
        self.min_interval_ms
    }

    /// Returns the descriptions of the fields, in the order of the output.
    #[must_use]
    pub fn fields(&self) -> &[FieldInfo] {
        &self.infos
    }
}
