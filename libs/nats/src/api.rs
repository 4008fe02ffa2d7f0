//! The JetStream API as requests and answers in JSON.
//!
//! It does not use the client's types: an update has to send back every setting that the server returned,
//! also those that the client library does not know, or it would reset them.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_nats::connection::State;
use async_nats::{Client, RequestErrorKind};
use serde_json::{Map, Value, json};

use crate::error::RequestError;

/// The longest time that one answer may take. JetStream answers in milliseconds; a cluster that elects a
/// leader needs a few seconds.
pub(crate) const REQUEST_DEADLINE: Duration = Duration::from_secs(5);

/// A call of the JetStream API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// Lists the streams.
    StreamList,
    /// Describes a stream.
    StreamInfo,
    /// Creates a stream.
    StreamCreate,
    /// Updates a stream in place.
    StreamUpdate,
    /// Deletes a stream.
    StreamDelete,
    /// Removes messages of a stream.
    StreamPurge,
    /// Gets a stored message.
    MessageGet,
    /// Describes a consumer.
    ConsumerInfo,
    /// Creates a consumer or updates it in place.
    ConsumerCreate,
    /// Deletes a consumer.
    ConsumerDelete,
}

/// The outcome of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It has a good answer. That something doesn't exist is one too.
    Done,
    /// The broker refused.
    Refused,
    /// The broker gave no usable answer.
    Away,
}

impl Call {
    /// All calls.
    pub const ALL: [Self; 10] = [
        Self::StreamList,
        Self::StreamInfo,
        Self::StreamCreate,
        Self::StreamUpdate,
        Self::StreamDelete,
        Self::StreamPurge,
        Self::MessageGet,
        Self::ConsumerInfo,
        Self::ConsumerCreate,
        Self::ConsumerDelete,
    ];

    /// Returns the call as a metric label.
    #[must_use]
    pub fn label(self) -> &'static str {
        self.label_and_subject().0
    }

    /// Returns the call's label, and what its subject begins with after `$JS.API.`.
    fn label_and_subject(self) -> (&'static str, &'static str) {
        match self {
            Self::StreamList => ("StreamList", "STREAM.LIST"),
            Self::StreamInfo => ("StreamInfo", "STREAM.INFO."),
            Self::StreamCreate => ("StreamCreate", "STREAM.CREATE."),
            Self::StreamUpdate => ("StreamUpdate", "STREAM.UPDATE."),
            Self::StreamDelete => ("StreamDelete", "STREAM.DELETE."),
            Self::StreamPurge => ("StreamPurge", "STREAM.PURGE."),
            Self::MessageGet => ("MessageGet", "STREAM.MSG.GET."),
            Self::ConsumerInfo => ("ConsumerInfo", "CONSUMER.INFO."),
            Self::ConsumerCreate => ("ConsumerCreate", "CONSUMER.CREATE."),
            Self::ConsumerDelete => ("ConsumerDelete", "CONSUMER.DELETE."),
        }
    }
}

impl Outcome {
    /// All outcomes.
    pub const ALL: [Self; 3] = [Self::Done, Self::Refused, Self::Away];

    /// Returns the outcome as a metric label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Done => "Done",
            Self::Refused => "Refused",
            Self::Away => "Away",
        }
    }

    fn of<T>(result: &Result<T, RequestError>) -> Self {
        match result {
            Ok(_) => Self::Done,
            Err(error) if error.is_not_found() => Self::Done,
            Err(RequestError::Refused { .. }) => Self::Refused,
            Err(_) => Self::Away,
        }
    }
}

/// Observes calls, for metrics.
pub trait CallObserver: fmt::Debug + Send + Sync {
    /// Called after each call.
    fn observe(&self, call: Call, outcome: Outcome);
}

/// A stream as the server describes it.
#[derive(Debug, Clone)]
pub struct StreamInfo {
    /// Every setting.
    pub config: Map<String, Value>,
    /// The sequence of its oldest message, or the next one if it is empty.
    pub first_sequence: u64,
    /// The sequence of its newest message.
    pub last_sequence: u64,
    /// Its progress with each of its sources.
    pub sources: Vec<SourceProgress>,
}

/// The progress of a stream with one of its sources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceProgress {
    /// The name of the source's stream.
    pub stream: String,
    /// The sequence of the last message that was taken from it, or `None` with a server before 2.15.
    pub sequence: Option<u64>,
    /// Number of messages that wait there. It is 0 also while the stream has not heard of its source at all.
    pub lag: u64,
    /// `true` if the stream has heard of its source.
    pub heard: bool,
}

impl StreamInfo {
    fn parse(answer: &Value) -> Option<Self> {
        let sources = answer["sources"].as_array().map(Vec::as_slice).unwrap_or_default();
        Some(Self {
            config: answer["config"].as_object()?.clone(),
            first_sequence: answer["state"]["first_seq"].as_u64().unwrap_or(0),
            last_sequence: answer["state"]["last_seq"].as_u64().unwrap_or(0),
            sources: sources.iter().filter_map(SourceProgress::parse).collect(),
        })
    }

