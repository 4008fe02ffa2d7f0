//! Tests the line with a real nats-server, over NATS and MQTT.

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::jetstream::{self, consumer::DeliverPolicy, stream::Stream};
use flutecast_contract::name::TenantName;
use flutecast_demo::line::{Addresses, Channel, Device, Disturbance, LineOptions};
use flutecast_demo::play::{PlayOptions, Played, play};
use flutecast_demo::publish::{MqttAddress, PublishOptions};
use flutecast_testkit::{NatsOptions, NatsServer, Process, wait_until};
use futures_util::StreamExt as _;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

/// The streams that the operator creates for the demo, with their subjects.
const STREAMS: [(&str, &str); 3] =
    [("IOT_demo", "iot.demo.>"), ("SRC_demo_gw-line1", "plant.gw1.*.power"), ("SRC_demo_mes", "mes.out")];
const PATIENCE: Duration = Duration::from_secs(30);

fn tenant() -> TenantName {
    TenantName::new("demo").unwrap()
}

async fn nats_with_streams() -> (NatsServer, jetstream::Context) {
    let nats = NatsServer::start_with(NatsOptions { mqtt: true, ..NatsOptions::default() }).await.unwrap();
    let jetstream = jetstream::new(nats.client().await.unwrap());
    create_streams(&jetstream).await;
    (nats, jetstream)
}

async fn create_streams(jetstream: &jetstream::Context) {
    for (name, subject) in STREAMS {
        let config = jetstream::stream::Config {
            name: name.into(),
            subjects: vec![subject.into()],
            ..Default::default()
        };
        jetstream.create_stream(config).await.unwrap();
    }
}

fn options(nats: &NatsServer, disturbance: Disturbance, duration: Option<Duration>) -> PlayOptions {
    PlayOptions {
        line: LineOptions { tenant: tenant(), seed: 1, disturbance },
        publish: PublishOptions {
            nats: nats.url(),
            mqtt: Some(MqttAddress::new("127.0.0.1", nats.mqtt_port())),
            name: "test-line".to_owned(),
        },
        rate_factor: 5.0,
        duration,
    }
}

/// Returns subject and payload of all messages in a stream, in order.
async fn stored(stream: &Stream) -> Vec<(String, Value)> {
    let config =
        jetstream::consumer::pull::OrderedConfig { deliver_policy: DeliverPolicy::All, ..Default::default() };
    let count = stream.cached_info().state.messages;
    let messages = stream.create_consumer(config).await.unwrap().messages().await.unwrap();
    let read = messages.take(usize::try_from(count).unwrap()).map(|message| {
        let message = message.unwrap();
        (message.subject.to_string(), serde_json::from_slice(&message.payload).unwrap())
    });
    tokio::time::timeout(PATIENCE, read.collect()).await.expect("the stream's messages")
}

async fn stored_in(jetstream: &jetstream::Context, stream: &str) -> Vec<(String, Value)> {
    stored(&jetstream.get_stream(stream).await.unwrap()).await
}

fn subject(device: Device, channel: Channel) -> String {
    Addresses::new(&tenant()).unwrap().route(device, channel).subject()
}

/// Groups messages by subject, in order.
fn by_subject(messages: Vec<(String, Value)>) -> BTreeMap<String, Vec<Value>> {
    let mut subjects: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for (subject, payload) in messages {
        subjects.entry(subject).or_default().push(payload);
    }
    subjects
}

