//! A plant whose devices count: each message carries the next number, so that lost, repeated and reordered
//! messages are detected.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::Range;
use std::time::Duration;

use anyhow::Context;
use async_nats::jetstream;
use flutecast_testkit::fleet::Records;
use flutecast_testkit::wait_until;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, timeout};

use crate::counting::{self, CHANNEL};

pub(crate) const TENANT: &str = "plant";
const MES: &str = "mes.out";
/// The devices, each with the route of its messages.
const DEVICES: [(&str, Way); 6] = [
    ("CNT-01", Way::Own),
    ("CNT-02", Way::Own),
    ("CNT-03", Way::Own),
    ("CNT-04", Way::Own),
    ("GW-01", Way::Gateway),
    ("MES-01", Way::Mes),
];
/// Interval at which each device sends. It is not a multiple of the polling interval of waiting tests.
const PACE: Duration = Duration::from_millis(190);
/// Time limit for a device to send a few messages, an outage included.
const SOON: Duration = Duration::from_secs(90);

/// The route of a device's messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// On the device's own subject.
    Own,
    /// On a gateway's subject, which NATS maps to the device's.
    Gateway,
    /// With the device's id in the payload, by which data-plane pods split the source.
    Mes,
}

/// The messages of each channel (`<device>/<channel>`) as (number, stream sequence), in stream order.
pub(crate) type Content = BTreeMap<String, Vec<(u64, u64)>>;

/// The Tenant, its format and its devices.
pub(crate) fn manifests() -> String {
    let tenant = json!({
        "retention": {"maxMessagesPerSubject": 65_536},
        "sources": [
            {"name": "gw", "subject": "plant.gw1.*.count", "channel": CHANNEL, "iotId": {"subjectToken": 3}},
            {"name": "mes", "subject": MES, "channel": CHANNEL, "iotId": {"pointer": "/deviceId"}},
        ],
        "access": {"anonymous": true},
    });
    let devices = DEVICES.map(|(code, _)| device(code));
    counting::manifests(&[&[counting::tenant(TENANT, &tenant), counting::format()][..], &devices].concat())
}

/// Returns a device with one channel.
pub(crate) fn device(code: &str) -> Value {
    counting::device(TENANT, &code.to_lowercase(), code)
}

fn key(code: &str) -> String {
    format!("{code}/{CHANNEL}")
}

/// Returns the subject and the payload of a device's message.
fn message(code: &str, way: Way, number: u64) -> (String, Value) {
    let id = counting::iot_id(TENANT, code);
    match way {
        Way::Own => (counting::subject(TENANT, code), counting::payload(number)),
        Way::Gateway => (format!("plant.gw1.{id}.count"), counting::payload(number)),
        Way::Mes => (MES.to_owned(), json!({"deviceId": id.to_string(), "n": number})),
    }
}

