//! With a real nats-server: what is in the stream of last values, and when.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::jetstream::{self, Context};
use flutecast_contract::name::TenantName;
use flutecast_nats::{JetStreamApi, StreamReader};
use flutecast_testkit::{NatsOptions, NatsServer, wait_until};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::channels;
use crate::jetstream::reconciler::{StreamReports, TenantReport};
use crate::jetstream::tenant::{self, Streams};
use crate::last_messages::{DeclaredChannels, DeviceLook, Judge, LookMetrics, LookTask, TailReader};
use crate::tests::{Folder, manifests};

const SOON: Duration = Duration::from_secs(20);
/// The time for which the tenant's stream has a message.
const MAX_AGE: Duration = Duration::from_secs(4);

const FORMATS: [&str; 3] = [
    "metadata: {name: plain}\nspec:\n  fields:\n  - {name: v, pointer: /v, type: Number}\n",
    "metadata: {name: positive}\nspec:\n  when: values.v >= 0\n  fields:\n  - {name: v, pointer: /v, type: \
     Number}\n",
    "metadata: {name: record}\nspec:\n  record: {merge: true}\n  fields:\n  - {name: temp, pointer: /temp, \
     type: Number}\n  - {name: hum, pointer: /hum, type: Number}\n",
];

/// What was found of each channel: the payload of its last message, and its tail.
#[derive(Default)]
struct Recorder(Mutex<BTreeMap<String, (Option<String>, usize)>>);

impl Judge for Recorder {
    async fn judge(&self, device: &DeviceLook<'_>, tails: &TailReader) {
        for channel in &device.channels {
            let last = channel.last.map(|last| String::from_utf8(last.payload.to_vec()).unwrap());
            let tail = tails.newest(device.iot_id, channel.name, 20).await.map_or(0, |tail| tail.len());
            let name = format!("{}/{} {}.{}", device.key.0, device.key.1, device.iot_id, channel.name);
            self.0.lock().unwrap().insert(name, (last, tail));
        }
    }
}

struct World {
    api: JetStreamApi,
    context: Context,
    kept: StreamReader,
    declared: watch::Sender<Option<Arc<DeclaredChannels>>>,
    reports: watch::Sender<StreamReports>,
    judge: Arc<Recorder>,
    metrics: Arc<LookMetrics>,
    connected: watch::Sender<bool>,
    grace: Duration,
    task: Option<DropGuard>,
    _server: NatsServer,
}

impl World {
    async fn start() -> Self {
        Self::start_with(NatsOptions::default()).await
    }

    async fn start_with(options: NatsOptions) -> Self {
        let server = NatsServer::start_with(options).await.unwrap();
        let client = server.client().await.unwrap();
        let mut world = Self {
            api: JetStreamApi::new(client.clone()),
            context: jetstream::new(client.clone()),
            kept: StreamReader::new(client, "LAST_demo".to_owned()),
            declared: watch::Sender::new(None),
            reports: watch::Sender::new(StreamReports::new()),
            judge: Arc::default(),
            metrics: Arc::default(),
            connected: watch::Sender::new(true),
            grace: Duration::ZERO,
            task: None,
            _server: server,
        };
        world.make_streams().await;
        world.restart_task();
        world
    }

    async fn make_streams(&self) {
        let built = folder(&[]).built();
        let wanted = built.tenants.values().next().unwrap().streams.clone();
        let applied = tenant::apply(&self.api, &Streams::new(), &wanted).await.unwrap();
        assert!(applied.has_kept && applied.findings.is_empty(), "{applied:?}");
        let report = TenantReport { has_stream: true, has_kept: true, ..TenantReport::default() };
        self.reports.send_replace([(demo(), report)].into());
    }

