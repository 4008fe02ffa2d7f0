//! The objects of one kind, as the API server last reported them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kube::api::ObjectMeta;
use serde::Deserialize;

use crate::controller::status::conditions::label;
use crate::finding::ConditionLabel;
use crate::index::kind::{ApiKind, ApiStatus};
use crate::object::{Key, Meta, Object};
use crate::watch::{NamespaceScope, Unreadable};

#[derive(Debug, Clone)]
pub(crate) struct Entry<K: ApiKind> {
    pub(crate) uid: String,
    pub(crate) generation: i64,
    /// The object, or why it can't be read.
    pub(crate) object: Result<Arc<Object<K::Spec>>, String>,
    pub(crate) status: K::Status,
    pub(crate) deletion: Deletion,
    /// The resource version; `None` if it is not a number.
    pub(crate) version: Option<u64>,
}

/// The deletion of an object, and the finalizers that hold it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Deletion {
    /// It goes when the last finalizer is removed.
    pub(crate) is_deleting: bool,
    pub(crate) finalizers: Box<[String]>,
}

impl Deletion {
    fn of(meta: &ObjectMeta) -> Self {
        Self {
            is_deleting: meta.deletion_timestamp.is_some(),
            finalizers: meta.finalizers.clone().unwrap_or_default().into(),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Delta<K: ApiKind> {
    pub(crate) key: Key,
    /// `None` if it did not exist.
    pub(crate) before: Option<Entry<K>>,
    /// `None` if it is gone.
    pub(crate) after: Option<Entry<K>>,
}

impl<K: ApiKind> Delta<K> {
    /// Returns whether its deletion began, or a new object of the name replaced one that was being deleted.
    pub(crate) fn is_about_deletion(&self) -> bool {
        let is_deleting =
            |entry: &Option<Entry<K>>| entry.as_ref().is_some_and(|entry| entry.deletion.is_deleting);
        is_deleting(&self.before) != is_deleting(&self.after)
    }

    /// Returns whether anything changed that is built from.
    pub(crate) fn needs_building(&self) -> bool {
        match (&self.before, &self.after) {
            (Some(before), Some(after)) => {
                before.uid != after.uid
                    || before.generation != after.generation
                    || !same_object::<K>(&before.object, &after.object)
            }
            (None, None) => false,
            (Some(_), None) | (None, Some(_)) => true,
        }
    }
}

fn same_object<K: ApiKind>(
    before: &Result<Arc<Object<K::Spec>>, String>,
    after: &Result<Arc<Object<K::Spec>>, String>,
) -> bool {
    match (before, after) {
        (Ok(before), Ok(after)) => before.spec == after.spec && before.meta.labels == after.meta.labels,
        (Err(before), Err(after)) => before == after,
        (Ok(_), Err(_)) | (Err(_), Ok(_)) => false,
    }
}

#[derive(Debug)]
pub(crate) struct Store<K: ApiKind> {
    entries: BTreeMap<Key, Entry<K>>,
    /// The objects in the lists that are under way.
    listed: BTreeMap<NamespaceScope, BTreeSet<Key>>,
    /// The terms in which the last complete lists were begun.
    complete: BTreeMap<NamespaceScope, u64>,
}

impl<K: ApiKind> Default for Store<K> {
    fn default() -> Self {
        Self { entries: BTreeMap::new(), listed: BTreeMap::new(), complete: BTreeMap::new() }
    }
}

impl<K: ApiKind> Store<K> {
    pub(crate) fn get(&self, key: &Key) -> Option<&Entry<K>> {
        self.entries.get(key)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Key, &Entry<K>)> {
        self.entries.iter()
    }

    /// Returns the label of each object by its conditions.
    pub(crate) fn condition_labels(&self) -> impl Iterator<Item = ConditionLabel> {
        self.entries.values().map(|entry| label(entry.status.conditions()))
    }

    /// Returns the objects that can be read.
    pub(crate) fn objects(&self) -> impl Iterator<Item = &Arc<Object<K::Spec>>> {
        self.entries.values().filter_map(|entry| entry.object.as_ref().ok())
    }

    /// Returns whether the objects of all these namespaces were listed in this term or a later one.
    pub(crate) fn is_complete(&self, scopes: &[NamespaceScope], term: u64) -> bool {
        scopes.iter().all(|scope| self.complete.get(scope).is_some_and(|listed| *listed >= term))
    }

    /// Begins a list of the objects of `scope`.
    pub(crate) fn restart(&mut self, scope: NamespaceScope) {
        self.listed.insert(scope, BTreeSet::new());
    }

    /// Sets an object. Returns `None` if that changes nothing: a watch may report a version that is older
    /// than the reply to a write of the operator.
    pub(crate) fn apply(&mut self, object: K) -> Option<Delta<K>> {
        let (meta, spec, status) = object.into_parts();
        let status = status.unwrap_or_default();
        let known = meta_of(&meta, status.holds_claim());
        self.put(&meta, Ok(Arc::new(Object { meta: known.into(), spec })), status)
    }

    /// Sets an object that can't be read.
    pub(crate) fn broken(&mut self, left: Unreadable) -> Option<Delta<K>> {
        let Unreadable { metadata, status, error } = left;
        // An object that has no status yet has `null`.
        self.put(&metadata, Err(error), K::Status::deserialize(status).unwrap_or_default())
    }

    pub(crate) fn delete(&mut self, meta: &ObjectMeta) -> Option<Delta<K>> {
        let key = key_of(meta);
        let is_this_one = self.entries.get(&key).is_some_and(|entry| Some(&entry.uid) == meta.uid.as_ref());
        let before = if is_this_one { self.entries.remove(&key) } else { None };
        before.map(|before| Delta { key, before: Some(before), after: None })
    }

    /// Ends a list of the objects of `scope`, begun in this term, and removes those that were not in it.
    pub(crate) fn complete(&mut self, scope: NamespaceScope, term: u64) -> Vec<Delta<K>> {
        let listed = self.listed.remove(&scope).unwrap_or_default();
        let gone: Vec<Key> = self
            .entries
            .keys()
            .filter(|key| is_within(key, &scope) && !listed.contains(*key))
            .cloned()
            .collect();
        self.complete.insert(scope, term);
        gone.into_iter()
            .filter_map(|key| {
                let before = self.entries.remove(&key);
                before.map(|before| Delta { key, before: Some(before), after: None })
            })
            .collect()
    }

    fn put(
        &mut self,
        meta: &ObjectMeta,
        object: Result<Arc<Object<K::Spec>>, String>,
        status: K::Status,
    ) -> Option<Delta<K>> {
        let key = key_of(meta);
        for (scope, listed) in &mut self.listed {
            if is_within(&key, scope) {
                listed.insert(key.clone());
            }
        }
        let entry = Entry {
            uid: meta.uid.clone().unwrap_or_default(),
            generation: meta.generation.unwrap_or_default(),
            object,
            status,
            deletion: Deletion::of(meta),
            version: version_of(meta),
        };
        let before = self.entries.get(&key);
        let is_old = |before: &Entry<K>| {
            before.uid == entry.uid
                && entry.version.zip(before.version).is_some_and(|(version, before)| version <= before)
        };
        if before.is_some_and(is_old) {
            return None;
        }
        let before = self.entries.insert(key.clone(), entry.clone());
        Some(Delta { key, before, after: Some(entry) })
    }
}

fn is_within(key: &Key, scope: &NamespaceScope) -> bool {
    scope.as_ref().is_none_or(|namespace| *namespace == key.0)
}

pub(crate) fn key_of(meta: &ObjectMeta) -> Key {
    (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
}

/// Returns the resource version as a number; Kubernetes guarantees since 1.35 that versions can be compared
/// so. `None` if it is not a number; then what comes later counts.
pub(crate) fn version_of(meta: &ObjectMeta) -> Option<u64> {
    meta.resource_version.as_deref().and_then(|version| version.parse().ok())
}

fn meta_of(meta: &ObjectMeta, holds_claim: bool) -> Meta {
    let (namespace, name) = key_of(meta);
    let seconds = meta.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second());
    // Kubernetes has ages in seconds. Of two objects of the same second, the one that has got its claim keeps
    // it.
    let created = seconds * 2 + i64::from(!holds_claim);
    Meta {
        namespace,
        name,
        uid: meta.uid.clone(),
        created,
        labels: meta.labels.clone().unwrap_or_default().into(),
    }
}
