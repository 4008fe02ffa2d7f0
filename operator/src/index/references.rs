//! References between objects, by the object that is named.

use std::collections::{BTreeMap, BTreeSet};

use flutecast_crds::{Device, DeviceChannel, DeviceSpec, Tenant, TenantSpec};

use super::Delta;
use crate::object::{Key, Object};

/// The Devices that name a tenant or a PushFormat, and the Tenants whose template names a PushFormat.
#[derive(Debug, Default)]
pub(super) struct References {
    by_tenant: BTreeMap<String, BTreeSet<Key>>,
    by_format: BTreeMap<Key, BTreeSet<Key>>,
    by_template: BTreeMap<Key, BTreeSet<Key>>,
}

impl References {
    pub(super) fn update_tenant(&mut self, delta: &Delta<Tenant>) {
        if let Some(Ok(tenant)) = delta.before.as_ref().map(|entry| &entry.object) {
            for format in formats_of_template(tenant) {
                remove(&mut self.by_template, &format, &delta.key);
            }
        }
        if let Some(Ok(tenant)) = delta.after.as_ref().map(|entry| &entry.object) {
            for format in formats_of_template(tenant) {
                self.by_template.entry(format).or_default().insert(delta.key.clone());
            }
        }
    }

    pub(super) fn update_device(&mut self, delta: &Delta<Device>) {
        if let Some(Ok(device)) = delta.before.as_ref().map(|entry| &entry.object) {
            remove(&mut self.by_tenant, &device.spec.tenant, &delta.key);
            for format in formats_of(device) {
                remove(&mut self.by_format, &format, &delta.key);
            }
        }
        if let Some(Ok(device)) = delta.after.as_ref().map(|entry| &entry.object) {
            self.by_tenant.entry(device.spec.tenant.clone()).or_default().insert(delta.key.clone());
            for format in formats_of(device) {
                self.by_format.entry(format).or_default().insert(delta.key.clone());
            }
        }
    }

    /// Returns the Devices that name a tenant, in any namespace.
    pub(super) fn devices(&self, tenant: &str) -> impl Iterator<Item = &Key> {
        self.by_tenant.get(tenant).into_iter().flatten()
    }

    /// Returns the Devices that name a PushFormat.
    pub(super) fn users(&self, format: &Key) -> impl Iterator<Item = &Key> {
        self.by_format.get(format).into_iter().flatten()
    }

    /// Returns the Tenants whose template of Devices names a PushFormat.
    pub(super) fn templates(&self, format: &Key) -> impl Iterator<Item = &Key> {
        self.by_template.get(format).into_iter().flatten()
    }
}

/// Returns the PushFormats that a Device names, as often as it names them.
pub(super) fn formats_of(device: &Object<DeviceSpec>) -> impl Iterator<Item = Key> {
    device.spec.channels.iter().map(|channel| (device.meta.namespace.clone(), channel.format.clone()))
}

/// Returns the PushFormats that a Tenant's template of Devices names, as often as it names them, whether or
/// not its policy creates Devices at the moment.
pub(super) fn formats_of_template(tenant: &Object<TenantSpec>) -> impl Iterator<Item = Key> {
    template_of(&tenant.spec).iter().map(|channel| (tenant.meta.namespace.clone(), channel.format.clone()))
}

/// Returns the channels of a Tenant's template of Devices; empty without a template.
pub(crate) fn template_of(tenant: &TenantSpec) -> &[DeviceChannel] {
    let template = tenant.enrollment.as_ref().and_then(|enrollment| enrollment.template.as_ref());
    template.map(|template| template.channels.as_slice()).unwrap_or_default()
}

fn remove<T: Ord>(references: &mut BTreeMap<T, BTreeSet<Key>>, from: &T, key: &Key) {
    if let Some(keys) = references.get_mut(from) {
        keys.remove(key);
        if keys.is_empty() {
            references.remove(from);
        }
    }
}
