//! Reading back what a tenant's stream has stored.
//!
//! The client has neither `multi_last` nor batched direct gets, so the requests are written here: a request
//! with an inbox of its own, read until the status that ends the answer.

use std::time::Duration;

use async_nats::{Client, Message, StatusCode, Subscriber, header};
use bytes::Bytes;
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::time::{Instant, timeout_at};

use super::message::{StoredMessage, number};
use flutecast_contract::stream_position::Epoch;

/// How long one answer may take as a whole.
const ANSWER: Duration = Duration::from_secs(5);
/// The server answers for so many subjects at most (`maxAllowedResponses` in nats-server's stream.go).
pub(crate) const MAX_SUBJECTS: usize = 1_024;
/// How many messages of a history are asked for at once.
const PAGE: usize = 256;
/// How many bytes of a history are asked for at once.
const PAGE_BYTES: usize = 4 * 1_024 * 1_024;

/// Why something can't be read from the stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReadError {
    /// There is no such stream, or nobody who answers for it.
    #[error("the stream isn't there")]
    NoStream,
    /// The broker didn't answer in time.
    #[error("the broker doesn't answer")]
    NoAnswer,
    /// The answer is not what was expected.
    #[error("the broker's answer can't be used: {0}")]
    BadAnswer(String),
}

impl ReadError {
    /// The reason, as a metric label.
    #[must_use]
    pub(crate) fn reason(&self) -> &'static str {
        let [no_stream, no_answer, bad_answer] = Self::REASONS;
        match self {
            Self::NoStream => no_stream,
            Self::NoAnswer => no_answer,
            Self::BadAnswer(_) => bad_answer,
        }
    }

    /// All that [`Self::reason`] answers.
    pub(crate) const REASONS: [&'static str; 3] = ["NoStream", "NoAnswer", "BadAnswer"];
}

/// What the stream says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StreamInfo {
    /// Its incarnation.
    pub epoch: Epoch,
    /// The sequence of the oldest message that is stored; everything before it is gone.
    pub first_sequence: u64,
    /// The sequence of the newest message that was ever stored.
    pub last_sequence: u64,
    /// How many messages it keeps of each subject; none: no such limit.
    pub max_per_subject: Option<u64>,
}

/// The newest message of each subject.
#[derive(Debug)]
pub(crate) struct Lasts {
    /// The messages, in stream order.
    pub messages: Vec<StoredMessage>,
    /// The answer holds for this place in the stream; none: nothing is stored on any of the subjects.
    pub up_to: Option<u64>,
}

/// A part of what is stored on a subject.
#[derive(Debug)]
pub(crate) struct Page {
    /// The messages, in stream order.
    pub messages: Vec<StoredMessage>,
    /// How many more there are.
    pub pending: u64,
}

/// Reads one stream.
#[derive(Debug, Clone)]
pub(crate) struct StreamReader {
    client: Client,
    stream: String,
}

#[derive(Serialize, Default)]
struct GetRequest<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    multi_last: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_by_subj: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    batch: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_bytes: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    up_to_seq: Option<u64>,
}

/// How a direct get's answer ended.
enum End {
    /// With `EOB`: `pending` messages more were found than sent.
    Batch { pending: u64, up_to: Option<u64> },
    /// With 404.
    Nothing,
}

impl StreamReader {
    /// For this stream.
    #[must_use]
    pub(crate) fn new(client: Client, stream: String) -> Self {
        Self { client, stream }
    }

    /// The client.
    #[must_use]
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// What the stream says of itself. The stream's leader answers.
    ///
    /// # Errors
    /// [`ReadError`], within 5 s.
    pub(crate) async fn info(&self) -> Result<StreamInfo, ReadError> {
        let subject = format!("$JS.API.STREAM.INFO.{}", self.stream);
        let answer = tokio::time::timeout(ANSWER, self.client.request(subject, Bytes::new())).await;
        let answer = match answer {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => return Err(ReadError::NoAnswer),
        };
        let answer: InfoAnswer =
            serde_json::from_slice(&answer.payload).map_err(|e| ReadError::BadAnswer(e.to_string()))?;
        answer.read()
    }

