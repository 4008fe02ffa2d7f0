//! Who names whom.

use std::collections::{BTreeMap, BTreeSet};

use flutecast_crds::{Device, DeviceChannel, DeviceSpec, Tenant, TenantSpec};

use super::Delta;
use crate::object::Key;
use crate::object::Object;

/// Which Devices name a tenant, which a PushFormat, and which Tenants have a template that does.
#[derive(Debug, Default)]
pub(super) struct Links {
    by_tenant: BTreeMap<String, BTreeSet<Key>>,
    by_format: BTreeMap<Key, BTreeSet<Key>>,
    by_template: BTreeMap<Key, BTreeSet<Key>>,
}

impl Links {
    /// Takes in what happened to a Tenant.
    pub(super) fn tenant_moved(&mut self, moved: &Delta<Tenant>) {
        if let Some(Ok(tenant)) = moved.before.as_ref().map(|entry| &entry.object) {
            for format in formats_of_template(tenant) {
                remove(&mut self.by_template, &format, &moved.key);
            }
        }
        if let Some(Ok(tenant)) = moved.after.as_ref().map(|entry| &entry.object) {
            for format in formats_of_template(tenant) {
                self.by_template.entry(format).or_default().insert(moved.key.clone());
            }
        }
    }

    /// Takes in what happened to a Device.
    pub(super) fn device_moved(&mut self, moved: &Delta<Device>) {
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

    /// The Tenants whose template of Devices names a PushFormat.
    pub(super) fn templates(&self, format: &Key) -> impl Iterator<Item = &Key> {
        self.by_template.get(format).into_iter().flatten()
    }
}

/// The PushFormats that a Device names, as often as it names them.
pub(super) fn formats_of(device: &Object<DeviceSpec>) -> impl Iterator<Item = Key> {
    device.spec.channels.iter().map(|channel| (device.meta.namespace.clone(), channel.format.clone()))
}

/// The PushFormats that a Tenant's template of Devices names, as often as it names them. Whether the policy
/// makes Devices of it at the moment doesn't matter: who names something counts on it.
pub(super) fn formats_of_template(tenant: &Object<TenantSpec>) -> impl Iterator<Item = Key> {
    template_of(&tenant.spec).iter().map(|channel| (tenant.meta.namespace.clone(), channel.format.clone()))
}

/// The channels of a Tenant's template of Devices; none without one.
pub(crate) fn template_of(tenant: &TenantSpec) -> &[DeviceChannel] {
    let template = tenant.enrollment.as_ref().and_then(|enrollment| enrollment.template.as_ref());
    template.map(|template| template.channels.as_slice()).unwrap_or_default()
}

fn remove<T: Ord>(links: &mut BTreeMap<T, BTreeSet<Key>>, from: &T, key: &Key) {
    if let Some(keys) = links.get_mut(from) {
        keys.remove(key);
        if keys.is_empty() {
            links.remove(from);
        }
    }
}
