//! Who names whom.

use std::collections::{BTreeMap, BTreeSet};

use flutecast_crds::{Device, DeviceSpec, TenantSpec};

use super::{Key, Moved};
use crate::object::Object;

/// Which Devices name a tenant, and which a PushFormat.
#[derive(Debug, Default)]
pub(super) struct Links {
    by_tenant: BTreeMap<String, BTreeSet<Key>>,
    by_format: BTreeMap<Key, BTreeSet<Key>>,
}

impl Links {
    /// Takes in what happened to a Device.
    pub(super) fn moved(&mut self, moved: &Moved<Device>) {
        if let Some(Ok(device)) = moved.before.as_ref().map(|entry| &entry.object) {
            remove(&mut self.by_tenant, &device.spec.tenant, &moved.key);
            for format in formats_of(device) {
                remove(&mut self.by_format, &format, &moved.key);
            }
        }
        if let Some(Ok(device)) = moved.after.as_ref().map(|entry| &entry.object) {
            self.by_tenant.entry(device.spec.tenant.clone()).or_default().insert(moved.key.clone());
            for format in formats_of(device) {
                self.by_format.entry(format).or_default().insert(moved.key.clone());
            }
        }
    }

    /// The Devices that name a tenant, in whatever namespace.
    pub(super) fn devices(&self, tenant: &str) -> impl Iterator<Item = &Key> {
        self.by_tenant.get(tenant).into_iter().flatten()
    }

    /// The Devices that name a PushFormat.
    pub(super) fn users(&self, format: &Key) -> impl Iterator<Item = &Key> {
        self.by_format.get(format).into_iter().flatten()
    }
}

/// The PushFormats that a Device names, as often as it names them.
pub(super) fn formats_of(device: &Object<DeviceSpec>) -> impl Iterator<Item = Key> {
    device.spec.channels.iter().map(|channel| (device.meta.namespace.clone(), channel.format.clone()))
}

/// The PushFormats that a Tenant's template of Devices names.
pub(super) fn formats_of_template(tenant: &Object<TenantSpec>) -> impl Iterator<Item = Key> {
    let template = tenant.spec.enrollment.as_ref().and_then(|enrollment| enrollment.template.as_ref());
    let channels = template.into_iter().flat_map(|template| &template.channels);
    channels.map(|channel| (tenant.meta.namespace.clone(), channel.format.clone()))
}

fn remove<T: Ord>(links: &mut BTreeMap<T, BTreeSet<Key>>, from: &T, key: &Key) {
    if let Some(keys) = links.get_mut(from) {
        keys.remove(key);
        if keys.is_empty() {
            links.remove(from);
        }
    }
}
