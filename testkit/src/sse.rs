//! A client for Server-Sent Events that returns each block unchanged.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::{Instant, timeout_at};

use crate::http_client;

/// One block of an event stream: the lines up to an empty line. Comments are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SseEvent {
    /// The `event:` line; `None` in data events.
    pub event: Option<String>,
    /// The `id:` line of this block.
    pub id: Option<String>,
    /// The `data:` lines, joined by line feeds; `None` if the block has no such line (a bare `id:` or
    /// `retry:`).
    pub data: Option<String>,
    /// The `retry:` line.
    pub retry: Option<Duration>,
}

impl SseEvent {
    /// Returns the event type as a browser sees it: the name, or `message`.
    #[must_use]
    pub fn name(&self) -> &str {
        self.event.as_deref().unwrap_or("message")
    }

    /// Returns whether a browser would pass the event to `onmessage`.
    #[must_use]
    pub fn is_data(&self) -> bool {
        self.event.is_none() && self.data.is_some()
    }

    /// Returns the data as JSON.
    ///
    /// # Errors
    /// Returns an error if there is no data or it isn't JSON.
    pub fn json(&self) -> anyhow::Result<serde_json::Value> {
        let data = self.data.as_deref().with_context(|| format!("no data in {self:?}"))?;
        serde_json::from_str(data).with_context(|| format!("not JSON: {data}"))
    }
}

/// Parses bytes into blocks by the rules of the HTML standard.
#[derive(Debug, Default)]
pub struct SseParser {
    line: Vec<u8>,
    after_cr: bool,
    event: SseEvent,
    ready: VecDeque<SseEvent>,
}

impl SseParser {
    /// Parses more bytes of the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            let after_cr = std::mem::replace(&mut self.after_cr, byte == b'\r');
            match byte {
                b'\n' if after_cr => {}
                b'\n' | b'\r' => self.end_line(),
                _ => self.line.push(byte),
            }
        }
    }

    /// Removes and returns the next complete block.
    pub fn pop(&mut self) -> Option<SseEvent> {
        self.ready.pop_front()
    }

    fn end_line(&mut self) {
        let line = String::from_utf8_lossy(&self.line).into_owned();
        self.line.clear();
        if line.is_empty() {
            let event = std::mem::take(&mut self.event);
            if event != SseEvent::default() {
                self.ready.push_back(event);
            }
            return;
        }
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => self.event.event = Some(value.to_owned()),
            "id" if !value.contains('\0') => self.event.id = Some(value.to_owned()),
            "retry" => self.event.retry = value.parse().ok().map(Duration::from_millis),
            "data" => match &mut self.event.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                none => *none = Some(value.to_owned()),
            },
            _ => {}
        }
    }
}

#[derive(Debug)]
pub struct SseClient {
    status: StatusCode,
    headers: HeaderMap,
    body: Incoming,
    parser: SseParser,
    last_event_id: Option<String>,
    retry: Option<Duration>,
}

impl SseClient {
    /// Opens a stream with a GET request and the header `Accept: text/event-stream`.
    ///
    /// # Errors
    /// Returns an error if no response headers arrive within 10 s, or if the response is not an event stream
    /// with status 200.
    pub async fn connect(url: &str, headers: &[(&str, &str)]) -> anyhow::Result<Self> {
        Self::open(Method::GET, url, headers, Bytes::new()).await
    }

    /// Opens a stream with a POST request and a JSON body.
    ///
    /// # Errors
    /// Returns the same errors as [`Self::connect`].
    pub async fn post(url: &str, headers: &[(&str, &str)], body: &serde_json::Value) -> anyhow::Result<Self> {
        let mut headers = headers.to_vec();
        headers.push(("content-type", "application/json"));
        Self::open(Method::POST, url, &headers, Bytes::from(body.to_string())).await
    }

    async fn open(method: Method, url: &str, headers: &[(&str, &str)], body: Bytes) -> anyhow::Result<Self> {
        let mut headers = headers.to_vec();
        headers.push(("accept", "text/event-stream"));
        let (head, body) = http_client::open(method, url, &headers, body).await?.into_parts();
        let kind = head.headers.get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default();
        if head.status != StatusCode::OK || !kind.starts_with("text/event-stream") {
            let text = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
            bail!("{url}: {} {kind}: {}", head.status, String::from_utf8_lossy(&text));
        }
        let parser = SseParser::default();
        Ok(Self {
            status: head.status,
            headers: head.headers,
            body,
            parser,
            last_event_id: None,
            retry: None,
        })
    }

    /// Returns the status of the response.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Returns the headers of the response.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// Returns the last event id, which a browser would send as `Last-Event-ID`.
    #[must_use]
    pub fn last_event_id(&self) -> Option<&str> {
        self.last_event_id.as_deref()
    }

    /// Returns the last `retry` value.
    #[must_use]
    pub fn retry(&self) -> Option<Duration> {
        self.retry
    }

    /// Waits for the next block.
    ///
    /// # Errors
    /// Returns an error if no block arrives within `deadline`, or if the stream ends or the connection
    /// breaks.
    pub async fn next(&mut self, deadline: Duration) -> anyhow::Result<SseEvent> {
        self.next_or_end(deadline).await?.context("the event stream has ended")
    }

