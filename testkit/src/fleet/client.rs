//! One client, which connects, reads and reconnects as an `EventSource` does.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use super::body_decoder::{BadAnswer, BodyDecoder};
use super::merge::{Merge, Taken};
use super::record::{self, Records};
use super::{OnBadAnswer, Target};
use crate::{SseEvent, SseParser};

/// The time limit of connecting and receiving the response head.
const CONNECT: Duration = Duration::from_secs(5);
/// The pause before a client reconnects that has received no `retry` yet.
const FIRST_RETRY: Duration = Duration::from_secs(2);
/// The longest silence on a stream until `hello` announces the ping interval.
const FIRST_SILENCE: Duration = Duration::from_secs(15);
/// Size of the read buffer, in bytes.
const BUFFER: usize = 4 * 1024;

/// The counters of one client.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The server of the open stream, by the name in `hello`.
    pub(super) server: Option<String>,
    pub(super) failed: bool,
    pub(super) welcomes: u64,
    pub(super) byes: BTreeMap<String, u64>,
    pub(super) breaks: u64,
    pub(super) unreachable: u64,
    pub(super) bad_answers: BTreeMap<u16, u64>,
    pub(super) silent: u64,
    pub(super) events: u64,
    pub(super) merged: u64,
    pub(super) lost: u64,
    pub(super) wrong: u64,
    pub(super) strange: u64,
    pub(super) gaps: BTreeMap<String, u64>,
    pub(super) merge: Merge,
    /// `None` if the client does not record.
    pub(super) records: Option<Records>,
    /// When new data last arrived.
    pub(super) data_at: Option<Instant>,
    pub(super) without_data: Duration,
    /// When the last stream ended, if none is open.
    pub(super) lost_at: Option<Instant>,
    pub(super) without_stream: Duration,
}

#[derive(Debug)]
pub(super) struct Client {
    pub(super) target: Arc<Target>,
    pub(super) seen: Arc<Mutex<Seen>>,
    pub(super) last_event_id: Option<String>,
    pub(super) retry: Duration,
}

/// Why a stream ended.
enum End {
    /// The server sent `bye`.
    Bye,
    /// The stream ended without `bye`, or the connection broke.
    Broken,
    /// The stream was silent for too long.
    Silent,
    /// No connection could be made, or no response arrived.
    Unreachable,
    /// The response was not an event stream; holds its status.
    Bad(u16),
}

impl Client {
    pub(super) fn new(target: Arc<Target>, seen: Arc<Mutex<Seen>>) -> Self {
        Self { target, seen, last_event_id: None, retry: FIRST_RETRY }
    }

    /// Runs until the task is aborted or the client gives up.
    pub(super) async fn run(mut self) {
        loop {
            let end = self.stream().await;
            locked(&self.seen).ended(&end);
            if matches!(end, End::Bad(_)) && self.target.on_bad_answer == OnBadAnswer::GiveUp {
                locked(&self.seen).failed = true;
                return;
            }
            sleep(self.retry).await;
        }
    }

    async fn stream(&mut self) -> End {
        let Ok(Ok(mut socket)) = timeout(CONNECT, self.connect()).await else { return End::Unreachable };
        let (mut answer, mut parser) = (BodyDecoder::default(), SseParser::default());
        let mut buffer = vec![0; BUFFER];
        let mut silence = FIRST_SILENCE;
        loop {
            let limit = if answer.is_open() { silence } else { CONNECT };
            let length = match timeout(limit, socket.read(&mut buffer)).await {
                Err(_) if answer.is_open() => return End::Silent,
                Ok(Ok(length)) if length > 0 => length,
                _ if answer.is_open() => return End::Broken,
                _ => return End::Unreachable,
            };
            let bytes = buffer.get(..length).unwrap_or_default();
            match answer.push(bytes, &mut |body| parser.push(body)) {
                Ok(()) => {}
                Err(BadAnswer::Status(status)) => return End::Bad(status),
                Err(BadAnswer::Encoding) => return End::Broken,
            }
            while let Some(event) = parser.pop() {
                if self.take(&event, &mut silence) {
                    return End::Bye;
                }
            }
            if answer.has_ended() {
                return End::Broken;
            }
        }
    }

