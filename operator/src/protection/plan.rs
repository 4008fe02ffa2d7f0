//! The finalizers that have to change. Pure.

use std::collections::BTreeMap;

use clap::ValueEnum;

use crate::index::kind::ApiKind;
use crate::index::{Deletion, Index, Store};
use crate::object::{Key, Kind};

/// The finalizer of objects that are in use.
pub(crate) const FINALIZER: &str = "flutecast.io/in-use";

/// The protection of objects in use against deletion; docs/decisions/113-in-use.md has the consequences.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Protection {
    /// The API server, by an admission policy: deleting is refused, and nothing ever hangs.
    #[default]
    Policy,
    /// The operator, by a finalizer: deleting waits for the last user, and for an operator.
    Finalizer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Add,
    Remove,
    /// Remove it if the namespace is being deleted: that is meant to delete all that is in it.
    RemoveWithNamespace,
}

/// A change of the finalizers of one version of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FinalizerChange {
    pub(crate) action: Action,
    /// The version that this was decided for.
    pub(crate) version: u64,
    /// The finalizers after the change.
    pub(crate) finalizers: Vec<String>,
}

/// All changes that are due.
pub(crate) type FinalizerPlan = BTreeMap<(Kind, Key), FinalizerChange>;

/// Returns whether an object has the finalizer.
pub(crate) fn holds(deletion: &Deletion) -> bool {
    deletion.finalizers.iter().any(|finalizer| finalizer == FINALIZER)
}

pub(crate) fn plan(index: &Index, protection: Protection) -> FinalizerPlan {
    let mut plan = FinalizerPlan::new();
    add(&index.tenants, index, protection, &mut plan);
    add(&index.formats, index, protection, &mut plan);
    plan
}

fn add<K: ApiKind>(store: &Store<K>, index: &Index, protection: Protection, plan: &mut FinalizerPlan) {
    for (key, entry) in store.iter() {
        let is_used = || index.is_used(K::KIND, key);
        if let Some(action) = action(protection, &entry.deletion, is_used)
            && let Some(version) = entry.version
        {
            let mut finalizers = entry.deletion.finalizers.to_vec();
            finalizers.retain(|finalizer| finalizer != FINALIZER);
            if action == Action::Add {
                finalizers.push(FINALIZER.to_owned());
            }
            plan.insert((K::KIND, key.clone()), FinalizerChange { action, version, finalizers });
        }
    }
}

fn action(protection: Protection, deletion: &Deletion, is_used: impl FnOnce() -> bool) -> Option<Action> {
    match (protection, holds(deletion)) {
        (Protection::Policy, true) => Some(Action::Remove),
        (Protection::Policy, false) => None,
        (Protection::Finalizer, true) => match (is_used(), deletion.is_deleting) {
            (false, _) => Some(Action::Remove),
            (true, true) => Some(Action::RemoveWithNamespace),
            (true, false) => None,
        },
        // No finalizer can be added to an object that is being deleted.
        (Protection::Finalizer, false) => (!deletion.is_deleting && is_used()).then_some(Action::Add),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_state_has_its_action() {
        use Protection::{Finalizer, Policy};
        let cases = [
            // protection, held, being deleted, used
            (Finalizer, false, false, true, Some(Action::Add)),
            (Finalizer, false, false, false, None),
            (Finalizer, false, true, true, None),
            (Finalizer, true, false, true, None),
            (Finalizer, true, false, false, Some(Action::Remove)),
            (Finalizer, true, true, false, Some(Action::Remove)),
            (Finalizer, true, true, true, Some(Action::RemoveWithNamespace)),
            (Policy, false, false, true, None),
            (Policy, true, false, true, Some(Action::Remove)),
            (Policy, true, true, true, Some(Action::Remove)),
        ];
        for (protection, is_held, is_deleting, is_used, expected) in cases {
            let ours = is_held.then(|| FINALIZER.to_owned());
            let finalizers = ["others.io/own".to_owned()].into_iter().chain(ours).collect();
            let deletion = Deletion { is_deleting, finalizers };
            assert_eq!(
                action(protection, &deletion, || is_used),
                expected,
                "{protection:?} {is_held} {is_deleting} {is_used}"
            );
        }
    }
}
