//! A tenant on a real nats-server, and clients that read the frames of its hub directly.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream;
use flutecast_contract::document::{
    API_VERSION, ChannelDocument, Codec, DeliveryDocument, DeliveryPolicy, DeviceDocument, FieldDocument,
    FieldType, FormatDocument, ShardDocument, TenantSettings, TimestampDocument, TimestampUnit,
};
use flutecast_contract::name::{ChannelName, DeviceCode, FormatName, IotId, TenantName};
use flutecast_contract::stream_position::EventId;
use flutecast_dataplane::access::Scope;
use flutecast_dataplane::catalog::Catalog;
use flutecast_dataplane::fanout::{Connection, DeviceQuery, HubSettings, Hubs, SubscribeRequest};
use flutecast_dataplane::ingest::broker;
use flutecast_nats::{Login, NatsConnection};
use flutecast_testkit::{NatsServer, SseEvent, SseParser};
use futures_util::StreamExt;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The time limit of each wait in these tests.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) fn tenant() -> TenantName {
    TenantName::new("acme").unwrap()
}

/// Returns the field `n` (Number) at `/n`.
fn number_field() -> FieldDocument {
    FieldDocument {
        name: "n".to_owned(),
        pointer: Some("/n".to_owned()),
        kind: Some(FieldType::Number),
        ..FieldDocument::default()
    }
}

/// Returns a format without a timestamp of its own.
pub(crate) fn format(policy: DeliveryPolicy) -> FormatDocument {
    FormatDocument {
        codec: Codec::Json,
        timestamp: None,
        delivery: DeliveryDocument { policy, min_interval_ms: None },
        record: None,
        when: None,
        fields: vec![number_field()],
    }
}

/// Returns a format whose messages have their time at `/ts` in milliseconds.
pub(crate) fn timed_format(max_age_ms: u64) -> FormatDocument {
    let timestamp = TimestampDocument {
        pointer: "/ts".to_owned(),
        unit: TimestampUnit::Milliseconds,
        max_age_ms: Some(max_age_ms),
        max_ahead_ms: Some(5_000),
    };
    FormatDocument { timestamp: Some(timestamp), ..format(DeliveryPolicy::Latest) }
}

/// The mapping of the tenant, which tests change. The iotId of device `X` is `id-X`.
#[derive(Clone)]
pub(crate) struct Mapping {
    pub(crate) document: ShardDocument,
}

impl Mapping {
    /// Creates devices with the channels `latest` and `every`.
    pub(crate) fn new(devices: &[&str]) -> Self {
        let mut mapping = Self {
            document: ShardDocument {
                api_version: API_VERSION.to_owned(),
                tenant: tenant(),
                shard: 0,
                shards: 1,
                revision: String::new(),
                settings: Some(TenantSettings {
                    display_name: String::new(),
                    stream: "IOT_acme".to_owned(),
                    max_clients: None,
                    sources: Vec::new(),
                }),
                formats: BTreeMap::new(),
                devices: BTreeMap::new(),
            },
        };
        mapping.set_format("latest", format(DeliveryPolicy::Latest));
        mapping.set_format("every", format(DeliveryPolicy::Every));
        for device in devices {
            mapping.set_device(device, &[("latest", "latest", None), ("every", "every", None)]);
        }
        mapping
    }

    pub(crate) fn set_format(&mut self, name: &str, format: FormatDocument) {
        self.document.formats.insert(FormatName::new(name).unwrap(), format);
    }

    /// Adds or replaces a device. `channels`: name, format, staleAfter in milliseconds.
    pub(crate) fn set_device(&mut self, code: &str, channels: &[(&str, &str, Option<u64>)]) {
        let channels = channels
            .iter()
            .map(|(name, format, stale_after_ms)| {
                let format = FormatName::new(format).unwrap();
                (ChannelName::new(name).unwrap(), ChannelDocument { format, stale_after_ms: *stale_after_ms })
            })
            .collect();
        let device = DeviceDocument {
            code: DeviceCode::new(code).unwrap(),
            name: code.to_lowercase(),
            labels: Arc::new([("line".to_owned(), "l1".to_owned())].into()),
            channels: Arc::new(channels),
        };
        self.document.devices.insert(IotId::new(&format!("id-{code}")).unwrap(), device.into());
    }

