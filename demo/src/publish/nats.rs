//! Publishes over NATS: telemetry as plain messages, events with an acknowledgement by the stream.
//!
//! Each event subject has its own lane. It keeps the order, and a subject that no stream captures does not
//! delay others. An event carries a message id, so that the stream drops a repeat when only the
//! acknowledgement was lost.

use std::collections::HashMap;
use std::time::Duration;

use async_nats::connection::State;
use async_nats::{Client, HeaderMap, Request};
use bytes::Bytes;
use flutecast_nats::Login;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{EVENTS_WAITING, Tally, backoff, pause};
use crate::line::Quality;

/// Capacity of the telemetry queue, in messages: more than the whole line sends in a second.
const TELEMETRY_WAITING: usize = 256;
/// The time limit for the stream's acknowledgement.
const ACK_TIMEOUT: Duration = Duration::from_secs(2);
/// The age at which an event is discarded. JetStream detects duplicates within two minutes by default; a
/// later repeat could be stored twice.
const GIVE_UP_AFTER: Duration = Duration::from_secs(110);
const PUBLISH_TIMEOUT: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub(super) struct NatsSender {
    client: Client,
    tally: Tally,
    /// Makes message ids unique across runs.
    run_id: String,
    /// Number of events so far, used in message ids.
    events: u64,
    telemetry: mpsc::Sender<(String, Bytes)>,
    lanes: HashMap<String, mpsc::Sender<Event>>,
    tasks: JoinSet<()>,
    cancelled: CancellationToken,
}

/// An event that waits in its lane.
#[derive(Debug)]
struct Event {
    id: String,
    payload: Bytes,
    offered: Instant,
}

impl NatsSender {
    pub(super) async fn start(url: &str, tally: Tally) -> anyhow::Result<Self> {
        let client = Login::at(url)
            .connect("flutecast-line", |options| {
                options
                    .connection_timeout(Duration::from_secs(5))
                    .reconnect_delay_callback(|attempts| backoff(u32::try_from(attempts).unwrap_or(u32::MAX)))
                    .event_callback(|event| async move { tracing::info!(%event, "NATS connection") })
            })
            .await?;
        let (telemetry, queue) = mpsc::channel(TELEMETRY_WAITING);
        let mut tasks = JoinSet::new();
        tasks.spawn(send_telemetry(client.clone(), queue, tally.clone()));
        Ok(Self {
            client,
            tally,
            run_id: jiff::Timestamp::now().as_nanosecond().to_string(),
            events: 0,
            telemetry,
            lanes: HashMap::new(),
            tasks,
            cancelled: CancellationToken::new(),
        })
    }

    pub(super) fn offer(&mut self, subject: &str, quality: Quality, payload: Bytes) {
        match quality {
            Quality::AtMostOnce => {
                if self.telemetry.try_send((subject.to_owned(), payload)).is_err() {
                    self.tally.unsent();
                }
            }
            Quality::AtLeastOnce => self.offer_event(subject, payload),
        }
    }

    fn offer_event(&mut self, subject: &str, payload: Bytes) {
        let Self { client, tally, run_id, events, lanes, tasks, cancelled, .. } = self;
        let lane = lanes.entry(subject.to_owned()).or_insert_with(|| {
            let (lane, queue) = mpsc::channel(EVENTS_WAITING);
            let sending = EventLane {
                client: client.clone(),
                subject: subject.to_owned(),
                tally: tally.clone(),
                cancelled: cancelled.clone(),
            };
            tasks.spawn(sending.run(queue));
            lane
        });
        *events += 1;
        let id = format!("line-{run_id}-{events}");
        if lane.try_send(Event { id, payload, offered: Instant::now() }).is_err() {
            tally.lost(1);
        }
    }

    pub(super) async fn stop(self, deadline: Instant) {
        let Self { client, telemetry, lanes, mut tasks, cancelled, .. } = self;
        // Without senders the tasks end on their own once their queues are empty.
        drop((telemetry, lanes));
        let ended = async { while tasks.join_next().await.is_some() {} };
        if tokio::time::timeout_at(deadline, ended).await.is_err() {
            // The lanes count their remaining events as lost, then end.
            cancelled.cancel();
            let counted = async { while tasks.join_next().await.is_some() {} };
            if tokio::time::timeout(PUBLISH_TIMEOUT, counted).await.is_err() {
                tasks.shutdown().await;
            }
        }
        if tokio::time::timeout(PUBLISH_TIMEOUT, client.flush()).await.is_err() {
            tracing::warn!("NATS: the last messages may not have arrived");
        }
    }
}

async fn send_telemetry(client: Client, mut queue: mpsc::Receiver<(String, Bytes)>, tally: Tally) {
    while let Some((subject, payload)) = queue.recv().await {
        // The client would buffer the message, and it would be outdated when sent.
        let connected = client.connection_state() == State::Connected;
        if connected
            && let Ok(Ok(())) = tokio::time::timeout(PUBLISH_TIMEOUT, client.publish(subject, payload)).await
        {
            tally.sent_by_nats();
        } else {
            tally.unsent();
        }
    }
}

/// Sends the events of one subject in order.
struct EventLane {
    client: Client,
    subject: String,
    tally: Tally,
    cancelled: CancellationToken,
}

impl EventLane {
    async fn run(self, mut queue: mpsc::Receiver<Event>) {
        while let Some(event) = queue.recv().await {
            if self.deliver(event).await {
                self.tally.sent_by_nats();
                self.tally.acknowledged();
            } else {
                self.tally.lost(1);
            }
        }
    }

    /// Sends an event until it is acknowledged, and returns whether it was.
    async fn deliver(&self, event: Event) -> bool {
        let mut attempt = 0;
        while event.offered.elapsed() < GIVE_UP_AFTER && !self.cancelled.is_cancelled() {
            if attempt > 0 {
                self.tally.retried();
                if !pause(backoff(attempt), &self.cancelled).await {
                    return false;
                }
            }
            attempt += 1;
            match self.attempt(&event).await {
                Ok(()) => return true,
                Err(reason) => tracing::debug!(subject = self.subject, attempt, reason, "not acknowledged"),
            }
        }
        false
    }

    async fn attempt(&self, event: &Event) -> Result<(), String> {
        if self.client.connection_state() != State::Connected {
            return Err("not connected".to_owned());
        }
        let mut headers = HeaderMap::new();
        headers.insert(async_nats::header::NATS_MESSAGE_ID, event.id.as_str());
        let request =
            Request::new().payload(event.payload.clone()).headers(headers).timeout(Some(ACK_TIMEOUT));
        let sending = self.client.send_request(self.subject.clone(), request);
        let reply = tokio::select! {
            reply = sending => reply.map_err(|error| error.to_string())?,
            () = self.cancelled.cancelled() => return Err("the line ends".to_owned()),
        };
        match serde_json::from_slice::<Ack>(&reply.payload) {
            Ok(Ack { error: None }) => Ok(()),
            Ok(Ack { error: Some(error) }) => Err(error.to_string()),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// The relevant fields of a stream's acknowledgement.
#[derive(serde::Deserialize)]
struct Ack {
    #[serde(default)]
    error: Option<serde_json::Value>,
}