    async fn connect(&self) -> std::io::Result<TcpStream> {
        let Target { address, authority, path, headers, .. } = &*self.target;
        let mut socket = TcpStream::connect(address.as_str()).await?;
        socket.set_nodelay(true)?;
        let mut request =
            format!("GET {path} HTTP/1.1\r\nhost: {authority}\r\naccept: text/event-stream\r\n{headers}");
        if let Some(id) = &self.last_event_id {
            request.push_str(&format!("last-event-id: {id}\r\n"));
        }
        request.push_str("\r\n");
        socket.write_all(request.as_bytes()).await?;
        Ok(socket)
    }

    /// Handles one block and returns whether it was `bye`.
    fn take(&mut self, event: &SseEvent, silence: &mut Duration) -> bool {
        self.retry = event.retry.unwrap_or(self.retry);
        if let Some(id) = &event.id {
            self.last_event_id = Some(id.clone());
        }
        let Some(data) = &event.data else { return false };
        let mut seen = locked(&self.seen);
        match event.event.as_deref() {
            None => seen.data(event.id.as_deref(), data, &self.target.number_field, Instant::now()),
            Some("hello") => {
                let again = seen.server.is_some();
                let Some(welcome) = seen.merge.hello(data, again) else {
                    seen.strange += 1;
                    return false;
                };
                *silence = Duration::from_millis(2 * welcome.ping_ms + 1_000);
                seen.welcomes += 1;
                seen.server = Some(welcome.server);
                if let Some(at) = seen.lost_at.take() {
                    seen.without_stream = seen.without_stream.max(at.elapsed());
                }
            }
            Some("gap") => *seen.gaps.entry(reason(data)).or_default() += 1,
            Some("bye") => {
                *seen.byes.entry(reason(data)).or_default() += 1;
                return true;
            }
            Some(_) => {}
        }
        false
    }
}

impl Seen {
    fn ended(&mut self, end: &End) {
        if self.server.take().is_some() {
            self.lost_at = Some(Instant::now());
        }
        match end {
            End::Bye => {}
            End::Broken => self.breaks += 1,
            End::Silent => self.silent += 1,
            End::Unreachable => self.unreachable += 1,
            End::Bad(status) => *self.bad_answers.entry(*status).or_default() += 1,
        }
    }

    fn data(&mut self, id: Option<&str>, data: &str, field: &str, now: Instant) {
        self.events += 1;
        match self.merge.data(data, field) {
            Taken::First | Taken::Next | Taken::Newer => {}
            Taken::After(missing) => self.lost += missing,
            Taken::Wrong => self.wrong += 1,
            Taken::Known => {
                self.merged += 1;
                return;
            }
            Taken::Strange => {
                self.strange += 1;
                return;
            }
        }
        if let Some(records) = &mut self.records {
            record::keep(records, id, data, field, now);
        }
        if let Some(before) = self.data_at.replace(now) {
            self.without_data = self.without_data.max(now - before);
        }
    }

    /// Returns the longest time without new data, including the current interval.
    pub(super) fn longest_without_data(&self) -> Duration {
        self.without_data.max(self.data_at.map(|at| at.elapsed()).unwrap_or_default())
    }

    /// Returns the longest time without a stream, including the current interval.
    pub(super) fn longest_without_stream(&self) -> Duration {
        self.without_stream.max(self.lost_at.map(|at| at.elapsed()).unwrap_or_default())
    }
}

fn reason(data: &str) -> String {
    #[derive(serde::Deserialize)]
    struct Reason {
        reason: String,
    }
    serde_json::from_str::<Reason>(data).map_or_else(|_| "unknown".to_owned(), |Reason { reason }| reason)
}

pub(super) fn locked(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}