    pub(crate) fn remove_device(&mut self, code: &str) {
        self.document.devices.remove(&IotId::new(&format!("id-{code}")).unwrap());
    }
}

/// A tenant with its stream, and the hubs of one pod.
pub(crate) struct Room {
    pub(crate) nats: NatsServer,
    pub(crate) jetstream: jetstream::Context,
    pub(crate) hubs: Hubs,
    pub(crate) registry: Registry,
    catalog: watch::Sender<Arc<Catalog>>,
    stop: CancellationToken,
}

impl Room {
    pub(crate) async fn with(mapping: &Mapping, settings: HubSettings) -> Self {
        let nats = NatsServer::start().await.unwrap();
        let room = Self::on(nats, mapping, settings).await;
        room.create_stream(|_| {}).await;
        room
    }

    /// Starts the pod without creating a stream.
    pub(crate) async fn on(nats: NatsServer, mapping: &Mapping, settings: HubSettings) -> Self {
        let jetstream = jetstream::new(nats.client().await.unwrap());
        let (catalog, receiver) = watch::channel(Arc::new(build(mapping, None)));
        let stop = CancellationToken::new();
        let mut registry = Registry::default();
        let broker = connected(&nats, "test").await;
        let (hubs, _handle) = Hubs::start(broker, receiver, settings, &mut registry, stop.clone());
        Self { nats, jetstream, hubs, registry, catalog, stop }
    }

    pub(crate) async fn new(devices: &[&str]) -> Self {
        Self::with(&Mapping::new(devices), fast()).await
    }

    /// Creates the stream as the operator does.
    pub(crate) async fn create_stream(&self, change: impl FnOnce(&mut jetstream::stream::Config)) {
        let mut config = jetstream::stream::Config {
            name: "IOT_acme".to_owned(),
            subjects: vec!["iot.acme.>".to_owned()],
            max_age: Duration::from_secs(3_600),
            max_messages_per_subject: 10_000,
            allow_direct: true,
            republish: Some(jetstream::stream::Republish {
                source: "iot.acme.>".to_owned(),
                destination: "live.acme.>".to_owned(),
                headers_only: false,
            }),
            ..jetstream::stream::Config::default()
        };
        change(&mut config);
        self.jetstream.create_or_update_stream(config).await.unwrap();
    }

    pub(crate) fn change_mapping(&self, mapping: &Mapping) {
        let catalog = build(mapping, Some(&self.catalog.borrow()));
        self.catalog.send_replace(Arc::new(catalog));
    }

    pub(crate) fn remove_tenant(&self) {
        self.catalog.send_replace(Arc::default());
    }

    /// Publishes `{"n": n}` and waits until it is stored. Returns its sequence.
    pub(crate) async fn publish(&self, device: &str, channel: &str, n: u64) -> u64 {
        self.publish_text(device, channel, &format!("{{\"n\":{n}}}")).await
    }

    pub(crate) async fn publish_text(&self, device: &str, channel: &str, payload: &str) -> u64 {
        let subject = format!("iot.acme.id-{device}.{channel}");
        let ack = self.jetstream.publish(subject, payload.to_owned().into()).await.unwrap();
        ack.await.unwrap().sequence
    }

    pub(crate) fn subscribe(&self, devices: &[&str]) -> Client {
        self.subscribe_with(devices, |_| {})
    }

    pub(crate) fn resume(&self, devices: &[&str], id: &str) -> Client {
        let id: EventId = id.parse().unwrap();
        self.subscribe_with(devices, |request| request.resume = Some(id))
    }

    /// Starts the hubs of another pod.
    pub(crate) async fn other_pod(&self) -> Hubs {
        let broker = connected(&self.nats, "other").await;
        let mut registry = Registry::default();
        let (hubs, _handle) =
            Hubs::start(broker, self.catalog.subscribe(), fast(), &mut registry, self.stop.clone());
        hubs
    }

