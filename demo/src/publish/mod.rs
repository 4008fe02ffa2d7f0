//! Sends the line's messages: over NATS, and over MQTT 3.1.1 for the devices that speak only that.
//!
//! As on a real machine, nothing here ever holds the machine up: [`Publisher::offer`] returns at once. What
//! can't be sent is counted. Telemetry that can't be sent now is dropped, since a newer value follows; events
//! wait, in order and within bounds, until the broker is back.

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

/// Number of events of one channel that wait for the broker at most.
const EVENTS_WAITING: usize = 1024;
/// Longest time for senders to deliver the rest when the line ends.
const DRAIN_DEADLINE: Duration = Duration::from_secs(3);

#[derive(Debug, Clone)]
pub struct PublishOptions {
    /// The address of the NATS port.
    pub nats: String,
    /// The address of the MQTT port; `None`: what goes over MQTT goes over NATS, on the subject to which
    /// nats-server maps the topic.
    pub mqtt: Option<MqttAddress>,
    /// Makes this line's MQTT sessions its own; a client id is `<name>-<device code>`.
    pub name: String,
}

/// One message that is ready to go.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// By which way.
    pub route: Route,
    pub quality: Quality,
    pub payload: Bytes,
}

/// The senders.
#[derive(Debug)]
pub struct Publisher {
    tally: Tally,
    nats: nats::NatsSender,
    mqtt: Vec<(Device, mqtt::MqttSender)>,
}

impl Publisher {
    /// Starts the senders. It doesn't wait for the broker: they connect when they can.
    ///
    /// # Errors
    /// If the NATS address can't be understood.
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

    /// Takes a message for sending; never waits.
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

    /// Returns the counters up to now.
    #[must_use]
    pub fn tally(&self) -> TallySnapshot {
        self.tally.snapshot()
    }

    /// Sends what is still on its way, for a few seconds at most, and ends the connections.
    pub async fn stop(self) -> TallySnapshot {
        let Self { tally, nats, mqtt } = self;
        let deadline = tokio::time::Instant::now() + DRAIN_DEADLINE;
        let mqtt = mqtt.into_iter().map(|(_, sender)| sender.stop(deadline));
        tokio::join!(nats.stop(deadline), futures_util::future::join_all(mqtt));
        tally.snapshot()
    }
}

/// Sleeps, unless cancelled meanwhile; gives whether the time has passed.
async fn pause(time: Duration, cancelled: &CancellationToken) -> bool {
    tokio::select! {
        () = tokio::time::sleep(time) => true,
        () = cancelled.cancelled() => false,
    }
}

/// The time before attempt `attempt` (from 1): doubling from 100 ms to 2 s, less up to a half by chance, so
/// that many senders don't come back at the same moment.
fn backoff(attempt: u32) -> Duration {
    use rand::RngExt;
    let full = Duration::from_millis(100) * 2u32.saturating_pow(attempt.min(6).saturating_sub(1));
    full.min(Duration::from_secs(2)).mul_f64(rand::rng().random_range(0.5..=1.0))
}
