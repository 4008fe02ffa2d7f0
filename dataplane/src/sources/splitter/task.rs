//! The task of one source.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::consumer::PullConsumer;
use async_nats::jetstream::consumer::pull::{self, MessagesErrorKind};
use async_nats::jetstream::context::PublishError;
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::RawMessageErrorKind;
use async_nats::jetstream::{self, AckKind};
use bytes::Bytes;
use flutecast_contract::document::PayloadSourceDocument;
use flutecast_contract::name::{IotId, TenantName};
use flutecast_contract::subject;
use futures_util::StreamExt;
use futures_util::stream;
use tokio::sync::watch;
use tokio::time::{Instant, interval_at, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::SplitterMetrics;
use super::items::Layout;
use crate::catalog::{Catalog, TenantCatalog};
use crate::sources::broker::Broker;

/// How long a request to the broker may take.
const REQUEST: Duration = Duration::from_secs(5);
/// How long one pull lasts: well below the 10 s of silence after which the broker gives the source to another
/// pod.
const PULL: Duration = Duration::from_secs(3);
/// How many heartbeats in a row may be missing before the source is read anew, each after two thirds of a
/// pull. Who reads anew is no longer the one that the broker gives the source to, and for 10 s it gives it to
/// nobody: on a machine that is busy for moments, that would be most of the time.
const MISSED_HEARTBEATS: u32 = 2;
/// How many messages are split together.
const BATCH: usize = 64;
/// Of how many devices items are stored at once.
const CONCURRENT_DEVICES: usize = 64;
/// How often the broker hears that messages are still being worked on; it gives them to another pod after 30
/// s.
const PROGRESS: Duration = Duration::from_secs(10);
/// How many messages that another pod left are looked up before a newer one is split.
const MAX_LEFT: u64 = 10_000;
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_secs(5);
/// What fails for so long is told; a broker that starts again, or a pod that takes over, is there sooner.
const TOLD_AFTER: Duration = Duration::from_secs(10);

/// The task of one source.
pub(super) struct SourceTask {
    tenant: TenantName,
    source: PayloadSourceDocument,
    jetstream: jetstream::Context,
    broker: Broker,
    catalog: watch::Receiver<Arc<Catalog>>,
    metrics: SplitterMetrics,
}

/// A message of the source.
struct SourceMessage {
    sequence: u64,
    payload: Bytes,
    /// To be acknowledged; none: it was looked up, and its own delivery is still to come.
    delivery: Option<jetstream::Message>,
}

/// An item of one device, to be stored.
struct ItemToStore {
    id: String,
    payload: Bytes,
}

/// What fails again and again: it is tried after pauses that grow, and told once when that has lasted.
struct Trouble {
    pause: Duration,
    since: Instant,
    is_told: bool,
}

impl Trouble {
    fn new() -> Self {
        Self { pause: FIRST_PAUSE, since: Instant::now(), is_told: false }
    }

    /// Whether it has lasted for so long that it is to be told now.
    fn is_to_be_told(&mut self) -> bool {
        !self.is_told && {
            self.is_told = self.since.elapsed() >= TOLD_AFTER;
            self.is_told
        }
    }

    async fn pause(&mut self) {
        sleep(self.pause.mul_f64(rand::random_range(0.5..1.5))).await;
        self.pause = (self.pause * 2).min(LAST_PAUSE);
    }
}

impl SourceTask {
    pub(super) fn new(
        tenant: TenantName,
        source: PayloadSourceDocument,
        broker: Broker,
        catalog: watch::Receiver<Arc<Catalog>>,
        metrics: SplitterMetrics,
    ) -> Self {
        let jetstream =
            jetstream::context::ContextBuilder::new().timeout(REQUEST).build(broker.client.clone());
        Self { tenant, source, jetstream, broker, catalog, metrics }
    }

    /// Splits until `stop` is cancelled, which it looks at between batches.
    pub(super) async fn run(&self, stop: &CancellationToken) {
        let layout = match Layout::new(&self.source) {
            Ok(layout) => layout,
            Err(error) => {
                tracing::error!(tenant = %self.tenant, source = %self.source.name, %error, "the source can't be split");
                return;
            }
        };
        let mut trouble = Trouble::new();
        while !stop.is_cancelled() {
            let before = Instant::now();
            let ended = self.read(&layout, stop).await;
            if before.elapsed() > LAST_PAUSE {
                trouble = Trouble::new();
            }
            if let Err(at) = ended {
                self.metrics.error(at);
                if trouble.is_to_be_told() {
                    tracing::warn!(tenant = %self.tenant, source = %self.source.name, at, "the source can't be read; it is tried again and again");
                }
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = trouble.pause() => {}
            }
        }
    }

    /// Reads and splits until something fails (its name) or `stop` is cancelled.
    async fn read(&self, layout: &Layout, stop: &CancellationToken) -> Result<(), &'static str> {
        let mut state = self.broker.watch();
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            connected = state.wait_for(|state| state.connected) => connected.map(drop).map_err(|_| "Connect")?,
        }
        let consumer = timeout(REQUEST, self.consumer()).await.map_err(|_| "Bind")??;
        let mut messages = self.pull(&consumer).await?.ready_chunks(BATCH);
        let mut next_sequence = None;
        let mut missed_heartbeats = 0;
        loop {
            let batch = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                batch = messages.next() => batch.ok_or("Pull")?,
            };
            let mut deliveries = Vec::with_capacity(batch.len());
            for message in batch {
                let delivery = match message {
                    Ok(delivery) => delivery,
                    Err(error)
                        if error.kind() == MessagesErrorKind::MissingHeartbeat
                            && missed_heartbeats < MISSED_HEARTBEATS =>
                    {
                        missed_heartbeats += 1;
                        continue;
                    }
                    Err(_) => return Err("Pull"),
                };
                missed_heartbeats = 0;
                let sequence = delivery.info().map_err(|_| "Info")?.stream_sequence;
                deliveries.push(SourceMessage {
                    sequence,
                    payload: delivery.payload.clone(),
                    delivery: Some(delivery),
                });
            }
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

    async fn consumer(&self) -> Result<PullConsumer, &'static str> {
        let stream = self.jetstream.get_stream_no_info(&self.source.stream).await.map_err(|_| "Bind")?;
        stream.get_consumer(&self.source.consumer).await.map_err(|_| "Bind")
    }

    async fn pull(&self, consumer: &PullConsumer) -> Result<pull::Stream, &'static str> {
        let config = &consumer.cached_info().config;
        let mut pull = consumer.stream().max_messages_per_batch(BATCH).expires(PULL).heartbeat(PULL / 3);
        if let Some(group) = config.priority_groups.first() {
            pull = pull.group(group.clone());
        }
        timeout(REQUEST, pull.messages()).await.map_err(|_| "Pull")?.map_err(|_| "Pull")
    }

    /// What comes before a message and was neither split here nor acknowledged by the pod that had the source
    /// before. It will be delivered again some time, but newer items of its devices must not be stored
    /// before.
    async fn left_by_others(
        &self,
        consumer: &PullConsumer,
        next: Option<u64>,
        sequence: u64,
    ) -> Result<Vec<SourceMessage>, &'static str> {
        if next.is_some_and(|next| sequence <= next) {
            return Ok(Vec::new());
        }
        let info = timeout(REQUEST, consumer.get_info()).await.map_err(|_| "Info")?.map_err(|_| "Info")?;
        let first = (info.ack_floor.stream_sequence + 1)
            .max(next.unwrap_or(0))
            .max(sequence.saturating_sub(MAX_LEFT));
        let stream = self.jetstream.get_stream_no_info(&self.source.stream).await.map_err(|_| "Bind")?;
        let mut left = Vec::new();
        let mut from = first;
        while from < sequence {
            // The next one that there is: retention may have taken thousands, and a consumer that lost its
            // state knows of none.
            let next = stream.get_first_raw_message_by_subject(">", from);
            match timeout(REQUEST, next).await {
                Ok(Ok(message)) if message.sequence < sequence => {
                    from = message.sequence + 1;
                    left.push(SourceMessage {
                        sequence: message.sequence,
                        payload: message.payload,
                        delivery: None,
                    });
                }
                Ok(Ok(_)) => break,
                Ok(Err(error)) if error.kind() == RawMessageErrorKind::NoMessageFound => break,
                Ok(Err(_)) | Err(_) => return Err("LookUp"),
            }
        }
        Ok(left)
    }

    /// Splits messages and acknowledges them when all of their items are stored. False if `stop` was
    /// cancelled before.
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
            self.metrics
                .messages
                .inc_by(messages.iter().filter(|message| message.delivery.is_some()).count() as u64);
            self.acknowledge(&messages, AckKind::Ack).await;
        }
        all_stored
    }

    /// The items of each device, in order.
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
                let payload = message.payload.slice_ref(item.json.as_bytes());
                by_device.entry(item.iot_id).or_default().push(ItemToStore { id, payload });
            }
        }
        by_device
    }

    /// Stores the items of one device, each when the one before it is stored. False if `stop` was cancelled
    /// before.
    async fn store_all(&self, iot_id: IotId, items: Vec<ItemToStore>, stop: &CancellationToken) -> bool {
        let subject = subject::stored(&self.tenant, &iot_id, &self.source.channel);
        for item in items {
            let mut trouble = Trouble::new();
            loop {
                match self.store(&subject, &item).await {
                    Ok(duplicate) => {
                        if duplicate { &self.metrics.duplicates } else { &self.metrics.stored }.inc();
                        break;
                    }
                    Err(error) => {
                        self.metrics.error("Store");
                        if trouble.is_to_be_told() {
                            tracing::warn!(tenant = %self.tenant, source = %self.source.name, device = %iot_id, %error, "an item can't be stored; it is tried again and again");
                        }
                    }
                }
                tokio::select! {
                    () = stop.cancelled() => return false,
                    () = trouble.pause() => {}
                }
            }
        }
        true
    }

    async fn store(&self, subject: &str, item: &ItemToStore) -> Result<bool, PublishError> {
        let message = PublishMessage::build().payload(item.payload.clone()).message_id(&item.id);
        let published = async {
            let ack = self.jetstream.send_publish(subject.to_owned(), message).await?;
            Ok(ack.await?.duplicate)
        };
        // The client waits without end while the broker is away.
        let late = |_| PublishError::new(async_nats::jetstream::context::PublishErrorKind::TimedOut);
        timeout(REQUEST * 2, published).await.map_err(late)?
    }

    /// What can't be acknowledged is delivered again; its items are known by their ids.
    async fn acknowledge(&self, messages: &[SourceMessage], kind: AckKind) {
        let deliveries = messages.iter().filter_map(|message| message.delivery.as_ref());
        let acknowledged = timeout(REQUEST, async {
            for delivery in deliveries {
                delivery.ack_with(kind).await.map_err(drop)?;
            }
            Ok::<(), ()>(())
        });
        if !matches!(acknowledged.await, Ok(Ok(()))) {
            self.metrics.error("Acknowledge");
        }
    }
}