    pub(crate) fn subscribe_with(
        &self,
        devices: &[&str],
        change: impl FnOnce(&mut SubscribeRequest),
    ) -> Client {
        let mut request = request(devices);
        change(&mut request);
        Client::new(self.hubs.subscribe(request))
    }

    /// Returns how many subscriptions to live subjects nats-server has.
    pub(crate) async fn live_subscriptions(&self) -> usize {
        let url = format!("{}/subsz?subs=1&limit=100000", self.nats.monitor_url());
        let answer = flutecast_testkit::http_client::get_json(&url).await.unwrap();
        let subscriptions = answer["subscriptions_list"].as_array().cloned().unwrap_or_default();
        subscriptions
            .iter()
            .filter(|one| one["subject"].as_str().is_some_and(|s| s.starts_with("live.")))
            .count()
    }

    pub(crate) fn metric(&self, line: &str) -> u64 {
        metric(&self.registry, line)
    }
}

/// Connects a pod.
async fn connected(nats: &NatsServer, name: &str) -> NatsConnection {
    let broker = broker::connect(&Login::at(&nats.url()), name).await.unwrap();
    let connected = async { broker.watch().wait_for(|state| state.connected).await.map(drop) };
    tokio::time::timeout(DEADLINE, connected).await.unwrap().unwrap();
    broker
}

/// Subscribes a client to the hubs of a pod. It resumes if it has an id.
pub(crate) fn subscribe_to(hubs: &Hubs, devices: &[&str], id: Option<&str>) -> Client {
    let resume = id.map(|id| id.parse().unwrap());
    Client::new(hubs.subscribe(SubscribeRequest { resume, ..request(devices) }))
}

fn request(devices: &[&str]) -> SubscribeRequest {
    let codes = devices.iter().map(|code| DeviceCode::new(code).unwrap()).collect();
    SubscribeRequest {
        tenant: tenant(),
        scope: Scope::All,
        wanted: DeviceQuery { all: false, codes, selector: None },
        channels: None,
        interval: None,
        problems: false,
        resume: None,
    }
}

/// Returns the value of a metric by its whole name with labels; 0 if there is none.
pub(crate) fn metric(registry: &Registry, line: &str) -> u64 {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
    let found = text.lines().find_map(|l| l.strip_prefix(line)?.trim().parse().ok());
    found.unwrap_or(0)
}

impl Drop for Room {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Returns settings with short times.
pub(crate) fn fast() -> HubSettings {
    HubSettings {
        ping: Duration::from_millis(500),
        linger: Duration::from_millis(200),
        audit: Duration::from_millis(500),
        ..HubSettings::default()
    }
}

pub(crate) fn build(mapping: &Mapping, previous: Option<&Catalog>) -> Catalog {
    let mut document = mapping.document.clone();
    document.revision = format!("{document:?}");
    let (catalog, problems) = Catalog::build(vec![document], previous);
    assert!(problems.is_empty(), "{problems:?}");
    catalog
}

/// A client: the frames of a connection, parsed as a browser does.
pub(crate) struct Client {
    connection: Connection,
    parser: SseParser,
    /// The last id, as a browser would send it.
    pub(crate) last_id: Option<String>,
    /// All events so far.
    pub(crate) seen: Vec<SseEvent>,
}

impl Client {
    fn new(connection: Connection) -> Self {
        Self { connection, parser: SseParser::default(), last_id: None, seen: Vec::new() }
    }

    /// Returns the next event; `None` if the server has ended the connection.
    pub(crate) async fn next(&mut self) -> Option<SseEvent> {
        let next = tokio::time::timeout(DEADLINE, self.next_event()).await;
        next.unwrap_or_else(|_| {
            panic!("nothing came; before: {:#?}", self.seen.iter().rev().take(10).collect::<Vec<_>>())
        })
    }