#[tokio::test(flavor = "multi_thread")]
async fn every_channel_arrives_some_of_it_late_and_some_twice() {
    let (nats, jetstream) = nats_with_streams().await;
    let disturbance = Disturbance { late_percent: 6.0, duplicate_percent: 6.0, malformed_percent: 0.0 };
    let options = options(&nats, disturbance, Some(Duration::from_secs(3)));
    let played = play(&options, &CancellationToken::new()).await.unwrap();

    let Played { messages, late, duplicates, tally, .. } = played;
    assert!(messages > 200 && late > 0 && duplicates > 0, "{played}");
    assert_eq!(tally.lost, 0, "{played}");
    // The first telemetry may be sent before the connection is established.
    assert!(tally.unsent < messages / 4, "{played}");
    assert_eq!(messages, tally.nats + tally.mqtt + tally.unsent, "{played}");

    let mut arrived = BTreeMap::new();
    for (stream, _) in STREAMS {
        arrived.extend(by_subject(stored_in(&jetstream, stream).await));
    }
    let at_least = |device, channel, least| {
        let subject = subject(device, channel);
        let count = arrived.get(&subject).map_or(0, Vec::len);
        assert!(count >= least, "{} {channel:?}: {count} on {subject}", device.code());
    };
    // The line runs for fifteen virtual seconds. Half of the messages are required, since the machine may be
    // busy.
    at_least(Device::Corrugator, Channel::Telemetry, 37);
    at_least(Device::Slitter, Channel::Telemetry, 15);
    at_least(Device::Flexo, Channel::Telemetry, 75);
    at_least(Device::DieCutter, Channel::Telemetry, 15);
    at_least(Device::Stacker, Channel::Telemetry, 7);
    at_least(Device::Corrugator, Channel::Counters, 7);
    for device in Device::ALL {
        at_least(device, Channel::Power, 1);
    }
    for device in [Device::Corrugator, Device::Flexo, Device::Stacker] {
        at_least(device, Channel::Alarms, 1);
    }
    assert!(arrived["mes.out"].len() >= 7, "{:?}", arrived["mes.out"]);

    let (mut late, mut twice) = (0, 0);
    for payloads in arrived.values() {
        let mut newest = i64::MIN;
        for (index, payload) in payloads.iter().enumerate() {
            twice += u32::from(payloads[..index].contains(payload));
            if let Some(time) = payload["ts"].as_i64() {
                late += u32::from(time < newest && !payloads[..index].contains(payload));
                newest = newest.max(time);
            }
        }
    }
    assert!(late > 0 && twice > 0, "{late} late and {twice} twice, of {played}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_line_goes_on_after_a_restart_of_the_broker() {
    let (mut nats, jetstream) = nats_with_streams().await;
    let shutdown = CancellationToken::new();
    let options = options(&nats, Disturbance::NONE, None);
    let line = tokio::spawn({
        let shutdown = shutdown.clone();
        async move { play(&options, &shutdown).await }
    });
    let watched = [
        subject(Device::Corrugator, Channel::Telemetry),
        subject(Device::Flexo, Channel::Telemetry),
        subject(Device::DieCutter, Channel::Telemetry),
        subject(Device::Corrugator, Channel::Counters),
    ];
    wait_for_messages(&jetstream, &watched, 10).await;

    nats.kill().await.unwrap();
    nats.restart().await.unwrap();
    let jetstream = jetstream::new(nats.client().await.unwrap());
    let before = counts(&jetstream).await.unwrap();
    for subject in &watched {
        let more = before[subject] + 10;
        wait_for_messages(&jetstream, std::slice::from_ref(subject), more).await;
    }

    shutdown.cancel();
    let played = line.await.unwrap().unwrap();
    assert_eq!(played.tally.lost, 0, "{played}");
    // Counters are events: none may be missing, and each must arrive once and in order.
    let stored = by_subject(stored_in(&jetstream, "IOT_demo").await);
    let times: Vec<i64> = stored[&watched[3]].iter().map(|payload| payload["ts"].as_i64().unwrap()).collect();
    for pair in times.windows(2) {
        let apart = pair[1] - pair[0];
        assert!(
            (1..=250).contains(&apart),
            "{apart} ms between two counters that come each 200 ms: {times:?}"
        );
    }
}

async fn counts(jetstream: &jetstream::Context) -> Result<BTreeMap<String, usize>, String> {
    let stream = jetstream.get_stream("IOT_demo").await.map_err(|error| error.to_string())?;
    let mut info = stream.info_with_subjects("iot.demo.>").await.map_err(|error| error.to_string())?;
    let mut counts = BTreeMap::new();
    while let Some(entry) = info.next().await {
        let (subject, count) = entry.map_err(|error| error.to_string())?;
        counts.insert(subject, count);
    }
    Ok(counts)
}

async fn wait_for_messages(jetstream: &jetstream::Context, subjects: &[String], least: usize) {
    wait_until("the line's messages", PATIENCE, async || {
        let counts = counts(jetstream).await?;
        let enough = |subject: &String| counts.get(subject).is_some_and(|count| *count >= least);
        if subjects.iter().all(enough) { Ok(()) } else { Err(format!("{counts:?}")) }
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn events_wait_for_a_broker_that_comes_later() {
    // The line starts before any stream exists.
    let nats = NatsServer::start_with(NatsOptions { mqtt: true, ..NatsOptions::default() }).await.unwrap();
    let shutdown = CancellationToken::new();
    let options = options(&nats, Disturbance::NONE, None);
    let line = tokio::spawn({
        let shutdown = shutdown.clone();
        async move { play(&options, &shutdown).await }
    });
    let client = nats.client().await.unwrap();
    // Without streams, only the gateway's first power message shows that the line is running.
    let mut heard = client.subscribe("plant.gw1.*.power").await.unwrap();
    tokio::time::timeout(PATIENCE, heard.next()).await.expect("the line").unwrap();
    let jetstream = jetstream::new(client);
    create_streams(&jetstream).await;
    let first_counters = wait_until("the first counters", PATIENCE, async || {
        let stored = by_subject(stored_in(&jetstream, "IOT_demo").await);
        let counters = stored.get(&subject(Device::Corrugator, Channel::Counters)).cloned();
        counters.filter(|counters| counters.len() > 2).ok_or_else(|| format!("{:?}", stored.keys()))
    })
    .await
    .unwrap();
    shutdown.cancel();
    line.await.unwrap().unwrap();
    // The first counters message reports zero.
    assert_eq!(first_counters[0]["total"], 0, "{first_counters:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_ends_by_itself_and_when_it_is_told() {
    let (nats, _) = nats_with_streams().await;
    let program = env!("CARGO_BIN_EXE_flutecast-demo");
    let mqtt = format!("127.0.0.1:{}", nats.mqtt_port());
    let url = nats.url();
    let arguments = ["line", "--nats", &url, "--mqtt", &mqtt, "--seed", "3"];

    let mut by_itself =
        Process::spawn(program, arguments.into_iter().chain(["--duration", "500ms"])).unwrap();
    assert!(by_itself.wait(PATIENCE).await.unwrap().success(), "{}", by_itself.tail());
    by_itself.wait_for_line("the summary", PATIENCE, |line| line.starts_with("line 0 s: ")).await.unwrap();

    let mut told = Process::spawn(program, arguments).unwrap();
    told.wait_for_line("a connection", PATIENCE, |line| line.contains("connected")).await.unwrap();
    assert!(told.terminate(PATIENCE).await.unwrap().success(), "{}", told.tail());
    told.wait_for_line("the summary", PATIENCE, |line| line.contains(" messages (")).await.unwrap();
}

#[tokio::test]
async fn wrong_settings_are_explained() {
    for (name, value, expected) in [
        ("--rate-factor", "1000", "from 0.1 to 20"),
        ("--late-percent", "101", "from 0 to 100"),
        ("--mqtt", "nowhere", "write [USER:PASSWORD@]HOST:PORT"),
        ("--duration", "5 parsecs", "write 500ms"),
        ("--tenant", "Not A Tenant", "lower-case letters"),
    ] {
        let mut process =
            Process::spawn(env!("CARGO_BIN_EXE_flutecast-demo"), ["line", name, value]).unwrap();
        assert_eq!(process.wait(PATIENCE).await.unwrap().code(), Some(2));
        process.wait_for_line("an explanation", PATIENCE, |line| line.contains(expected)).await.unwrap();
    }
}
