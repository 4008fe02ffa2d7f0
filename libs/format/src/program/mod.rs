//! Push-format programs: compiled once, applied to each message.
//!
//! [`Program::compile`] validates a [`FormatDocument`](flutecast_contract::document::FormatDocument) and
//! returns all its errors. [`Program::apply`] turns a message of a channel into what clients get, or returns
//! why it isn't shown:
//!
//! 1. the payload is read once, by pointer, without building a document ([`crate::json`]);
//! 2. its time is compared with the time of storing, and with those of the messages before it;
//! 3. each field is formatted, computed fields after those that they use; of a record, the fields of the
//!    messages before are merged first;
//! 4. `when` decides whether the event is shown, and so do `onChange` and `deadband`.
//!
//! A field that is there and can't be read is `null`, its raw text is named, and the others are not affected.
//! [`Program::explain`] says what is wrong with a message, and what would be right.
//!
//! No clock is asked: the times at which the broker stored messages, and their order in the stream, decide.
//! So what a channel shows is a function of its newest messages ([`flutecast_contract::tail`]), whoever
//! applies them, and whenever. Programs are shared by threads. A [`ChannelState`] belongs to one channel of
//! one device, whose messages are applied in the order of the stream.

mod apply;
mod compile;
mod convert;
mod explain;
mod expression;
mod merge;
mod number;
mod outcome;
mod problem;
mod reason;
mod record;
mod state;
#[cfg(test)]
mod tests;
mod time;
mod times;
mod triggers;
mod values;
mod window;
mod write;

use std::time::Duration;

pub use compile::{CompileError, MAX_FIELDS};
pub use outcome::{Applied, Event, Message, NeedsTail, Output};
pub use problem::Problem;
pub use reason::{DropReason, ProblemReason};
pub use state::ChannelState;
pub use time::Timestamp;

use crate::json::Pointers;
use expression::Expression;
use flutecast_contract::document::{DeliveryPolicy, TimestampUnit};
use flutecast_contract::tail;
use number::NumberRule;

/// The longest string, in bytes of UTF-8; longer ones can't be read. A screen has no room for them, and each
/// client would get them.
pub const MAX_STRING: usize = 4096;

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
    record: Option<RecordRule>,
    when: Option<Expression>,
    fields: Vec<Field>,
    infos: Vec<FieldInfo>,
    /// `true` if some field doesn't cause a push for each message.
    conditional: bool,
}

/// The place of the time in a message, and the times that are accepted.
#[derive(Debug)]
struct TimestampRule {
    /// The pointer, as the format has it.
    place: Box<str>,
    /// The number of the pointer.
    pointer: usize,
    unit: TimestampUnit,
    /// In microseconds, as is the other.
    max_age: Option<i64>,
    max_ahead: Option<i64>,
}

/// How messages are merged to a record.
#[derive(Debug)]
struct RecordRule {
    /// The microseconds for which a value stays.
    expire: Option<i64>,
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
    Raw(RawField),
    /// An expression over the fields before this one, and the decimals of its result.
    Computed(Expression, Option<u8>),
}

/// The place of a raw value, and its conversion.
#[derive(Debug)]
struct RawField {
    /// As the format has it.
    place: Box<str>,
    /// The number of the pointer.
    pointer: usize,
    conversion: Conversion,
}

/// The conversion of a raw value.
#[derive(Debug)]
enum Conversion {
    Number(NumberRule),
    String,
    Bool,
    /// The raw values as text, sorted, each with its word as JSON; and the word for all others.
    Enum(Vec<(Box<str>, Box<[u8]>)>, Option<Box<[u8]>>),
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

    /// Returns how far before a message those were stored that decide what it shows; `None` if that is the
    /// whole tail. No more than [`tail::MESSAGES`] messages decide in any case.
    #[must_use]
    pub fn look_back(&self) -> Option<Duration> {
        match &self.record {
            Some(RecordRule { expire }) => {
                let expire = Duration::from_micros(u64::try_from((*expire)?).unwrap_or_default());
                Some(expire.max(tail::LATENESS_WINDOW))
            }
            // The event before may be as old as any.
            None if self.policy == DeliveryPolicy::Every && self.conditional => None,
            None => Some(tail::LATENESS_WINDOW),
        }
    }

    /// Returns whether the events of a replay depend on the messages before it, which are to be applied
    /// first.
    #[must_use]
    pub fn remembers(&self) -> bool {
        self.policy == DeliveryPolicy::Every && (self.timestamp.is_some() || self.conditional)
    }

    /// Returns whether messages are merged to a record.
    #[must_use]
    pub fn is_record(&self) -> bool {
        self.record.is_some()
    }

    /// Returns whether no message can be judged without the tail before it.
    fn needs_whole_tail(&self) -> bool {
        // By `onChange`, an event that is not shown has the values of the one before. By `deadband` it may
        // have drifted away from it.
        let drifts = |field: &Field| matches!(field.trigger, PushTrigger::Deadband(_));
        self.is_record() || self.policy == DeliveryPolicy::Every && self.fields.iter().any(drifts)
    }

    /// Returns the descriptions of the fields, in the order of the output.
    #[must_use]
    pub fn fields(&self) -> &[FieldInfo] {
        &self.infos
    }
}
