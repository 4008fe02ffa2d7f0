//! Reads back what a stream has stored.
//!
//! The client has neither `multi_last` nor batched direct gets, so the requests are written here: a request
//! with an inbox of its own, whose answer is read until the status message that ends it.

use std::time::Duration;

use async_nats::header::HeaderName;
use async_nats::{Client, Message, StatusCode, Subscriber};
use bytes::Bytes;
use flutecast_contract::stream_position::{Epoch, Sequence};
use futures_util::StreamExt;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use crate::api::{REQUEST_DEADLINE, request};
use crate::error::RequestError;
use crate::message::{StoredMessage, number};

mod newest;

pub use newest::BoundedTail;

/// The server answers for at most this many subjects (`maxAllowedResponses` in nats-server's `stream.go`).
pub const MAX_SUBJECTS: usize = 1_024;
/// The most messages of a history that are requested at once.
const PAGE: usize = 256;
/// The most bytes of a history, or of messages whose payloads are dropped, that are requested at once.
const PAGE_BYTES: usize = 4 * 1_024 * 1_024;

/// The incarnation and the extent of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamState {
    /// The incarnation.
    pub epoch: Epoch,
    /// The sequence of the oldest message that is stored; every earlier one is gone.
    pub first_sequence: Sequence,
    /// The sequence of the newest message that was ever stored.
    pub last_sequence: Sequence,
    /// The most messages that the stream keeps of each subject; `None` without such a limit.
    pub max_per_subject: Option<u64>,
    /// The age at which the stream removes messages; `None` if it doesn't.
    pub max_age: Option<Duration>,
    /// The time of this answer on the clock of the stream's leader, which gives messages their times.
    pub time: Timestamp,
}

/// The newest message of each of several subjects.
#[derive(Debug, Default)]
pub struct LastMessages {
    /// The messages in stream order.
    pub messages: Vec<StoredMessage>,
    /// The last sequence of the stream for which the answer holds, or `None` if nothing is stored on any of
    /// the subjects.
    pub up_to: Option<Sequence>,
}

/// A part of what is stored on a subject.
#[derive(Debug)]
pub struct Page {
    /// The messages in stream order.
    pub messages: Vec<StoredMessage>,
    /// Number of further messages.
    pub pending: u64,
}

/// Reads one stream.
///
/// # Errors
/// Every request without a good answer returns a [`RequestError`], within 5 s unless it says otherwise.
#[derive(Debug, Clone)]
pub struct StreamReader {
    client: Client,
    stream: String,
}

/// The handling of payloads. The server always sends them: it can leave out headers, but not bodies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Payloads {
    Keep,
    /// They are kept while they are no longer than this together.
    Within(usize),
    Drop,
}

impl Payloads {
    fn are_exceeded(self, messages: &[StoredMessage]) -> bool {
        let Self::Within(most) = self else { return false };
        messages.iter().map(|message| message.payload.len()).sum::<usize>() > most
    }
}

/// The end of the answer to a direct get.
enum AnswerEnd {
    /// With `EOB`: `pending` more messages were found than sent.
    Batch { pending: u64, up_to: Option<u64> },
    /// With status 404.
    Nothing,
}

impl StreamReader {
    /// Reads the stream of this name through `client`.
    #[must_use]
    pub fn new(client: Client, stream: String) -> Self {
        Self { client, stream }
    }

    /// Returns the client.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Returns the state of the stream, as its leader knows it.
    pub async fn state(&self) -> Result<StreamState, RequestError> {
        state_in(&self.describe().await?)
    }

    /// Returns the time on the clock of the stream's leader, which gives messages their times.
    pub async fn broker_time(&self) -> Result<Timestamp, RequestError> {
        time_in(&self.describe().await?)
    }

    async fn describe(&self) -> Result<Value, RequestError> {
        let call = format!("STREAM.INFO.{}", self.stream);
        request(&self.client, &call, &json!({})).await.map_err(no_stream)
    }

    /// Returns the newest message of each of these subjects.
    ///
    /// # Errors
    /// [`RequestError`], within 5 s for each 1,024 subjects and each page of them.
    pub async fn last_of<S: AsRef<str>>(&self, subjects: &[S]) -> Result<LastMessages, RequestError> {
        self.lasts(subjects, None, Payloads::Keep).await.map(Option::unwrap_or_default)
    }

    /// Returns the newest message of each of these subjects, at most 1,024, or `None` if they are longer than
    /// `most_bytes` together by more than 4 MiB.
    ///
    /// # Errors
    /// As [`Self::last_of`].
    pub async fn last_of_within<S: AsRef<str>>(
        &self,
        subjects: &[S],
        most_bytes: usize,
    ) -> Result<Option<LastMessages>, RequestError> {
        self.lasts(subjects, None, Payloads::Within(most_bytes)).await
    }

