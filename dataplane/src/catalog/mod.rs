//! The devices that this pod may serve, as one immutable snapshot.
//!
//! A [`Catalog`] is built from the mapping documents of a folder or a cluster, and published as
//! `watch::Receiver<Arc<Catalog>>`. It never changes; the next one shares everything that did not change
//! (pointer-equal `Arc`s), so that readers find changes without comparing contents.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use flutecast_contract::document::TenantSettings;
use flutecast_contract::name::{ChannelName, DeviceCode, FormatName, IotId, TenantName};
use flutecast_format::program::Program;

mod build;
mod cluster;
mod document;
mod folder;
mod metrics;
mod publisher;
#[cfg(test)]
mod tests;

pub(crate) use build::Documents;
pub use build::{Problem, ProblemKind};
pub(crate) use cluster::{RIGHTS, watch_cluster};
pub(crate) use folder::watch_folder;
pub(crate) use metrics::CatalogMetrics;
pub(crate) use publisher::{Mapping, MappingState};

use build::CompiledFormat;

/// The tenants of the mapping documents.
#[derive(Debug, Default)]
pub struct Catalog {
    pub tenants: HashMap<TenantName, Arc<TenantCatalog>>,
}

#[derive(Debug)]
pub struct TenantCatalog {
    pub name: TenantName,
    pub settings: TenantSettings,
    pub devices: HashMap<IotId, Arc<Device>>,
    pub by_code: HashMap<DeviceCode, Arc<Device>>,
    /// The revision of each shard, in the order of their numbers.
    pub revisions: Vec<String>,
    formats: HashMap<FormatName, Vec<CompiledFormat>>,
}

#[derive(Debug)]
pub struct Device {
    /// The id in subjects.
    pub iot_id: IotId,
    /// The name that people use.
    pub code: DeviceCode,
    /// The name and the labels of the Device object.
    pub name: String,
    pub labels: Arc<BTreeMap<String, String>>,
    #[cfg(feature = "next-version")]
    pub location: Option<String>,
    /// The channels whose format compiles.
    pub channels: BTreeMap<ChannelName, Channel>,
}

#[derive(Debug, Clone)]
pub struct Channel {
    pub name: ChannelName,
    /// Turns messages into values. The same `Arc` as before if the format did not change.
    pub program: Arc<Program>,
    /// After this time without a message the value is stale; never if `None`.
    pub stale_after: Option<Duration>,
}

impl Device {
    /// Returns whether all readers would see the same: names, labels, channels and programs.
    fn same(&self, other: &Self) -> bool {
        let Self {
            iot_id,
            code,
            name,
            labels,
            #[cfg(feature = "next-version")]
            location,
            channels,
        } = self;
        #[cfg(feature = "next-version")]
        if *location != other.location {
            return false;
        }
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