    /// Waits for the next block. Returns `None` when the stream ends properly.
    ///
    /// # Errors
    /// Returns an error if no block arrives within `deadline` or the connection breaks.
    pub async fn next_or_end(&mut self, deadline: Duration) -> anyhow::Result<Option<SseEvent>> {
        let end = Instant::now() + deadline;
        loop {
            if let Some(event) = self.parser.pop() {
                if let Some(id) = &event.id {
                    self.last_event_id = Some(id.clone());
                }
                self.retry = event.retry.or(self.retry);
                return Ok(Some(event));
            }
            match timeout_at(end, self.body.frame()).await {
                Err(_) => bail!("no event within {deadline:?}"),
                Ok(None) => return Ok(None),
                Ok(Some(Err(error))) => bail!("the event stream broke: {error}"),
                Ok(Some(Ok(frame))) => {
                    if let Some(bytes) = frame.data_ref() {
                        self.parser.push(bytes);
                    }
                }
            }
        }
    }

    /// Waits for a block that satisfies `wanted` and discards the blocks before it.
    ///
    /// # Errors
    /// Returns an error with the latest discarded blocks if none arrives within `deadline`.
    pub async fn next_where(
        &mut self,
        what: &str,
        deadline: Duration,
        wanted: impl Fn(&SseEvent) -> bool,
    ) -> anyhow::Result<SseEvent> {
        let end = Instant::now() + deadline;
        let mut others = VecDeque::new();
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.next_or_end(left).await {
                Ok(Some(event)) if wanted(&event) => return Ok(event),
                Ok(Some(event)) => {
                    others.push_back(event);
                    if others.len() > 20 {
                        others.pop_front();
                    }
                }
                Ok(None) => bail!("the stream ended without {what}; the latest events: {others:?}"),
                Err(error) => bail!("no {what} within {deadline:?} ({error}); the latest events: {others:?}"),
            }
        }
    }

    /// Waits for the next event with this name (`message` for data events).
    ///
    /// # Errors
    /// Returns the same errors as [`Self::next_where`].
    pub async fn next_named(&mut self, name: &str, deadline: Duration) -> anyhow::Result<SseEvent> {
        self.next_where(name, deadline, |event| event.name() == name && event.data.is_some()).await
    }

    /// Returns all blocks that arrive within `time`.
    ///
    /// # Errors
    /// Returns an error if the stream ends or the connection breaks.
    pub async fn collect_for(&mut self, time: Duration) -> anyhow::Result<Vec<SseEvent>> {
        let end = Instant::now() + time;
        let mut events = Vec::new();
        loop {
            match timeout_at(end, self.next(time * 2 + Duration::from_secs(1))).await {
                Ok(event) => events.push(event?),
                Err(_) => return Ok(events),
            }
            ensure!(events.len() < 1_000_000, "more than a million events within {time:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(chunks: &[&str]) -> Vec<SseEvent> {
        let mut parser = SseParser::default();
        chunks.iter().for_each(|chunk| parser.push(chunk.as_bytes()));
        std::iter::from_fn(|| parser.pop()).collect()
    }

    #[test]
    fn blocks_are_parsed_as_the_standard_says() {
        let events = parse(&[
            "retry: 2000\n\nevent: hello\ndata: {\n",
            "data: }\n\n:comment\n\nid: a-1\n\nid:a-2\r\ndata:x\r",
            "\n\r\n data: no field\ndata: unfinished",
        ]);
        assert_eq!(events.len(), 4, "{events:?}");
        assert_eq!(events[0].retry, Some(Duration::from_secs(2)));
        assert_eq!((events[1].name(), events[1].data.as_deref()), ("hello", Some("{\n}")));
        assert_eq!((events[2].id.as_deref(), &events[2].data), (Some("a-1"), &None));
        assert_eq!((events[3].id.as_deref(), events[3].data.as_deref()), (Some("a-2"), Some("x")));
        assert!(events[3].is_data() && !events[2].is_data() && !events[1].is_data());
    }

    #[tokio::test]
    async fn a_stream_is_read_over_a_socket() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        const SOON: Duration = Duration::from_secs(10);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1/demo/events?device=*", listener.local_addr().unwrap());
        let server = tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4096];
            let length = socket.read(&mut request).await.unwrap();
            let answer = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n";
            socket.write_all(answer.as_bytes()).await.unwrap();
            socket.write_all(b"event: hello\ndata: {}\n\nid: e-7\ndata: {\"a\":1}\n\n").await.unwrap();
            String::from_utf8(request[..length].to_vec()).unwrap()
        });
        let mut client = SseClient::connect(&url, &[("last-event-id", "e-6")]).await.unwrap();
        assert_eq!(client.next_named("message", SOON).await.unwrap().json().unwrap()["a"], 1);
        assert_eq!(client.last_event_id(), Some("e-7"));
        assert_eq!(client.next_or_end(SOON).await.unwrap(), None);
        let request = server.await.unwrap();
        assert!(request.starts_with("GET /v1/demo/events?device=* HTTP/1.1\r\n"), "{request}");
        assert!(
            request.contains("last-event-id: e-6") && request.contains("accept: text/event-stream"),
            "{request}"
        );
    }
}