    /// Returns of each of these subjects the newest message that was stored up to a sequence.
    ///
    /// # Errors
    /// As [`Self::last_of`].
    pub async fn last_up_to<S: AsRef<str>>(
        &self,
        subjects: &[S],
        up_to: Sequence,
    ) -> Result<LastMessages, RequestError> {
        self.lasts(subjects, Some(up_to), Payloads::Keep).await.map(Option::unwrap_or_default)
    }

    /// Returns the newest message of each of these subjects without its payload, which is dropped as it
    /// arrives.
    ///
    /// # Errors
    /// As [`Self::last_of`].
    pub async fn last_headers_of<S: AsRef<str>>(&self, subjects: &[S]) -> Result<LastMessages, RequestError> {
        self.lasts(subjects, None, Payloads::Drop).await.map(Option::unwrap_or_default)
    }

    /// Returns `None` if payloads are longer than they may be.
    async fn lasts<S: AsRef<str>>(
        &self,
        subjects: &[S],
        place: Option<Sequence>,
        payloads: Payloads,
    ) -> Result<Option<LastMessages>, RequestError> {
        let (mut all, mut up_to) = (Vec::new(), None::<Sequence>);
        for chunk in subjects.chunks(MAX_SUBJECTS) {
            let chunk: Vec<&str> = chunk.iter().map(AsRef::as_ref).collect();
            let mut get = json!({"multi_last": chunk});
            if payloads != Payloads::Keep {
                get["max_bytes"] = json!(PAGE_BYTES);
            }
            if let Some(place) = place {
                get["up_to_seq"] = json!(place.0);
            }
            let mut shown = None;
            loop {
                let before = all.len();
                if payloads.are_exceeded(&all) {
                    return Ok(None);
                }
                match self.direct_get(&get, payloads, &mut all).await? {
                    AnswerEnd::Nothing => break,
                    AnswerEnd::Batch { pending, up_to: at } => {
                        let at =
                            at.ok_or_else(|| RequestError::bad_answer("EOB without Nats-UpTo-Sequence"))?;
                        // All pages show the stream at the same sequence.
                        shown = Some(Sequence(at));
                        get["up_to_seq"] = json!(at);
                        // The server cuts an answer at its limit of bytes. The rest starts after the last
                        // one.
                        if pending == 0 || all.len() == before {
                            break;
                        }
                        get["seq"] = json!(all.last().map(|last| last.sequence.next().0));
                    }
                }
            }
            up_to = up_to.into_iter().chain(shown).min();
        }
        all.sort_by_key(|message| message.sequence);
        Ok(Some(LastMessages { messages: all, up_to }))
    }

    /// Returns what is stored on `subject` from the sequence `from` on, up to 256 messages or 4 MiB.
    pub async fn page(&self, subject: &str, from: Sequence) -> Result<Page, RequestError> {
        self.next_of(subject, json!({"seq": from.0})).await
    }

    /// Returns what was stored on `subject` at `start` and later, up to 256 messages or 4 MiB.
    pub async fn page_from(&self, subject: &str, start: Timestamp) -> Result<Page, RequestError> {
        self.next_of(subject, json!({"start_time": start.to_string()})).await
    }

    async fn next_of(&self, subject: &str, mut get: Value) -> Result<Page, RequestError> {
        let mut messages = Vec::new();
        get["next_by_subj"] = json!(subject);
        get["batch"] = json!(PAGE);
        get["max_bytes"] = json!(PAGE_BYTES);
        match self.direct_get(&get, Payloads::Keep, &mut messages).await? {
            AnswerEnd::Nothing => Ok(Page { messages, pending: 0 }),
            AnswerEnd::Batch { pending, .. } => Ok(Page { messages, pending }),
        }
    }

    /// Returns the sequence of the oldest message that is stored on `subject`, or `None` if there is none.
    pub async fn first_of(&self, subject: &str) -> Result<Option<Sequence>, RequestError> {
        let mut messages = Vec::new();
        let get = json!({"seq": 1, "next_by_subj": subject, "batch": 1});
        self.direct_get(&get, Payloads::Drop, &mut messages).await?;
        Ok(messages.first().map(|message| message.sequence))
    }

