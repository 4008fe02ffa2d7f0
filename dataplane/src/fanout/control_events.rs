//! The control events: `hello`, `devices`, `refused`, `bye`, `ping`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flutecast_contract::document::DeliveryPolicy;
use flutecast_contract::name::{ChannelName, DeviceCode, TenantName};
use flutecast_contract::stream_position::{Epoch, EventId};
use flutecast_format::program::{FieldInfo, Timestamp};
use serde::Serialize;

use super::HubSettings;
use super::query::wanted_channels;
use crate::catalog::{Channel, Device};
use crate::pipeline::{block, json_time};

/// Why a device, or the whole subscription, isn't served now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) enum RefusedReason {
    UnknownDevice,
    NoSuchChannel,
    Starting,
    BrokerAway,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) enum ByeReason {
    Starting,
    Full,
    Draining,
    SlowClient,
    TenantRemoved,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Hello<'a> {
    protocol: u32,
    tenant: &'a TenantName,
    connection: String,
    server: &'a str,
    epoch: Option<String>,
    resumed: bool,
    ping_ms: u64,
    devices: Vec<DeviceInfo<'a>>,
}

#[derive(Serialize)]
struct Devices<'a> {
    added: Vec<DeviceInfo<'a>>,
    removed: Vec<DeviceCode>,
}

#[derive(Serialize)]
struct DeviceInfo<'a> {
    device: &'a DeviceCode,
    name: &'a str,
    labels: &'a BTreeMap<String, String>,
    #[cfg(feature = "next-version")]
    #[serde(skip_serializing_if = "Option::is_none")]
    location: Option<&'a str>,
    channels: Vec<ChannelInfo<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ChannelInfo<'a> {
    channel: &'a ChannelName,
    delivery: DeliveryPolicy,
    stale_after_ms: Option<u64>,
    fields: Vec<FieldJson<'a>>,
}

#[derive(Serialize)]
struct FieldJson<'a> {
    name: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    decimals: Option<u8>,
}

#[derive(Serialize)]
struct Refused<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<&'a DeviceCode>,
    reason: RefusedReason,
    message: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Bye {
    reason: ByeReason,
    retry_ms: u64,
}

/// The content of `hello` besides the devices.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HelloFacts<'a> {
    pub(crate) tenant: &'a TenantName,
    pub(crate) connection: u64,
    pub(crate) settings: &'a HubSettings,
    /// The incarnation of the tenant's stream, if it is known.
    pub(crate) epoch: Option<Epoch>,
    pub(crate) resumed: bool,
    pub(crate) retry: Duration,
}

/// Writes the start of an event stream: `retry` and `hello`.
pub(crate) fn hello(
    facts: HelloFacts<'_>,
    devices: &[Arc<Device>],
    channels: Option<&BTreeSet<ChannelName>>,
) -> Bytes {
    let HelloFacts { tenant, connection, settings, epoch, resumed, retry } = facts;
    let hello = Hello {
        protocol: 1,
        tenant,
        connection: format!("c-{connection:08x}"),
        server: &settings.server_name,
        epoch: epoch.map(|epoch| epoch.to_string()),
        resumed,
        ping_ms: millis(settings.ping),
        devices: device_infos(devices, channels),
    };
    let mut out = format!("retry: {}\n\n", millis(retry)).into_bytes();
    out.extend_from_slice(&block(None, "hello", &json(&hello)));
    out.into()
}

/// Writes `devices`: the set of matched devices changed.
pub(crate) fn devices(
    added: &[Arc<Device>],
    removed: Vec<DeviceCode>,
    channels: Option<&BTreeSet<ChannelName>>,
) -> Bytes {
    block(None, "devices", &json(&Devices { added: device_infos(added, channels), removed }))
}

/// Writes `refused`: this device, or the whole subscription, isn't served now.
pub(crate) fn refused(device: Option<&DeviceCode>, reason: RefusedReason, message: &str) -> Bytes {
    block(None, "refused", &json(&Refused { device, reason, message }))
}

/// Writes `bye`: the server ends the connection; the client comes back after `retry`.
pub(crate) fn bye(reason: ByeReason, retry: Duration) -> Bytes {
    let retry_ms = millis(retry);
    let mut out = format!("retry: {retry_ms}\n").into_bytes();
    out.extend_from_slice(&block(None, "bye", &json(&Bye { reason, retry_ms })));
    out.into()
}

pub(crate) fn ping(id: Option<EventId>, now: Timestamp) -> Bytes {
    block(id, "ping", &format!("{{\"time\":{}}}", json_time(Some(now))))
}

fn device_infos<'a>(
    devices: &'a [Arc<Device>],
    channels: Option<&'a BTreeSet<ChannelName>>,
) -> Vec<DeviceInfo<'a>> {
    devices
        .iter()
        .map(|device| DeviceInfo {
            device: &device.code,
            name: &device.name,
            labels: &device.labels,
            #[cfg(feature = "next-version")]
            location: device.location.as_deref(),
            channels: wanted_channels(device, channels).map(channel_info).collect(),
        })
        .collect()
}

fn channel_info(channel: &Channel) -> ChannelInfo<'_> {
    let fields = channel.program.fields().iter();
    ChannelInfo {
        channel: &channel.name,
        delivery: channel.program.policy(),
        stale_after_ms: channel.stale_after.map(millis),
        fields: fields.map(field_json).collect(),
    }
}

fn field_json(field: &FieldInfo) -> FieldJson<'_> {
    let FieldInfo { name, kind, unit, decimals } = field;
    FieldJson { name, kind, unit: unit.as_deref(), decimals: *decimals }
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Writes JSON on one line. It can't fail: the values hold only names, texts and numbers.
fn json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_else(|_| "{}".to_owned())
}
