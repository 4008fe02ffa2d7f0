//! Whether the messages of a device are understood, for its condition `MessagesUnderstood`. Pure.
//!
//! Another module judges messages; here is what a status says of it, and which judgements are worth a write.

use std::borrow::Cow;

use flutecast_crds::DeviceStatus;
use flutecast_crds::condition::{Condition, MESSAGES_UNDERSTOOD};

/// Stands in a message between what is concerned and why.
const SEPARATOR: &str = ": ";
/// The longest message, in bytes.
const MAX_MESSAGE: usize = 1500;

/// The status of the condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Understood {
    True,
    False,
    Unknown,
}

impl Understood {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// A judgement, in the words of the condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Understanding {
    pub(crate) status: Understood,
    pub(crate) reason: Cow<'static, str>,
    pub(crate) message: Cow<'static, str>,
}

impl Understanding {
    /// The newest message of each channel is understood.
    pub(crate) const UNDERSTOOD: Self = Self::fixed(
        Understood::True,
        "Understood",
        "the newest message of each channel that has one is understood",
    );
    /// There is no message yet, or none was looked at yet.
    pub(crate) const NO_MESSAGES: Self =
        Self::fixed(Understood::Unknown, "NoMessages", "no message of the device was found so far");
    /// The device has no iotId, or its tenant no stream.
    pub(crate) const NOT_LOOKED: Self =
        Self::fixed(Understood::Unknown, "NotLooked", "its messages can't be looked at; Ready says why");

    /// An operator wrote the status that knows nothing of messages. It stays so until they are looked at, so
    /// that an upgrade writes each status once, at the rate of all judgements.
    const UNSAID: Self = Self::fixed(Understood::Unknown, "", "");

    const fn fixed(status: Understood, reason: &'static str, message: &'static str) -> Self {
        Self { status, reason: Cow::Borrowed(reason), message: Cow::Borrowed(message) }
    }

    /// Returns a judgement about what is `concerned`. The words for `why` may be others each time, with the
    /// message that was looked at: they don't make it another judgement.
    pub(crate) fn new(status: Understood, reason: &'static str, concerned: &str, why: &str) -> Self {
        let words = format!("{concerned}{SEPARATOR}{why}");
        let mut message: String = words.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        message.truncate(message.floor_char_boundary(MAX_MESSAGE));
        Self { status, reason: Cow::Borrowed(reason), message: Cow::Owned(message) }
    }

    /// Returns whether both say the same, though perhaps because of another message. Only what says something
    /// else is worth a write.
    pub(crate) fn tells_the_same(&self, other: &Self) -> bool {
        self.status == other.status && self.reason == other.reason && self.concerned() == other.concerned()
    }

    fn concerned(&self) -> &str {
        self.message.split_once(SEPARATOR).map_or(&*self.message, |(concerned, _)| concerned)
    }

    /// Returns what is to be said when `newer` was judged after this. If it is not certain, there may be a
    /// hint that was not looked for.
    ///
    /// That there are no messages any more is worth a write only where a problem would be shown for ever: a
    /// plant that rests longer than its streams keep messages would cause one for each device.
    pub(crate) fn followed_by(&self, newer: Self, is_certain: bool) -> Self {
        let is_no_news = match newer.status {
            Understood::Unknown => self.status != Understood::False && self.is_said(),
            Understood::True => !is_certain && self.status == Understood::True,
            Understood::False => false,
        };
        if is_no_news || self.tells_the_same(&newer) { self.clone() } else { newer }
    }

    /// Returns what holds of a device from before that begins or ends to be looked at.
    pub(super) fn of_device(self, is_looked_at: bool) -> Self {
        match (is_looked_at, self.status) {
            (false, _) => Self::NOT_LOOKED,
            (true, Understood::Unknown) if self.is_said() => Self::NO_MESSAGES,
            (true, _) => self,
        }
    }

    /// Returns whether there is anything to write.
    pub(crate) fn is_said(&self) -> bool {
        *self != Self::UNSAID
    }
}

impl From<&DeviceStatus> for Understanding {
    fn from(status: &DeviceStatus) -> Self {
        let ours = |condition: &&Condition| condition.type_ == MESSAGES_UNDERSTOOD;
        let Some(condition) = status.conditions.iter().find(ours) else {
            return if status.observed_generation.is_some() { Self::UNSAID } else { Self::NOT_LOOKED };
        };
        let is_it = |known: &&Self| known.reason == condition.reason && known.message == condition.message;
        // Most devices say the same, and then share its words.
        if let Some(known) = [Self::UNDERSTOOD, Self::NO_MESSAGES, Self::NOT_LOOKED].iter().find(is_it) {
            return known.clone();
        }
        Self {
            status: match condition.status.as_str() {
                "True" => Understood::True,
                "False" => Understood::False,
                _ => Understood::Unknown,
            },
            reason: Cow::Owned(condition.reason.clone()),
            message: Cow::Owned(condition.message.clone()),
        }
    }
}
