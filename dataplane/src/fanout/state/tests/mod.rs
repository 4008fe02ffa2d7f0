//! The state by plain calls, with data in place of the stream, the broker and the clients.

mod changing;
mod model;
mod one_truth;
mod plain;
mod problems;
mod random_channel;
mod tail;
mod waiting;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use flutecast_contract::document::{
    API_VERSION, ChannelDocument, Codec, DeliveryDocument, DeliveryPolicy, DeviceDocument, FieldDocument,
    FieldType, FormatDocument, ShardDocument, TenantSettings,
};
use flutecast_contract::name::{ChannelName, DeviceCode, FormatName, IotId, TenantName};
use flutecast_format::program::Timestamp;
use flutecast_nats::stream::StreamState;
use flutecast_nats::{LiveMessage, RequestError, StoredMessage};
use futures_util::{FutureExt, stream};
use tokio::time::Instant;

use super::*;
use crate::access::Scope;
use crate::catalog::Catalog;
use crate::fanout::backlog::{Backlog, BacklogBounds, FrameKind};
use crate::fanout::keys::ChannelKey;
use crate::fanout::reader::read_channels;
use crate::fanout::tail::{Folded, StoredMessages, fold_up_to};
use crate::fanout::{DeviceQuery, SubscribeRequest};
use crate::ingest::ordered_merge::OrderedMerge;
use crate::pipeline::{Now, Verdict};
use flutecast_contract::stream_position::{Epoch, EventId, Sequence};

const EPOCH: Epoch = Epoch(0x5f3a_9c01);

/// Devices with the channels `every` and `latest`, which go stale after 1 h and 10 s.
fn catalog(devices: &[&str]) -> Arc<TenantCatalog> {
    catalog_with(devices, None, 3_600_000)
}

/// The same with another scale, or with `every` going stale after another time.
fn catalog_with(devices: &[&str], scale: Option<f64>, every_stale_after_ms: u64) -> Arc<TenantCatalog> {
    let with = |policy| {
        let mut format = format(policy);
        format.fields[0].scale = scale;
        format
    };
    catalog_of(
        devices,
        &[
            ("every", with(DeliveryPolicy::Every), Some(every_stale_after_ms)),
            ("latest", with(DeliveryPolicy::Latest), Some(10_000)),
        ],
    )
}

/// A format with the field `n`.
fn format(policy: DeliveryPolicy) -> FormatDocument {
    FormatDocument {
        codec: Codec::Json,
        timestamp: None,
        delivery: DeliveryDocument { policy, min_interval_ms: None },
        record: None,
        when: None,
        fields: vec![field("n")],
    }
}

fn field(name: &str) -> FieldDocument {
    FieldDocument {
        name: name.to_owned(),
        pointer: Some(format!("/{name}")),
        kind: Some(FieldType::Number),
        ..FieldDocument::default()
    }
}

/// Devices with these channels: name, format, and after how many milliseconds they go stale.
fn catalog_of(devices: &[&str], channels: &[(&str, FormatDocument, Option<u64>)]) -> Arc<TenantCatalog> {
    let name = |name: &str| FormatName::new(name).unwrap();
    let of_device = channels.iter().map(|(channel, _, stale_after_ms)| {
        let document = ChannelDocument { format: name(channel), stale_after_ms: *stale_after_ms };
        (ChannelName::new(channel).unwrap(), document)
    });
    let of_device = Arc::new(of_device.collect());
    let device = |code: &&str| {
        let device = DeviceDocument {
            code: DeviceCode::new(code).unwrap(),
            name: String::new(),
            labels: Arc::default(),
            channels: Arc::clone(&of_device),
        };
        (IotId::new(code).unwrap(), device.into())
    };
    let tenant = TenantName::new("acme").unwrap();
    let document = ShardDocument {
        api_version: API_VERSION.to_owned(),
        tenant: tenant.clone(),
        shard: 0,
        shards: 1,
        revision: String::new(),
        settings: Some(TenantSettings {
            display_name: String::new(),
            stream: "IOT_acme".to_owned(),
            max_clients: None,
            sources: Vec::new(),
        }),
        formats: channels.iter().map(|(channel, format, _)| (name(channel), format.clone())).collect(),
        devices: devices.iter().map(device).collect(),
    };
    let (catalog, problems) = Catalog::build(vec![document], None);
    assert!(problems.is_empty(), "{problems:?}");
    Arc::clone(&catalog.tenants[&tenant])
}