    fn restart_task(&mut self) {
        let cancel = CancellationToken::new();
        let task = LookTask {
            client: self.kept.client().clone(),
            api: self.api.clone(),
            connected: self.connected.subscribe(),
            channels: self.declared.subscribe(),
            reports: self.reports.subscribe(),
            grace: self.grace,
            first: mpsc::channel(1).1,
            metrics: self.metrics.clone(),
        };
        let judge = self.judge.clone();
        let cancelled = cancel.clone();
        drop(tokio::spawn(async move { cancelled.run_until_cancelled(task.run(judge)).await }));
        self.task = Some(cancel.drop_guard());
    }

    /// Declares these devices, each with its channels and their formats, and no others.
    fn declare(&self, devices: &[(&str, &[(&str, &str)])]) {
        let channels = channels(&folder(devices));
        self.declared.send_replace(Some(Arc::new([(demo(), channels)].into())));
    }

    async fn publish(&self, subject: &str, payload: &str) -> u64 {
        let published = self.context.publish(subject.to_owned(), payload.to_owned().into()).await.unwrap();
        published.await.unwrap().sequence
    }

    /// Returns what is kept on a subject: payloads with the sequence and the age of their origin.
    async fn on(&self, subject: &str) -> Vec<(String, u64)> {
        let page = self.kept.page(subject, flutecast_contract::stream_position::Sequence(1)).await.unwrap();
        let origin = |message: flutecast_nats::StoredMessage| {
            let origin = message.origin.expect("an origin");
            assert!(origin.stored_at < message.stored_at, "{origin:?}");
            (String::from_utf8(message.payload.to_vec()).unwrap(), origin.sequence.0)
        };
        page.messages.into_iter().map(origin).collect()
    }

    async fn until_kept(&self, subject: &str, expected: &[(&str, u64)]) {
        let expected: Vec<_> = expected.iter().map(|(text, n)| ((*text).to_owned(), *n)).collect();
        wait_until(&format!("{expected:?} on {subject}"), SOON, async || {
            let kept = self.on(subject).await;
            if kept == expected { Ok(()) } else { Err(format!("{kept:?}")) }
        })
        .await
        .unwrap();
    }

    async fn until_stored(&self, count: u64) {
        let stored = StreamReader::new(self.kept.client().clone(), "IOT_demo".to_owned());
        wait_until(&format!("{count} messages in the tenant's stream"), SOON, async || {
            let state = stored.state().await.map_err(|error| error.to_string())?;
            let now = state.last_sequence.next().0 - state.first_sequence.0;
            if now == count { Ok(()) } else { Err(now.to_string()) }
        })
        .await
        .unwrap();
    }

    /// The last sequence that was ever kept.
    async fn writes(&self) -> u64 {
        self.kept.state().await.unwrap().last_sequence.0
    }
}

fn demo() -> TenantName {
    TenantName::new("demo").unwrap()
}

pub(in crate::last_messages) fn folder(devices: &[(&str, &[(&str, &str)])]) -> Folder {
    let retention = format!("retention: {{maxAge: {}s}}", MAX_AGE.as_secs());
    let mut yaml = vec![manifests::tenant("demo", &retention)];
    let object = |kind: &str, rest: &str| format!("apiVersion: flutecast.io/v1alpha1\nkind: {kind}\n{rest}");
    yaml.extend(FORMATS.map(|format| object("PushFormat", format)));
    for (id, channels) in devices {
        let channels =
            channels.iter().map(|(name, format)| format!("  - {{name: {name}, format: {format}}}\n"));
        let channels: String = channels.collect();
        let spec = format!("  tenant: demo\n  deviceCode: {id}\n  iotId: {id}\n  channels:\n{channels}");
        yaml.push(object("Device", &format!("metadata: {{name: {id}}}\nspec:\n{spec}")));
    }
    let mut folder = Folder::default();
    folder.load(&[("a.yaml", &yaml.join("---\n"))]);
    folder
}

