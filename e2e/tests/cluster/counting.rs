//! Tenants, a format and devices that count: each message carries the next number, so that lost, repeated and
//! reordered messages are detected.

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
/// The devices of most tests, as (object name, device code).
pub(crate) const DEVICES: [(&str, &str); 2] = [("a", "A-1"), ("b", "B-1")];
/// The name of the only channel of each device, and of its format.
pub(crate) const CHANNEL: &str = "count";
/// Time to wait for the broker's acknowledgement before a message is sent again.
const PATIENCE: Duration = Duration::from_secs(1);
/// Time limit for storing a message, an outage included.
const SOON: Duration = Duration::from_secs(90);

/// Joins objects to one manifest for kubectl.
pub(crate) fn manifests(objects: &[Value]) -> String {
    objects.iter().map(Value::to_string).collect::<Vec<_>>().join("\n---\n")
}

fn object(kind: &str, name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "flutecast.io/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec})
}

pub(crate) fn tenant(name: &str, spec: &Value) -> Value {
    object("Tenant", name, spec)
}

/// Returns the format of all channels. Its delivery policy is `Every`, so no message may be skipped.
pub(crate) fn format() -> Value {
    let field = json!({"name": "n", "pointer": "/n", "type": "Number"});
    object("PushFormat", CHANNEL, &json!({"delivery": {"policy": "Every"}, "fields": [field]}))
}

/// Returns a device with the channel [`CHANNEL`].
pub(crate) fn device(tenant: &str, name: &str, code: &str) -> Value {
    let channel = json!({"name": CHANNEL, "format": CHANNEL});
    object("Device", name, &json!({"tenant": tenant, "deviceCode": code, "channels": [channel]}))
}

/// Returns the id that the operator assigns to a device.
pub(crate) fn iot_id(tenant: &str, code: &str) -> IotId {
    iot_id::generate(&TenantName::new(tenant).unwrap(), &DeviceCode::new(code).unwrap())
}

/// Returns the subject on which a device sends and under which the tenant's stream stores its messages.
pub(crate) fn subject(tenant: &str, code: &str) -> String {
    let (name, channel) = (TenantName::new(tenant).unwrap(), ChannelName::new(CHANNEL).unwrap());
    subject::stored(&name, &iot_id(tenant, code), &channel)
}

pub(crate) fn payload(number: u64) -> Value {
    json!({"n": number})
}

/// Sends a message until the broker acknowledges it. Repeats carry the same message id, so the broker stores
/// it once.
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

/// Sends increasing numbers, alternating between [`DEVICES`], until `true` is sent on the returned channel.
/// Each message is stored before the next is sent. The task returns the last number, which both devices have
/// sent.
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