/// A stream in place of NATS. Its reads are answered at once.
impl StoredMessages for Vec<StoredMessage> {
    async fn tail(
        &self,
        subject: &str,
        since: Option<jiff::Timestamp>,
        up_to: Sequence,
    ) -> Result<Vec<StoredMessage>, RequestError> {
        let mut tail: Vec<_> = on_subject(self, subject).cloned().collect();
        // The server looks for the first message of the stream that isn't older; what follows is read.
        let start = tail.iter().position(|message| since.is_none_or(|since| message.stored_at >= since));
        tail.drain(..start.unwrap_or(tail.len()));
        tail.retain(|message| message.sequence <= up_to);
        tail.drain(..tail.len().saturating_sub(flutecast_contract::tail::MESSAGES));
        Ok(tail)
    }

    async fn last_up_to(
        &self,
        subject: &str,
        up_to: Sequence,
    ) -> Result<Option<StoredMessage>, RequestError> {
        Ok(on_subject(self, subject).rfind(|message| message.sequence <= up_to).cloned())
    }

    async fn missed(
        &self,
        subject: &str,
        after: Sequence,
    ) -> Result<Option<(Vec<StoredMessage>, bool)>, RequestError> {
        let missed = on_subject(self, subject).filter(|message| message.sequence > after);
        Ok(Some((missed.cloned().collect(), true)))
    }
}

fn on_subject<'a>(
    stored: &'a [StoredMessage],
    subject: &str,
) -> impl DoubleEndedIterator<Item = &'a StoredMessage> {
    stored.iter().filter(move |message| message.subject == subject)
}

/// Returns the `n` of a message.
fn n_of(message: &StoredMessage) -> u64 {
    let json: serde_json::Value = serde_json::from_slice(&message.payload).unwrap();
    json["n"].as_u64().unwrap()
}

/// One event that a client got, in short.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Got {
    /// Device, channel, `n`, and whether it carried an id.
    Data(String, String, u64, bool),
    /// A named event: its name and its data.
    Named(String, String),
    /// An id, with an event or alone.
    Id(u64),
}

fn named(name: &str) -> impl Fn(&Got) -> bool {
    move |got| matches!(got, Got::Named(found, _) if found == name)
}

/// A state with a stream in place of NATS.
struct Harness {
    state: HubState,
    now: Now,
    epoch: Epoch,
    stored: Vec<StoredMessage>,
    last_sequence: u64,
    slots: OrderedMerge<stream::Pending<()>, ChannelKey>,
    connections: u64,
    /// Whether clients that come ask for the event `problem`.
    problems: bool,
}

/// Returns a time as the broker writes it.
fn broker_time(time: Timestamp) -> jiff::Timestamp {
    jiff::Timestamp::from_microsecond(time.0).unwrap()
}

impl Harness {
    fn new(devices: &[&str]) -> Self {
        Self::with(catalog(devices))
    }

