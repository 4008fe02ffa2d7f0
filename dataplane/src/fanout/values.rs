//! The newest values of a device, as JSON.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use flutecast_contract::name::ChannelName;
use flutecast_format::program::Timestamp;
use serde::Serialize;

use super::keys::ChannelId;
use crate::catalog::Device;
use crate::pipeline::json_time;

#[derive(Debug, Clone)]
pub struct DeviceValues {
    pub device: Arc<Device>,
    /// The requested channels, by name.
    pub channels: Vec<ChannelValues>,
}

#[derive(Debug, Clone)]
pub struct ChannelValues {
    pub name: ChannelName,
    /// The time of the values; `None` if no message is stored.
    pub time: Option<Timestamp>,
    /// `true` if the channel has been silent for longer than its `staleAfter`.
    pub stale: bool,
    /// The formatted values, a JSON object; `None` if no message is stored.
    pub values: Option<Bytes>,
}

pub(super) type LiveValues = HashMap<ChannelId, ChannelValues>;

impl DeviceValues {
    /// Appends the JSON object of docs/protocol.md, "Devices as JSON".
    pub fn write_json(&self, out: &mut Vec<u8>) {
        let Self { device, channels } = self;
        out.extend_from_slice(b"{\"device\":");
        write_value(&device.code, out);
        out.extend_from_slice(b",\"name\":");
        write_value(&device.name, out);
        out.extend_from_slice(b",\"labels\":");
        write_value(&device.labels, out);
        out.extend_from_slice(b",\"channels\":{");
        for (index, channel) in channels.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            channel.write_json(out);
        }
        out.extend_from_slice(b"}}");
    }
}

impl ChannelValues {
    fn write_json(&self, out: &mut Vec<u8>) {
        let Self { name, time, stale, values } = self;
        write_value(name, out);
        let start = format!(":{{\"time\":{},\"stale\":{stale},\"values\":", json_time(*time));
        out.extend_from_slice(start.as_bytes());
        out.extend_from_slice(values.as_deref().unwrap_or(b"null"));
        out.push(b'}');
    }
}

/// Writes a name or labels, which JSON can always represent.
fn write_value<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) {
    let written = serde_json::to_vec(value).unwrap_or_else(|_| b"null".to_vec());
    out.extend_from_slice(&written);
}

#[cfg(test)]
mod tests {
    use super::*;
    use flutecast_contract::name::{DeviceCode, IotId};

    #[test]
    fn values_are_written_as_documented() {
        let device = Device {
            iot_id: IotId::new("a").unwrap(),
            code: DeviceCode::new("CORR-01").unwrap(),
            name: "corrugator-1".to_owned(),
            labels: Arc::new([("line".to_owned(), "l1".to_owned())].into()),
            channels: std::collections::BTreeMap::new(),
        };
        let channel = |name: &str, time, values: Option<&'static str>| ChannelValues {
            name: ChannelName::new(name).unwrap(),
            time,
            stale: time.is_none(),
            values: values.map(Bytes::from),
        };
        let channels = vec![
            channel("power", None, None),
            channel("telemetry", Some(Timestamp(0)), Some("{\"speed\":1.5}")),
        ];
        let mut out = Vec::new();
        DeviceValues { device: Arc::new(device), channels }.write_json(&mut out);
        let expected = serde_json::json!({
            "device": "CORR-01", "name": "corrugator-1", "labels": {"line": "l1"},
            "channels": {
                "power": {"time": null, "stale": true, "values": null},
                "telemetry": {"time": "1970-01-01T00:00:00.000Z", "stale": false, "values": {"speed": 1.5}},
            },
        });
        assert_eq!(serde_json::from_slice::<serde_json::Value>(&out).unwrap(), expected);
    }
}
