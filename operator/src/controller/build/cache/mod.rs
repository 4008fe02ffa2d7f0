//! What all objects turn into, put together from parts: a change builds the tenants that it concerns, the
//! rest stays.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use flutecast_contract::document::ShardDocument;
use flutecast_contract::name::IotId;

use crate::controller::build::Built;
use crate::object::Key;
use crate::controller::dereference::DirtySet;
use crate::index::Index;
use crate::object::{Kind, ObjectRef};
use crate::finding::Outcomes;

/// The whole.
#[derive(Debug, Default)]
pub struct BuildCache(Built);

impl BuildCache {
    /// The whole as it is now.
    #[must_use]
    pub fn built(&self) -> &Built {
        &self.0
    }

    /// Says which installation looks after the streams.
    pub fn set_realm(&mut self, realm: Option<&str>) {
        for tenant in self.0.tenants.values_mut() {
            if tenant.streams.owner.realm.as_deref() != realm {
                tenant.streams.owner.realm = realm.map(str::to_owned);
            }
        }
    }

    /// Takes in what was built from [`Index::objects`] with this scope. The Devices and PushFormats of which
    /// something else is said than before are touched in `scope`.
    ///
    /// All Tenants are in every part, so what is said of them, their streams and who may read is taken from
    /// it; devices and formats only where the scope has them. Documents that are the same as before stay, so
    /// that memory holds each once.
    pub fn merge(&mut self, part: Built, scope: &mut DirtySet, index: &Index) {
        let Built { mut tenants, existing, iot_ids, access, verdicts } = part;
        let mut old = std::mem::take(&mut self.0.tenants);
        for (name, tenant) in &mut tenants {
            let Some(old) = old.remove(name) else { continue };
            if scope.all || scope.tenants.contains(name.as_str()) {
                share(&mut tenant.shards, &old.shards);
            } else {
                tenant.shards = old.shards;
            }
        }
        self.0 = Built {
            tenants,
            existing,
            access,
            iot_ids: std::mem::take(&mut self.0.iot_ids),
            verdicts: std::mem::take(&mut self.0.verdicts),
        };
        if scope.all {
            self.0.iot_ids = iot_ids;
            self.0.verdicts = verdicts;
            return;
        }
        self.forget(scope, index, &verdicts);
        for (object, outcome) in verdicts.iter() {
            let key = (object.namespace.clone(), object.name.clone());
            let mut is_news = self.0.verdicts.get(object) != Some(outcome);
            if is_news {
                self.0.verdicts.set(object.clone(), outcome.clone());
            }
            if object.kind == Kind::Device {
                is_news |= self.set_iot_id(&key, iot_ids.get(&key));
            }
            if is_news {
                scope.touch(object.kind, &key);
            }
        }
    }

    /// Forgets what was said of objects that are gone.
    fn forget(&mut self, scope: &DirtySet, index: &Index, part: &Outcomes) {
        let devices = scope.touched.iter().filter(|(kind, _)| *kind == Kind::Device).map(|(_, key)| key);
        for key in devices.filter(|key| index.devices.get(key).is_none_or(|entry| entry.object.is_err())) {
            self.0.iot_ids.remove(key);
            self.0.verdicts.remove(&ObjectRef::new(Kind::Device, &key.0, &key.1));
        }
        for (namespace, name) in &scope.formats {
            let format = ObjectRef::new(Kind::PushFormat, namespace, name);
            if part.get(&format).is_none() {
                self.0.verdicts.remove(&format);
            }
        }
        self.0.verdicts.retain(|object| match object.kind {
            Kind::Tenant | Kind::Secret => part.get(object).is_some(),
            Kind::Device | Kind::PushFormat | Kind::File => true,
        });
    }

    /// Answers whether that is another one than before.
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

/// Takes the documents of before where they are the same.
fn share(shards: &mut [Arc<ShardDocument>], before: &[Arc<ShardDocument>]) {
    for (shard, before) in shards.iter_mut().zip(before) {
        if shard.revision == before.revision {
            shard.clone_from(before);
        }
    }
}