    fn with(catalog: Arc<TenantCatalog>) -> Self {
        let tenant = TenantName::new("acme").unwrap();
        let state =
            HubState::new(tenant, Some(catalog), Arc::new(HubSettings::default()), FanoutMetrics::default());
        let now = Now { instant: Instant::now(), wall: Timestamp(1_795_341_600_000_000) };
        Self {
            state,
            now,
            epoch: EPOCH,
            stored: Vec::new(),
            last_sequence: 0,
            slots: OrderedMerge::default(),
            connections: 0,
            problems: false,
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now.instant += time;
        self.now.wall.0 += i64::try_from(time.as_micros()).unwrap();
        self.state.tick(self.now);
    }

    fn attach(&mut self, devices: &[&str], resume: Option<u64>) -> (u64, Arc<Backlog>) {
        self.connections += 1;
        let backlog = Arc::new(Backlog::new(BacklogBounds { count: 10_000, bytes: 10_000_000 }));
        let codes = devices.iter().map(|code| DeviceCode::new(code).unwrap()).collect();
        let request = SubscribeRequest {
            tenant: TenantName::new("acme").unwrap(),
            scope: Scope::All,
            wanted: DeviceQuery { all: false, codes, selector: None },
            channels: None,
            interval: None,
            problems: self.problems,
            resume: resume.map(|sequence| EventId { epoch: self.epoch, sequence: Sequence(sequence) }),
        };
        let new = NewClient {
            connection: self.connections,
            backlog: Arc::clone(&backlog),
            request,
            since: self.now.instant,
        };
        self.state.attach(new, self.now);
        (self.connections, backlog)
    }

    /// Stores `{"n": n}` a moment later. Returns the republished one if there is a subscription.
    fn store(&mut self, device: &str, channel: &str, n: u64) -> Option<(ChannelKey, LiveMessage)> {
        self.now.wall.0 += 1;
        self.store_message(device, channel, format!("{{\"n\":{n}}}"), self.now.wall, None)
    }

    /// Stores a message. Returns the republished one if there is a subscription.
    fn store_message(
        &mut self,
        device: &str,
        channel: &str,
        payload: impl Into<Bytes>,
        stored_at: Timestamp,
        captured_at: Option<Timestamp>,
    ) -> Option<(ChannelKey, LiveMessage)> {
        let subject = format!("iot.acme.{device}.{channel}");
        self.last_sequence += 1;
        let previous = on_subject(&self.stored, &subject).next_back().map(|last| last.sequence);
        let stored = StoredMessage {
            subject: subject.clone(),
            sequence: Sequence(self.last_sequence),
            stored_at: broker_time(stored_at),
            captured_at: captured_at.map(broker_time),
            origin: None,
            payload: payload.into(),
        };
        let live = LiveMessage {
            sequence: stored.sequence,
            previous: previous.unwrap_or_default(),
            stored_at: stored.stored_at,
            captured_at: stored.captured_at,
            payload: stored.payload.clone(),
        };
        self.stored.push(stored);
        let (key, watched) = self.state.watched.iter().find(|(_, watched)| watched.stored == subject)?;
        watched.subscription?;
        Some((key, live))
    }

    /// Stores a message a moment later, and brings it to the state.
    fn publish_text(&mut self, device: &str, channel: &str, payload: &str) {
        self.now.wall.0 += 1;
        let live = self.store_message(device, channel, payload.to_owned(), self.now.wall, None);
        self.state.apply_live(live.into_iter(), self.now);
    }

    fn publish(&mut self, device: &str, channel: &str, n: u64) {
        let live = self.store(device, channel, n);
        self.state.apply_live(live.into_iter(), self.now);
    }

    /// Starts the next read: subscribes.
    fn start_read(&mut self) -> Option<ReadRequest> {
        let request = self.state.next_read(usize::MAX)?;
        for item in request.channels.iter().filter(|item| item.open.is_some()) {
            let slot = self.slots.insert(item.channel, stream::pending());
            assert!(self.state.opened(item.channel, slot).is_none());
        }
        Some(request)
    }

    /// Returns what the stream answers to a read now.
    fn answer(&self, request: &ReadRequest) -> ReadResult {
        let info = StreamState {
            epoch: self.epoch,
            first_sequence: Sequence(
                self.stored.first().map_or(self.last_sequence + 1, |first| first.sequence.0),
            ),
            last_sequence: Sequence(self.last_sequence),
            max_per_subject: None,
            max_age: None,
            time: broker_time(self.now.wall),
        };
        let last = |item: &ChannelRead| on_subject(&self.stored, &item.stored).next_back().cloned();
        let lasts = request.channels.iter().filter_map(last).map(|last| (last.subject.clone(), last));
        let mut channels = Vec::new();
        let mut report = |part| channels.extend(part);
        let read = read_channels(&self.stored, &request.channels, lasts.collect(), info, &mut report);
        let (rest, failure) = read.now_or_never().unwrap();
        assert!(failure.is_none(), "{failure:?}");
        channels.extend(rest);
        ReadResult { requested: request.requested, info, up_to: Sequence(self.last_sequence), channels }
    }

    /// Answers a read with what the stream holds now.
    fn finish_read(&mut self, request: &ReadRequest) {
        let result = self.answer(request);
        self.state.apply_read(result, self.now);
    }

    /// Does all requested reads, until there are none.
    fn read_all(&mut self) {
        while let Some(request) = self.start_read() {
            self.finish_read(&request);
        }
    }

    /// Does an audit, if a channel is watched.
    fn audit(&mut self) {
        if let Some(request) = self.state.audit() {
            let result = self.answer(&request);
            self.state.audited(&result, self.now);
        }
    }

    /// Does the replays that are requested.
    fn replay_all(&mut self) {
        for request in self.state.take_io().replays {
            let ReplayRequest { pipeline, epoch, stored, after, until, backlog, .. } = request;
            let mut folded = if pipeline.program().remembers() {
                let primed = fold_up_to(&self.stored, &pipeline, epoch, &stored, after);
                primed.now_or_never().unwrap().unwrap()
            } else {
                Folded::new(pipeline.complete())
            };
            let mut scratch = Scratch::default();
            let wanted = |message: &&StoredMessage| message.sequence > after && message.sequence <= until;
            for message in on_subject(&self.stored, &stored).filter(wanted) {
                assert!(folded.add(epoch, message, &mut scratch));
                if let Some(Verdict::Shown(formatted)) = &folded.newest {
                    let kind = FrameKind::Every(formatted.frame.names());
                    backlog.push(kind, formatted.frame.without_id(), self.now.instant);
                }
            }
            self.state.replayed(request.client, request.channel, Ok(()), self.now);
        }
    }
}

/// A block of an event stream.
#[derive(Debug)]
struct Block {
    event: Option<String>,
    id: Option<u64>,
    data: Option<String>,
}

/// Takes everything that waits for a client, block by block.
fn blocks(backlog: &Backlog) -> Vec<Block> {
    let mut blocks = Vec::new();
    let Poll::Ready(Some(_)) =
        backlog.poll_take(&mut Context::from_waker(Waker::noop()), usize::MAX, &mut blocks)
    else {
        return Vec::new();
    };
    let text: String = blocks.iter().map(|block| std::str::from_utf8(block).unwrap()).collect();
    let parse = |block: &str| {
        let line = |field: &str| block.lines().find_map(|line| line.strip_prefix(field));
        Block {
            event: line("event: ").map(str::to_owned),
            id: line("id: ").map(|id| id.parse::<EventId>().unwrap().sequence.0),
            data: line("data: ").map(str::to_owned),
        }
    };
    text.split("\n\n").filter(|block| !block.is_empty()).map(parse).collect()
}

/// Takes everything that waits for a client, in short.
fn take(backlog: &Backlog) -> Vec<Got> {
    let mut got = Vec::new();
    for Block { event, id, data } in blocks(backlog) {
        if let Some(data) = data {
            let json: serde_json::Value = serde_json::from_str(&data).unwrap();
            got.push(match event {
                Some(event) => Got::Named(event, data),
                None => {
                    let text = |field: &str| json[field].as_str().unwrap().to_owned();
                    Got::Data(
                        text("device"),
                        text("channel"),
                        json["values"]["n"].as_u64().unwrap(),
                        id.is_some(),
                    )
                }
            });
        }
        got.extend(id.map(Got::Id));
    }
    got
}

/// The values of a channel among what a client got.
fn values(got: &[Got], device: &str, channel: &str) -> Vec<u64> {
    let value = |got: &Got| match got {
        Got::Data(d, c, n, _) if d == device && c == channel => Some(*n),
        _ => None,
    };
    got.iter().filter_map(value).collect()
}

fn ids(got: &[Got]) -> Vec<u64> {
    got.iter().filter_map(|got| if let Got::Id(id) = got { Some(*id) } else { None }).collect()
}