    /// The newest message of each of these subjects.
    ///
    /// # Errors
    /// [`ReadError`], within 5 s for each 1,024 subjects.
    pub(crate) async fn last_of(&self, subjects: &[String]) -> Result<Lasts, ReadError> {
        let (mut all, mut up_to) = (Vec::new(), None::<u64>);
        for chunk in subjects.chunks(MAX_SUBJECTS) {
            let (mut next, mut ceiling) = (None, None);
            loop {
                let request = GetRequest {
                    multi_last: Some(chunk),
                    seq: next,
                    up_to_seq: ceiling,
                    ..GetRequest::default()
                };
                let before = all.len();
                match self.direct_get(&request, &mut all).await? {
                    End::Nothing => break,
                    End::Batch { pending, up_to: at } => {
                        let at = at.ok_or_else(|| {
                            ReadError::BadAnswer("EOB without Nats-UpTo-Sequence".to_owned())
                        })?;
                        ceiling = Some(at);
                        // The server cuts an answer at its bound of bytes; what is left is asked for from
                        // there on.
                        if pending == 0 || all.len() == before {
                            break;
                        }
                        next = all.last().map(|last| last.sequence + 1);
                    }
                }
            }
            if let Some(ceiling) = ceiling {
                up_to = Some(up_to.map_or(ceiling, |before| before.min(ceiling)));
            }
        }
        all.sort_by_key(|message| message.sequence);
        Ok(Lasts { messages: all, up_to })
    }

    /// What is stored on `subject` from the sequence `from` on, a page at a time.
    ///
    /// # Errors
    /// [`ReadError`], within 5 s.
    pub(crate) async fn page(&self, subject: &str, from: u64) -> Result<Page, ReadError> {
        let mut messages = Vec::new();
        let request = GetRequest {
            seq: Some(from),
            next_by_subj: Some(subject),
            batch: Some(PAGE),
            max_bytes: Some(PAGE_BYTES),
            ..GetRequest::default()
        };
        let pending = match self.direct_get(&request, &mut messages).await? {
            End::Nothing => 0,
            End::Batch { pending, .. } => pending,
        };
        Ok(Page { messages, pending })
    }

    /// The sequence of the oldest message that is stored on `subject`.
    ///
    /// # Errors
    /// [`ReadError`], within 5 s.
    pub(crate) async fn first_of(&self, subject: &str) -> Result<Option<u64>, ReadError> {
        let mut messages = Vec::new();
        let request =
            GetRequest { seq: Some(1), next_by_subj: Some(subject), batch: Some(1), ..GetRequest::default() };
        self.direct_get(&request, &mut messages).await?;
        Ok(messages.first().map(|message| message.sequence))
    }

    async fn direct_get(
        &self,
        request: &GetRequest<'_>,
        out: &mut Vec<StoredMessage>,
    ) -> Result<End, ReadError> {
        let deadline = Instant::now() + ANSWER;
        let bad = |what: &str| ReadError::BadAnswer(what.to_owned());
        let request = serde_json::to_vec(request).map_err(|e| ReadError::BadAnswer(e.to_string()))?;
        let mut answer = timeout_at(deadline, self.ask(request)).await.map_err(|_| ReadError::NoAnswer)??;
        loop {
            let message = timeout_at(deadline, answer.next()).await.map_err(|_| ReadError::NoAnswer)?;
            let message = message.ok_or(ReadError::NoAnswer)?;
            match message.status.map(|status| status.as_u16()) {
                None => out
                    .push(StoredMessage::read(message).ok_or_else(|| bad("a message without its headers"))?),
                Some(204) => return read_end(&message),
                Some(404) => return Ok(End::Nothing),
                Some(status) if status == StatusCode::NO_RESPONDERS.as_u16() => {
                    return Err(ReadError::NoStream);
                }
                Some(_) => return Err(bad(message.description.as_deref().unwrap_or("an unknown status"))),
            }
        }
    }