    /// Returns a value of its metadata.
    #[must_use]
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.config.get("metadata")?.get(key)?.as_str()
    }
}

impl SourceProgress {
    fn parse(source: &Value) -> Option<Self> {
        Some(Self {
            stream: source["name"].as_str()?.to_owned(),
            sequence: source["seq"].as_u64(),
            lag: source["lag"].as_u64().unwrap_or(0),
            heard: source["active"].as_i64().is_some_and(|nanoseconds| nanoseconds >= 0),
        })
    }
}

/// The JetStream API of an account.
///
/// # Errors
/// Every call without a good answer returns a [`RequestError`]: [`RequestError::Unavailable`] at once while
/// the client is not connected, and after 5 s without an answer.
#[derive(Debug, Clone)]
pub struct JetStreamApi {
    client: Client,
    observer: Option<Arc<dyn CallObserver>>,
}

impl JetStreamApi {
    /// Sends its requests through `client`.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client, observer: None }
    }

    /// Returns the same API with an observer of its calls.
    #[must_use]
    pub fn observed(self, observer: Arc<dyn CallObserver>) -> Self {
        Self { observer: Some(observer), ..self }
    }

    /// Subscribes to the advisories about streams and consumers that are created, updated or deleted.
    ///
    /// # Errors
    /// [`RequestError::Unavailable`]
    pub async fn changes(&self) -> Result<async_nats::Subscriber, RequestError> {
        let subscribed = self.client.subscribe("$JS.EVENT.ADVISORY.STREAM.>").await;
        subscribed.map_err(|error| RequestError::Unavailable(error.to_string()))
    }

    /// Returns every stream of the account, in the server's order.
    pub async fn streams(&self) -> Result<Vec<StreamInfo>, RequestError> {
        let mut streams = Vec::new();
        loop {
            let answer = self.request(Call::StreamList, "", &json!({"offset": streams.len()})).await?;
            let page = answer["streams"].as_array().map(Vec::as_slice).unwrap_or_default();
            let total = answer["total"].as_u64().unwrap_or(0);
            streams.extend(page.iter().filter_map(StreamInfo::parse));
            if page.is_empty() || streams.len() as u64 >= total {
                return Ok(streams);
            }
        }
    }

    /// Returns a stream, or `None` if it doesn't exist.
    pub async fn stream(&self, name: &str) -> Result<Option<StreamInfo>, RequestError> {
        let answer = found(self.request(Call::StreamInfo, name, &json!({})).await)?;
        answer.as_ref().map(stream_of).transpose()
    }

    /// Returns the sequence of the stream's last message on a subject, which may have wildcards. `None` if
    /// there is no such message or no such stream.
    pub async fn last_sequence_on(&self, stream: &str, subject: &str) -> Result<Option<u64>, RequestError> {
        let answer = found(self.request(Call::MessageGet, stream, &json!({"last_by_subj": subject})).await)?;
        Ok(answer.and_then(|answer| answer["message"]["seq"].as_u64()))
    }

    /// Creates a stream.
    pub async fn create_stream(
        &self,
        name: &str,
        config: Map<String, Value>,
    ) -> Result<StreamInfo, RequestError> {
        stream_of(&self.request(Call::StreamCreate, name, &Value::Object(config)).await?)
    }

    /// Updates a stream in place.
    pub async fn update_stream(
        &self,
        name: &str,
        config: Map<String, Value>,
    ) -> Result<StreamInfo, RequestError> {
        stream_of(&self.request(Call::StreamUpdate, name, &Value::Object(config)).await?)
    }

    /// Deletes a stream with all its messages. A stream that doesn't exist is no error.
    pub async fn delete_stream(&self, name: &str) -> Result<(), RequestError> {
        found(self.request(Call::StreamDelete, name, &json!({})).await).map(drop)
    }

    /// Returns the subjects of which a stream has messages, of those that `filter` matches. A stream that
    /// doesn't exist has none.
    pub async fn subjects(&self, stream: &str, filter: &str) -> Result<Vec<String>, RequestError> {
        let mut subjects = Vec::new();
        loop {
            let page = json!({"subjects_filter": filter, "offset": subjects.len()});
            let Some(answer) = found(self.request(Call::StreamInfo, stream, &page).await)? else {
                return Ok(subjects);
            };
            let page = answer["state"]["subjects"].as_object();
            let before = subjects.len();
            subjects.extend(page.into_iter().flat_map(Map::keys).cloned());
            let total = answer["total"].as_u64().unwrap_or(0);
            if subjects.len() == before || subjects.len() as u64 >= total {
                return Ok(subjects);
            }
        }
    }

    /// Removes the messages of the subjects that `filter` matches. A stream that doesn't exist is no error.
    pub async fn purge(&self, stream: &str, filter: &str) -> Result<(), RequestError> {
        found(self.request(Call::StreamPurge, stream, &json!({"filter": filter})).await).map(drop)
    }

    /// Returns the description of a consumer, or `None` if it doesn't exist.
    pub async fn consumer(&self, stream: &str, name: &str) -> Result<Option<Value>, RequestError> {
        found(self.request(Call::ConsumerInfo, &format!("{stream}.{name}"), &json!({})).await)
    }

    /// Creates a durable consumer or updates it in place.
    pub async fn put_consumer(&self, stream: &str, name: &str, config: Value) -> Result<(), RequestError> {
        let request = json!({"stream_name": stream, "config": config});
        self.request(Call::ConsumerCreate, &format!("{stream}.{name}"), &request).await.map(drop)
    }

    /// Deletes a consumer. One that doesn't exist is no error.
    pub async fn delete_consumer(&self, stream: &str, name: &str) -> Result<(), RequestError> {
        found(self.request(Call::ConsumerDelete, &format!("{stream}.{name}"), &json!({})).await).map(drop)
    }

    async fn request(&self, call: Call, name: &str, body: &Value) -> Result<Value, RequestError> {
        let result = if self.client.connection_state() == State::Connected {
            let (_, subject) = call.label_and_subject();
            request(&self.client, &format!("{subject}{name}"), body).await
        } else {
            Err(RequestError::Unavailable("not connected to NATS".to_owned()))
        };
        if let Some(observer) = &self.observer {
            observer.observe(call, Outcome::of(&result));
        }
        result
    }
}

