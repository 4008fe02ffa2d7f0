//! Finds where the newest messages of a subject begin. The server reads forward only.

use flutecast_contract::stream_position::Sequence;
use serde_json::json;

use super::{AnswerEnd, Payloads, StreamReader};
use crate::error::RequestError;

/// A message, and how many of its subject are stored from it on.
struct Found {
    at: Sequence,
    stored: u64,
}

impl StreamReader {
    /// Returns the sequence at which the newest `count` messages of `subject` begin, or the first one if
    /// there are fewer; `None` if there is no message. Each request halves what is left of the stream's
    /// sequences: at most 30 for a thousand million of them.
    ///
    /// # Errors
    /// [`RequestError`], within 5 s for each of those requests.
    pub async fn start_of_newest(&self, subject: &str, count: u64) -> Result<Option<Sequence>, RequestError> {
        let state = self.state().await?;
        let Some(mut start) = self.place_from(subject, state.first_sequence).await? else { return Ok(None) };
        // From `start` on there are enough messages, from `too_late` on there are too few.
        let mut too_late = state.last_sequence.next();
        while start.stored > count {
            let middle = Sequence(start.at.0.midpoint(too_late.0));
            if middle <= start.at {
                break;
            }
            match self.place_from(subject, middle).await? {
                Some(found) if found.stored >= count => start = found,
                _ => too_late = middle,
            }
        }
        Ok(Some(start.at))
    }

    /// Returns the first message of `subject` that isn't before `from`.
    async fn place_from(&self, subject: &str, from: Sequence) -> Result<Option<Found>, RequestError> {
        let mut messages = Vec::new();
        let get = json!({"seq": from.0.max(1), "next_by_subj": subject, "batch": 1});
        let end = self.direct_get(&get, Payloads::Drop, &mut messages).await?;
        let (AnswerEnd::Batch { pending, .. }, Some(message)) = (end, messages.first()) else {
            return Ok(None);
        };
        Ok(Some(Found { at: message.sequence, stored: pending.saturating_add(1) }))
    }
}
