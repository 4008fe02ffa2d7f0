//! The task that splits one source.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::consumer::PullConsumer;
use async_nats::jetstream::consumer::pull::{self, MessagesErrorKind};
use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::{RawMessageErrorKind, Stream};
use async_nats::jetstream::{self, AckKind};
use bytes::Bytes;
use flutecast_contract::document::PayloadSourceDocument;
use flutecast_contract::header::CAPTURED;
use flutecast_contract::name::{IotId, TenantName};
use flutecast_contract::subject;
use flutecast_nats::NatsConnection;
use flutecast_process::backoff::Backoff;
use futures_util::StreamExt;
use futures_util::stream;
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::{Instant, interval_at, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::items::Layout;
use super::metrics::{SplitStep, SplitterMetrics};
use crate::catalog::{Catalog, TenantCatalog};

/// The longest that a request to the broker may take.
const REQUEST: Duration = Duration::from_secs(5);
/// Duration of one pull: well below the 10 s of silence after which the broker unpins this pod.
const PULL: Duration = Duration::from_secs(3);
/// After this many missed heartbeats in a row the consumer is opened again. A pod that opens it again
/// is no longer pinned, and for 10 s the broker delivers to no pod; on a machine that is busy for moments,
/// that would be most of the time.
const MISSED_HEARTBEATS: u32 = 2;
/// The most messages that are split together.
const BATCH: usize = 64;
/// The most devices whose items are stored at the same time.
const CONCURRENT_DEVICES: usize = 64;
/// Interval of progress for messages in work; after 30 s without, the broker delivers them again.
const PROGRESS: Duration = Duration::from_secs(10);
/// The most messages left by another pod that are looked up before a newer one is split.
const MAX_LEFT: u64 = 10_000;
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_secs(5);
/// Failures shorter than this are not logged: a broker restarts, and another pod takes over, within it.
const WARN_AFTER: Duration = Duration::from_secs(10);

pub(super) struct SourceTask {
    tenant: TenantName,
    source: PayloadSourceDocument,
    jetstream: jetstream::Context,
    broker: NatsConnection,
    catalog: watch::Receiver<Arc<Catalog>>,
    metrics: SplitterMetrics,
}

struct SourceMessage {
    sequence: u64,
    /// The time at which the source's stream captured it.
    captured_at: Timestamp,
    payload: Bytes,
    /// To be acknowledged. `None` if the message was looked up; its delivery is still to come.
    delivery: Option<jetstream::Message>,
}

struct ItemToStore {
    id: String,
    captured_at: Timestamp,
    payload: Bytes,
}

/// Pauses that grow with each failure, and one warning when failures have lasted for a while.
struct Retry {
    backoff: Backoff,
    since: Instant,
    warned: bool,
}

impl Retry {
    fn new() -> Self {
        Self { backoff: Backoff::new(FIRST_PAUSE, LAST_PAUSE), since: Instant::now(), warned: false }
    }

    /// Returns `true` once, after failures have lasted for [`WARN_AFTER`].
    fn should_warn(&mut self) -> bool {
        let due = !self.warned && self.since.elapsed() >= WARN_AFTER;
        self.warned |= due;
        due
    }

    async fn pause(&mut self) {
        sleep(self.backoff.next_wait()).await;
    }
}

impl SourceTask {
    pub(super) fn new(
        tenant: TenantName,
        source: PayloadSourceDocument,
        broker: NatsConnection,
        catalog: watch::Receiver<Arc<Catalog>>,
        metrics: SplitterMetrics,
    ) -> Self {
        let jetstream =
            jetstream::context::ContextBuilder::new().timeout(REQUEST).build(broker.client.clone());
        Self { tenant, source, jetstream, broker, catalog, metrics }
    }

    /// Splits until `stop` is cancelled, which is checked between batches.
    pub(super) async fn run(&self, stop: &CancellationToken) {
        let layout = match Layout::new(&self.source) {
            Ok(layout) => layout,
            Err(error) => {
                let (tenant, source) = (&self.tenant, &self.source.name);
                tracing::error!(%tenant, %source, %error, "the source can't be split");
                return;
            }
        };
        let mut retry = Retry::new();
        while !stop.is_cancelled() {
            let before = Instant::now();
            let ended = self.read(&layout, stop).await;
            if before.elapsed() > LAST_PAUSE {
                retry = Retry::new();
            }
            if let Err(at) = ended {
                self.metrics.error(at);
                if retry.should_warn() {
                    let (tenant, source) = (&self.tenant, &self.source.name);
                    tracing::warn!(%tenant, %source, ?at, "the source can't be read; trying again");
                }
            }
            stop.run_until_cancelled(retry.pause()).await;
        }
    }

    /// Reads and splits until `stop` is cancelled or a step fails.
    async fn read(&self, layout: &Layout, stop: &CancellationToken) -> Result<(), SplitStep> {
        let mut state = self.broker.watch();
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            connected = state.wait_for(|state| state.connected) => {
                connected.map_err(|_| SplitStep::Connect)?;
            }
        }
        let consumer = self.consumer().await?;
        let mut messages = self.pull(&consumer).await?.ready_chunks(BATCH);
        let mut next_sequence = None;
        let mut missed_heartbeats = 0;
        loop {
            let batch = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                batch = messages.next() => batch.ok_or(SplitStep::Pull)?,
            };
            let deliveries = deliveries(batch, &mut missed_heartbeats)?;
            let mut work = Vec::with_capacity(deliveries.len());
            for message in deliveries {
                work.extend(self.left_by_others(&consumer, next_sequence, message.sequence).await?);
                next_sequence = next_sequence.max(Some(message.sequence + 1));
                work.push(message);
            }
            if !self.split(layout, work, stop).await {
                return Ok(());
            }
        }
    }

    async fn consumer(&self) -> Result<PullConsumer, SplitStep> {
        within(SplitStep::Bind, self.stream().await?.get_consumer(&self.source.consumer)).await
    }

    /// Requests nothing.
    async fn stream(&self) -> Result<Stream<()>, SplitStep> {
        within(SplitStep::Bind, self.jetstream.get_stream_no_info(&self.source.stream)).await
    }

    async fn pull(&self, consumer: &PullConsumer) -> Result<pull::Stream, SplitStep> {
        let config = &consumer.cached_info().config;
        let mut pull = consumer.stream().max_messages_per_batch(BATCH).expires(PULL).heartbeat(PULL / 3);
        if let Some(group) = config.priority_groups.first() {
            pull = pull.group(group.clone());
        }
        within(SplitStep::Pull, pull.messages()).await
    }

    /// Returns the messages before `sequence` that were neither split here nor acknowledged by the pod that
    /// had the source before. The broker will deliver them again, but newer items of their devices must not
    /// be stored first.
    async fn left_by_others(
        &self,
        consumer: &PullConsumer,
        next: Option<u64>,
        sequence: u64,
    ) -> Result<Vec<SourceMessage>, SplitStep> {
        if next.is_some_and(|next| sequence <= next) {
            return Ok(Vec::new());
        }
        let info = within(SplitStep::Info, consumer.get_info()).await?;
        let first = (info.ack_floor.stream_sequence + 1)
            .max(next.unwrap_or(0))
            .max(sequence.saturating_sub(MAX_LEFT));
        let stream = self.stream().await?;
        let mut left = Vec::new();
        let mut from = first;
        while from < sequence {
            // Looks for the next stored message instead of counting up: retention may have removed thousands.
            let next = stream.get_first_raw_message_by_subject(">", from);
            match timeout(REQUEST, next).await {
                Ok(Ok(message)) if message.sequence < sequence => {
                    from = message.sequence + 1;
                    left.push(SourceMessage {
                        sequence: message.sequence,
                        captured_at: timestamp(message.time),
                        payload: message.payload,
                        delivery: None,
                    });
                }
                Ok(Ok(_)) => break,
                Ok(Err(error)) if error.kind() == RawMessageErrorKind::NoMessageFound => break,
                Ok(Err(_)) | Err(_) => return Err(SplitStep::LookUp),
            }
        }
        Ok(left)
    }

    /// Splits messages, and acknowledges them when all of their items are stored. Returns `false` if `stop`
    /// was cancelled before that.
    async fn split(&self, layout: &Layout, messages: Vec<SourceMessage>, stop: &CancellationToken) -> bool {
        let Some(catalog) = self.catalog.borrow().tenants.get(&self.tenant).cloned() else { return false };
        let by_device = self.items(layout, &messages, &catalog);
        let store = stream::iter(by_device)
            .map(|(iot_id, items)| self.store_all(iot_id, items, stop))
            .buffer_unordered(CONCURRENT_DEVICES)
            .all(|stored| async move { stored });
        tokio::pin!(store);
        let mut progress = interval_at(Instant::now() + PROGRESS, PROGRESS);
        let all_stored = loop {
            tokio::select! {
                stored = &mut store => break stored,
                _ = progress.tick() => self.acknowledge(&messages, AckKind::Progress).await,
            }
        };
        if all_stored {
            let delivered = messages.iter().filter(|message| message.delivery.is_some()).count();
            self.metrics.messages.inc_by(delivered as u64);
            self.acknowledge(&messages, AckKind::Ack).await;
        }
        all_stored
    }

    /// Returns the items of each device in order.
    fn items(
        &self,
        layout: &Layout,
        messages: &[SourceMessage],
        catalog: &TenantCatalog,
    ) -> HashMap<IotId, Vec<ItemToStore>> {
        let mut by_device: HashMap<IotId, Vec<ItemToStore>> = HashMap::new();
        for message in messages {
            let skipped = |reason| {
                if message.delivery.is_some() {
                    self.metrics.skipped(reason);
                }
            };
            for item in layout.split(&message.payload, catalog, skipped) {
                let id = format!("{}-{}-{}", self.source.stream, message.sequence, item.index);
                let item_to_store = ItemToStore {
                    id,
                    captured_at: message.captured_at,
                    payload: message.payload.slice_ref(item.json.as_bytes()),
                };
                by_device.entry(item.iot_id).or_default().push(item_to_store);
            }
        }
        by_device
    }

    /// Stores the items of one device one after the other. Returns `false` if `stop` was cancelled before the
    /// end.
    async fn store_all(&self, iot_id: IotId, items: Vec<ItemToStore>, stop: &CancellationToken) -> bool {
        let subject = subject::stored(&self.tenant, &iot_id, &self.source.channel);
        for item in items {
            let mut retry = Retry::new();
            loop {
                match self.store(&subject, &item).await {
                    Ok(duplicate) => {
                        if duplicate { &self.metrics.duplicates } else { &self.metrics.stored }.inc();
                        break;
                    }
                    Err(error) => {
                        self.metrics.error(SplitStep::Store);
                        if retry.should_warn() {
                            let (tenant, source) = (&self.tenant, &self.source.name);
                            tracing::warn!(
                                %tenant, %source, device = %iot_id, %error,
                                "an item can't be stored; trying again"
                            );
                        }
                    }
                }
                if stop.run_until_cancelled(retry.pause()).await.is_none() {
                    return false;
                }
            }
        }
        true
    }

    /// Stores an item. Returns whether it had been stored before.
    async fn store(&self, subject: &str, item: &ItemToStore) -> Result<bool, PublishError> {
        let message = PublishMessage::build()
            .payload(item.payload.clone())
            .message_id(&item.id)
            .header(CAPTURED, item.captured_at.to_string().as_str());
        let published = async {
            let ack = self.jetstream.send_publish(subject.to_owned(), message).await?;
            Ok(ack.await?.duplicate)
        };
        // Without a timeout the NATS client waits for as long as the broker is away.
        let late = |_| PublishError::new(PublishErrorKind::TimedOut);
        timeout(REQUEST * 2, published).await.map_err(late)?
    }

    /// A message that can't be acknowledged is delivered again; the broker knows its items by their ids.
    async fn acknowledge(&self, messages: &[SourceMessage], kind: AckKind) {
        let deliveries = messages.iter().filter_map(|message| message.delivery.as_ref());
        let acknowledged = timeout(REQUEST, async {
            for delivery in deliveries {
                delivery.ack_with(kind).await.map_err(drop)?;
            }
            Ok::<(), ()>(())
        });
        if !matches!(acknowledged.await, Ok(Ok(()))) {
            self.metrics.error(SplitStep::Acknowledge);
        }
    }
}

