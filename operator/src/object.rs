//! Objects, as they come from a folder or from an API server.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use flutecast_crds::{DeviceSpec, PushFormatSpec, TenantSpec};
use serde::Serialize;

use crate::metrics::closed_set;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub(crate) enum Kind {
    Tenant,
    PushFormat,
    Device,
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
        fmt::Debug::fmt(self, f)
    }
}

/// The namespace and name of an object.
pub(crate) type Key = (String, String);

/// The namespace of objects from a folder that name none, as with kubectl.
pub(crate) const DEFAULT_NAMESPACE: &str = "default";

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub(crate) struct ObjectRef {
    pub(crate) kind: Kind,
    /// Its namespace; empty for a file.
    pub(crate) namespace: String,
    /// Its name; for a file its path within the folder.
    pub(crate) name: String,
}

impl ObjectRef {
    pub(crate) fn new(kind: Kind, namespace: &str, name: &str) -> Self {
        Self { kind, namespace: namespace.to_owned(), name: name.to_owned() }
    }

    pub(crate) fn file(path: &str) -> Self {
        Self::new(Kind::File, "", path)
    }
}

impl fmt::Display for ObjectRef {
    /// Writes `Device/corrugator-1`, or `Device/plant/corrugator-1` if the namespace is not the default one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() || self.namespace == DEFAULT_NAMESPACE {
            write!(f, "{}/{}", self.kind, self.name)
        } else {
            write!(f, "{}/{}/{}", self.kind, self.namespace, self.name)
        }
    }
}

/// An object without its spec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// `None` for an object from a folder.
    pub(crate) uid: Option<String>,
    /// Orders objects by age, the oldest first: from an API server the creation time in half seconds, from a
    /// folder the number of the reading at which the object first appeared.
    pub(crate) created: i64,
    pub(crate) labels: Arc<BTreeMap<String, String>>,
}

impl Meta {
    pub(crate) fn object_ref(&self, kind: Kind) -> ObjectRef {
        ObjectRef::new(kind, &self.namespace, &self.name)
    }

    pub(crate) fn key(&self) -> Key {
        (self.namespace.clone(), self.name.clone())
    }

    /// Returns whether both are the same object, and not one that was deleted and one that was made in its
    /// place.
    pub(crate) fn is_same_object(&self, other: &Self) -> bool {
        self.uid == other.uid && (self.uid.is_some() || self.created == other.created)
    }

    /// Returns a key that sorts the oldest object first; of the same age, the first by namespace and name.
    pub(crate) fn age(&self) -> (i64, &str, &str) {
        (self.created, &self.namespace, &self.name)
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Object<S> {
    pub(crate) meta: Arc<Meta>,
    pub(crate) spec: S,
}

/// The values of a Secret. They never show in a log or a message.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct SecretData(pub BTreeMap<String, Vec<u8>>);

impl fmt::Debug for SecretData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.keys().map(|key| format!("{key}: …"))).finish()
    }
}

/// Objects, in any order: the result of the build step doesn't depend on it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Objects {
    pub(crate) tenants: Vec<Arc<Object<TenantSpec>>>,
    pub(crate) devices: Vec<Arc<Object<DeviceSpec>>>,
    pub(crate) formats: Vec<Arc<Object<PushFormatSpec>>>,
    /// The Tenants and PushFormats that exist, and can't be read.
    pub(crate) unreadable: BTreeSet<(Kind, Key)>,
    pub(crate) secrets: Vec<Arc<Object<SecretData>>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_namespace_is_left_out() {
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
