//! What has to be done with which object. Pure.

use std::collections::BTreeMap;

use crate::index::kind::OurKind;
use crate::index::{Index, Life, Store};
use crate::object::Key;
use crate::object::Kind;

/// By what the operator holds what is used.
pub(crate) const FINALIZER: &str = "flutecast.io/in-use";

/// Who keeps what is used from being deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Protection {
    /// The API server, by an admission policy.
    #[default]
    Policy,
    /// The operator, by a finalizer.
    Finalizer,
}

/// What to do with one object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    /// Hold it.
    Hold,
    /// Let it go.
    LetGo,
    /// Let it go if its whole namespace is being deleted: whoever deletes that means all that is in it.
    LetGoWithNamespace,
}

/// What to do, and with which version of the object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Step {
    /// What to do.
    pub(crate) act: Act,
    /// The version that this was decided by; another one is another decision.
    pub(crate) version: u64,
    /// The finalizers that it is to have.
    pub(crate) finalizers: Vec<String>,
}

/// All that is to be done.
pub(crate) type Steps = BTreeMap<(Kind, Key), Step>;

/// Whether the operator holds an object of this life.
#[must_use]
pub(crate) fn holds(life: &Life) -> bool {
    life.finalizers.iter().any(|finalizer| finalizer == FINALIZER)
}

/// What is to be done for what is known.
#[must_use]
pub(crate) fn steps(index: &Index, protection: Protection) -> Steps {
    let mut steps = Steps::new();
    add(&index.tenants, index, protection, &mut steps);
    add(&index.formats, index, protection, &mut steps);
    steps
}

fn add<K: OurKind>(store: &Store<K>, index: &Index, protection: Protection, steps: &mut Steps) {
    for (key, entry) in store.iter() {
        let is_used = || index.is_used(K::KIND, key);
        if let Some(act) = act(protection, &entry.life, is_used)
            && let Some(version) = entry.version()
        {
            let mut finalizers = entry.life.finalizers.to_vec();
            finalizers.retain(|finalizer| finalizer != FINALIZER);
            if act == Act::Hold {
                finalizers.push(FINALIZER.to_owned());
            }
            steps.insert((K::KIND, key.clone()), Step { act, version, finalizers });
        }
    }
}

fn act(protection: Protection, life: &Life, is_used: impl FnOnce() -> bool) -> Option<Act> {
    match (protection, holds(life)) {
        (Protection::Policy, true) => Some(Act::LetGo),
        (Protection::Policy, false) => None,
        (Protection::Finalizer, true) => match (is_used(), life.is_deleting) {
            (false, _) => Some(Act::LetGo),
            (true, true) => Some(Act::LetGoWithNamespace),
            (true, false) => None,
        },
        // Nothing can be put onto what is being deleted.
        (Protection::Finalizer, false) => (!life.is_deleting && is_used()).then_some(Act::Hold),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done() {
        use Protection::{Finalizer, Policy};
        let cases = [
            // protection, held, being deleted, used
            (Finalizer, false, false, true, Some(Act::Hold)),
            (Finalizer, false, false, false, None),
            (Finalizer, false, true, true, None),
            (Finalizer, true, false, true, None),
            (Finalizer, true, false, false, Some(Act::LetGo)),
            (Finalizer, true, true, false, Some(Act::LetGo)),
            (Finalizer, true, true, true, Some(Act::LetGoWithNamespace)),
            (Policy, false, false, true, None),
            (Policy, true, false, true, Some(Act::LetGo)),
            (Policy, true, true, true, Some(Act::LetGo)),
        ];
        for (protection, is_held, is_deleting, is_used, expected) in cases {
            let ours = is_held.then(|| FINALIZER.to_owned());
            let finalizers = ["others.io/own".to_owned()].into_iter().chain(ours).collect();
            let life = Life { is_deleting, finalizers };
            assert_eq!(
                act(protection, &life, || is_used),
                expected,
                "{protection:?} {is_held} {is_deleting} {is_used}"
            );
        }
    }
}