    /// Sends one request and appends the messages of its answer to `out`.
    async fn direct_get(
        &self,
        get: &Value,
        payloads: Payloads,
        out: &mut Vec<StoredMessage>,
    ) -> Result<AnswerEnd, RequestError> {
        let deadline = Instant::now() + REQUEST_DEADLINE;
        let late = |_| RequestError::no_answer();
        let mut answer = timeout_at(deadline, self.send(get)).await.map_err(late)??;
        loop {
            let message = timeout_at(deadline, answer.next()).await.map_err(late)?;
            let message = message.ok_or_else(RequestError::no_answer)?;
            match message.status.map(|status| status.as_u16()) {
                None => {
                    let mut message = StoredMessage::read(message)
                        .ok_or_else(|| RequestError::bad_answer("a message without its headers"))?;
                    if payloads == Payloads::Drop {
                        message.payload = Bytes::new();
                    }
                    out.push(message);
                }
                Some(204) => return end_in(&message),
                Some(404) => return Ok(AnswerEnd::Nothing),
                Some(status) if status == StatusCode::NO_RESPONDERS.as_u16() => {
                    return Err(RequestError::NoStream);
                }
                Some(_) => {
                    let description = message.description.as_deref();
                    return Err(RequestError::bad_answer(description.unwrap_or("an unknown status")));
                }
            }
        }
    }

    async fn send(&self, get: &Value) -> Result<Subscriber, RequestError> {
        let inbox = self.client.new_inbox();
        let answer = self.client.subscribe(inbox.clone()).await.map_err(|_| RequestError::no_answer())?;
        let subject = format!("$JS.API.DIRECT.GET.{}", self.stream);
        let sent = self.client.publish_with_reply(subject, inbox, get.to_string().into()).await;
        sent.map_err(|error| RequestError::BadAnswer(error.to_string()))?;
        Ok(answer)
    }
}

fn no_stream(error: RequestError) -> RequestError {
    if error.is_not_found() { RequestError::NoStream } else { error }
}

fn end_in(message: &Message) -> Result<AnswerEnd, RequestError> {
    let number_of = |name| number(message.headers.as_ref()?, HeaderName::from_static(name));
    let pending = number_of("Nats-Num-Pending")
        .ok_or_else(|| RequestError::bad_answer("EOB without Nats-Num-Pending"))?;
    Ok(AnswerEnd::Batch { pending, up_to: number_of("Nats-UpTo-Sequence") })
}

fn state_in(answer: &Value) -> Result<StreamState, RequestError> {
    let state = || {
        let (config, state) = (answer["config"].as_object()?, &answer["state"]);
        let max = config.get("max_msgs_per_subject").and_then(Value::as_u64);
        let age = config.get("max_age").and_then(Value::as_u64).map(Duration::from_nanos);
        Some(StreamState {
            epoch: Epoch::of_creation(answer["created"].as_str()?),
            first_sequence: Sequence(state["first_seq"].as_u64()?),
            last_sequence: Sequence(state["last_seq"].as_u64()?),
            max_per_subject: max.filter(|&max| max > 0),
            max_age: age.filter(|age| !age.is_zero()),
            time: time_in(answer).ok()?,
        })
    };
    state().ok_or_else(|| RequestError::bad_answer("stream info without created, config, state or ts"))
}

fn time_in(answer: &Value) -> Result<Timestamp, RequestError> {
    let time = answer["ts"].as_str().and_then(|time| time.parse().ok());
    time.ok_or_else(|| RequestError::bad_answer("a stream description without its time"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_description_is_read() {
        let answer = json!({
            "type": "io.nats.jetstream.api.v1.stream_info_response",
            "config": {"name": "IOT_acme", "max_msgs_per_subject": 256, "max_age": 3_600_000_000_000_u64},
            "created": "2026-11-22T10:00:00.123456789Z",
            "state": {"messages": 2, "first_seq": 5, "last_seq": 9},
            "ts": "2026-11-22T10:00:09Z",
        });
        let state = state_in(&answer).unwrap();
        assert_eq!((state.first_sequence, state.last_sequence), (Sequence(5), Sequence(9)));
        assert_eq!(state.max_per_subject, Some(256));
        assert_eq!(state.max_age, Some(Duration::from_secs(3_600)));
        assert_eq!(state.time, "2026-11-22T10:00:09Z".parse().unwrap());
        assert_eq!(state.epoch, Epoch::of_creation("2026-11-22T10:00:00.123456789Z"));
        assert!(matches!(state_in(&json!({})), Err(RequestError::BadAnswer(_))));
        let mut unlimited = answer;
        unlimited["config"]["max_msgs_per_subject"] = json!(-1);
        assert_eq!(state_in(&unlimited).unwrap().max_per_subject, None);
    }

    #[test]
    fn an_absent_stream_is_told_from_a_refusal() {
        let refused = |code| RequestError::Refused { code, description: String::new() };
        assert_eq!(no_stream(refused(10059)), RequestError::NoStream);
        assert_eq!(no_stream(refused(10013)), refused(10013));
    }

    #[test]
    fn the_brokers_time_is_read() {
        let time = time_in(&json!({"config": {}, "ts": "2026-11-22T10:00:00.123456789Z"})).unwrap();
        assert_eq!(time, "2026-11-22T10:00:00.123456789Z".parse().unwrap());
        assert!(matches!(time_in(&json!({})), Err(RequestError::BadAnswer(_))));
    }
}
