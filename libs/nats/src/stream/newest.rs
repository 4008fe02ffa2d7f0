//! Finds where the newest messages of a subject begin, and reads them. The server reads forward only.

use std::collections::VecDeque;

use flutecast_contract::stream_position::Sequence;
use flutecast_contract::tail::{BYTES, MESSAGES};
use serde_json::json;

use super::{AnswerEnd, Payloads, StreamReader, StreamState};
use crate::error::RequestError;
use crate::message::StoredMessage;

/// The newest messages of a subject, within the bounds of [`flutecast_contract::tail`].
#[derive(Debug, Default)]
pub struct BoundedTail {
    messages: VecDeque<StoredMessage>,
    bytes: usize,
}

impl BoundedTail {
    /// Adds the next message in stream order.
    pub fn push(&mut self, message: StoredMessage) {
        self.bytes += message.payload.len();
        self.messages.push_back(message);
        while self.messages.len() > MESSAGES || self.bytes > BYTES && self.messages.len() > 1 {
            let Some(oldest) = self.messages.pop_front() else { break };
            self.bytes -= oldest.payload.len();
        }
    }
}

impl From<BoundedTail> for Vec<StoredMessage> {
    fn from(tail: BoundedTail) -> Self {
        tail.messages.into()
    }
}

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
        self.start_in(&self.state().await?, subject, count).await
    }

    /// Returns the newest `count` messages of `subject` in stream order, within the bounds of
    /// [`flutecast_contract::tail`].
    ///
    /// # Errors
    /// [`RequestError`], within 5 s for each request.
    pub async fn tail(&self, subject: &str, count: usize) -> Result<Vec<StoredMessage>, RequestError> {
        let count = count.min(MESSAGES);
        let state = self.state().await?;
        let mut tail = BoundedTail::default();
        let mut next = self.start_in(&state, subject, count as u64).await?;
        // More come meanwhile. Without an end, a fast channel would be read for ever.
        while let Some(from) = next.filter(|from| *from <= state.last_sequence) {
            let page = self.page(subject, from).await?;
            next = page.messages.last().filter(|_| page.pending > 0).map(|last| last.sequence.next());
            let stored = page.messages.into_iter();
            stored.filter(|message| message.sequence <= state.last_sequence).for_each(|m| tail.push(m));
        }
        let mut messages = Vec::from(tail);
        Ok(messages.split_off(messages.len().saturating_sub(count)))
    }

    /// As [`Self::start_of_newest`], of the stream in this state.
    async fn start_in(
        &self,
        state: &StreamState,
        subject: &str,
        count: u64,
    ) -> Result<Option<Sequence>, RequestError> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn message(sequence: u64, bytes: usize) -> StoredMessage {
        StoredMessage {
            subject: "iot.acme.a.power".to_owned(),
            sequence: Sequence(sequence),
            stored_at: jiff::Timestamp::UNIX_EPOCH,
            captured_at: None,
            origin: None,
            payload: vec![b'x'; bytes].into(),
        }
    }

    #[test]
    fn a_tail_is_bounded_in_messages_and_in_bytes() {
        let mut newest = BoundedTail::default();
        (1..=1_000).for_each(|sequence| newest.push(message(sequence, 10)));
        assert_eq!(newest.messages.len(), MESSAGES);
        assert_eq!(newest.messages.back().unwrap().sequence, Sequence(1_000));
        (1..=3).for_each(|sequence| newest.push(message(sequence, BYTES / 2)));
        assert_eq!(newest.messages.len(), 2);
        newest.push(message(4, BYTES * 2));
        assert_eq!(newest.messages.len(), 1, "the newest message is there however large it is");
        assert_eq!(newest.bytes, BYTES * 2);
    }
}
