//! Everything that was built, put together from parts: a change builds the tenants that it concerns, the rest
//! stays.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use flutecast_contract::document::ShardDocument;
use flutecast_contract::name::IotId;

use crate::controller::build::Built;
use crate::controller::build::formats::FormatsInForce;
use crate::controller::dereference::DirtySet;
use crate::finding::Outcomes;
use crate::object::{Key, Kind, ObjectRef};

#[derive(Debug, Default)]
pub(crate) struct BuildCache(Built);

impl BuildCache {
    pub(crate) fn built(&self) -> &Built {
        &self.0
    }

    /// Sets the installation that is responsible for the streams.
    pub(crate) fn set_installation(&mut self, installation: Option<&str>) {
        for tenant in self.0.tenants.values_mut() {
            if tenant.streams.owner.installation.as_deref() != installation {
                tenant.streams.owner.installation = installation.map(str::to_owned);
            }
        }
    }

    /// Sets the versions of formats that are in force as a term begins: another operator may have worked
    /// since.
    pub(crate) fn begin(&mut self, formats: FormatsInForce) {
        self.0.formats = formats;
    }

    /// Merges a part that was built from the `dirty` objects. Devices and PushFormats whose outcome changed
    /// are marked in `dirty`.
    ///
    /// All Tenants are in every part, so their outcomes, their streams and access are taken from it; devices
    /// and formats only if they are dirty. Equal documents are kept, so that each is in memory once.
    pub(crate) fn merge(&mut self, part: Built, dirty: &mut DirtySet, has_device: impl Fn(&Key) -> bool) {
        let Built { mut tenants, existing, iot_ids, formats, access, outcomes } = part;
        let mut old = std::mem::take(&mut self.0.tenants);
        for (name, tenant) in &mut tenants {
            let Some(old) = old.remove(name) else { continue };
            if dirty.all || dirty.tenants.contains(name.as_str()) {
                share(&mut tenant.shards, &old.shards);
            } else {
                tenant.shards = old.shards;
                tenant.left_out = old.left_out;
            }
        }
        self.0 = Built {
            tenants,
            existing,
            access,
            iot_ids: std::mem::take(&mut self.0.iot_ids),
            formats: std::mem::take(&mut self.0.formats),
            outcomes: std::mem::take(&mut self.0.outcomes),
        };
        if dirty.all {
            self.0.iot_ids = iot_ids;
            self.0.formats = formats;
            self.0.outcomes = outcomes;
            return;
        }
        self.0.formats.0.retain(|key, _| !dirty.formats.contains(key));
        self.0.formats.0.extend(formats.0);
        self.forget(dirty, has_device, &outcomes);
        for (object, outcome) in outcomes.iter() {
            let key = (object.namespace.clone(), object.name.clone());
            let mut is_news = self.0.outcomes.get(object) != Some(outcome);
            if is_news {
                self.0.outcomes.set(object.clone(), outcome.clone());
            }
            if object.kind == Kind::Device {
                is_news |= self.set_iot_id(&key, iot_ids.get(&key));
            }
            if is_news {
                dirty.touch(object.kind, &key);
            }
        }
    }

    /// Removes the outcomes of objects that are gone.
    fn forget(&mut self, dirty: &DirtySet, has_device: impl Fn(&Key) -> bool, part: &Outcomes) {
        let devices = dirty.touched.iter().filter(|(kind, _)| *kind == Kind::Device).map(|(_, key)| key);
        for key in devices.filter(|key| !has_device(key)) {
            self.0.iot_ids.remove(key);
            self.0.outcomes.remove(&ObjectRef::new(Kind::Device, &key.0, &key.1));
        }
        for (namespace, name) in &dirty.formats {
            let format = ObjectRef::new(Kind::PushFormat, namespace, name);
            if part.get(&format).is_none() {
                self.0.outcomes.remove(&format);
            }
        }
        self.0.outcomes.retain(|object| match object.kind {
            Kind::Tenant | Kind::Secret => part.get(object).is_some(),
            Kind::Device | Kind::PushFormat | Kind::File => true,
        });
    }

    /// Returns whether it changed.
    fn set_iot_id(&mut self, device: &Key, iot_id: Option<&IotId>) -> bool {
        if self.0.iot_ids.get(device) == iot_id {
            return false;
        }
        match iot_id {
            Some(iot_id) => drop(self.0.iot_ids.insert(device.clone(), iot_id.clone())),
            None => drop(self.0.iot_ids.remove(device)),
        }
        true
    }
}

/// Replaces documents by equal ones that were built before.
fn share(shards: &mut [Arc<ShardDocument>], before: &[Arc<ShardDocument>]) {
    for (shard, before) in shards.iter_mut().zip(before) {
        if shard.revision == before.revision {
            shard.clone_from(before);
        }
    }
}
