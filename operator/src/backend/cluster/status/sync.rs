//! The fifth step: compares the statuses that are wanted with those that the API server holds, and hands on
//! those that differ.

use std::collections::BTreeSet;
use std::sync::Arc;

use flutecast_crds::Presence;
use flutecast_crds::condition::Condition;
use tokio::time::Instant;

use crate::backend::cluster::events::Notice;
use crate::backend::cluster::follow;
use crate::backend::cluster::status::queue::{Outbox, Status};
use crate::backend::cluster::status::wanted::WantedStatuses;
use crate::controller::dereference::DirtySet;
use crate::controller::metrics::ControllerMetrics;
use crate::controller::status::conditions::{label, ours, ready};
use crate::finding::Reason;
use crate::index::kind::{OurKind, OurStatus};
use crate::index::{Entry, Store};
use crate::object::Key;
use crate::object::Kind;
use crate::presence::PresenceTable;

/// Where statuses go.
#[derive(Debug)]
pub(crate) struct StatusSync {
    /// What is to be written.
    pub(crate) queue: Outbox,
    /// Who is followed, and what is said of their presence.
    pub(crate) presence: PresenceTable,
    /// Gets counts.
    pub(crate) metrics: Arc<ControllerMetrics>,
}

impl StatusSync {
    /// Has the statuses in `scope` written that differ.
    pub(crate) fn sync(&self, wanted: &WantedStatuses<'_>, scope: &DirtySet) {
        let index = wanted.index;
        // A Tenant tells how many devices it has, and there are few.
        let tenants = in_scope(&index.tenants, scope, scope.needs_building());
        self.each(&index.tenants, &tenants, |key, entry, before| wanted.tenant(key, entry, before));
        let devices = in_scope(&index.devices, scope, scope.all);
        follow::note(&self.presence, wanted, &devices);
        self.each(&index.devices, &devices, |key, entry, before| wanted.device(key, entry, before));
        let formats = in_scope(&index.formats, scope, scope.all);
        self.each(&index.formats, &formats, |key, entry, before| wanted.format(key, entry, before));
    }

    /// Another operator's turn: what waits here is forgotten.
    pub(crate) fn stop(&self) {
        self.queue.clear();
        self.presence.clear();
    }

    fn each<K: OurKind>(
        &self,
        store: &Store<K>,
        keys: &BTreeSet<Key>,
        wanted: impl Fn(&Key, &Entry<K>, Option<&[Condition]>) -> Option<K::Status>,
    ) {
        for (key, entry) in keys.iter().filter_map(|key| Some((key, store.get(key)?))) {
            let pending = self.queue.pending(K::KIND, key);
            let wanted = wanted(key, entry, pending.as_deref());
            if let Some(kind) = K::KIND.label() {
                let conditions = wanted.as_ref().map(OurStatus::conditions).unwrap_or_default();
                self.metrics.count_reconcile(kind, label(conditions));
            }
            let Some(wanted) = wanted else { continue };
            if wanted == entry.status.normal() {
                self.queue.withdraw(K::KIND, key);
                continue;
            }
            let status = Status {
                uid: entry.uid.clone(),
                notice: notice(K::KIND, entry.status.conditions(), wanted.conditions()).or_else(|| {
                    let tidings = tidings(entry.status.presence(), wanted.presence())?;
                    self.presence.may_emit_event(Instant::now()).then_some(tidings)
                }),
                status: wanted.into(),
            };
            self.queue.put(K::KIND, key, status);
        }
    }
}

/// The objects whose status is looked at: those that were touched, also because something else was built of
/// them.
fn in_scope<K: OurKind>(store: &Store<K>, scope: &DirtySet, all: bool) -> BTreeSet<Key> {
    let touched = scope.touched.iter().filter(|(kind, _)| *kind == K::KIND).map(|(_, key)| key.clone());
    let mut keys: BTreeSet<Key> = touched.collect();
    if K::KIND == Kind::PushFormat {
        keys.extend(scope.formats.iter().cloned());
    }
    if all {
        keys.extend(store.iter().map(|(key, _)| key.clone()));
    }
    keys
}

/// What `kubectl describe` is to tell of a change: that something was refused, and that it has healed. That
/// an object waits for another one that is about to come is in its conditions, and no news a moment later.
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

/// What `kubectl describe` is to tell of a Device that fell silent, and of one that is heard of again. It is
/// normal: machines are switched off. The words are always the same, so that the same again counts up.
fn tidings(before: Option<Presence>, after: Option<Presence>) -> Option<Notice> {
    let (reason, message) = match (before?, after?) {
        (Presence::Online, Presence::Silent) => ("Silent", "no channel has sent anything for its staleAfter"),
        (Presence::Silent, Presence::Online) => ("Online", "it sends again"),
        _ => return None,
    };
    Some(Notice { is_warning: false, reason: reason.to_owned(), message: message.to_owned() })
}
