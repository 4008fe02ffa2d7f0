//! The documents that the API server holds, as fingerprints, so that their texts are not in memory twice.

use std::collections::{BTreeMap, BTreeSet};

use kube::Resource;
use kube::api::ObjectMeta;

use super::objects::Fingerprint;
use crate::api_server::MANAGER;
use crate::index::version_of;
use crate::watch::Event;

/// The objects of one watch, by name.
#[derive(Debug, Default)]
pub(super) struct ObservedDocuments {
    objects: BTreeMap<String, ObservedDocument>,
    /// The names in the list that is under way.
    listed: Option<BTreeSet<String>>,
    /// The term in which the last complete list was begun.
    complete: Option<u64>,
}

#[derive(Debug)]
struct ObservedDocument {
    uid: Option<String>,
    version: Option<u64>,
    fingerprint: Option<Fingerprint>,
    editor: Option<String>,
}

impl ObservedDocuments {
    /// Applies an event. Returns whether anything changed.
    pub(super) fn apply<K: Resource>(&mut self, event: Event<K>, fingerprint: fn(&K) -> Fingerprint) -> bool {
        match event {
            Event::Apply(object) => self.set(object.meta(), Some(fingerprint(&object))),
            Event::Broken(left) => self.set(&left.metadata, None),
            Event::Delete(meta) => {
                let name = meta.name.unwrap_or_default();
                let is_this_one = self.objects.get(&name).is_some_and(|object| object.uid == meta.uid);
                is_this_one && self.objects.remove(&name).is_some()
            }
            Event::Restart(_) => {
                self.listed = Some(BTreeSet::new());
                false
            }
            Event::Complete(_, term) => {
                let listed = self.listed.take().unwrap_or_default();
                let before = self.objects.len();
                self.objects.retain(|name, _| listed.contains(name));
                self.complete.replace(term).is_none() || before != self.objects.len()
            }
            Event::Forbidden => false,
        }
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.objects.remove(name);
    }

    /// Returns whether all objects were listed in this term or a later one.
    pub(super) fn is_complete(&self, term: u64) -> bool {
        self.complete.is_some_and(|listed| listed >= term)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.objects.keys().map(String::as_str)
    }

    pub(super) fn fingerprint(&self, name: &str) -> Option<Fingerprint> {
        self.objects.get(name)?.fingerprint
    }

    /// Returns the field manager that changed an object last, besides the operator.
    pub(super) fn editor(&self, name: &str) -> Option<&str> {
        self.objects.get(name)?.editor.as_deref()
    }

    pub(super) fn uid(&self, name: &str) -> Option<String> {
        self.objects.get(name)?.uid.clone()
    }

    /// Sets an object that exists; without a fingerprint if it can't be read. Returns whether anything
    /// changed.
    pub(super) fn set(&mut self, meta: &ObjectMeta, fingerprint: Option<Fingerprint>) -> bool {
        let name = meta.name.clone().unwrap_or_default();
        if let Some(listed) = &mut self.listed {
            listed.insert(name.clone());
        }
        if !self.is_newer(meta) {
            return false;
        }
        let now = ObservedDocument {
            uid: meta.uid.clone(),
            version: version_of(meta),
            fingerprint,
            editor: last_editor(meta).map(str::to_owned),
        };
        let before = self.objects.insert(name, now);
        before.and_then(|before| before.fingerprint) != fingerprint
    }

    /// Returns whether this is not the version that is known already, or one before it.
    pub(super) fn is_newer(&self, meta: &ObjectMeta) -> bool {
        let before = meta.name.as_ref().and_then(|name| self.objects.get(name));
        let is_old = |before: &ObservedDocument| {
            before.uid == meta.uid
                && version_of(meta).zip(before.version).is_some_and(|(version, before)| version <= before)
        };
        !before.is_some_and(is_old)
    }
}

fn last_editor(meta: &ObjectMeta) -> Option<&str> {
    let all = meta.managed_fields.as_deref().unwrap_or_default().iter();
    let others = all.filter(|one| one.manager.as_deref() != Some(MANAGER));
    others.max_by_key(|one| one.time.as_ref().map(|time| time.0))?.manager.as_deref()
}