/// Running devices. Each sends its next number when the broker has acknowledged the one before.
pub(crate) struct Devices {
    stored: BTreeMap<String, watch::Receiver<u64>>,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl Devices {
    pub(crate) fn start(client: async_nats::Client) -> Self {
        let jetstream = jetstream::new(client);
        let (stop, stopped) = watch::channel(false);
        let mut this = Self { stored: BTreeMap::new(), stop, tasks: JoinSet::new() };
        for (code, way) in DEVICES {
            let (stored, last) = watch::channel(0);
            this.stored.insert(key(code), last);
            let (jetstream, mut stopped) = (jetstream.clone(), stopped.clone());
            this.tasks.spawn(async move {
                let mut pace = interval(PACE);
                for number in 1.. {
                    tokio::select! {
                        _ = pace.tick() => {}
                        _ = stopped.wait_for(|stop| *stop) => return,
                    }
                    let (subject, payload) = message(code, way, number);
                    counting::store(&jetstream, code, number, &subject, &payload).await;
                    stored.send_replace(number);
                }
            });
        }
        this
    }

    /// Returns the newest acknowledged number of each channel. Messages of sources are acknowledged by the
    /// source's stream, before they are moved on.
    pub(crate) fn stored(&self) -> BTreeMap<String, u64> {
        self.stored.iter().map(|(channel, last)| (channel.clone(), *last.borrow())).collect()
    }

    /// Waits until each device has sent `more` messages.
    pub(crate) async fn send(&self, more: u64) {
        let goal: BTreeMap<_, _> =
            self.stored().into_iter().map(|(channel, last)| (channel, last + more)).collect();
        wait_until("the devices' next messages", SOON, async || match self.stored() {
            now if now.iter().all(|(channel, number)| *number >= goal[channel]) => Ok(()),
            now => Err(format!("{now:?} instead of {goal:?}")),
        })
        .await
        .unwrap();
    }

    /// Stops the devices and waits until their last messages are acknowledged.
    pub(crate) async fn stop(mut self) -> Self {
        self.stop.send_replace(true);
        timeout(SOON, std::mem::take(&mut self.tasks).join_all()).await.unwrap();
        self
    }
}

/// Reads all messages of the tenant's stream.
pub(crate) async fn content(client: &async_nats::Client) -> anyhow::Result<Content> {
    let stream = jetstream::new(client.clone()).get_stream(format!("IOT_{TENANT}")).await?;
    let state = &stream.cached_info().state;
    let codes: BTreeMap<_, _> = DEVICES.map(|(code, _)| (counting::subject(TENANT, code), key(code))).into();
    let mut content = Content::new();
    for sequence in state.first_sequence..=state.last_sequence {
        let message = stream.get_raw_message(sequence).await?;
        let body: Value = serde_json::from_slice(&message.payload)?;
        let channel = codes.get(message.subject.as_str()).with_context(|| message.subject.to_string())?;
        let number = body["n"].as_u64().context("a number")?;
        content.entry(channel.clone()).or_default().push((number, sequence));
    }
    Ok(content)
}

/// Returns the state of each stream and its consumers, to show where messages are stuck.
pub(crate) async fn stream_states(client: &async_nats::Client) -> anyhow::Result<String> {
    let answer = client.request("$JS.API.STREAM.LIST", "".into()).await?;
    let streams: Value = serde_json::from_slice(&answer.payload)?;
    let mut text = String::new();
    for stream in streams["streams"].as_array().into_iter().flatten() {
        let name = stream["config"]["name"].as_str().unwrap_or_default();
        let consumers = client.request(format!("$JS.API.CONSUMER.LIST.{name}"), "".into()).await?;
        let consumers: Value = serde_json::from_slice(&consumers.payload)?;
        writeln!(text, "{name}: {}\n  consumers: {}", stream["state"], consumers["consumers"])?;
    }
    Ok(text)
}

/// Asserts that the stream holds each acknowledged number once and in order, for all routes.
pub(crate) fn assert_stored_once(stream: &Content, acknowledged: &BTreeMap<String, u64>) {
    for (channel, last) in acknowledged {
        let numbers = stream[channel].iter().map(|(number, _)| *number);
        same(numbers, 1..=*last, &format!("{channel} in the stream"));
    }
}

/// Asserts that both sequences are equal. The message names only the first difference, because the sequences
/// have thousands of numbers.
fn same(numbers: impl Iterator<Item = u64>, expected: impl Iterator<Item = u64>, what: &str) {
    let (numbers, expected): (Vec<_>, Vec<_>) = (numbers.collect(), expected.collect());
    let place = (0..numbers.len().max(expected.len())).find(|at| numbers.get(*at) != expected.get(*at));
    let at = place.map(|at| (at, numbers.get(at), expected.get(at)));
    let lengths = (numbers.len(), expected.len());
    assert!(at.is_none(), "{what}: first difference (index, received, stored): {at:?}; lengths: {lengths:?}");
}

/// Asserts that each client has received exactly the messages of the stream, in order, and that ids of events
/// name the right message.
pub(crate) fn assert_all_received(stream: &Content, clients: &[Records]) {
    for (client, records) in clients.iter().enumerate() {
        for (channel, stored) in stream {
            let taken = &records[channel];
            let numbers = taken.iter().map(|record| record.number);
            same(numbers, stored.iter().map(|(number, _)| *number), &format!("client {client}, {channel}"));
            for (record, (_, sequence)) in taken.iter().zip(stored) {
                assert!(
                    record.sequence.is_none_or(|own| own == *sequence),
                    "client {client}, {channel}: {record:?} is not message {sequence}"
                );
            }
        }
    }
}

/// Returns the longest time without data of each client within the window, sorted.
pub(crate) fn longest_gaps(clients: &[Records], window: &Range<Instant>) -> Vec<Duration> {
    let longest = |records: &Records| {
        let mut times: Vec<_> = records.values().flatten().map(|record| record.at).collect();
        times.sort_unstable();
        let pairs = times.windows(2).filter(|pair| pair[1] > window.start && pair[0] < window.end);
        pairs.map(|pair| pair[1] - pair[0]).max().unwrap_or(Duration::MAX)
    };
    let mut gaps: Vec<_> = clients.iter().map(longest).collect();
    gaps.sort_unstable();
    gaps
}
