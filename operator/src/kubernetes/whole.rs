//! What all objects turn into, put together from parts: a change builds the tenants that it concerns, the rest stays.

use crate::build::Built;
use crate::kubernetes::index::{Index, Key, Scope};
use crate::verdict::Kind;

/// The whole.
#[derive(Debug, Default)]
pub struct Whole(Built);

impl Whole {
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

    /// Takes in what was built from [`Index::objects`] with this scope.
    ///
    /// All Tenants are in every part, so what is said of them, their streams and who may read is taken from it; devices and
    /// formats only where the scope has them.
    pub fn merge(&mut self, part: Built, scope: &Scope, index: &Index) {
        let Built { tenants, existing, iot_ids, access, verdicts } = part;
        if scope.all {
            self.0 = Built { tenants, existing, iot_ids, access, verdicts };
            return;
        }
        let gone = |key: &Key| scope.touched.contains(&(Kind::Device, key.clone()));
        let rebuilt = |key: &Key| match index.devices.get(key).map(|entry| &entry.object) {
            Some(Ok(device)) => scope.tenants.contains(&device.spec.tenant),
            Some(Err(_)) | None => gone(key),
        };
        self.0.iot_ids.retain(|key, _| !rebuilt(key));
        self.0.iot_ids.extend(iot_ids);
        self.0.verdicts.retain(|object| {
            let key = (object.namespace.clone(), object.name.clone());
            match object.kind {
                Kind::Tenant | Kind::Secret => false,
                Kind::Device => !rebuilt(&key),
                Kind::PushFormat => !scope.formats.contains(&key),
                Kind::File => true,
            }
        });
        for (object, outcome) in verdicts.iter() {
            self.0.verdicts.set(object.clone(), outcome.clone());
        }
        let mut old = std::mem::take(&mut self.0.tenants);
        self.0.tenants = tenants
            .into_iter()
            .map(|(name, mut tenant)| {
                if !scope.tenants.contains(name.as_str())
                    && let Some(old) = old.remove(&name)
                {
                    tenant.shards = old.shards;
                }
                (name, tenant)
            })
            .collect();
        self.0.existing = existing;
        self.0.access = access;
    }
}
