//! The devices that this pod may serve, as one immutable snapshot.
//!
//! A [`Catalog`] is built from the mapping documents, published as `watch::Receiver<Arc<Catalog>>` and
//! swapped as a whole: whoever holds one sees a consistent state, and the next one shares everything that did
//! not change (pointer-equal `Arc`s), so that a reader finds out what changed without comparing contents.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use flutecast_contract::document::TenantSettings;
use flutecast_contract::name::{ChannelName, DeviceCode, FormatName, IotId, TenantName};
use flutecast_format::program::Program;

mod build;
#[cfg(test)]
mod build_tests;
mod document;
mod folder;
#[cfg(test)]
mod folder_tests;
mod kubernetes;
mod publisher;
mod watcher;

pub use build::{Documents, Problem, ProblemKind};
pub(crate) use kubernetes::RIGHTS;
pub use kubernetes::watch_cluster;
pub use publisher::{Mapping, MappingState};
pub use watcher::watch_folder;

use build::CompiledFormat;

/// All tenants that the mapping documents tell of.
#[derive(Debug, Default)]
pub struct Catalog {
    /// The tenants by name.
    pub tenants: HashMap<TenantName, Arc<TenantCatalog>>,
}

/// One tenant.
#[derive(Debug)]
pub struct TenantCatalog {
    /// The tenant's name.
    pub name: TenantName,
    /// What holds for the whole tenant.
    pub settings: TenantSettings,
    /// Its devices, by iotId.
    pub devices: HashMap<IotId, Arc<Device>>,
    /// The same devices, by the code that people use.
    pub by_code: HashMap<DeviceCode, Arc<Device>>,
    /// The revision of each of its shards, in the order of their numbers.
    pub revisions: Vec<String>,
    formats: HashMap<FormatName, Vec<CompiledFormat>>,
}

/// One device.
#[derive(Debug)]
pub struct Device {
    /// The id by which the message side knows it.
    pub iot_id: IotId,
    /// The name by which people know it.
    pub code: DeviceCode,
    /// The name of its Device object.
    pub name: String,
    /// The labels of its Device object.
    pub labels: Arc<BTreeMap<String, String>>,
    /// Its channels whose format compiles.
    pub channels: BTreeMap<ChannelName, Channel>,
}

/// One channel of a device.
#[derive(Debug, Clone)]
pub struct Channel {
    /// The channel's name.
    pub name: ChannelName,
    /// How its messages become values. The same `Arc` as before when the format did not change.
    pub program: Arc<Program>,
    /// After how much silence its value counts as stale; none: never.
    pub stale_after: Option<Duration>,
}

impl Device {
    /// Whether both are the same to every reader: the same names, labels, channels and programs.
    fn same(&self, other: &Self) -> bool {
        let Self { iot_id, code, name, labels, channels } = self;
        *iot_id == other.iot_id
            && *code == other.code
            && *name == other.name
            && *labels == other.labels
            && channels.len() == other.channels.len()
            && channels.values().zip(other.channels.values()).all(|(a, b)| a.same(b))
    }
}

impl Channel {
    fn same(&self, other: &Self) -> bool {
        let Self { name, program, stale_after } = self;
        *name == other.name && *stale_after == other.stale_after && Arc::ptr_eq(program, &other.program)
    }
}
