//! Asks a tenant's stream for the last message of each of many subjects, and for the broker's time.
//!
//! The client has no `multi_last`, so the request is written here, with an inbox of its own. The server
//! always sends the whole messages (2.15 can leave out headers, but not bodies); of each only the headers are
//! looked at.

use std::time::Duration;

use async_nats::header::{self, HeaderMap, HeaderName};
use async_nats::{Client, Message, StatusCode};
use bytes::Bytes;
use flutecast_contract::subject;
use futures_util::StreamExt;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use super::crowd::{Answer, Round};

/// How long one answer may take as a whole.
const DEADLINE: Duration = Duration::from_secs(5);
/// How many bytes are asked for at once; what is left comes with the next request.
const PAGE_BYTES: usize = 4 * 1024 * 1024;

/// Why something can't be looked up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// There is no such stream, or nobody who answers for it.
    #[error("the stream isn't there")]
    NoStream,
    /// The broker didn't answer in time.
    #[error("no answer within {DEADLINE:?}")]
    NoAnswer,
    /// The answer is not what was expected.
    #[error("the answer can't be used: {0}")]
    BadAnswer(String),
}

/// Asks one round.
///
/// # Errors
/// [`LookupError`], within 5 s for each page.
pub async fn look_up(client: &Client, round: &Round) -> Result<Answer, LookupError> {
    let stream = subject::stream(&round.tenant);
    let subjects: Vec<&str> = round.subjects.keys().map(String::as_str).collect();
    let messages = last_of(client, &stream, &subjects).await?;
    // After the messages, so that none of them is from its future.
    let clock = if round.with_clock { Some(time_of(client, &stream).await?) } else { None };
    Ok(Answer { messages, clock })
}

/// The last message of each of these subjects, at most 1,024 of them: subject, sequence, and when it was
/// stored.
async fn last_of(
    client: &Client,
    stream: &str,
    subjects: &[&str],
) -> Result<Vec<(String, u64, Timestamp)>, LookupError> {
    let mut messages: Vec<(String, u64, Timestamp)> = Vec::new();
    let mut request = json!({"multi_last": subjects, "max_bytes": PAGE_BYTES});
    loop {
        let before = messages.len();
        let Some(end) = direct_get(client, stream, &request, &mut messages).await? else {
            return Ok(messages);
        };
        if end.pending == 0 || messages.len() == before {
            return Ok(messages);
        }
        // The same moment of the stream, from where the page ended.
        request["seq"] = json!(messages.last().map(|(_, sequence, _)| sequence + 1));
        request["up_to_seq"] = json!(end.up_to);
    }
}

struct End {
    pending: u64,
    up_to: u64,
}

/// One page; none: there is nothing at all.
async fn direct_get(
    client: &Client,
    stream: &str,
    request: &Value,
    out: &mut Vec<(String, u64, Timestamp)>,
) -> Result<Option<End>, LookupError> {
    let deadline = Instant::now() + DEADLINE;
    let inbox = client.new_inbox();
    let ask = async {
        let answer = client.subscribe(inbox.clone()).await.map_err(|_| LookupError::NoAnswer)?;
        let subject = format!("$JS.API.DIRECT.GET.{stream}");
        let asked = client.publish_with_reply(subject, inbox, request.to_string().into()).await;
        asked.map_err(|error| LookupError::BadAnswer(error.to_string()))?;
        Ok(answer)
    };
    let mut answer = timeout_at(deadline, ask).await.map_err(|_| LookupError::NoAnswer)??;
    loop {
        let message = timeout_at(deadline, answer.next()).await.map_err(|_| LookupError::NoAnswer)?;
        let message = message.ok_or(LookupError::NoAnswer)?;
        match message.status.map(|status| status.as_u16()) {
            None => out.push(stored(&message).ok_or_else(|| bad("a message without its headers"))?),
            Some(204) => return end_of(&message).map(Some),
            Some(404) => return Ok(None),
            Some(status) if status == StatusCode::NO_RESPONDERS.as_u16() => {
                return Err(LookupError::NoStream);
            }
            Some(_) => return Err(bad(message.description.as_deref().unwrap_or("an unknown status"))),
        }
    }
}

/// What the clock of the broker that leads the stream shows: the one that gives messages their times.
async fn time_of(client: &Client, stream: &str) -> Result<Timestamp, LookupError> {
    let asked = client.request(format!("$JS.API.STREAM.INFO.{stream}"), Bytes::new());
    let answer = match tokio::time::timeout(DEADLINE, asked).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) | Err(_) => return Err(LookupError::NoAnswer),
    };
    let answer: Value =
        serde_json::from_slice(&answer.payload).map_err(|error| LookupError::BadAnswer(error.to_string()))?;
    time_in(&answer)
}

fn time_in(answer: &Value) -> Result<Timestamp, LookupError> {
    if answer["error"]["code"] == 404 {
        return Err(LookupError::NoStream);
    }
    let time = answer["ts"].as_str().and_then(|time| time.parse().ok());
    time.ok_or_else(|| bad("a stream description without its time"))
}

/// What a message that is read back, or was republished, says of itself: its sequence, and when it was
/// stored. The server appends its headers to the publisher's, so the last one of a name is the server's.
pub(super) fn place_of(message: &Message) -> Option<(u64, Timestamp)> {
    let headers = message.headers.as_ref()?;
    let stored = last(headers, &header::NATS_TIME_STAMP)?.parse().ok()?;
    Some((last(headers, &header::NATS_SEQUENCE)?.parse().ok()?, stored))
}

fn stored(message: &Message) -> Option<(String, u64, Timestamp)> {
    let (sequence, stored) = place_of(message)?;
    Some((last(message.headers.as_ref()?, &header::NATS_SUBJECT)?.to_owned(), sequence, stored))
}

fn end_of(message: &Message) -> Result<End, LookupError> {
    let number = |name: &'static str| {
        let headers = message.headers.as_ref()?;
        last(headers, &HeaderName::from_static(name))?.parse().ok()
    };
    match (number("Nats-Num-Pending"), number("Nats-UpTo-Sequence")) {
        (Some(pending), Some(up_to)) => Ok(End { pending, up_to }),
        _ => Err(bad("an end without its numbers")),
    }
}

fn last<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get_last(name.clone()).map(async_nats::HeaderValue::as_str)
}

fn bad(what: &str) -> LookupError {
    LookupError::BadAnswer(what.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_brokers_time_is_read() {
        let time = time_in(&json!({"config": {}, "ts": "2026-11-22T10:00:00.123456789Z"})).unwrap();
        assert_eq!(time, "2026-11-22T10:00:00.123456789Z".parse().unwrap());
        assert_eq!(time_in(&json!({"error": {"code": 404}})), Err(LookupError::NoStream));
        assert!(matches!(time_in(&json!({})), Err(LookupError::BadAnswer(_))));
    }

    #[test]
    fn a_device_that_writes_headers_of_its_own_deceives_nobody() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("Nats-Sequence", "9"),
            ("Nats-Time-Stamp", "2030-01-01T00:00:00Z"),
            ("Nats-Sequence", "7"),
            ("Nats-Time-Stamp", "2026-11-22T10:00:00Z"),
        ] {
            headers.append(name, value);
        }
        let message = Message {
            subject: "live.acme.a.power".into(),
            reply: None,
            payload: Bytes::new(),
            headers: Some(headers),
            status: None,
            description: None,
            length: 0,
        };
        assert_eq!(place_of(&message), Some((7, "2026-11-22T10:00:00Z".parse().unwrap())));
    }
}
