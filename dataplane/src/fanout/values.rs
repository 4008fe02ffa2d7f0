//! The newest values of a device, as JSON.

use std::sync::Arc;

use bytes::Bytes;
use flutecast_mapping::name::ChannelName;
use flutecast_mapping::program::Timestamp;

use crate::catalog::Device;

/// A device and its newest values.
#[derive(Debug, Clone)]
pub struct DeviceValues {
    /// The device.
    pub device: Arc<Device>,
    /// Its channels that were asked for, by name.
    pub channels: Vec<ChannelValues>,
}

/// The newest values of one channel.
#[derive(Debug, Clone)]
pub struct ChannelValues {
    /// The channel.
    pub name: ChannelName,
    /// When the values happened; none: no message is stored.
    pub time: Option<Timestamp>,
    /// Whether the channel has been silent longer than its `staleAfter`.
    pub stale: bool,
    /// The formatted values, a JSON object; none: no message is stored.
    pub values: Option<Bytes>,
}

impl DeviceValues {
    /// Appends the JSON object of docs/protocol.md, "Devices as JSON".
    pub fn write_json(&self, out: &mut Vec<u8>) {
        let _ = out;
    }
}
