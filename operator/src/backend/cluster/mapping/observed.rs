//! What the API server holds, as prints: the documents themselves are not kept twice.

use std::collections::{BTreeMap, BTreeSet};

use kube::Resource;
use kube::api::ObjectMeta;

use super::objects::Print;
use crate::api_server::MANAGER;
use crate::index::version_of;
use crate::watch::Event;

/// The objects of one watch, by name.
#[derive(Debug, Default)]
pub(super) struct Stored {
    objects: BTreeMap<String, Held>,
    told: Option<BTreeSet<String>>,
    /// The turn in which the last list was begun that was told in full.
    complete: Option<u64>,
}

#[derive(Debug)]
struct Held {
    uid: Option<String>,
    version: Option<u64>,
    print: Option<Print>,
    editor: Option<String>,
}

impl Stored {
    /// Takes in what happened. Answers whether that is news.
    pub(super) fn take<K: Resource>(&mut self, event: Event<K>, print: fn(&K) -> Print) -> bool {
        match event {
            Event::Apply(object) => self.set(object.meta(), Some(print(&object))),
            Event::Broken { meta, error: _ } => self.set(&meta, None),
            Event::Delete(meta) => {
                let name = meta.name.unwrap_or_default();
                let is_this_one = self.objects.get(&name).is_some_and(|held| held.uid == meta.uid);
                is_this_one && self.objects.remove(&name).is_some()
            }
            Event::Restart(_) => {
                self.told = Some(BTreeSet::new());
                false
            }
            Event::Complete(_, turn) => {
                let told = self.told.take().unwrap_or_default();
                let before = self.objects.len();
                self.objects.retain(|name, _| told.contains(name));
                self.complete.replace(turn).is_none() || before != self.objects.len()
            }
            Event::Forbidden => false,
        }
    }

    /// Takes in the answer to a write.
    pub(super) fn put(&mut self, meta: &ObjectMeta, print: Print) {
        self.set(meta, Some(print));
    }

    /// Takes in that a name was deleted.
    pub(super) fn remove(&mut self, name: &str) {
        self.objects.remove(name);
    }

    /// Whether everything was told in full, since this turn has begun.
    pub(super) fn is_complete(&self, turn: u64) -> bool {
        self.complete.is_some_and(|told| told >= turn)
    }

    /// The names of all.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.objects.keys().map(String::as_str)
    }

    /// The print of one; none if it isn't there.
    pub(super) fn print(&self, name: &str) -> Option<Print> {
        self.objects.get(name)?.print
    }

    /// Who changed one last, beside us, as far as it is known.
    pub(super) fn editor(&self, name: &str) -> Option<&str> {
        self.objects.get(name)?.editor.as_deref()
    }

    /// The uid of one.
    pub(super) fn uid(&self, name: &str) -> Option<String> {
        self.objects.get(name)?.uid.clone()
    }

    fn set(&mut self, meta: &ObjectMeta, print: Option<Print>) -> bool {
        let name = meta.name.clone().unwrap_or_default();
        if let Some(told) = &mut self.told {
            told.insert(name.clone());
        }
        let held = Held {
            uid: meta.uid.clone(),
            version: version_of(meta),
            print,
            editor: last_editor(meta).map(str::to_owned),
        };
        let before = self.objects.get(&name);
        let is_old = |before: &Held| {
            before.uid == held.uid
                && held.version.zip(before.version).is_some_and(|(version, before)| version <= before)
        };
        if before.is_some_and(is_old) {
            return false;
        }
        let changed = before.and_then(|before| before.print) != held.print;
        self.objects.insert(name, held);
        changed
    }
}

/// Who changed an object last, beside us.
fn last_editor(meta: &ObjectMeta) -> Option<&str> {
    let all = meta.managed_fields.as_deref().unwrap_or_default().iter();
    let others = all.filter(|one| one.manager.as_deref() != Some(MANAGER));
    others.max_by_key(|one| one.time.as_ref().map(|time| time.0))?.manager.as_deref()
}
