//! The devices that a client asks for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use flutecast_contract::name::{ChannelName, DeviceCode};

use super::Selector;
use crate::access::Scope;
use crate::catalog::{Channel, Device, TenantCatalog};

/// The devices that a client asks for: the union of the three.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceQuery {
    /// Every device that the caller may read.
    pub all: bool,
    pub codes: BTreeSet<DeviceCode>,
    pub selector: Option<Selector>,
}

/// Returns the channels of a device that are among `names`; `None` for all.
pub(super) fn wanted_channels<'a>(
    device: &'a Device,
    names: Option<&'a BTreeSet<ChannelName>>,
) -> impl Iterator<Item = &'a Channel> {
    let channels = device.channels.values();
    channels.filter(move |channel| names.is_none_or(|names| names.contains(&channel.name)))
}

impl DeviceQuery {
    /// Returns the devices of the catalog that match and that `scope` allows, by code.
    pub(super) fn matching(
        &self,
        scope: &Scope,
        catalog: &TenantCatalog,
    ) -> BTreeMap<DeviceCode, Arc<Device>> {
        let mut matching = BTreeMap::new();
        let mut add = |device: &Arc<Device>| {
            if scope.allows(&device.code) {
                matching.insert(device.code.clone(), Arc::clone(device));
            }
        };
        if self.all {
            catalog.by_code.values().for_each(&mut add);
            return matching;
        }
        self.codes.iter().filter_map(|code| catalog.by_code.get(code)).for_each(&mut add);
        if let Some(selector) = &self.selector {
            catalog.by_code.values().filter(|device| selector.matches(&device.labels)).for_each(&mut add);
        }
        matching
    }
}
