//! The objects that the build step reads, as they come from a folder or from an API server.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use flutecast_crds::{DeviceSpec, PushFormatSpec, TenantSpec};

use crate::verdict::{Kind, ObjectRef};

/// What is known of an object besides its spec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meta {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid; a folder's objects have none.
    pub uid: Option<String>,
    /// Its place in the order of age: from an API server the creation time in half seconds, from a folder the
    /// reading at which it first appeared. The smaller is the older; the older one wins, and among equals the
    /// first by namespace and name.
    pub created: i64,
    /// Its labels.
    pub labels: Arc<BTreeMap<String, String>>,
}

impl Meta {
    /// Names the object in a verdict.
    #[must_use]
    pub fn object_ref(&self, kind: Kind) -> ObjectRef {
        ObjectRef::new(kind, &self.namespace, &self.name)
    }

    /// What sorts the oldest object first, always in the same way.
    #[must_use]
    pub fn age(&self) -> (i64, &str, &str) {
        (self.created, &self.namespace, &self.name)
    }
}

/// One object.
#[derive(Debug, Clone, PartialEq)]
pub struct Object<S> {
    /// What is known besides the spec.
    pub meta: Arc<Meta>,
    /// What the user wants.
    pub spec: S,
}

/// What a Secret holds. It never shows in a log or a message.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct SecretData(pub BTreeMap<String, Vec<u8>>);

impl fmt::Debug for SecretData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.keys().map(|key| format!("{key}: …"))).finish()
    }
}

/// All objects, in any order: the build step's answer doesn't depend on it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Objects {
    /// The Tenants.
    pub tenants: Vec<Arc<Object<TenantSpec>>>,
    /// The Devices.
    pub devices: Vec<Arc<Object<DeviceSpec>>>,
    /// The PushFormats.
    pub formats: Vec<Arc<Object<PushFormatSpec>>>,
    /// The Secrets that Tenants may name.
    pub secrets: Vec<Arc<Object<SecretData>>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_does_not_show() {
        let secret = SecretData([("wall".to_owned(), b"hunter2hunter2hunter2".to_vec())].into());
        let shown = format!("{secret:?}");
        assert!(shown.contains("wall") && !shown.contains("hunter2"), "{shown}");
    }
}
