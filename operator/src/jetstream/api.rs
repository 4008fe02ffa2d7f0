//! The JetStream API as requests and answers in JSON.
//!
//! Written on plain requests rather than on the client's types: an update must send back every setting that
//! the server told us, also those that this program's client library has never heard of, or it would reset
//! them.

use std::sync::Arc;
use std::time::Duration;

use async_nats::Client;
use async_nats::connection::State;
use serde_json::{Map, Value, json};

use crate::metrics::{Metrics, NatsCall, NatsResult};

/// How long one answer may take. JetStream answers in milliseconds; a cluster that elects a leader needs a
/// few seconds.
const REQUEST_DEADLINE: Duration = Duration::from_secs(5);

/// Why a request has no good answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// The broker could not be asked; the same request may succeed later.
    #[error("{0}")]
    Away(String),
    /// The broker says no, in its own words.
    #[error("{description} (error {code})")]
    Refused {
        /// JetStream's error code.
        code: u64,
        /// JetStream's words.
        description: String,
    },
}

impl ApiError {
    /// The stream or consumer that was asked for doesn't exist.
    fn is_not_found(&self) -> bool {
        // 10059: stream not found; 10014: consumer not found; 10037: message not found.
        matches!(self, Self::Refused { code: 10059 | 10014 | 10037, .. })
    }
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
    /// How far it is with each of its sources.
    pub sources: Vec<SourceProgress>,
}

/// How far a stream is with one of its sources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceProgress {
    /// The source's stream.
    pub stream: String,
    /// The sequence of the last message that was taken from it. Servers before 2.15 don't tell.
    pub sequence: Option<u64>,
    /// How many messages are waiting there; zero also before the stream has heard of its source at all.
    pub lag: u64,
    /// Whether the stream has heard of its source.
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

    /// A value of its metadata.
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

/// Asks JetStream.
#[derive(Debug, Clone)]
pub struct Api {
    client: Client,
    metrics: Arc<Metrics>,
}