/// Waits for an answer of the broker. `step` is the error if there is no good one in time.
async fn within<T, E>(
    step: SplitStep,
    request: impl IntoFuture<Output = Result<T, E>>,
) -> Result<T, SplitStep> {
    timeout(REQUEST, request).await.map_err(|_| step)?.map_err(|_| step)
}

/// Returns a time of the NATS client.
fn timestamp(time: async_nats::datetime::DateTime) -> Timestamp {
    // Streams don't hold times that only one of the types can represent.
    Timestamp::from_nanosecond(time.unix_timestamp_nanos()).unwrap_or_default()
}

/// Returns the messages of a batch. A missing heartbeat is an error only after [`MISSED_HEARTBEATS`].
fn deliveries(
    batch: Vec<Result<jetstream::Message, pull::MessagesError>>,
    missed_heartbeats: &mut u32,
) -> Result<Vec<SourceMessage>, SplitStep> {
    let mut deliveries = Vec::with_capacity(batch.len());
    for message in batch {
        let delivery = match message {
            Ok(delivery) => delivery,
            Err(error)
                if error.kind() == MessagesErrorKind::MissingHeartbeat
                    && *missed_heartbeats < MISSED_HEARTBEATS =>
            {
                *missed_heartbeats += 1;
                continue;
            }
            Err(_) => return Err(SplitStep::Pull),
        };
        *missed_heartbeats = 0;
        let info = delivery.info().map_err(|_| SplitStep::Info)?;
        let (sequence, captured_at) = (info.stream_sequence, timestamp(info.published));
        let payload = delivery.payload.clone();
        deliveries.push(SourceMessage { sequence, captured_at, payload, delivery: Some(delivery) });
    }
    Ok(deliveries)
}
