//! The newest values of a device, as JSON.

use std::collections::HashMap;
use std::sync::Arc;

use flutecast_contract::name::ChannelName;
use serde::Serialize;

use super::keys::ChannelId;
use crate::catalog::Device;
use crate::pipeline::{Frame, json_time};

#[derive(Debug, Clone)]
pub struct DeviceValues {
    pub device: Arc<Device>,
    /// The requested channels, by name.
    pub channels: Vec<ChannelValues>,
}

#[derive(Debug, Clone)]
pub struct ChannelValues {
    pub name: ChannelName,
    /// `true` if the channel has been silent for longer than its `staleAfter`.
    pub stale: bool,
    /// The event that holds the newest values; `None` if no message can be shown.
    pub frame: Option<Frame>,
    /// What is wrong with the newest messages, as JSON.
    pub problem: Option<String>,
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
        let Self { name, stale, frame, problem } = self;
        write_value(name, out);
        let seq = frame.as_ref().map_or("null".to_owned(), |frame| frame.sequence.to_string());
        let time = json_time(frame.as_ref().map(|frame| frame.time));
        let start = format!(":{{\"seq\":{seq},\"time\":{time},\"stale\":{stale},\"values\":");
        out.extend_from_slice(start.as_bytes());
        match frame {
            Some(frame) => {
                out.extend_from_slice(&frame.values());
                out.extend_from_slice(&frame.notes());
            }
            None => out.extend_from_slice(b"null"),
        }
        out.extend_from_slice(b",\"problem\":");
        out.extend_from_slice(problem.as_deref().unwrap_or("null").as_bytes());
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
    use crate::pipeline::{DataParts, FrameWriter};
    use flutecast_contract::name::{DeviceCode, IotId};
    use flutecast_contract::stream_position::{Epoch, EventId, Sequence};
    use flutecast_format::program::Timestamp;

    #[test]
    fn values_are_written_as_documented() {
        let device = Device {
            iot_id: IotId::new("a").unwrap(),
            code: DeviceCode::new("CORR-01").unwrap(),
            name: "corrugator-1".to_owned(),
            labels: Arc::new([("line".to_owned(), "l1".to_owned())].into()),
            channels: std::collections::BTreeMap::new(),
        };
        let telemetry = ChannelName::new("telemetry").unwrap();
        let parts = DataParts {
            time: Timestamp(0),
            values: b"{\"speed\":1.5,\"state\":null}",
            bad: b"{\"state\":\"7\"}",
            at: b"{\"speed\":\"1969-12-31T23:59:59.000Z\"}",
            late: true,
        };
        let id = EventId { epoch: Epoch(0), sequence: Sequence(7) };
        let frame = FrameWriter::new(&device.code, &telemetry).write_data(id, parts);
        let channels = vec![
            ChannelValues {
                name: ChannelName::new("power").unwrap(),
                stale: true,
                frame: None,
                problem: None,
            },
            ChannelValues { name: telemetry, stale: false, frame: Some(frame), problem: None },
        ];
        let mut out = Vec::new();
        DeviceValues { device: Arc::new(device), channels }.write_json(&mut out);
        let expected = serde_json::json!({
            "device": "CORR-01", "name": "corrugator-1", "labels": {"line": "l1"},
            "channels": {
                "power": {"seq": null, "time": null, "stale": true, "values": null, "problem": null},
                "telemetry": {
                    "seq": 7, "time": "1970-01-01T00:00:00.000Z", "stale": false,
                    "values": {"speed": 1.5, "state": null},
                    "bad": {"state": "7"}, "at": {"speed": "1969-12-31T23:59:59.000Z"},
                    "problem": null,
                },
            },
        });
        assert_eq!(serde_json::from_slice::<serde_json::Value>(&out).unwrap(), expected);
    }
}