#[tokio::test]
async fn the_last_value_of_a_silent_channel_outlives_its_message() {
    let mut world = World::start().await;
    let devices: &[(&str, &[(&str, &str)])] = &[("a", &[("power", "plain"), ("busy", "plain")])];
    world.declare(devices);
    let sequence = world.publish("iot.demo.a.power", r#"{"v":1}"#).await;
    // Active until the other one has expired.
    let busy = async {
        loop {
            world.publish("iot.demo.a.busy", r#"{"v":2}"#).await;
            tokio::time::sleep(MAX_AGE / 20).await;
        }
    };
    let kept = async {
        world.until_kept("last.demo.a.power", &[(r#"{"v":1}"#, sequence)]).await;
        wait_until("the message to expire", SOON, async || {
            let reader = StreamReader::new(world.kept.client().clone(), "IOT_demo".to_owned());
            match reader.first_of("iot.demo.a.power").await {
                Ok(None) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await
        .unwrap();
    };
    tokio::select! {
        () = kept => {}
        () = busy => {}
    }
    assert_eq!(world.on("last.demo.a.power").await, [(r#"{"v":1}"#.to_owned(), sequence)]);
    assert_eq!(world.on("last.demo.a.busy").await, [], "an active channel is not copied");
    assert_eq!(world.writes().await, 1);

    // Silent as well now; and a restart copies nothing twice.
    world.until_stored(0).await;
    assert_eq!(world.writes().await, 2);
    world.restart_task();
    let newest = world.publish("iot.demo.a.power", r#"{"v":3}"#).await;
    world.until_kept("last.demo.a.power", &[(r#"{"v":3}"#, newest)]).await;
    assert_eq!(world.writes().await, 3, "a newer last value replaces the one before");
}

#[tokio::test]
async fn what_is_kept_makes_the_value() {
    let world = World::start().await;
    world.declare(&[("a", &[("state", "positive"), ("record", "record")])]);
    let shown = world.publish("iot.demo.a.state", r#"{"v":1824}"#).await;
    world.publish("iot.demo.a.state", r#"{"v":-1}"#).await;
    world.publish("iot.demo.a.record", r#"{"temp":19}"#).await;
    let temp = world.publish("iot.demo.a.record", r#"{"temp":20}"#).await;
    world.publish("iot.demo.a.record", "cut off {").await;
    let hum = world.publish("iot.demo.a.record", r#"{"hum":50}"#).await;
    world.until_kept("last.demo.a.state", &[(r#"{"v":1824}"#, shown)]).await;
    world.until_kept("last.demo.a.record", &[(r#"{"temp":20}"#, temp), (r#"{"hum":50}"#, hum)]).await;
    world.until_stored(0).await;
    assert_eq!(world.writes().await, 3);
}

#[tokio::test]
async fn kept_values_go_with_their_device_their_channel_and_their_stream() {
    let mut world = World::start().await;
    let (power, both): (&[_], &[_]) = (&[("power", "plain")], &[("power", "plain"), ("status", "plain")]);
    let ids = ["a", "b", "c"];
    world.declare(&[("a", both), ("b", power), ("c", power)]);
    let mut sequences = BTreeMap::new();
    for id in ids {
        sequences.insert(id, world.publish(&format!("iot.demo.{id}.power"), "{\"v\":1}").await);
    }
    let status = world.publish("iot.demo.a.status", "{\"v\":1}").await;
    for (id, sequence) in &sequences {
        world.until_kept(&format!("last.demo.{id}.power"), &[("{\"v\":1}", *sequence)]).await;
    }
    world.until_kept("last.demo.a.status", &[("{\"v\":1}", status)]).await;
    world.until_stored(0).await;

    world.declare(&[("a", power), ("c", power)]);
    world.until_kept("last.demo.a.status", &[]).await;
    world.until_kept("last.demo.b.power", &[]).await;
    world.until_kept("last.demo.a.power", &[("{\"v\":1}", sequences["a"])]).await;
    // A Device goes while no operator works.
    world.task = None;
    world.declare(&[("a", power)]);
    world.restart_task();
    world.until_kept("last.demo.c.power", &[]).await;
    world.until_kept("last.demo.a.power", &[("{\"v\":1}", sequences["a"])]).await;
    // The tenant's stream is made anew.
    world.api.delete_stream("IOT_demo").await.unwrap();
    world.make_stream_anew().await;
    world.until_kept("last.demo.a.power", &[]).await;
}

impl World {
    async fn make_stream_anew(&self) {
        let streams = self.api.streams().await.unwrap();
        let named = |stream: flutecast_nats::api::StreamInfo| {
            (stream.config["name"].as_str().unwrap().to_owned(), stream)
        };
        let built = folder(&[]).built();
        let wanted = built.tenants.values().next().unwrap().streams.clone();
        let applied = tenant::apply(&self.api, &streams.into_iter().map(named).collect(), &wanted).await;
        assert_eq!(applied.unwrap().changes, 1);
    }
}

#[tokio::test]
async fn a_device_that_comes_back_within_the_grace_keeps_its_value() {
    let mut world = World::start().await;
    world.grace = Duration::from_secs(6);
    world.restart_task();
    let a: (&str, &[(&str, &str)]) = ("a", &[("power", "plain")]);
    let b: (&str, &[(&str, &str)]) = ("b", &[("power", "plain")]);
    world.declare(&[a, b]);
    let sequence = world.publish("iot.demo.a.power", "{\"v\":1}").await;
    let other = world.publish("iot.demo.b.power", "{\"v\":1}").await;
    world.until_kept("last.demo.a.power", &[("{\"v\":1}", sequence)]).await;
    world.until_kept("last.demo.b.power", &[("{\"v\":1}", other)]).await;
    world.declare(&[]);
    // Looks come and go meanwhile.
    let looks = world.metrics.looks();
    wait_until("two looks", SOON, async || {
        let now = world.metrics.looks();
        if now >= looks + 2 { Ok(()) } else { Err(now) }
    })
    .await
    .unwrap();
    world.declare(&[a]);
    world.until_kept("last.demo.b.power", &[]).await;
    world.until_kept("last.demo.a.power", &[("{\"v\":1}", sequence)]).await;
    assert_eq!(world.writes().await, 2);
}

#[tokio::test]
async fn without_the_right_to_publish_devices_are_judged_all_the_same() {
    let user = "{user: a, password: a, permissions: {publish: {deny: \"last.>\"}}}";
    let extra = format!("no_auth_user: a\naccounts {{ A {{ jetstream: enabled, users: [{user}] }} }}\n");
    let world = World::start_with(NatsOptions { extra, ..NatsOptions::default() }).await;
    world.declare(&[("a", &[("power", "plain")])]);
    world.publish("iot.demo.a.power", "{\"v\":1}").await;
    wait_until("a copy that is refused", SOON, async || {
        let failed = world.metrics.kept_failures();
        if failed > 0 { Ok(()) } else { Err(failed) }
    })
    .await
    .unwrap();
    world.publish("iot.demo.a.power", "{\"v\":2}").await;
    wait_until("the next judgement", SOON, async || {
        let judged = world.judge.0.lock().unwrap().clone();
        let is_newest = |(last, _): &(Option<String>, usize)| last.as_deref() == Some("{\"v\":2}");
        if judged.values().all(is_newest) { Ok(()) } else { Err(format!("{judged:?}")) }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn each_device_is_judged_with_all_its_channels() {
    let world = World::start().await;
    world.declare(&[("a", &[("power", "plain"), ("status", "plain")]), ("b", &[("power", "plain")])]);
    for n in 1..=30 {
        world.publish("iot.demo.a.power", &format!("{{\"v\":{n}}}")).await;
    }
    let expected = [
        ("default/a a.power".to_owned(), (Some("{\"v\":30}".to_owned()), 20)),
        ("default/a a.status".to_owned(), (None, 0)),
        ("default/b b.power".to_owned(), (None, 0)),
    ];
    wait_until("all to be judged", SOON, async || {
        let judged = world.judge.0.lock().unwrap().clone();
        if judged.iter().map(|(key, value)| (key.clone(), value.clone())).eq(expected.clone()) {
            Ok(())
        } else {
            Err(format!("{judged:?}"))
        }
    })
    .await
    .unwrap();
}
