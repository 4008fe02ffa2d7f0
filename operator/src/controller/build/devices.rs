//! The devices of one tenant, as they are in the mapping.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use flutecast_contract::document::{ChannelDocument, DeviceDocument, FormatDocument, ShardDocument};
use flutecast_contract::name::{ChannelName, FormatName, IotId};

use super::Formats;
use super::claims::ClaimedDevice;
use super::formats::FormatInForce;
use super::records;
use crate::controller::validate::device::ValidChannel;
use crate::controller::validate::tenant::ValidTenant;
use crate::finding::{Finding, Outcomes, Reason};
use crate::last_messages::LeftOut;
use crate::object::{Kind, ObjectRef};

/// The devices of one tenant, and the formats that they use.
#[derive(Debug, Default)]
pub(super) struct DeviceDocuments {
    pub(super) devices: BTreeMap<IotId, Arc<DeviceDocument>>,
    pub(super) formats: BTreeMap<FormatName, FormatDocument>,
}

type Channels = BTreeMap<ChannelName, ChannelDocument>;

/// Returns the channels that are equal among those that are known: many devices have the same.
fn shared(known: &mut HashSet<Arc<Channels>>, channels: Channels) -> Arc<Channels> {
    if let Some(known) = known.get(&channels) {
        return Arc::clone(known);
    }
    let channels = Arc::new(channels);
    known.insert(Arc::clone(&channels));
    channels
}

/// The documents of a tenant that were built before.
#[derive(Debug, Default)]
pub(super) struct Before<'a>(HashMap<&'a IotId, &'a Arc<DeviceDocument>>);

impl<'a> Before<'a> {
    pub(super) fn of(shards: &'a [Arc<ShardDocument>]) -> Self {
        Self(shards.iter().flat_map(|shard| &shard.devices).collect())
    }

    /// Returns the document that was built before, if it is equal, so that it is in memory once.
    fn shared(&self, iot_id: &IotId, document: DeviceDocument) -> Arc<DeviceDocument> {
        match self.0.get(iot_id) {
            Some(before) if ***before == document => Arc::clone(before),
            Some(_) | None => Arc::new(document),
        }
    }
}

/// Returns the documents of a tenant's devices, the oldest first, until its quota is full.
///
/// A channel whose format is missing, or has no version in force, is left out. A device without any channel
/// is refused, but keeps its code and its iotId, so that a typing error in a format's name gives its code to
/// no other device.
pub(super) fn documents(
    tenant: &ValidTenant,
    devices: &[ClaimedDevice],
    formats: &Formats,
    before: &Before<'_>,
    outcomes: &mut Outcomes,
) -> DeviceDocuments {
    let mut documents = DeviceDocuments::default();
    let mut known = HashSet::new();
    for claimed in devices {
        let object = claimed.object_ref();
        if let Some(most) = tenant.max_devices
            && documents.devices.len() >= most as usize
        {
            let tenant = tenant.meta.object_ref(Kind::Tenant);
            let message = format!(
                "{tenant} allows {most} devices and has older ones enough; raise spec.quota.maxDevices, or \
                 remove devices"
            );
            outcomes.refuse(&object, Finding::new(Reason::QuotaExceeded, "", message));
            continue;
        }
        let channels = channel_documents(tenant, claimed, formats, &mut documents.formats, outcomes);
        if channels.is_empty() {
            let message = "no channel of this device can be served".to_owned();
            let reason = if claimed.device.channels.is_empty() {
                Reason::InvalidObject
            } else {
                Reason::FormatMissing
            };
            refuse_without_channels(outcomes, &object, Finding::new(reason, "spec.channels", message));
            continue;
        }
        let device = DeviceDocument {
            code: claimed.device.code.clone(),
            name: claimed.device.meta.name.clone(),
            labels: claimed.device.meta.labels.clone(),
            #[cfg(feature = "next-version")]
            location: claimed.device.location.clone(),
            channels: shared(&mut known, channels),
        };
        documents.devices.insert(claimed.iot_id.clone(), before.shared(&claimed.iot_id, device));
    }
    documents
}

/// Returns the channels that the devices declare and that the shards don't have.
pub(super) fn left_out(devices: &[ClaimedDevice], shards: &[Arc<ShardDocument>]) -> LeftOut {
    let mapped = Before::of(shards);
    let left_out = devices.iter().filter_map(|claimed| {
        let mapped = mapped.0.get(&claimed.iot_id).map(|device| &device.channels);
        let names = claimed.device.channels.iter().map(|channel| &channel.name);
        let missing = names.filter(|name| mapped.is_none_or(|mapped| !mapped.contains_key(*name)));
        let missing: BTreeSet<ChannelName> = missing.cloned().collect();
        (!missing.is_empty()).then(|| (claimed.iot_id.clone(), missing))
    });
    left_out.collect()
}

/// A device that already has findings for its channels is refused with the first of their reasons.
fn refuse_without_channels(outcomes: &mut Outcomes, object: &ObjectRef, finding: Finding) {
    let reason = outcomes
        .get(object)
        .and_then(|outcome| outcome.findings().first())
        .map_or(finding.reason, |first| first.reason);
    outcomes.refuse(object, Finding { reason, ..finding });
}

fn channel_documents(
    tenant: &ValidTenant,
    claimed: &ClaimedDevice,
    formats: &Formats,
    used: &mut BTreeMap<FormatName, FormatDocument>,
    outcomes: &mut Outcomes,
) -> Channels {
    let object = claimed.object_ref();
    let mut channels = Channels::new();
    for channel in &claimed.device.channels {
        let left_out = format!("channel {:?} is left out until then", channel.name.as_str());
        match format_of(&object.namespace, channel, formats, &left_out) {
            Ok(format) => {
                used.entry(channel.format.clone())
                    .or_insert_with(|| records::within_retention(tenant, (*format.document).clone()));
                for finding in records::findings(tenant, channel, format) {
                    outcomes.degrade(&object, finding);
                }
                let document = ChannelDocument {
                    format: channel.format.clone(),
                    stale_after_ms: channel.stale_after_ms,
                };
                channels.insert(channel.name.clone(), document);
            }
            Err(finding) => outcomes.degrade(&object, finding),
        }
    }
    channels
}

/// Returns the format of a channel. `consequence` is what follows if there is none.
pub(super) fn format_of<'a>(
    namespace: &str,
    channel: &ValidChannel,
    formats: &'a Formats,
    consequence: &str,
) -> Result<&'a FormatInForce, Finding> {
    let key = (namespace.to_owned(), channel.format.as_str().to_owned());
    let field = format!("{}.format", channel.path);
    match formats.get(&key) {
        Some(Some(format)) => Ok(format),
        Some(None) => {
            let format = ObjectRef::new(Kind::PushFormat, namespace, channel.format.as_str());
            let message = format!("{format} does not compile; see its verdict; {consequence}");
            Err(Finding::new(Reason::FormatInvalid, field, message))
        }
        None => {
            let message = format!(
                "there is no PushFormat {:?} in namespace {namespace}; {consequence}",
                channel.format.as_str()
            );
            Err(Finding::new(Reason::FormatMissing, field, message))
        }
    }
}
