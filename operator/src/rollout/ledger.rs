//! The order in which the operator stored the revisions of the mapping.
//!
//! Pods tell revisions as digests, which have no order. Each revision that is stored gets the next number;
//! one that is stored again (a change was taken back) gets a new one, since its content is that of the
//! newest. So whatever came into the mapping with number k and is still there is in every revision whose
//! number is k or above.

use std::collections::BTreeMap;
use std::sync::Arc;

use flutecast_contract::name::TenantName;

/// How many revisions are remembered for each shard of a tenant. A pod that is further behind counts as one
/// that serves nothing known, until it catches up.
const HISTORY: usize = 64;

/// A revision, and when it was stored among all of its tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Numbered {
    pub(super) number: u64,
    pub(super) revision: Arc<str>,
}

/// What was stored.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    last: u64,
    tenants: BTreeMap<TenantName, Tenant>,
}

#[derive(Debug, Default)]
struct Tenant {
    /// What the API server holds, by shard; none: not yet what it should.
    current: Vec<Option<Numbered>>,
    numbers: BTreeMap<Arc<str>, u64>,
    by_age: BTreeMap<u64, Arc<str>>,
}

impl Ledger {
    /// Takes note of a tenant's stored revisions, by shard; none: this shard isn't stored as it should be.
    pub(super) fn note<'a>(
        &mut self,
        tenant: &TenantName,
        stored: impl ExactSizeIterator<Item = Option<&'a str>>,
    ) {
        let last = &mut self.last;
        let tenant = self.tenants.entry(tenant.clone()).or_default();
        if tenant.current.len() != stored.len() {
            tenant.current = vec![None; stored.len()];
        }
        for (shard, revision) in stored.enumerate() {
            let Some(revision) = revision else { continue };
            let is_known = |current: &Numbered| *current.revision == *revision;
            if tenant.current[shard].as_ref().is_some_and(is_known) {
                continue;
            }
            *last += 1;
            tenant.current[shard] = Some(tenant.number(revision, *last));
        }
        tenant.trim();
    }

    /// Forgets the tenants that `keep` doesn't want.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&TenantName) -> bool) {
        self.tenants.retain(|tenant, _| keep(tenant));
    }

    /// The number of a revision that a pod serves; none: it isn't known, or was too long ago.
    pub(super) fn number(&self, tenant: &TenantName, revision: &str) -> Option<u64> {
        self.tenants.get(tenant)?.numbers.get(revision).copied()
    }

    /// What is stored of a shard.
    pub(super) fn current(&self, tenant: &TenantName, shard: usize) -> Option<&Numbered> {
        self.tenants.get(tenant)?.current.get(shard)?.as_ref()
    }

    /// All tenants with what is stored of each shard.
    pub(super) fn tenants(&self) -> impl Iterator<Item = (&TenantName, &[Option<Numbered>])> {
        self.tenants.iter().map(|(name, tenant)| (name, tenant.current.as_slice()))
    }
}

impl Tenant {
    fn number(&mut self, revision: &str, number: u64) -> Numbered {
        let revision: Arc<str> = revision.into();
        if let Some(before) = self.numbers.insert(revision.clone(), number) {
            self.by_age.remove(&before);
        }
        self.by_age.insert(number, revision.clone());
        Numbered { number, revision }
    }

    fn trim(&mut self) {
        let keep = HISTORY * self.current.len().max(1);
        let current: Vec<u64> = self.current.iter().flatten().map(|current| current.number).collect();
        let excess = self.by_age.len().saturating_sub(keep);
        let old = self.by_age.keys().filter(|number| !current.contains(number)).take(excess);
        for number in old.copied().collect::<Vec<_>>() {
            if let Some(revision) = self.by_age.remove(&number) {
                self.numbers.remove(&revision);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_that_comes_again_is_as_new_as_the_newest() {
        let acme = TenantName::new("acme").unwrap();
        let mut ledger = Ledger::default();
        for revision in ["a", "b", "b", "a"] {
            ledger.note(&acme, [Some(revision)].into_iter());
        }
        assert_eq!((ledger.number(&acme, "b"), ledger.number(&acme, "a")), (Some(2), Some(3)));
        assert_eq!(ledger.current(&acme, 0).unwrap().number, 3);
        // What isn't stored changes nothing.
        ledger.note(&acme, [None].into_iter());
        assert_eq!(ledger.current(&acme, 0).unwrap().number, 3);
        // Another number of shards is another set of documents.
        ledger.note(&acme, [Some("c"), None].into_iter());
        assert_eq!(ledger.current(&acme, 0).unwrap().number, 4);
        assert_eq!(ledger.current(&acme, 1), None);
        ledger.retain(|_| false);
        assert_eq!(ledger.number(&acme, "c"), None);
    }

    #[test]
    fn the_memory_has_a_bound_and_what_is_stored_stays() {
        let acme = TenantName::new("acme").unwrap();
        let mut ledger = Ledger::default();
        for n in 0..1000 {
            let revision = n.to_string();
            ledger.note(&acme, [Some("always"), Some(revision.as_str())].into_iter());
        }
        assert_eq!(ledger.number(&acme, "always"), Some(1));
        assert_eq!(ledger.number(&acme, "999"), Some(1001));
        assert_eq!(ledger.number(&acme, "900"), Some(902));
        assert_eq!(ledger.number(&acme, "800"), None);
        assert_eq!(ledger.tenants[&acme].numbers.len(), 2 * HISTORY);
        assert_eq!(ledger.tenants[&acme].by_age.len(), 2 * HISTORY);
        // Back and forth between two is two to remember, however often.
        for n in 0..1000 {
            let revision = if n % 2 == 0 { "even" } else { "odd" };
            ledger.note(&acme, [Some("always"), Some(revision)].into_iter());
        }
        assert_eq!((ledger.number(&acme, "even"), ledger.number(&acme, "odd")), (Some(2000), Some(2001)));
        assert_eq!(ledger.tenants[&acme].by_age.len(), 2 * HISTORY);
        assert_eq!(ledger.number(&acme, "999"), Some(1001), "forgotten for what came twice");
    }
}