    async fn next_event(&mut self) -> Option<SseEvent> {
        loop {
            if let Some(event) = self.parser.pop() {
                if let Some(id) = &event.id {
                    self.note_id(id.clone());
                }
                // A browser dispatches nothing for a block that holds only an id or a retry time.
                if event.data.is_some() {
                    self.seen.push(event.clone());
                    return Some(event);
                }
                continue;
            }
            let frame = self.connection.next().await?;
            for line in std::str::from_utf8(&frame).unwrap().lines() {
                if let Some(id) = line.strip_prefix("id: ") {
                    self.note_id(id.to_owned());
                }
            }
            self.parser.push(&frame);
        }
    }

    fn note_id(&mut self, id: String) {
        let sequence = |id: &str| id.parse::<EventId>().unwrap();
        if let Some(last) = &self.last_id {
            let (last, new) = (sequence(last), sequence(&id));
            assert!(
                last.epoch != new.epoch || last.sequence <= new.sequence,
                "ids went back from {last} to {new}"
            );
        }
        self.last_id = Some(id);
    }

    /// Returns the next event of this name; data events have the name `message`.
    pub(crate) async fn next_named(&mut self, name: &str) -> SseEvent {
        let end = tokio::time::Instant::now() + DEADLINE;
        loop {
            assert!(tokio::time::Instant::now() < end, "no {name} came, but {:#?}", self.seen);
            let event = self.next().await.unwrap_or_else(|| panic!("ended before {name}: {:#?}", self.seen));
            if event.name() == name {
                return event;
            }
        }
    }

    /// Returns the `n` of the next data event of this channel.
    pub(crate) async fn next_value(&mut self, device: &str, channel: &str) -> u64 {
        let end = tokio::time::Instant::now() + DEADLINE;
        loop {
            assert!(tokio::time::Instant::now() < end, "no {device} {channel} came, but {:#?}", self.seen);
            let data = self.next_named("message").await.json().unwrap();
            if data["device"] == device && data["channel"] == channel {
                return number(&data);
            }
        }
    }

    /// Reads until an id comes, behind the snapshot. Returns the id.
    pub(crate) async fn settled(&mut self) -> String {
        let deadline = tokio::time::Instant::now() + DEADLINE;
        while self.last_id.is_none() {
            let frame = tokio::time::timeout_at(deadline, self.connection.next()).await;
            let frame = frame.unwrap_or_else(|_| panic!("no id; before: {:#?}", self.seen)).unwrap();
            for line in std::str::from_utf8(&frame).unwrap().lines() {
                if let Some(id) = line.strip_prefix("id: ") {
                    self.note_id(id.to_owned());
                }
            }
            self.parser.push(&frame);
        }
        self.last_id.clone().unwrap()
    }

    /// Reads until an id of this sequence or a later one has come.
    pub(crate) async fn passes(&mut self, sequence: u64) {
        let passed = |id: &Option<String>| {
            id.as_ref().is_some_and(|id| id.parse::<EventId>().unwrap().sequence.0 >= sequence)
        };
        let end = tokio::time::Instant::now() + DEADLINE;
        while !passed(&self.last_id) {
            assert!(tokio::time::Instant::now() < end, "no id {sequence} came, but {:#?}", self.seen);
            self.next().await.unwrap();
        }
    }

    /// Reads until `n` has come on the channel. Returns the values of the channel until then, in order.
    pub(crate) async fn values_until(&mut self, device: &str, channel: &str, n: u64) -> Vec<u64> {
        let mut values = Vec::new();
        loop {
            let value = self.next_value(device, channel).await;
            values.push(value);
            if value == n {
                return values;
            }
        }
    }

    /// Returns how many events of this name have come so far.
    pub(crate) fn count(&self, name: &str) -> usize {
        self.seen.iter().filter(|event| event.name() == name).count()
    }
}

pub(crate) fn number(data: &serde_json::Value) -> u64 {
    let n = data["values"]["n"].as_f64().unwrap_or_else(|| panic!("{data}"));
    format!("{n}").parse().unwrap()
}
