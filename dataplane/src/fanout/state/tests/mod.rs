//! The state by plain calls, with data in place of the stream, the broker and the clients.

mod changing;
mod model;
mod plain;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use flutecast_contract::document::{
    API_VERSION, ChannelDocument, Codec, DeliveryDocument, DeliveryPolicy, DeviceDocument, FieldDocument,
    FieldType, FormatDocument, ShardDocument, TenantSettings,
};
use flutecast_contract::name::{ChannelName, DeviceCode, FormatName, IotId, TenantName};
use flutecast_format::program::Timestamp;
use flutecast_nats::stream::StreamState;
use flutecast_nats::{LiveMessage, StoredMessage};
use futures_util::stream;
use tokio::time::Instant;

use super::*;
use crate::access::Scope;
use crate::catalog::Catalog;
use crate::fanout::backlog::{Backlog, BacklogBounds, FrameKind};
use crate::fanout::keys::ChannelKey;
use crate::fanout::{DeviceQuery, SubscribeRequest};
use crate::ingest::ordered_merge::OrderedMerge;
use crate::pipeline::{ChannelPipeline, Now};
use flutecast_contract::stream_position::{Epoch, EventId, Sequence};

const EPOCH: Epoch = Epoch(0x5f3a_9c01);

/// Devices with the channels `every` and `latest`, which go stale after 1 h and 10 s.
fn catalog(devices: &[&str]) -> Arc<TenantCatalog> {
    catalog_with(devices, None, 3_600_000)
}