impl Api {
    /// Asks through `client`.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client, metrics: Arc::default() }
    }

    /// The same, counted.
    #[must_use]
    pub fn counted(self, metrics: Arc<Metrics>) -> Self {
        Self { metrics, ..self }
    }

    /// Hears of streams and consumers that are made, changed or deleted, whoever does it.
    ///
    /// # Errors
    /// [`ApiError::Away`]
    pub async fn changes(&self) -> Result<async_nats::Subscriber, ApiError> {
        let subscribed = self.client.subscribe("$JS.EVENT.ADVISORY.STREAM.>").await;
        subscribed.map_err(|error| ApiError::Away(error.to_string()))
    }

    /// Every stream of the account, in the server's order.
    ///
    /// # Errors
    /// [`ApiError`]
    pub async fn streams(&self) -> Result<Vec<StreamInfo>, ApiError> {
        let mut streams = Vec::new();
        loop {
            let answer = self.request(NatsCall::StreamList, "", &json!({"offset": streams.len()})).await?;
            let page = answer["streams"].as_array().map(Vec::as_slice).unwrap_or_default();
            let total = answer["total"].as_u64().unwrap_or(0);
            streams.extend(page.iter().filter_map(StreamInfo::parse));
            if page.is_empty() || streams.len() as u64 >= total {
                return Ok(streams);
            }
        }
    }

    /// One stream; none if it doesn't exist.
    ///
    /// # Errors
    /// [`ApiError`]
    pub async fn stream(&self, name: &str) -> Result<Option<StreamInfo>, ApiError> {
        match self.request(NatsCall::StreamInfo, name, &json!({})).await {
            Ok(answer) => stream_of(&answer).map(Some),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The sequence of the stream's last message on a subject, which may have wildcards; none if there is
    /// none, or no stream.
    ///
    /// # Errors
    /// [`ApiError`]
    pub async fn last_sequence_on(&self, stream: &str, subject: &str) -> Result<Option<u64>, ApiError> {
        match self.request(NatsCall::MessageGet, stream, &json!({"last_by_subj": subject})).await {
            Ok(answer) => Ok(answer["message"]["seq"].as_u64()),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes a stream.
    ///
    /// # Errors
    /// [`ApiError`]
    pub async fn create_stream(
        &self,
        name: &str,
        config: Map<String, Value>,
    ) -> Result<StreamInfo, ApiError> {
        stream_of(&self.request(NatsCall::StreamCreate, name, &Value::Object(config)).await?)
    }

    /// Changes a stream in place.
    ///
    /// # Errors
    /// [`ApiError`]
    pub async fn update_stream(
        &self,
        name: &str,
        config: Map<String, Value>,
    ) -> Result<StreamInfo, ApiError> {
        stream_of(&self.request(NatsCall::StreamUpdate, name, &Value::Object(config)).await?)
    }

    /// Deletes a stream with all that it holds. A stream that is gone already is no error.
    ///
    /// # Errors
    /// [`ApiError`]
    pub async fn delete_stream(&self, name: &str) -> Result<(), ApiError> {
        absent_is_fine(self.request(NatsCall::StreamDelete, name, &json!({})).await)
    }

    /// The settings of a consumer; none if it doesn't exist.
    ///
    /// # Errors
    /// [`ApiError`]
    pub async fn consumer(&self, stream: &str, name: &str) -> Result<Option<Value>, ApiError> {
        match self.request(NatsCall::ConsumerInfo, &format!("{stream}.{name}"), &json!({})).await {
            Ok(answer) => Ok(Some(answer)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes a durable consumer, or changes it in place.
    ///
    /// # Errors
    /// [`ApiError`]
    pub async fn put_consumer(&self, stream: &str, name: &str, config: Value) -> Result<(), ApiError> {
        let request = json!({"stream_name": stream, "config": config});
        self.request(NatsCall::ConsumerCreate, &format!("{stream}.{name}"), &request).await.map(drop)
    }

    /// Deletes a consumer. One that is gone already is no error.
    ///
    /// # Errors
    /// [`ApiError`]
    pub async fn delete_consumer(&self, stream: &str, name: &str) -> Result<(), ApiError> {
        absent_is_fine(self.request(NatsCall::ConsumerDelete, &format!("{stream}.{name}"), &json!({})).await)
    }

    async fn request(&self, kind: NatsCall, name: &str, body: &Value) -> Result<Value, ApiError> {
        let result = self.try_request(&format!("{}{name}", call(kind)), body).await;
        self.metrics.nats_call(
            kind,
            match &result {
                Ok(_) => NatsResult::Done,
                Err(error) if error.is_not_found() => NatsResult::Done,
                Err(ApiError::Refused { .. }) => NatsResult::Refused,
                Err(ApiError::Away(_)) => NatsResult::Away,
            },
        );
        result
    }

    async fn try_request(&self, call: &str, body: &Value) -> Result<Value, ApiError> {
        if self.client.connection_state() != State::Connected {
            return Err(ApiError::Away("not connected to NATS".to_owned()));
        }
        let subject = format!("$JS.API.{call}");
        let request = self.client.request(subject, body.to_string().into());
        let message = match tokio::time::timeout(REQUEST_DEADLINE, request).await {
            Ok(Ok(message)) => message,
            Ok(Err(error)) if error.kind() == async_nats::RequestErrorKind::NoResponders => {
                return Err(ApiError::Away(
                    "JetStream does not answer; is it enabled for this account?".to_owned(),
                ));
            }
            Ok(Err(error)) => return Err(ApiError::Away(format!("{call}: {error}"))),
            Err(_) => return Err(ApiError::Away(format!("{call}: no answer within {REQUEST_DEADLINE:?}"))),
        };
        let answer: Value = serde_json::from_slice(&message.payload)
            .map_err(|error| ApiError::Away(format!("{call}: the answer is not JSON: {error}")))?;
        answer_or_error(call, answer)
    }
}

/// What a call's subject begins with, after `$JS.API.`.
fn call(kind: NatsCall) -> &'static str {
    match kind {
        NatsCall::StreamList => "STREAM.LIST",
        NatsCall::StreamInfo => "STREAM.INFO.",
        NatsCall::StreamCreate => "STREAM.CREATE.",
        NatsCall::StreamUpdate => "STREAM.UPDATE.",
        NatsCall::StreamDelete => "STREAM.DELETE.",
        NatsCall::MessageGet => "STREAM.MSG.GET.",
        NatsCall::ConsumerInfo => "CONSUMER.INFO.",
        NatsCall::ConsumerCreate => "CONSUMER.CREATE.",
        NatsCall::ConsumerDelete => "CONSUMER.DELETE.",
    }
}

fn answer_or_error(call: &str, answer: Value) -> Result<Value, ApiError> {
    let Some(error) = answer.get("error") else {
        return Ok(answer);
    };
    let description = error["description"].as_str().unwrap_or("no description").to_owned();
    // 503: JetStream is not able to work at the moment (no leader, starting); nothing is wrong with what was
    // asked.
    if error["code"] == 503 {
        return Err(ApiError::Away(format!("{call}: {description}")));
    }
    Err(ApiError::Refused { code: error["err_code"].as_u64().unwrap_or(0), description })
}

fn stream_of(answer: &Value) -> Result<StreamInfo, ApiError> {
    StreamInfo::parse(answer)
        .ok_or_else(|| ApiError::Away("a stream description without its settings".to_owned()))
}

fn absent_is_fine(answer: Result<Value, ApiError>) -> Result<(), ApiError> {
    match answer {
        Ok(_) => Ok(()),
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_brokers_words_are_kept() {
        let answer = json!({"error": {"code": 400, "err_code": 10065, "description": "subjects overlap with an existing stream"}});
        let error = answer_or_error("STREAM.CREATE.X", answer).unwrap_err();
        assert_eq!(error.to_string(), "subjects overlap with an existing stream (error 10065)");
    }

    #[test]
    fn a_broker_that_can_not_work_now_is_away() {
        let answer = json!({"error": {"code": 503, "err_code": 10008, "description": "JetStream system temporarily unavailable"}});
        assert!(matches!(answer_or_error("STREAM.INFO.X", answer), Err(ApiError::Away(_))));
    }
}
