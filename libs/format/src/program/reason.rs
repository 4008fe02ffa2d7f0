//! Why a message is not shown, and what may be wrong with one.

/// Why a message is not shown. A closed set, used as a metric label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum DropReason {
    /// The payload is not one JSON text.
    #[error("the payload is not what the codec says")]
    Malformed,
    /// The payload has no valid time at the format's pointer.
    #[error("there is no readable time where the format says")]
    BadTimestamp,
    /// A message of the last minute is newer.
    #[error("a message of the last minute has a newer time")]
    OutOfOrder,
    /// The message is older than the format's `maxAge`.
    #[error("it is older than the format's maxAge")]
    TooOld,
    /// The time is further ahead than the format's `maxAhead`.
    #[error("its time is further ahead than the format's maxAhead")]
    TooFarAhead,
    /// The message has none of the format's fields.
    #[error("it has none of the format's fields")]
    NoFields,
    /// The same event was there before.
    #[error("the same event was there before")]
    Repeat,
    /// The format's `when` is false, or a field that it needs is missing.
    #[error("the format's `when` is not true for it")]
    Filtered,
    /// No field causes a push (`onChange`, `deadband`).
    #[error("no field gives a reason to push")]
    Unchanged,
}

/// What is wrong with a message, or with its format: what people are told. The worst comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProblemReason {
    /// See [`DropReason::Malformed`].
    Malformed,
    /// See [`DropReason::BadTimestamp`].
    BadTimestamp,
    /// See [`DropReason::OutOfOrder`].
    OutOfOrder,
    /// See [`DropReason::TooOld`].
    TooOld,
    /// See [`DropReason::TooFarAhead`].
    TooFarAhead,
    /// See [`DropReason::NoFields`].
    NoFields,
    /// The messages before the last one were not looked at, since looking back has a bound. Found by the data
    /// plane.
    NotRead,
    /// A field is there, but its raw value can't be read.
    BadField,
    /// The time is after the storing, and `maxAhead` doesn't say that such messages are dropped.
    ClockAhead,
    /// The pointer of a field matched nothing in messages that had other fields: a hint.
    FieldNotFound,
}

impl DropReason {
    /// All reasons.
    pub const ALL: [Self; 9] = [
        Self::Malformed,
        Self::BadTimestamp,
        Self::OutOfOrder,
        Self::TooOld,
        Self::TooFarAhead,
        Self::NoFields,
        Self::Repeat,
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
            Self::TooOld => "TooOld",
            Self::TooFarAhead => "TooFarAhead",
            Self::NoFields => "NoFields",
            Self::Repeat => "Repeat",
            Self::Filtered => "Filtered",
            Self::Unchanged => "Unchanged",
        }
    }

    /// Returns whether the message says how its device is, but is no reason to show something else.
    #[must_use]
    pub fn is_understood(self) -> bool {
        // One that comes now may have got a repeat as the newest event, without what it repeats.
        matches!(self, Self::Repeat | Self::Filtered | Self::Unchanged)
    }

    /// Returns the problem that this drop is; `None` if it is as the format wants it.
    #[must_use]
    pub fn problem(self) -> Option<ProblemReason> {
        match self {
            Self::Malformed => Some(ProblemReason::Malformed),
            Self::BadTimestamp => Some(ProblemReason::BadTimestamp),
            Self::OutOfOrder => Some(ProblemReason::OutOfOrder),
            Self::TooOld => Some(ProblemReason::TooOld),
            Self::TooFarAhead => Some(ProblemReason::TooFarAhead),
            Self::NoFields => Some(ProblemReason::NoFields),
            Self::Repeat | Self::Filtered | Self::Unchanged => None,
        }
    }
}

impl ProblemReason {
    /// All reasons, the worst first.
    pub const ALL: [Self; 10] = [
        Self::Malformed,
        Self::BadTimestamp,
        Self::OutOfOrder,
        Self::TooOld,
        Self::TooFarAhead,
        Self::NoFields,
        Self::NotRead,
        Self::BadField,
        Self::ClockAhead,
        Self::FieldNotFound,
    ];

    /// Returns the name, as people and programs read it: `BadField`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "Malformed",
            Self::BadTimestamp => "BadTimestamp",
            Self::OutOfOrder => "OutOfOrder",
            Self::TooOld => "TooOld",
            Self::TooFarAhead => "TooFarAhead",
            Self::NoFields => "NoFields",
            Self::NotRead => "NotRead",
            Self::BadField => "BadField",
            Self::ClockAhead => "ClockAhead",
            Self::FieldNotFound => "FieldNotFound",
        }
    }
}
