//! The objects of one kind, as the API server last told of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kube::api::ObjectMeta;

use crate::controller::status::conditions::label;
use crate::finding::ConditionLabel;
use crate::index::kind::{OurKind, OurStatus};
use crate::object::Key;
use crate::object::{Meta, Object};
use crate::watch::Place;

/// One object.
#[derive(Debug, Clone)]
pub(crate) struct Entry<K: OurKind> {
    /// Which life of the name it is.
    pub(crate) uid: String,
    /// Which version of the spec.
    pub(crate) generation: i64,
    /// The object, or why it isn't one.
    pub(crate) object: Result<Arc<Object<K::Spec>>, String>,
    /// What the operator said about it last.
    pub(crate) status: K::Status,
    /// Whether it is about to go, and who holds it.
    pub(crate) life: Life,
    version: Option<u64>,
}

/// Whether an object is about to go, and who holds it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Life {
    /// Somebody deleted it; it goes when nobody holds it any more.
    pub(crate) is_deleting: bool,
    /// Who holds it.
    pub(crate) finalizers: Box<[String]>,
}

impl Life {
    fn of(meta: &ObjectMeta) -> Self {
        Self {
            is_deleting: meta.deletion_timestamp.is_some(),
            finalizers: meta.finalizers.clone().unwrap_or_default().into(),
        }
    }
}

impl<K: OurKind> Entry<K> {
    /// The version as the API server wrote it; none: it isn't known.
    #[must_use]
    pub(crate) fn version(&self) -> Option<u64> {
        self.version
    }
}

/// What one change did to one object.
#[derive(Debug)]
pub(crate) struct Delta<K: OurKind> {
    /// Which object.
    pub(crate) key: Key,
    /// What it was; none: it wasn't there.
    pub(crate) before: Option<Entry<K>>,
    /// What it is; none: it is gone.
    pub(crate) after: Option<Entry<K>>,
}

impl<K: OurKind> Delta<K> {
    /// Whether it is about to go, which it wasn't before, or the other way round: a new life of the name.
    #[must_use]
    pub(crate) fn is_about_deletion(&self) -> bool {
        let is_deleting =
            |entry: &Option<Entry<K>>| entry.as_ref().is_some_and(|entry| entry.life.is_deleting);
        is_deleting(&self.before) != is_deleting(&self.after)
    }

