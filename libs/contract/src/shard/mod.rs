//! Splits a tenant's devices into shard documents.
//!
//! A document has to fit into one ConfigMap, so a tenant with many devices has several. The document of a
//! device depends only on its iotId and on the number of documents, which is the smallest power of two that
//! lets each document fit. Adding or removing a device thus changes one document, and doubling the number of
//! documents splits each of them in two.

mod digest;
mod file_name;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use digest::revision;
pub use file_name::{ACCESS_FILE, file_name, parse_file_name};
use serde::Serialize;

use crate::document::{API_VERSION, DeviceDocument, FormatDocument, ShardDocument, TenantSettings};
use crate::name::{FormatName, IotId, TenantName};

/// The longest document, in bytes of YAML. A ConfigMap holds at most 1 MiB, its other fields included.
pub const MAX_BYTES: usize = 512 * 1024;

/// The most documents of a tenant. Devices that don't fit into them (beyond some hundred thousand, or with
/// formats of half a document each) are returned as oversized.
pub const MAX_SHARDS: u32 = 1024;

/// The documents of a tenant.
#[derive(Debug, Clone, PartialEq)]
pub struct TenantShards {
    /// The documents in the order of their numbers; at least one.
    pub shards: Vec<ShardDocument>,
    /// The devices that fit into no document, in the order of their iotIds.
    pub oversized: Vec<OversizedDevice>,
}

/// A device that fits into no document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the device and the formats that it uses take {bytes} bytes of a mapping document, which holds at most \
     {MAX_BYTES}"
)]
pub struct OversizedDevice {
    /// The id of the device.
    pub iot_id: IotId,
    /// The length of the document with the device.
    pub bytes: usize,
}

/// Splits a tenant's devices into documents. Each document holds the formats that its own devices use;
/// `formats` may hold more. The result is deterministic, byte for byte.
#[must_use]
pub fn split(
    tenant: &TenantName,
    settings: &TenantSettings,
    formats: &BTreeMap<FormatName, FormatDocument>,
    devices: &BTreeMap<IotId, Arc<DeviceDocument>>,
) -> TenantShards {
    split_within(&ShardLimits { bytes: MAX_BYTES, shards: MAX_SHARDS }, tenant, settings, formats, devices)
}

/// [`MAX_BYTES`] and [`MAX_SHARDS`]; tests have smaller ones.
struct ShardLimits {
    bytes: usize,
    shards: u32,
}

fn split_within(
    limits: &ShardLimits,
    tenant: &TenantName,
    settings: &TenantSettings,
    formats: &BTreeMap<FormatName, FormatDocument>,
    devices: &BTreeMap<IotId, Arc<DeviceDocument>>,
) -> TenantShards {
    let mut splitter = Splitter {
        tenant,
        settings,
        formats,
        device_sizes: BTreeMap::new(),
        format_sizes: BTreeMap::new(),
        empty: [0; 2],
    };
    splitter.measure(devices);
    let mut oversized = Vec::new();
    let mut members: Vec<Member<'_>> = devices.iter().collect();
    members.retain(|(iot_id, device)| {
        let bytes = splitter.bytes_of(&[(iot_id, device)], 0);
        let fits = bytes <= limits.bytes;
        if !fits {
            oversized.push(OversizedDevice { iot_id: (*iot_id).clone(), bytes });
        }
        fits
    });
    let mut count = 1;
    let mut parts = vec![members];
    while count < limits.shards
        && (0..).zip(&parts).any(|(shard, part)| splitter.bytes_of(part, shard) > limits.bytes)
    {
        count *= 2;
        parts = divide(&parts.concat(), count);
    }
    for (shard, part) in (0..).zip(&mut parts) {
        let mut bytes = splitter.bytes_of(part, shard);
        while bytes > limits.bytes {
            let Some((iot_id, _)) = part.pop() else { break };
            oversized.push(OversizedDevice { iot_id: iot_id.clone(), bytes });
            bytes = splitter.bytes_of(part, shard);
        }
    }
    oversized.sort_by(|one, other| one.iot_id.cmp(&other.iot_id));
    let shards = (0..).zip(&parts).map(|(shard, part)| splitter.document(part, shard, count)).collect();
    TenantShards { shards, oversized }
}

