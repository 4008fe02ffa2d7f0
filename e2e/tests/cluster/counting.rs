//! Tenants, a format and devices that count: each message has the next number, so that what is missing, comes
//! twice or comes late shows.

use std::time::Duration;

use async_nats::jetstream::{self, message::PublishMessage};
use flutecast_contract::name::{ChannelName, DeviceCode, IotId, TenantName};
use flutecast_contract::{iot_id, subject};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

/// The Tenant of most tests.
pub(crate) const TENANT: &str = "acme";
/// The devices of most tests: each one's object and its code.
pub(crate) const DEVICES: [(&str, &str); 2] = [("a", "A-1"), ("b", "B-1")];
/// The channel of each device, and the format's name.
pub(crate) const CHANNEL: &str = "count";
/// The time that a device waits for the broker's reply before it sends the same message again.
const PATIENCE: Duration = Duration::from_secs(1);
/// Longest time that a message may need, an outage included.
const SOON: Duration = Duration::from_secs(90);

/// Objects as one text for kubectl.
pub(crate) fn manifests(objects: &[Value]) -> String {
    objects.iter().map(Value::to_string).collect::<Vec<_>>().join("\n---\n")
}

fn object(kind: &str, name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "flutecast.io/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec})
}

pub(crate) fn tenant(name: &str, spec: &Value) -> Value {
    object("Tenant", name, spec)
}

/// The format of all channels: every number counts.
pub(crate) fn format() -> Value {
    let field = json!({"name": "n", "pointer": "/n", "type": "Number"});
    object("PushFormat", CHANNEL, &json!({"delivery": {"policy": "Every"}, "fields": [field]}))
}

/// A device with the one channel.
pub(crate) fn device(tenant: &str, name: &str, code: &str) -> Value {
    let channel = json!({"name": CHANNEL, "format": CHANNEL});
    object("Device", name, &json!({"tenant": tenant, "deviceCode": code, "channels": [channel]}))
}

/// The id that a device gets, which is nowhere in its manifest.
pub(crate) fn iot_id(tenant: &str, code: &str) -> IotId {
    iot_id::generate(&TenantName::new(tenant).unwrap(), &DeviceCode::new(code).unwrap())
}

/// Returns the subject on which a device sends and under which the tenant's stream stores it.
pub(crate) fn subject(tenant: &str, code: &str) -> String {
    let (name, channel) = (TenantName::new(tenant).unwrap(), ChannelName::new(CHANNEL).unwrap());
    subject::stored(&name, &iot_id(tenant, code), &channel)
}

pub(crate) fn payload(number: u64) -> Value {
    json!({"n": number})
}

/// Sends a device's message until the broker answers that it is stored; it tells repeats by their ids.
pub(crate) async fn store(
    jetstream: &jetstream::Context,
    code: &str,
    number: u64,
    subject: &str,
    payload: &Value,
) {
    let id = format!("{code}-{number}");
    let end = Instant::now() + SOON;
    loop {
        let message = PublishMessage::build().message_id(&id).payload(payload.to_string().into());
        let answer = async { jetstream.send_publish(subject.to_owned(), message).await?.await };
        match timeout(PATIENCE, answer).await {
            Ok(Ok(_)) => return,
            seen => assert!(Instant::now() < end, "{id}: not stored within {SOON:?}; last seen: {seen:?}"),
        }
    }
}

/// Sends numbers from one device of [`DEVICES`] and then the other, each stored before the next one, until it
/// is stopped; returns the last number of both.
pub(crate) fn publish(
    client: async_nats::Client,
    period: Duration,
) -> (watch::Sender<bool>, JoinHandle<u64>) {
    let (stop, stopped) = watch::channel(false);
    let jetstream = jetstream::new(client);
    let publishing = tokio::spawn(async move {
        let mut tick = interval(period);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let devices = DEVICES.map(|(_, code)| (code, subject(TENANT, code)));
        let mut number = 0;
        while !*stopped.borrow() {
            number += 1;
            for (code, subject) in &devices {
                tick.tick().await;
                store(&jetstream, code, number, subject, &payload(number)).await;
            }
        }
        number
    });
    (stop, publishing)
}
