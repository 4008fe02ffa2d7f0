//! Compares the statuses that are wanted with those that the API server holds, and queues those that differ.

use std::collections::BTreeSet;
use std::sync::Arc;

use flutecast_crds::Presence;
use flutecast_crds::condition::Condition;
use tokio::time::Instant;

use crate::backend::cluster::events::Notice;
use crate::backend::cluster::presence_targets;
use crate::backend::cluster::status::queue::{QueuedStatus, StatusQueue};
use crate::backend::cluster::status::wanted::WantedStatuses;
use crate::controller::dereference::DirtySet;
use crate::controller::metrics::ControllerMetrics;
use crate::controller::status::conditions::{label, ours, ready, understood};
use crate::finding::Reason;
use crate::index::kind::{ApiKind, ApiStatus};
use crate::index::{Entry, Store};
use crate::object::{Key, Kind};
use crate::presence::PresenceTable;

#[derive(Debug)]
pub(crate) struct StatusSync {
    pub(crate) queue: StatusQueue,
    pub(crate) presence: PresenceTable,
    pub(crate) metrics: Arc<ControllerMetrics>,
}

impl StatusSync {
    /// Queues the statuses of the objects in `dirty` that differ.
    pub(crate) fn sync(&self, wanted: &WantedStatuses<'_>, dirty: &DirtySet) {
        let index = wanted.index;
        // The status of a Tenant counts its devices, and there are few Tenants.
        let tenants = keys_of(&index.tenants, dirty, dirty.needs_building());
        self.each(&index.tenants, &tenants, |key, entry, before| wanted.tenant(key, entry, before));
        let devices = keys_of(&index.devices, dirty, dirty.all);
        presence_targets::track(&self.presence, wanted, &devices);
        self.each(&index.devices, &devices, |key, entry, before| wanted.device(key, entry, before));
        let formats = keys_of(&index.formats, dirty, dirty.all);
        self.each(&index.formats, &formats, |key, entry, before| wanted.format(key, entry, before));
    }

    /// Drops what waits, because another operator works now.
    pub(crate) fn stop(&self) {
        self.queue.clear();
        self.presence.clear();
    }

    fn each<K: ApiKind>(
        &self,
        store: &Store<K>,
        keys: &BTreeSet<Key>,
        wanted: impl Fn(&Key, &Entry<K>, &K::Status) -> Option<K::Status>,
    ) {
        for (key, entry) in keys.iter().filter_map(|key| Some((key, store.get(key)?))) {
            let pending = self.queue.pending(K::KIND, key).filter(|pending| pending.uid == entry.uid);
            let pending = pending.and_then(|pending| K::Status::of_any(pending.status));
            let wanted = wanted(key, entry, pending.as_ref().unwrap_or(&entry.status));
            if let Some(kind) = K::KIND.label() {
                let conditions = wanted.as_ref().map(ApiStatus::conditions).unwrap_or_default();
                self.metrics.count_reconcile(kind, label(conditions));
            }
            let Some(wanted) = wanted else { continue };
            if wanted == entry.status.own_part() {
                self.queue.remove(K::KIND, key);
                continue;
            }
            let status = QueuedStatus {
                uid: entry.uid.clone(),
                notice: notice(K::KIND, entry.status.conditions(), wanted.conditions()).or_else(|| {
                    let understood = understood_notice(entry.status.conditions(), wanted.conditions());
                    let presence = || presence_notice(entry.status.presence(), wanted.presence());
                    let notice = understood.or_else(presence)?;
                    self.presence.may_emit_event(Instant::now()).then_some(notice)
                }),
                status: wanted.into(),
            };
            self.queue.put(K::KIND, key, status);
        }
    }
}

/// Returns the objects of a kind that are in `dirty`.
fn keys_of<K: ApiKind>(store: &Store<K>, dirty: &DirtySet, all: bool) -> BTreeSet<Key> {
    let touched = dirty.touched.iter().filter(|(kind, _)| *kind == K::KIND).map(|(_, key)| key.clone());
    let mut keys: BTreeSet<Key> = touched.collect();
    if K::KIND == Kind::PushFormat {
        keys.extend(dirty.formats.iter().cloned());
    }
    if all {
        keys.extend(store.iter().map(|(key, _)| key.clone()));
    }
    keys
}

/// Returns the Event about a change of conditions: that an object was refused, and that it is Ready again.
/// That it waits for another object is in its conditions, and over a moment later.
fn notice(kind: Kind, before: &[Condition], after: &[Condition]) -> Option<Notice> {
    let (before, after) = (ready(&ours(before)).cloned(), ready(after)?.clone());
    let is_worth_it = |condition: &Condition| {
        let waits = Reason::from_name(&condition.reason).is_some_and(Reason::waits);
        let is_held = condition.reason == Reason::InUse.to_string();
        condition.status == "False" && (!waits || kind == Kind::Tenant || is_held)
    };
    let is_news = before.as_ref().is_none_or(|before| before.reason != after.reason);
    let told = |is_warning: bool| {
        let Condition { reason, message, .. } = after.clone();
        Some(Notice { is_warning, reason, message })
    };
    match before {
        _ if is_worth_it(&after) && is_news => told(true),
        Some(before) if after.status == "True" && is_worth_it(&before) => told(false),
        Some(_) | None => None,
    }
}

/// Returns the Event about a Device that fell silent or sends again, which is normal: machines are switched
/// off. The words are always the same, so that repeated Events count up.
fn presence_notice(before: Option<Presence>, after: Option<Presence>) -> Option<Notice> {
    let (reason, message) = match (before?, after?) {
        (Presence::Online, Presence::Silent) => ("Silent", "no channel has sent anything for its staleAfter"),
        (Presence::Silent, Presence::Online) => ("Online", "it sends again"),
        _ => return None,
    };
    Some(Notice { is_warning: false, reason: reason.to_owned(), message: message.to_owned() })
}

/// Returns the Event about a Device whose messages aren't understood, or are again.
fn understood_notice(before: &[Condition], after: &[Condition]) -> Option<Notice> {
    let (before, after) = (understood(before), understood(after)?);
    let was_false = before.filter(|before| before.status == "False");
    if after.status == "False" {
        let is_news = was_false.is_none_or(|before| before.reason != after.reason);
        let Condition { reason, message, .. } = after.clone();
        return is_news.then_some(Notice { is_warning: true, reason, message });
    }
    (after.status == "True" && was_false.is_some()).then(|| Notice {
        is_warning: false,
        reason: after.reason.clone(),
        message: "its messages are understood again".to_owned(),
    })
}