/// Sends one request of the JetStream API and returns the answer. `call` is the subject after `$JS.API.`.
pub(crate) async fn request(client: &Client, call: &str, body: &Value) -> Result<Value, RequestError> {
    let request = client.request(format!("$JS.API.{call}"), body.to_string().into());
    let message = match tokio::time::timeout(REQUEST_DEADLINE, request).await {
        Ok(answer) => answer.map_err(|error| match error.kind() {
            RequestErrorKind::NoResponders => {
                "JetStream does not answer; is it enabled for this account?".to_owned()
            }
            _ => format!("{call}: {error}"),
        }),
        Err(_) => Err(format!("{call}: no answer within {REQUEST_DEADLINE:?}")),
    };
    let message = message.map_err(RequestError::Unavailable)?;
    let answer: Value = serde_json::from_slice(&message.payload)
        .map_err(|error| RequestError::BadAnswer(format!("{call}: it is not JSON: {error}")))?;
    answer_or_error(call, answer)
}

fn answer_or_error(call: &str, answer: Value) -> Result<Value, RequestError> {
    let Some(error) = answer.get("error") else { return Ok(answer) };
    let description = error["description"].as_str().unwrap_or("no description").to_owned();
    // 503: JetStream can't work at the moment (no leader, starting); nothing is wrong with the request.
    if error["code"] == 503 {
        return Err(RequestError::Unavailable(format!("{call}: {description}")));
    }
    Err(RequestError::Refused { code: error["err_code"].as_u64().unwrap_or(0), description })
}

fn stream_of(answer: &Value) -> Result<StreamInfo, RequestError> {
    let info = StreamInfo::parse(answer);
    info.ok_or_else(|| RequestError::bad_answer("a stream description without its settings"))
}

/// Returns `None` if what the request is about doesn't exist.
fn found(answer: Result<Value, RequestError>) -> Result<Option<Value>, RequestError> {
    match answer {
        Err(error) if error.is_not_found() => Ok(None),
        answer => answer.map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_keeps_the_words_of_the_broker() {
        let description = "subjects overlap with an existing stream";
        let answer = json!({"error": {"code": 400, "err_code": 10065, "description": description}});
        let error = answer_or_error("STREAM.CREATE.X", answer).unwrap_err();
        assert_eq!(error.to_string(), "subjects overlap with an existing stream (error 10065)");
    }

    #[test]
    fn a_broker_that_cannot_work_now_is_unavailable() {
        let description = "JetStream system temporarily unavailable";
        let answer = json!({"error": {"code": 503, "err_code": 10008, "description": description}});
        assert!(matches!(answer_or_error("STREAM.INFO.X", answer), Err(RequestError::Unavailable(_))));
    }

    #[test]
    fn an_outcome_tells_a_refusal_from_a_broker_that_is_away() {
        let refused = |code| RequestError::Refused { code, description: String::new() };
        assert_eq!(Outcome::of(&Ok(())), Outcome::Done);
        assert_eq!(Outcome::of::<()>(&Err(refused(10059))), Outcome::Done);
        assert_eq!(Outcome::of::<()>(&Err(refused(10065))), Outcome::Refused);
        assert_eq!(Outcome::of::<()>(&Err(RequestError::no_answer())), Outcome::Away);
        assert_eq!(Outcome::of::<()>(&Err(RequestError::bad_answer("?"))), Outcome::Away);
    }
}
