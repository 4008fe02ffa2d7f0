//! The channels that Devices declare, as the control loop hands them over.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use flutecast_contract::document::{DeviceDocument, ShardDocument};
use flutecast_contract::name::{ChannelName, IotId, TenantName};

/// The channels of the tenants in force whose stream is their own.
pub(crate) type DeclaredChannels = BTreeMap<TenantName, TenantChannels>;

/// The channels of a tenant. A clone costs next to nothing, and so does a comparison with one that is equal.
#[derive(Debug, Clone)]
pub(crate) struct TenantChannels {
    /// The namespace of its Devices.
    pub(crate) namespace: String,
    /// `retention.maxAge`
    pub(crate) max_age: Duration,
    /// The documents of the mapping.
    pub(crate) shards: Vec<Arc<ShardDocument>>,
    /// The channels that Devices declare and that the mapping doesn't have.
    pub(crate) left_out: Arc<LeftOut>,
}

/// Channels that are declared and not served at the moment, because a format is broken or missing, or the
/// Device is refused. They don't lose their last values.
pub(crate) type LeftOut = BTreeMap<IotId, BTreeSet<ChannelName>>;

impl PartialEq for TenantChannels {
    fn eq(&self, other: &Self) -> bool {
        let Self { namespace, max_age, shards, left_out } = self;
        let mut pairs = shards.iter().zip(&other.shards);
        *namespace == other.namespace
            && *max_age == other.max_age
            && shards.len() == other.shards.len()
            && pairs.all(|(one, other)| Arc::ptr_eq(one, other))
            && left_out == &other.left_out
    }
}

impl TenantChannels {
    /// Returns the devices, sorted within each shard.
    pub(super) fn devices(&self) -> impl Iterator<Item = (&IotId, &DeviceDocument, &ShardDocument)> {
        self.shards
            .iter()
            .flat_map(|shard| shard.devices.iter().map(move |(iot_id, device)| (iot_id, &**device, &**shard)))
    }

    pub(super) fn declares(&self, iot_id: &IotId, channel: &ChannelName) -> bool {
        self.device(iot_id).is_some_and(|device| device.channels.contains_key(channel))
            || self.left_out.get(iot_id).is_some_and(|channels| channels.contains(channel))
    }

    /// Returns the channels that `before` declares and this doesn't.
    pub(super) fn gone_since(&self, before: &Self) -> Vec<(IotId, ChannelName)> {
        let mapped = before
            .devices()
            .flat_map(|(iot_id, device, _)| device.channels.keys().map(move |channel| (iot_id, channel)));
        let left_out = before.left_out.iter();
        let left_out =
            left_out.flat_map(|(iot_id, channels)| channels.iter().map(move |name| (iot_id, name)));
        mapped
            .chain(left_out)
            .filter(|(iot_id, channel)| !self.declares(iot_id, channel))
            .map(|(iot_id, channel)| (iot_id.clone(), channel.clone()))
            .collect()
    }

    pub(super) fn has(&self, iot_id: &IotId) -> bool {
        self.device(iot_id).is_some()
    }

    fn device(&self, iot_id: &IotId) -> Option<&DeviceDocument> {
        self.shards.iter().find_map(|shard| shard.devices.get(iot_id)).map(|device| &**device)
    }
}
