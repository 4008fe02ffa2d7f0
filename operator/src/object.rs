//! The objects that the build step reads, as they come from a folder or from an API server.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use flutecast_crds::{DeviceSpec, PushFormatSpec, TenantSpec};
use serde::Serialize;

use crate::metrics::closed_set;

/// The kinds of object that a verdict can be about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub(crate) enum Kind {
    /// A Tenant.
    Tenant,
    /// A PushFormat.
    PushFormat,
    /// A Device.
    Device,
    /// A Secret.
    Secret,
    /// A file of the manifests folder.
    File,
}

closed_set! {
    /// A kind of the API as a label.
    pub(crate) enum ObjectKind {
        Tenant,
        Device,
        PushFormat,
    }
}

impl Kind {
    /// Returns the kind as a label; `None` if it is not one of the API.
    #[must_use]
    pub(crate) fn label(self) -> Option<ObjectKind> {
        match self {
            Self::Tenant => Some(ObjectKind::Tenant),
            Self::Device => Some(ObjectKind::Device),
            Self::PushFormat => Some(ObjectKind::PushFormat),
            Self::Secret | Self::File => None,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tenant => "Tenant",
            Self::PushFormat => "PushFormat",
            Self::Device => "Device",
            Self::Secret => "Secret",
            Self::File => "File",
        })
    }
}

/// The namespace and name of an object.
pub(crate) type Key = (String, String);

/// The namespace of objects that name none, in folder mode as with kubectl.
pub(crate) const DEFAULT_NAMESPACE: &str = "default";

/// Which object a verdict is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub(crate) struct ObjectRef {
    /// Its kind.
    pub(crate) kind: Kind,
    /// Its namespace; empty for a file.
    pub(crate) namespace: String,
    /// Its name; for a file its path within the folder.
    pub(crate) name: String,
}

impl ObjectRef {
    /// Names an object.
    #[must_use]
    pub(crate) fn new(kind: Kind, namespace: &str, name: &str) -> Self {
        Self { kind, namespace: namespace.to_owned(), name: name.to_owned() }
    }

    /// Names a file of the manifests folder.
    #[must_use]
    pub(crate) fn file(path: &str) -> Self {
        Self::new(Kind::File, "", path)
    }
}

impl fmt::Display for ObjectRef {
    /// `Device/corrugator-1`, with the namespace in between unless it is the usual one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() || self.namespace == DEFAULT_NAMESPACE {
            write!(f, "{}/{}", self.kind, self.name)
        } else {
            write!(f, "{}/{}/{}", self.kind, self.namespace, self.name)
        }
    }
}

/// What is known of an object besides its spec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Meta {
    /// Its namespace.
    pub(crate) namespace: String,
    /// Its name.
    pub(crate) name: String,
    /// Its uid; a folder's objects have none.
    pub(crate) uid: Option<String>,
    /// Its place in the order of age: from an API server the creation time in half seconds, from a folder the
    /// reading at which it first appeared. The smaller is the older; the older one wins, and among equals the
    /// first by namespace and name.
    pub(crate) created: i64,
    /// Its labels.
    pub(crate) labels: Arc<BTreeMap<String, String>>,
}

impl Meta {
    /// Names the object in a verdict.
    #[must_use]
    pub(crate) fn object_ref(&self, kind: Kind) -> ObjectRef {
        ObjectRef::new(kind, &self.namespace, &self.name)
    }

    /// Returns the namespace and name.
    pub(crate) fn key(&self) -> Key {
        (self.namespace.clone(), self.name.clone())
    }

    /// What sorts the oldest object first, always in the same way.
    #[must_use]
    pub(crate) fn age(&self) -> (i64, &str, &str) {
        (self.created, &self.namespace, &self.name)
    }
}

/// One object.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Object<S> {
    /// What is known besides the spec.
    pub(crate) meta: Arc<Meta>,
    /// What the user wants.
    pub(crate) spec: S,
}

/// What a Secret holds. It never shows in a log or a message.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct SecretData(pub BTreeMap<String, Vec<u8>>);

impl fmt::Debug for SecretData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.keys().map(|key| format!("{key}: …"))).finish()
    }
}

/// All objects, in any order: the build step's answer doesn't depend on it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Objects {
    /// The Tenants.
    pub(crate) tenants: Vec<Arc<Object<TenantSpec>>>,
    /// The Devices.
    pub(crate) devices: Vec<Arc<Object<DeviceSpec>>>,
    /// The PushFormats.
    pub(crate) formats: Vec<Arc<Object<PushFormatSpec>>>,
    /// The Secrets that Tenants may name.
    pub(crate) secrets: Vec<Arc<Object<SecretData>>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_namespace_is_not_written() {
        assert_eq!(ObjectRef::new(Kind::Device, "default", "d1").to_string(), "Device/d1");
        assert_eq!(ObjectRef::new(Kind::Device, "plant", "d1").to_string(), "Device/plant/d1");
        assert_eq!(ObjectRef::file("a/b.yaml").to_string(), "File/a/b.yaml");
    }

    #[test]
    fn a_secret_does_not_show() {
        let secret = SecretData([("wall".to_owned(), b"hunter2hunter2hunter2".to_vec())].into());
        let shown = format!("{secret:?}");
        assert!(shown.contains("wall") && !shown.contains("hunter2"), "{shown}");
    }
}
