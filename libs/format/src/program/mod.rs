//! Push-format programs: compiled once, applied to each message.
//!
//! [`Program::compile`] checks a [`FormatDocument`](flutecast_contract::document::FormatDocument) and says
//! all that is wrong with it. [`Program::apply`] turns one message of one channel into the JSON object that
//! clients see, or says why it reaches none:
//!
//! 1. the payload is read once, by pointer, without building a document ([`crate::json`]);
//! 2. its time is found, and compared with our clock and with the newest message of its channel (the stale
//!    filter);
//! 3. each field is formatted, computed fields after those that they use;
//! 4. `when` decides whether it is shown, and `onChange` and `deadband` whether there is news in it.
//!
//! A field that can't be formatted is left out and counted; it never takes the others with it. Nothing that a
//! payload holds makes it panic, recurse, or work longer than its length justifies. Programs are shared by
//! threads; a [`ChannelState`] belongs to one channel of one device, and its messages are applied in the
//! order of the stream.

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

/// A string that is longer than this, in bytes of UTF-8, is left out: a screen has no room for it, and each
/// client would get it.
pub const MAX_STRING: usize = 4096;

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
pub struct FormattedMessage {
    /// When it happened.
    pub time: Timestamp,
    /// How many fields were left out, because their raw value had the wrong type or no meaning, or could not
    /// be computed. A field that the message just doesn't hold is not counted.
    pub skipped_fields: u32,
}

/// Why a message reaches no client. A closed set, used as a metric label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum DropReason {
    /// The payload is not what the codec says: the whole of it must be one JSON text.
    #[error("the payload is not what the codec says")]
    Malformed,
    /// It has no time where the format says, or one that can't be read.
    #[error("there is no readable time where the format says")]
    BadTimestamp,
    /// It is older than the newest message of its channel.
    #[error("it is older than the newest message of its channel")]
    OutOfOrder,
    /// It was here already.
    #[error("it was here already")]
    Duplicate,
    /// It is older than the format's `maxAge`.
    #[error("it is older than the format's maxAge")]
    TooOld,
    /// Its time is further ahead than the format's `maxAhead`.
    #[error("its time is further ahead than the format's maxAhead")]
    TooFarAhead,
    /// No field of it could be formatted.
    #[error("no field of it could be formatted")]
    NoFields,
    /// The format's `when` is false, or can't be evaluated on it.
    #[error("the format's `when` is not true for it")]
    Filtered,
    /// No field gives a reason to push (`onChange`, `deadband`).
    #[error("no field gives a reason to push")]
    Unchanged,
}

impl DropReason {
    /// Every reason.
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

    /// The reason as a label: `out_of_order`.
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
pub struct Program {
    /// Tells the programs of this process apart, for [`ChannelState`].
    id: u64,
    pointers: Pointers,
    timestamp: Option<TimestampRule>,
    policy: DeliveryPolicy,
    min_interval_ms: Option<u64>,
    when: Option<Expression>,
    fields: Vec<Field>,
    infos: Vec<FieldInfo>,
    /// Whether some field has a condition under which it is no reason to push.
    conditional: bool,
}

/// Where the message's own time stands, and which times are believed.
#[derive(Debug)]
struct TimestampRule {
    /// The number of its pointer.
    pointer: usize,
    unit: TimestampUnit,
    max_age_ms: Option<i64>,
    max_ahead_ms: Option<i64>,
}

#[derive(Debug)]
struct Field {
    /// The name as it stands in the output, `"speed":`.
    key: Box<[u8]>,
    source: FieldSource,
    trigger: PushTrigger,
}

/// Where a field's value comes from.
#[derive(Debug)]
enum FieldSource {
    /// The number of its pointer, and what the raw value becomes.
    Raw(usize, Conversion),
    /// An expression over the fields before it, and the decimals of its result.
    Computed(Expression, Option<u8>),
}

/// What a raw value becomes.
#[derive(Debug)]
enum Conversion {
    Number(NumberRule),
    String,
    Bool,
    /// The raw values as text, in order, each with its word as JSON.
    Enum(Vec<(Box<str>, Box<[u8]>)>),
}

/// When a field is a reason to push.
#[derive(Debug, Clone, Copy, PartialEq)]
enum PushTrigger {
    Always,
    OnChange,
    Deadband(f64),
}

impl Program {
    /// Which messages matter.
    #[must_use]
    pub fn policy(&self) -> DeliveryPolicy {
        self.policy
    }

    /// At most one message per channel in this time, in milliseconds.
    #[must_use]
    pub fn min_interval_ms(&self) -> Option<u64> {
        self.min_interval_ms
    }

    /// The fields, in order.
    #[must_use]
    pub fn fields(&self) -> &[FieldInfo] {
        &self.infos
    }
}