/// Returns the number of the document that holds a device of a tenant with `shards` documents (a power of
/// two).
#[must_use]
pub fn shard_of(iot_id: &IotId, shards: u32) -> u32 {
    digest::hash(iot_id) & shards.saturating_sub(1)
}

/// The lines that an entry adds to a document.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
enum DocumentLines<'a> {
    Formats(BTreeMap<&'a FormatName, &'a FormatDocument>),
    Devices(BTreeMap<&'a IotId, &'a Arc<DeviceDocument>>),
}

fn length(part: &impl Serialize) -> usize {
    serde_yaml::to_string(part).map_or(usize::MAX / 4, |yaml| yaml.len())
}

type Member<'a> = (&'a IotId, &'a Arc<DeviceDocument>);

/// Distributes the members over `count` parts. Each part comes from one of the parts before, so the order of
/// the iotIds is kept.
fn divide<'a>(members: &[Member<'a>], count: u32) -> Vec<Vec<Member<'a>>> {
    let mut parts = vec![Vec::new(); count as usize];
    for member in members {
        parts[shard_of(member.0, count) as usize].push(*member);
    }
    parts
}

struct Splitter<'a> {
    tenant: &'a TenantName,
    settings: &'a TenantSettings,
    formats: &'a BTreeMap<FormatName, FormatDocument>,
    /// The bytes that each device and each format adds to a document.
    device_sizes: BTreeMap<&'a IotId, usize>,
    format_sizes: BTreeMap<&'a FormatName, usize>,
    /// The length of a document without devices: of shard 0, with the settings, and of the other shards.
    empty: [usize; 2],
}

impl<'a> Splitter<'a> {
    /// Measures each entry once. A document is a list of lines, so lengths add up; `devices:` and `formats:`
    /// are counted with each entry, which overestimates by a few bytes.
    fn measure(&mut self, devices: &'a BTreeMap<IotId, Arc<DeviceDocument>>) {
        // With the longest numbers, so that the length doesn't depend on them.
        let first = self.document(&[], 0, MAX_SHARDS);
        let other = ShardDocument { shard: MAX_SHARDS, settings: None, ..first.clone() };
        self.empty = [length(&first), length(&other)];
        self.format_sizes =
            self.formats.iter().map(|one| (one.0, length(&DocumentLines::Formats([one].into())))).collect();
        self.device_sizes =
            devices.iter().map(|one| (one.0, length(&DocumentLines::Devices([one].into())))).collect();
    }

    fn bytes_of(&self, part: &[Member<'_>], shard: u32) -> usize {
        let formats = used_formats(part).filter_map(|name| self.format_sizes.get(name));
        let devices = part.iter().filter_map(|(iot_id, _)| self.device_sizes.get(iot_id));
        self.empty[usize::from(shard != 0)] + formats.chain(devices).sum::<usize>()
    }

    fn document(&self, part: &[Member<'_>], shard: u32, shards: u32) -> ShardDocument {
        let formats =
            used_formats(part).filter_map(|name| Some((name.clone(), self.formats.get(name)?.clone())));
        let devices = part.iter().map(|(iot_id, device)| ((*iot_id).clone(), Arc::clone(device)));
        let mut document = ShardDocument {
            api_version: API_VERSION.to_owned(),
            tenant: self.tenant.clone(),
            shard,
            shards,
            revision: String::new(),
            settings: (shard == 0).then(|| self.settings.clone()),
            formats: formats.collect(),
            devices: devices.collect(),
        };
        document.revision = revision(&document);
        document
    }
}

/// Returns the formats that the members use, each once.
fn used_formats<'a>(part: &[Member<'a>]) -> impl Iterator<Item = &'a FormatName> {
    let mut names: Vec<&FormatName> =
        part.iter().flat_map(|(_, device)| device.channels.values().map(|channel| &channel.format)).collect();
    names.sort();
    names.dedup();
    names.into_iter()
}
