//! The tenants whose mapping could not be stored, and what is to be said of that. Pure: the time is handed
//! in.
//!
//! What the API server says no to is told at once. Trouble of its own (a webhook that fails, a store that is
//! full) may pass in a moment and is told when it hasn't; until then nothing is said of whom it concerns,
//! least of all that he is Ready. And an API server that is away can't be told anything.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use flutecast_contract::name::TenantName;
use tokio::time::Instant;

/// For how long the API server's own trouble isn't told.
const PASSES: Duration = Duration::from_secs(3);

/// Why a part of the mapping was not stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// The API server says no, in these words.
    Refused(String),
    /// The API server has trouble of its own, in these words.
    Troubled(String),
    /// The API server is away.
    Away,
}

/// What is to be said of a tenant whose mapping is not stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// Nothing yet.
    Wait,
    /// That it is not, in these words.
    Words(String),
}

/// The tenants whose mapping could not be stored.
#[derive(Debug, Default)]
pub struct Unstored(BTreeMap<TenantName, (Instant, Told)>);

impl Unstored {
    /// Takes in what a write of everything came to. Answers the tenants of which something else is to be said
    /// than before.
    pub fn take_in(&mut self, failed: BTreeMap<TenantName, Why>, now: Instant) -> BTreeSet<TenantName> {
        let mut before = std::mem::take(&mut self.0);
        let mut changed = BTreeSet::new();
        for (tenant, why) in failed {
            let before = before.remove(&tenant);
            let (since, said) = match &before {
                Some((since, said)) => (*since, Some(said)),
                None => (now, None),
            };
            let told = match (why, said) {
                (Why::Refused(words), _) => Told::Words(words),
                // The words of the cause may vary from attempt to attempt.
                (Why::Troubled(_) | Why::Away, Some(said @ Told::Words(_))) => said.clone(),
                (Why::Troubled(words), _) if now.duration_since(since) >= PASSES => Told::Words(words),
                (Why::Troubled(_) | Why::Away, _) => Told::Wait,
            };
            if said != Some(&told) {
                changed.insert(tenant.clone());
            }
            self.0.insert(tenant, (since, told));
        }
        changed.extend(before.into_keys());
        changed
    }

    /// What is to be said of a tenant; none: its mapping is stored.
    #[must_use]
    pub fn of(&self, tenant: &TenantName) -> Option<&Told> {
        self.0.get(tenant).map(|(_, told)| told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant() -> TenantName {
        TenantName::new("demo").unwrap()
    }

    fn failed(why: Why) -> BTreeMap<TenantName, Why> {
        BTreeMap::from([(tenant(), why)])
    }

    #[test]
    fn a_refusal_is_told_at_once_and_trouble_when_it_stays() {
        let (mut unstored, now) = (Unstored::default(), Instant::now());
        let trouble = |text: &str| failed(Why::Troubled(text.to_owned()));
        let words = |text: &str| Told::Words(text.to_owned());
        let concerned = BTreeSet::from([tenant()]);
        assert_eq!(unstored.take_in(trouble("a"), now), concerned);
        assert_eq!(unstored.of(&tenant()), Some(&Told::Wait));
        assert!(unstored.take_in(trouble("b"), now + PASSES / 2).is_empty());
        assert_eq!(unstored.take_in(trouble("c"), now + PASSES), concerned);
        assert_eq!(unstored.of(&tenant()), Some(&words("c")));
        assert!(unstored.take_in(trouble("d"), now + PASSES * 2).is_empty(), "it was told");
        assert!(unstored.take_in(failed(Why::Away), now + PASSES * 2).is_empty());
        assert_eq!(unstored.take_in(failed(Why::Refused("no".to_owned())), now), concerned);
        assert_eq!(unstored.of(&tenant()), Some(&words("no")));
        assert_eq!(unstored.take_in(BTreeMap::new(), now), concerned);
        assert_eq!(unstored.of(&tenant()), None);
        assert!(unstored.take_in(BTreeMap::new(), now).is_empty());
    }

    #[test]
    fn nothing_is_told_while_nobody_can_be_told() {
        let (mut unstored, now) = (Unstored::default(), Instant::now());
        unstored.take_in(failed(Why::Away), now);
        unstored.take_in(failed(Why::Away), now + PASSES * 10);
        assert_eq!(unstored.of(&tenant()), Some(&Told::Wait));
    }
}
