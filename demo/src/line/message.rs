//! Messages of the line: bodies with virtual times, and payloads with real times.

use flutecast_contract::name::IotId;
use jiff::Timestamp;
use serde::{Serialize, Serializer};

use super::address::{Quality, Route};
use super::alarm::AlarmNotice;
use super::delivery::Delivery;

/// Converts virtual time, in milliseconds from the start of the line, into real time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WallClock {
    /// The real time of virtual time 0, in milliseconds since 1970-01-01T00:00:00Z.
    pub start_unix_ms: i64,
    /// Speed of the line as a multiple of real time.
    pub rate_factor: f64,
}

impl WallClock {
    /// Converts a virtual time to milliseconds since 1970-01-01T00:00:00Z.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "far below 2^52 ms")]
    pub fn unix_ms(&self, virtual_ms: u64) -> i64 {
        self.start_unix_ms + (virtual_ms as f64 / self.rate_factor).round() as i64
    }

    fn rfc3339(&self, virtual_ms: u64) -> String {
        let time = Timestamp::from_millisecond(self.unix_ms(virtual_ms)).unwrap_or(Timestamp::UNIX_EPOCH);
        format!("{time:.3}")
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// When the message is sent, in virtual time.
    pub due_ms: u64,
    pub route: Route,
    pub quality: Quality,
    pub delivery: Delivery,
    pub body: Body,
}

impl Message {
    /// Returns the JSON payload.
    ///
    /// # Errors
    /// Never, in practice: every body can be written as JSON.
    pub fn payload(&self, clock: &WallClock) -> Result<Vec<u8>, serde_json::Error> {
        self.body.payload(clock)
    }
}

/// The content of a message, with its virtual time.
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// Raw values of a device.
    Telemetry {
        /// The time of the measurement.
        at_ms: u64,
        /// Values by name, in the order of the payload.
        values: Vec<(&'static str, i64)>,
    },
    /// Whether a drive is on.
    Power {
        /// The time of the change, or of a repeated report.
        at_ms: u64,
        on: bool,
    },
    /// The progress of the corrugator's order.
    Counters {
        /// The time of the count.
        at_ms: u64,
        order: String,
        /// Good board, in linear metres.
        good: i64,
        /// All board, in linear metres.
        total: i64,
    },
    /// A message of the MES with the progress of several devices.
    Mes {
        sent_ms: u64,
        /// One item per device; some are malformed.
        readings: Vec<Reading>,
    },
    /// An alarm that was raised or cleared.
    Alarm { at_ms: u64, notice: AlarmNotice },
}

/// An item of an MES message.
#[derive(Debug, Clone, PartialEq)]
pub enum Reading {
    /// A valid item.
    Good {
        iot_id: IotId,
        /// The time of the count.
        at_ms: u64,
        order: String,
        /// Good pieces.
        good: i64,
        /// All pieces.
        total: i64,
    },
    /// A malformed item, as other systems occasionally send them.
    Malformed(Malformed),
}

/// The fault of a malformed item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed {
    /// The item isn't an object.
    Null,
    /// The item has no device.
    NoDevice,
    /// The item names a device that the tenant doesn't have.
    UnknownDevice,
    /// The device is a number.
    DeviceIsNumber,
}

impl Malformed {
    pub(crate) const ALL: [Self; 4] = [Self::Null, Self::NoDevice, Self::UnknownDevice, Self::DeviceIsNumber];
}

impl Body {
    fn payload(&self, clock: &WallClock) -> Result<Vec<u8>, serde_json::Error> {
        match self {
            Self::Telemetry { at_ms, values } => {
                serde_json::to_vec(&TelemetryJson { ts: clock.unix_ms(*at_ms), d: Values(values) })
            }
            Self::Power { at_ms, on } => {
                serde_json::to_vec(&PowerJson { ts: clock.unix_ms(*at_ms), on: u8::from(*on) })
            }
            Self::Counters { at_ms, order, good, total } => serde_json::to_vec(&CountersJson {
                device_id: None,
                ts: clock.unix_ms(*at_ms),
                order,
                good: *good,
                total: *total,
            }),
            Self::Mes { sent_ms, readings } => serde_json::to_vec(&MesJson {
                sent_at: clock.unix_ms(*sent_ms),
                readings: readings.iter().map(|reading| reading.json(clock)).collect(),
            }),
            Self::Alarm { at_ms, notice } => serde_json::to_vec(&AlarmJson {
                ts: clock.rfc3339(*at_ms),
                code: notice.code,
                severity: notice.severity.as_str(),
                text: notice.text,
            }),
        }
    }
}

impl Reading {
    fn json<'a>(&'a self, clock: &WallClock) -> Option<CountersJson<'a>> {
        let nobody = |device_id| {
            Some(CountersJson { device_id, ts: clock.start_unix_ms, order: "", good: 0, total: 0 })
        };
        match self {
            Self::Good { iot_id, at_ms, order, good, total } => Some(CountersJson {
                device_id: Some(DeviceIdJson::Text(iot_id.as_str())),
                ts: clock.unix_ms(*at_ms),
                order,
                good: *good,
                total: *total,
            }),
            Self::Malformed(Malformed::Null) => None,
            Self::Malformed(Malformed::NoDevice) => nobody(None),
            Self::Malformed(Malformed::UnknownDevice) => nobody(Some(DeviceIdJson::Text("unknown-99"))),
            Self::Malformed(Malformed::DeviceIsNumber) => nobody(Some(DeviceIdJson::Number(7))),
        }
    }
}

#[derive(Serialize)]
struct TelemetryJson<'a> {
    ts: i64,
    d: Values<'a>,
}

struct Values<'a>(&'a [(&'static str, i64)]);

impl Serialize for Values<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().copied())
    }
}

#[derive(Serialize)]
struct PowerJson {
    ts: i64,
    on: u8,
}

#[derive(Serialize)]
struct CountersJson<'a> {
    #[serde(rename = "deviceId", skip_serializing_if = "Option::is_none")]
    device_id: Option<DeviceIdJson<'a>>,
    ts: i64,
    order: &'a str,
    good: i64,
    total: i64,
}

#[derive(Serialize)]
#[serde(untagged)]
enum DeviceIdJson<'a> {
    Text(&'a str),
    Number(u32),
}

#[derive(Serialize)]
struct MesJson<'a> {
    #[serde(rename = "sentAt")]
    sent_at: i64,
    readings: Vec<Option<CountersJson<'a>>>,
}

#[derive(Serialize)]
struct AlarmJson {
    ts: String,
    code: u32,
    severity: &'static str,
    text: &'static str,
}
