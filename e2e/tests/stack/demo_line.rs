//! The demo factory with its simulated line, as a screen sees it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use flutecast_testkit::{LocalStack, Process, SseClient, program};

use crate::factory::SOON;

const DEVICES: [&str; 5] = ["CORR-01", "DIE-01", "FLEX-01", "SLIT-01", "STACK-01"];

fn start_line(stack: &LocalStack) -> anyhow::Result<Process> {
    let mqtt = format!("127.0.0.1:{}", stack.nats.mqtt_port());
    Process::spawn(
        program("flutecast-demo")?,
        ["line", "--nats", &stack.nats.url(), "--mqtt", &mqtt, "--seed", "7"],
    )
}

#[tokio::test]
async fn stream_begins_with_hello_and_carries_values_of_every_device() -> anyhow::Result<()> {
    let stack = LocalStack::demo().await?;
    let dataplane = stack.dataplane().await?;
    let mut line = start_line(&stack)?;
    let mut client = SseClient::connect(&format!("{}/v1/demo/events?device=*", dataplane.url), &[]).await?;
    let first = client.next_where("a block with data", SOON, |event| event.data.is_some()).await?;
    assert_eq!(first.name(), "hello", "hello must be the first event");
    let hello = first.json()?;
    let devices: BTreeSet<_> =
        hello["devices"].as_array().unwrap().iter().map(|one| one["device"].as_str().unwrap()).collect();
    assert_eq!(devices, BTreeSet::from(DEVICES));
    assert_eq!(hello["tenant"], "demo");

    // Waits for two different values of each device. The listed channels cover every route: counters come
    // through the payload source, the power of DIE-01 through the gateway, telemetry of FLEX-01 and DIE-01
    // over MQTT.
    let mut values = BTreeMap::<String, BTreeSet<String>>::new();
    let mut channels = BTreeSet::new();
    let wanted =
        ["FLEX-01 counters", "DIE-01 counters", "DIE-01 power", "FLEX-01 telemetry", "DIE-01 telemetry"];
    let end = Instant::now() + SOON * 2;
    while DEVICES.iter().any(|device| values.get(*device).is_none_or(|values| values.len() < 2))
        || wanted.iter().any(|way| !channels.contains(*way))
    {
        // Messages arrive all the time, so the deadline covers all of them together.
        let left = end.saturating_duration_since(Instant::now());
        let event = client.next_named("message", left).await.map_err(|error| {
            anyhow::anyhow!(
                "{error}; seen: {channels:?}, {values:?}; the line wrote:\n{}\nthe data plane:\n{}",
                line.tail(),
                dataplane.process.tail()
            )
        })?;
        let json = event.json()?;
        let (device, channel) = (json["device"].as_str().unwrap(), json["channel"].as_str().unwrap());
        channels.insert(format!("{device} {channel}"));
        values.entry(device.to_owned()).or_default().insert(json["values"].to_string());
    }
    assert!(line.terminate(SOON).await?.success(), "the line failed: {}", line.tail());
    Ok(())
}

#[tokio::test]
async fn mosquitto_pub_appears_in_the_stream() -> anyhow::Result<()> {
    let stack = LocalStack::demo().await?;
    let dataplane = stack.dataplane().await?;
    let url = format!("{}/v1/demo/events?device=FLEX-01&channel=alarms", dataplane.url);
    let mut client = SseClient::connect(&url, &[]).await?;
    client.next_named("hello", SOON).await?;

    let topic = stack.subject("FLEX-01", "alarms")?.replace('.', "/");
    let port = stack.nats.mqtt_port().to_string();
    let alarm =
        r#"{"ts":"2026-11-22T10:00:00.123Z","code":42,"severity":"critical","text":"Grüße\nvon mosquitto"}"#;
    let arguments = ["-h", "127.0.0.1", "-p", &port, "-q", "1", "-t", &topic, "-m", alarm];
    let mut mosquitto = Process::spawn("mosquitto_pub", arguments)?;
    assert!(mosquitto.wait(SOON).await?.success(), "{}", mosquitto.tail());

    let event = client.next_named("message", SOON).await?.json()?;
    assert_eq!(event["device"], "FLEX-01");
    assert_eq!(event["channel"], "alarms");
    assert_eq!(event["time"], "2026-11-22T10:00:00.123Z");
    assert_eq!(event["values"]["code"], 42);
    assert_eq!(event["values"]["severity"], "critical");
    assert_eq!(event["values"]["text"], "Grüße\nvon mosquitto");
    Ok(())
}