    async fn ask(&self, request: Vec<u8>) -> Result<Subscriber, ReadError> {
        let inbox = self.client.new_inbox();
        let answer = self.client.subscribe(inbox.clone()).await.map_err(|_| ReadError::NoAnswer)?;
        let subject = format!("$JS.API.DIRECT.GET.{}", self.stream);
        let asked = self.client.publish_with_reply(subject, inbox, request.into()).await;
        asked.map_err(|error| ReadError::BadAnswer(error.to_string()))?;
        Ok(answer)
    }
}

fn read_end(message: &Message) -> Result<End, ReadError> {
    let number_of = |name: &'static str| {
        message.headers.as_ref().and_then(|headers| number(headers, &header::HeaderName::from_static(name)))
    };
    let pending = number_of("Nats-Num-Pending");
    let pending = pending.ok_or_else(|| ReadError::BadAnswer("EOB without Nats-Num-Pending".to_owned()))?;
    Ok(End::Batch { pending, up_to: number_of("Nats-UpTo-Sequence") })
}

#[derive(Deserialize)]
struct InfoAnswer {
    error: Option<ApiError>,
    created: Option<String>,
    config: Option<InfoConfig>,
    state: Option<InfoState>,
}

#[derive(Deserialize)]
struct ApiError {
    code: u16,
    #[serde(default)]
    description: String,
}

#[derive(Deserialize)]
struct InfoConfig {
    #[serde(default)]
    max_msgs_per_subject: i64,
}

#[derive(Deserialize)]
struct InfoState {
    first_seq: u64,
    last_seq: u64,
}

impl InfoAnswer {
    fn read(self) -> Result<StreamInfo, ReadError> {
        if let Some(error) = self.error {
            return Err(if error.code == 404 {
                ReadError::NoStream
            } else {
                ReadError::BadAnswer(error.description)
            });
        }
        let (Some(created), Some(config), Some(state)) = (self.created, self.config, self.state) else {
            return Err(ReadError::BadAnswer("stream info without created, config or state".to_owned()));
        };
        Ok(StreamInfo {
            epoch: epoch_of(&created),
            first_sequence: state.first_seq,
            last_sequence: state.last_seq,
            max_per_subject: u64::try_from(config.max_msgs_per_subject).ok().filter(|&max| max > 0),
        })
    }
}

/// The epoch of a stream that was created at this moment: the first 32 bits of its digest, so that streams
/// made shortly after one another differ too.
fn epoch_of(created: &str) -> Epoch {
    let digest = Sha256::digest(created.as_bytes());
    Epoch(digest.iter().take(4).fold(0, |epoch, &byte| epoch << 8 | u32::from(byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stream_info_is_read() {
        let answer = br#"{"type":"io.nats.jetstream.api.v1.stream_info_response","config":{"name":"IOT_acme","max_msgs_per_subject":256},
            "created":"2026-11-22T10:00:00.123456789Z","state":{"messages":2,"first_seq":5,"last_seq":9}}"#;
        let info = serde_json::from_slice::<InfoAnswer>(answer).unwrap().read().unwrap();
        assert_eq!((info.first_sequence, info.last_sequence, info.max_per_subject), (5, 9, Some(256)));
        assert_eq!(info.epoch, epoch_of("2026-11-22T10:00:00.123456789Z"));
        assert_ne!(info.epoch, epoch_of("2026-11-22T10:00:00.123456790Z"));
    }

    #[test]
    fn an_absent_stream_is_told_from_a_broken_answer() {
        let answer = br#"{"error":{"code":404,"err_code":10059,"description":"stream not found"}}"#;
        let error = serde_json::from_slice::<InfoAnswer>(answer).unwrap().read().unwrap_err();
        assert_eq!(error, ReadError::NoStream);
        let error = serde_json::from_slice::<InfoAnswer>(b"{}").unwrap().read().unwrap_err();
        assert!(matches!(error, ReadError::BadAnswer(_)));
    }
}
