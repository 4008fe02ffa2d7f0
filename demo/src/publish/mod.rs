//! Publishes the line's messages over NATS, and over MQTT 3.1.1 for the devices that support only that.
//!
//! As on a real machine, publishing never blocks the machine: [`Publisher::offer`] returns at once. Telemetry
//! that can't be sent is dropped and counted, since a newer value follows. Events wait in bounded, ordered
//! queues until the broker is back.

mod mqtt;
mod nats;
mod tally;

use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use tokio_util::sync::CancellationToken;

pub use mqtt::MqttAddress;
pub use tally::{Tally, TallySnapshot};

use crate::line::{Device, Quality, Route};

/// Capacity of a channel's event queue.
const EVENTS_WAITING: usize = 1024;
/// The time limit for sending the remaining messages at the end.
const DRAIN_DEADLINE: Duration = Duration::from_secs(3);

#[derive(Debug, Clone)]
pub struct PublishOptions {
    /// The NATS URL.
    pub nats: String,
    /// The MQTT address. If `None`, MQTT devices publish over NATS, on the subject to which nats-server maps
    /// their topic.
    pub mqtt: Option<MqttAddress>,
    /// Prefix of MQTT client ids, `<name>-<device code>`; it keeps the sessions of several lines apart.
    pub name: String,
}

/// A message ready to be published.
#[derive(Debug, Clone)]
pub struct Outgoing {
    pub route: Route,
    pub quality: Quality,
    pub payload: Bytes,
}

/// The senders for NATS and MQTT.
#[derive(Debug)]
pub struct Publisher {
    tally: Tally,
    nats: nats::NatsSender,
    mqtt: Vec<(Device, mqtt::MqttSender)>,
}

impl Publisher {
    /// Starts the senders without waiting for the broker; they connect in the background.
    ///
    /// # Errors
    /// Returns an error if the NATS URL is invalid.
    pub async fn start(options: &PublishOptions) -> anyhow::Result<Self> {
        let tally = Tally::default();
        let PublishOptions { nats, mqtt, name } = options;
        let nats = nats::NatsSender::start(nats, tally.clone()).await.context("NATS")?;
        let mqtt = mqtt.iter().flat_map(|address| {
            [Device::Flexo, Device::DieCutter].map(|device| {
                let client_id = format!("{name}-{}", device.code());
                (device, mqtt::MqttSender::start(address, client_id, tally.clone()))
            })
        });
        Ok(Self { nats, mqtt: mqtt.collect(), tally })
    }

    /// Queues a message without blocking; a message that can't be queued is counted as unsent or lost.
    pub fn offer(&mut self, message: Outgoing) {
        let Outgoing { route, quality, payload } = message;
        if let Route::Mqtt(device, topic) = &route
            && let Some((_, sender)) = self.mqtt.iter().find(|(of, _)| of == device)
        {
            sender.offer(topic, quality, payload);
            return;
        }
        self.nats.offer(&route.subject(), quality, payload);
    }

    /// Returns the current counts.
    #[must_use]
    pub fn tally(&self) -> TallySnapshot {
        self.tally.snapshot()
    }

    /// Sends the remaining messages, within a time limit, closes the connections and returns the final
    /// counts.
    pub async fn stop(self) -> TallySnapshot {
        let Self { tally, nats, mqtt } = self;
        let deadline = tokio::time::Instant::now() + DRAIN_DEADLINE;
        let mqtt = mqtt.into_iter().map(|(_, sender)| sender.stop(deadline));
        tokio::join!(nats.stop(deadline), futures_util::future::join_all(mqtt));
        tally.snapshot()
    }
}

/// Sleeps, and returns whether the time passed without a cancellation.
async fn pause(time: Duration, cancelled: &CancellationToken) -> bool {
    tokio::select! {
        () = tokio::time::sleep(time) => true,
        () = cancelled.cancelled() => false,
    }
}

/// Returns the delay before attempt `attempt` (from 1). It doubles from 100 ms to 2 s, less a random share of
/// up to a half, so that senders don't reconnect in step.
fn backoff(attempt: u32) -> Duration {
    use rand::RngExt;
    let full = Duration::from_millis(100) * 2u32.saturating_pow(attempt.min(6).saturating_sub(1));
    full.min(Duration::from_secs(2)).mul_f64(rand::rng().random_range(0.5..=1.0))
}
