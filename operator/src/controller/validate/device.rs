//! Validates a Device.

use std::fmt;
use std::sync::Arc;

use flutecast_contract::name::{ChannelName, DeviceCode, FormatName, InvalidName, IotId};
use flutecast_crds::{DeviceChannel, DeviceSpec};

use super::{Checked, Validated, name};
use crate::finding::{Finding, Reason};
use crate::object::{Meta, Object};

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ValidDevice {
    pub(crate) meta: Arc<Meta>,
    /// The name of its Tenant, which may be invalid as long as there is no such Tenant.
    pub(crate) tenant: String,
    pub(crate) code: DeviceCode,
    /// The iotId that it claims; `None` for a generated one.
    pub(crate) pin: Option<IotId>,
    /// Its channels that can be used.
    pub(crate) channels: Vec<ValidChannel>,
    #[cfg(feature = "next-version")]
    pub(crate) location: Option<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ValidChannel {
    pub(crate) path: ChannelPath,
    pub(crate) name: ChannelName,
    pub(crate) format: FormatName,
    /// The silence after which its values are stale, in milliseconds.
    pub(crate) stale_after_ms: Option<u64>,
}

/// The path of a channel in its object: `spec.channels[1]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ChannelPath {
    list: &'static str,
    index: usize,
}

impl fmt::Display for ChannelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]", self.list, self.index)
    }
}

/// Validates a Device. A channel that can't be used is left out.
pub(crate) fn validate(device: &Object<DeviceSpec>) -> Validated<ValidDevice> {
    let DeviceSpec {
        tenant,
        device_code,
        iot_id: _,
        #[cfg(feature = "next-version")]
        location,
        channels,
    } = &device.spec;
    let code = name("spec.deviceCode", DeviceCode::new(device_code));
    let pin = device.spec.iot_id_pin().map(|pin| name("spec.iotId", IotId::new(pin))).transpose();
    let (code, pin) = match (code, pin) {
        (Ok(code), Ok(pin)) => (code, pin),
        (code, pin) => return Err(code.err().into_iter().chain(pin.err()).collect()),
    };
    let (channels, findings) = validate_channels("spec.channels", channels);
    let value = ValidDevice {
        meta: device.meta.clone(),
        tenant: tenant.clone(),
        code,
        pin,
        channels,
        #[cfg(feature = "next-version")]
        location: location.clone(),
    };
    Ok(Checked { value, findings })
}

/// Validates the channels of a Device or of a template of Devices; `list` is their path.
pub(super) fn validate_channels(
    list: &'static str,
    channels: &[DeviceChannel],
) -> (Vec<ValidChannel>, Vec<Finding>) {
    let mut valid: Vec<ValidChannel> = Vec::new();
    let mut findings = Vec::new();
    for (index, channel) in channels.iter().enumerate() {
        let path = ChannelPath { list, index };
        match validate_channel(path, channel) {
            Ok(channel) if valid.iter().any(|other| other.name == channel.name) => {
                let message =
                    format!("there is a channel {:?} before it; give it another name", channel.name.as_str());
                findings.push(Finding::new(Reason::InvalidObject, format!("{path}.name"), message));
            }
            Ok(channel) => valid.push(channel),
            Err(finding) => findings.push(finding),
        }
    }
    (valid, findings)
}

fn validate_channel(path: ChannelPath, channel: &DeviceChannel) -> Result<ValidChannel, Finding> {
    let DeviceChannel { name: channel_name, format, stale_after } = channel;
    // Paths are made only for the few channels that are wrong.
    let wrong = |field: &str, error: InvalidName| {
        Finding::new(Reason::InvalidName, format!("{path}.{field}"), error.to_string())
    };
    Ok(ValidChannel {
        path,
        name: ChannelName::new(channel_name).map_err(|error| wrong("name", error))?,
        format: FormatName::new(format).map_err(|error| wrong("format", error))?,
        stale_after_ms: stale_after.map(flutecast_crds::Duration::as_millis),
    })
}
