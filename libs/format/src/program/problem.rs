//! What is wrong with a message, for people.

use super::reason::ProblemReason;

/// What is wrong with a message, or with its format, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The kind of problem.
    pub reason: ProblemReason,
    /// The name of the field that is concerned; `None` if it is the message.
    pub field: Option<String>,
    /// The pointer of the format that is concerned, or the place in the payload: `byte 17`; may be empty.
    pub place: String,
    /// The raw text of the declared field or time that can't be read: at most 64 characters, without control
    /// characters.
    pub found: Option<String>,
    /// What was measured in this message, as a part of a sentence: `its time is 40 s before it was stored`.
    pub detail: Option<String>,
    /// What would be right, as a sentence without a full stop. The same problem has the same words each time.
    pub remedy: String,
}

impl Problem {
    /// Returns the problem of a channel of which the last message can't be shown, while the ones before it
    /// weren't read, since looking back has a bound for each request.
    #[must_use]
    pub fn not_read() -> Self {
        let remedy = "the last message alone shows nothing, and those before it were not read for this \
                      answer, since too many channels need that; ask for fewer devices, or open the event \
                      stream";
        Self::new(ProblemReason::NotRead, "", remedy.into())
    }

    pub(super) fn new(reason: ProblemReason, place: &str, remedy: String) -> Self {
        Self { reason, field: None, place: place.into(), found: None, detail: None, remedy }
    }

    /// Returns the whole sentence, without a full stop: what is wrong, and what would be right.
    #[must_use]
    pub fn sentence(&self) -> String {
        match &self.detail {
            Some(detail) => format!("{detail}; {}", self.remedy),
            None => self.remedy.clone(),
        }
    }
}