/// The same with another scale, or with `every` going stale after another time.
fn catalog_with(devices: &[&str], scale: Option<f64>, every_stale_after_ms: u64) -> Arc<TenantCatalog> {
    let format = |policy| FormatDocument {
        codec: Codec::Json,
        timestamp: None,
        delivery: DeliveryDocument { policy, min_interval_ms: None },
        record: None,
        when: None,
        fields: vec![FieldDocument {
            name: "n".to_owned(),
            pointer: Some("/n".to_owned()),
            kind: Some(FieldType::Number),
            scale,
            ..FieldDocument::default()
        }],
    };
    let name = |name: &str| FormatName::new(name).unwrap();
    let channel = |format: &str, stale_after_ms| {
        (ChannelName::new(format).unwrap(), ChannelDocument { format: name(format), stale_after_ms })
    };
    let device = |code: &&str| {
        let device = DeviceDocument {
            code: DeviceCode::new(code).unwrap(),
            name: String::new(),
            labels: Arc::default(),
            channels: Arc::new(
                [channel("every", Some(every_stale_after_ms)), channel("latest", Some(10_000))].into(),
            ),
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
        formats: [
            (name("every"), format(DeliveryPolicy::Every)),
            (name("latest"), format(DeliveryPolicy::Latest)),
        ]
        .into(),
        devices: devices.iter().map(device).collect(),
    };
    let (catalog, problems) = Catalog::build(vec![document], None);
    assert!(problems.is_empty(), "{problems:?}");
    Arc::clone(&catalog.tenants[&tenant])
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
    /// The stored messages: sequence, subject, `n`, time.
    stored: Vec<(u64, String, u64, Timestamp)>,
    last_sequence: u64,
    slots: OrderedMerge<stream::Pending<()>, ChannelKey>,
    connections: u64,
}

/// Returns a time as the broker writes it.
fn broker_time(time: Timestamp) -> jiff::Timestamp {
    jiff::Timestamp::from_microsecond(time.0).unwrap()
}

impl Harness {
    fn new(devices: &[&str]) -> Self {
        let tenant = TenantName::new("acme").unwrap();
        let state = HubState::new(
            tenant,
            Some(catalog(devices)),
            Arc::new(HubSettings::default()),
            FanoutMetrics::default(),
        );
        let now = Now { instant: Instant::now(), wall: Timestamp(1_795_341_600_000_000) };
        Self {
            state,
            now,
            epoch: EPOCH,
            stored: Vec::new(),
            last_sequence: 0,
            slots: OrderedMerge::default(),
            connections: 0,
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
            problems: false,
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

    /// Stores a message. Returns the republished one if there is a subscription.
    fn store(&mut self, device: &str, channel: &str, n: u64) -> Option<(ChannelKey, LiveMessage)> {
        let subject = format!("iot.acme.{device}.{channel}");
        self.last_sequence += 1;
        self.now.wall.0 += 1;
        let previous =
            self.stored.iter().rev().find(|(_, stored, ..)| *stored == subject).map_or(0, |last| last.0);
        self.stored.push((self.last_sequence, subject.clone(), n, self.now.wall));
        let (key, watched) = self.state.watched.iter().find(|(_, watched)| watched.stored == subject)?;
        watched.subscription?;
        let payload = format!("{{\"n\":{n}}}").into();
        Some((
            key,
            LiveMessage {
                sequence: Sequence(self.last_sequence),
                previous: Sequence(previous),
                stored_at: broker_time(self.now.wall),
                captured_at: None,
                payload,
            },
        ))
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
        let channels = request.channels.iter().map(|item| {
            let on_subject = self.stored.iter().filter(|(_, subject, ..)| *subject == item.stored);
            let all: Vec<StoredMessage> = on_subject
                .map(|(sequence, subject, n, stored_at)| StoredMessage {
                    subject: subject.clone(),
                    sequence: Sequence(*sequence),
                    stored_at: broker_time(*stored_at),
                    captured_at: None,
                    origin: None,
                    payload: format!("{{\"n\":{n}}}").into(),
                })
                .collect();
            let after = item.after.unwrap_or(Sequence::MAX);
            let newer: Vec<_> = all.iter().filter(|message| message.sequence > after).cloned().collect();
            let messages = if newer.is_empty() { all.last().cloned().into_iter().collect() } else { newer };
            ChannelReadResult { channel: item.channel, messages, complete: true }
        });
        let info = StreamState {
            epoch: self.epoch,
            first_sequence: Sequence(self.stored.first().map_or(self.last_sequence + 1, |first| first.0)),
            last_sequence: Sequence(self.last_sequence),
            max_per_subject: None,
            time: broker_time(self.now.wall),
        };
        ReadResult {
            requested: request.requested,
            info,
            up_to: Sequence(self.last_sequence),
            channels: channels.collect(),
        }
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
        for mut request in self.state.take_io().replays {
            let mut scratch = Vec::new();
            let (after, until) = (request.after.0, request.until.0);
            for (sequence, subject, n, stored_at) in &self.stored {
                if *subject == request.stored && (after + 1..=until).contains(sequence) {
                    let payload = format!("{{\"n\":{n}}}");
                    let message = ChannelPipeline::read_back(payload.as_bytes(), *stored_at);
                    let id = EventId { epoch: request.epoch, sequence: Sequence(*sequence) };
                    let formatted = request.pipeline.apply(id, message, &mut scratch).unwrap();
                    let kind = FrameKind::Every(formatted.frame.names());
                    request.backlog.push(kind, formatted.frame.without_id(), self.now.instant);
                }
            }
            self.state.replayed(request.client, request.channel, Ok(()), self.now);
        }
    }
}

/// Takes everything that waits for a client.
fn take(backlog: &Backlog) -> Vec<Got> {
    let mut blocks = Vec::new();
    let mut got = Vec::new();
    let Poll::Ready(Some(_)) =
        backlog.poll_take(&mut Context::from_waker(Waker::noop()), usize::MAX, &mut blocks)
    else {
        return got;
    };
    let text: String = blocks.iter().map(|block| std::str::from_utf8(block).unwrap()).collect();
    for block in text.split("\n\n").filter(|block| !block.is_empty()) {
        let line = |field: &str| block.lines().find_map(|line| line.strip_prefix(field));
        let id = line("id: ").map(|id| id.parse::<EventId>().unwrap().sequence.0);
        if let Some(data) = line("data: ") {
            let json: serde_json::Value = serde_json::from_str(data).unwrap();
            got.push(match line("event: ") {
                Some(event) => Got::Named(event.to_owned(), data.to_owned()),
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