    /// Whether anything moved that the build step reads.
    #[must_use]
    pub(crate) fn is_about_more_than_status(&self) -> bool {
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

fn same_object<K: OurKind>(
    before: &Result<Arc<Object<K::Spec>>, String>,
    after: &Result<Arc<Object<K::Spec>>, String>,
) -> bool {
    match (before, after) {
        (Ok(before), Ok(after)) => before.spec == after.spec && before.meta.labels == after.meta.labels,
        (Err(before), Err(after)) => before == after,
        (Ok(_), Err(_)) | (Err(_), Ok(_)) => false,
    }
}

/// All objects of one kind.
#[derive(Debug)]
pub(crate) struct Store<K: OurKind> {
    entries: BTreeMap<Key, Entry<K>>,
    /// The objects that were told since a place was begun anew.
    told: BTreeMap<Place, BTreeSet<Key>>,
    /// The places that were told in full at least once, and in which turn the list was begun.
    complete: BTreeMap<Place, u64>,
}

impl<K: OurKind> Default for Store<K> {
    fn default() -> Self {
        Self { entries: BTreeMap::new(), told: BTreeMap::new(), complete: BTreeMap::new() }
    }
}

impl<K: OurKind> Store<K> {
    /// The object of this name.
    #[must_use]
    pub(crate) fn get(&self, key: &Key) -> Option<&Entry<K>> {
        self.entries.get(key)
    }

    /// All objects.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Key, &Entry<K>)> {
        self.entries.iter()
    }

    /// How it stands with each of them, as the API server holds it.
    pub(crate) fn standings(&self) -> impl Iterator<Item = ConditionLabel> {
        self.entries.values().map(|entry| label(entry.status.conditions()))
    }

    /// The objects that can be read.
    pub(crate) fn objects(&self) -> impl Iterator<Item = &Arc<Object<K::Spec>>> {
        self.entries.values().filter_map(|entry| entry.object.as_ref().ok())
    }

    /// Whether all these places were told in full, since this turn has begun.
    #[must_use]
    pub(crate) fn is_complete(&self, places: &[Place], turn: u64) -> bool {
        places.iter().all(|place| self.complete.get(place).is_some_and(|told| *told >= turn))
    }

    /// All objects of a place are going to be told again.
    pub(crate) fn restart(&mut self, place: Place) {
        self.told.insert(place, BTreeSet::new());
    }

    /// An object is there, or has changed. Answers none if that is no news: a watch may tell of a version
    /// that is older than the answer to a write of ours.
    pub(crate) fn apply(&mut self, object: K) -> Option<Delta<K>> {
        let (meta, spec, status) = object.into_parts();
        let status = status.unwrap_or_default();
        let known = known_of(&meta, status.holds_its_place());
        self.put(&meta, Ok(Arc::new(Object { meta: known.into(), spec })), status)
    }

    /// An object is there, but can't be read.
    pub(crate) fn broken(&mut self, meta: &ObjectMeta, error: String) -> Option<Delta<K>> {
        let status = self.entries.get(&key_of(meta)).map(|entry| entry.status.clone());
        self.put(meta, Err(error), status.unwrap_or_default())
    }

    /// An object is gone.
    pub(crate) fn delete(&mut self, meta: &ObjectMeta) -> Option<Delta<K>> {
        let key = key_of(meta);
        let is_this_one = self.entries.get(&key).is_some_and(|entry| Some(&entry.uid) == meta.uid.as_ref());
        let before = if is_this_one { self.entries.remove(&key) } else { None };
        before.map(|before| Delta { key, before: Some(before), after: None })
    }

    /// A place was told in full, by a list that was begun in this turn: what wasn't told is gone.
    pub(crate) fn complete(&mut self, place: Place, turn: u64) -> Vec<Delta<K>> {
        let told = self.told.remove(&place).unwrap_or_default();
        let gone: Vec<Key> = self
            .entries
            .keys()
            .filter(|key| is_within(key, &place) && !told.contains(*key))
            .cloned()
            .collect();
        self.complete.insert(place, turn);
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
        for (place, told) in &mut self.told {
            if is_within(&key, place) {
                told.insert(key.clone());
            }
        }
        let entry = Entry {
            uid: meta.uid.clone().unwrap_or_default(),
            generation: meta.generation.unwrap_or_default(),
            object,
            status,
            life: Life::of(meta),
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

fn is_within(key: &Key, place: &Place) -> bool {
    place.as_ref().is_none_or(|namespace| *namespace == key.0)
}

/// The namespace and name of an object.
pub(crate) fn key_of(meta: &ObjectMeta) -> Key {
    (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
}

/// The version of an object as a number; Kubernetes promises since 1.35 that versions can be compared so.
/// None: it isn't one, and whatever comes later counts.
pub(crate) fn version_of(meta: &ObjectMeta) -> Option<u64> {
    meta.resource_version.as_deref().and_then(|version| version.parse().ok())
}

/// What the build step needs to know of an object.
fn known_of(meta: &ObjectMeta, holds_its_place: bool) -> Meta {
    let (namespace, name) = key_of(meta);
    let seconds = meta.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second());
    // Kubernetes tells ages in seconds. Of two that were made within one, the one that has its place already
    // keeps it.
    let created = seconds * 2 + i64::from(!holds_its_place);
    Meta {
        namespace,
        name,
        uid: meta.uid.clone(),
        created,
        labels: meta.labels.clone().unwrap_or_default().into(),
    }
}
