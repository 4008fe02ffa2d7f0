//! The line as a step function that turns a seed and virtual time into messages.

use std::collections::BTreeMap;

use flutecast_contract::name::{InvalidName, TenantName};
use rand::RngExt;

use super::address::{Addresses, Quality, Route};
use super::delivery::{Delays, Delivery, Disturbance};
use super::device::{Channel, Device};
use super::message::{Body, Malformed, Message, Reading};
use super::physics::{Noise, noise};
use super::plant::{COUNTERS_PERIOD_MS, Plant, Report, STEP_MS, telemetry_period_ms};

/// The jitter of a machine's clock: a message is up to this much later, in milliseconds. It is less than half
/// of the shortest period, so that times increase within each channel.
const JITTER_MS: u64 = 20;
/// The shortest time between two messages of a channel, in virtual milliseconds: one real millisecond even at
/// twenty times real time.
const MIN_GAP_MS: u64 = 20;

#[derive(Debug, Clone)]
pub struct LineOptions {
    /// The tenant of the devices.
    pub tenant: TenantName,
    /// The seed of all random numbers.
    pub seed: u64,
    /// Delivery faults.
    pub disturbance: Disturbance,
}

/// The simulated line.
#[derive(Debug, Clone)]
pub struct Line {
    addresses: Addresses,
    plant: Plant,
    delays: Delays,
    jitter: Noise,
    malformed: Noise,
    malformed_percent: f64,
    now_ms: u64,
    /// The latest time of each route: times increase even when two events occur in one step.
    newest_ms: BTreeMap<Route, u64>,
}

impl Line {
    /// Returns a line at virtual time 0.
    ///
    /// # Errors
    /// Never, in practice; see [`Addresses::new`].
    pub fn new(options: &LineOptions) -> Result<Self, InvalidName> {
        let LineOptions { tenant, seed, disturbance } = options;
        Ok(Self {
            addresses: Addresses::new(tenant)?,
            plant: Plant::new(*seed),
            delays: Delays::new(*seed, *disturbance),
            jitter: noise(*seed, 9),
            malformed: noise(*seed, 10),
            malformed_percent: disturbance.malformed_percent,
            now_ms: 0,
            newest_ms: BTreeMap::new(),
        })
    }

    #[must_use]
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Advances the line to this virtual time and returns the messages that it sends by then, in order. A
    /// time in the past returns none.
    pub fn advance(&mut self, until_ms: u64) -> Vec<Message> {
        while self.now_ms + STEP_MS <= until_ms {
            self.now_ms += STEP_MS;
            for report in self.plant.step(self.now_ms) {
                let period_ms = period_ms(&report);
                let message = self.message(report);
                self.delays.send(message, period_ms);
            }
        }
        self.delays.due(until_ms).collect()
    }

    fn message(&mut self, report: Report) -> Message {
        let (route, quality) = match Plant::channel(&report) {
            Some((device, channel)) => (self.addresses.route(device, channel), quality(device, channel)),
            None => (self.addresses.mes(), Quality::AtLeastOnce),
        };
        let route = route.clone();
        let at_ms = self.time(&route);
        let body = match report {
            Report::Telemetry(_, values) => Body::Telemetry { at_ms, values },
            Report::Power(_, on) => Body::Power { at_ms, on },
            Report::Counters { order, good, total } => Body::Counters { at_ms, order, good, total },
            Report::Mes(counts) => Body::Mes { sent_ms: at_ms, readings: self.readings(at_ms, counts) },
            Report::Alarm(_, notice) => Body::Alarm { at_ms, notice },
        };
        Message { due_ms: at_ms, route, quality, delivery: Delivery::OnTime, body }
    }

    /// Returns the time of the next message on this route.
    fn time(&mut self, route: &Route) -> u64 {
        let measured = self.now_ms + self.jitter.random_range(0..=JITTER_MS);
        let newest = self.newest_ms.entry(route.clone()).or_default();
        *newest = measured.max(*newest + MIN_GAP_MS);
        *newest
    }

    fn readings(&mut self, at_ms: u64, counts: Vec<(Device, String, i64, i64)>) -> Vec<Reading> {
        let mut readings: Vec<Reading> = counts
            .into_iter()
            .map(|(device, order, good, total)| Reading::Good {
                iot_id: self.addresses.iot_id(device).clone(),
                at_ms,
                order,
                good,
                total,
            })
            .collect();
        if self.malformed.random::<f64>() * 100.0 < self.malformed_percent {
            let kind = Malformed::ALL[self.malformed.random_range(0..Malformed::ALL.len())];
            let place = self.malformed.random_range(0..=readings.len());
            readings.insert(place, Reading::Malformed(kind));
        }
        readings
    }
}

/// Returns the time until the next report of the channel, or `None` if it does not report in cycles.
fn period_ms(report: &Report) -> Option<u64> {
    match report {
        Report::Telemetry(device, _) => Some(telemetry_period_ms(*device)),
        Report::Counters { .. } => Some(COUNTERS_PERIOD_MS),
        Report::Power(..) | Report::Mes(_) | Report::Alarm(..) => None,
    }
}

/// The printer's telemetry is the most frequent and uses QoS 0; the die cutter's telemetry uses QoS 1, also
/// over MQTT.
const fn quality(device: Device, channel: Channel) -> Quality {
    match (channel, device) {
        (Channel::Telemetry, Device::DieCutter) => Quality::AtLeastOnce,
        (Channel::Telemetry, _) => Quality::AtMostOnce,
        (Channel::Power | Channel::Counters | Channel::Alarms, _) => Quality::AtLeastOnce,
    }
}
