//! The order in which the operator stored the revisions of the mapping.
//!
//! Pods announce revisions as digests, which have no order. Each revision that is stored gets the next
//! number. A revision that is stored again, because a change was undone, gets a new number, since its content
//! is the newest. So what came into the mapping with number k, and is still in it, is in each revision with
//! number k or above.

use std::collections::BTreeMap;
use std::sync::Arc;

use flutecast_contract::name::TenantName;

/// The revisions that are remembered for each shard of a tenant. An older revision counts as unknown.
const MAX_REVISIONS: usize = 64;

/// A revision and its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LoggedRevision {
    pub(super) number: u64,
    pub(super) revision: Arc<str>,
}

#[derive(Debug, Default)]
pub(super) struct RevisionLog {
    last: u64,
    tenants: BTreeMap<TenantName, Tenant>,
}

#[derive(Debug, Default)]
struct Tenant {
    /// The revisions that the API server holds, by shard; `None` until it holds the wanted one.
    current: Vec<Option<LoggedRevision>>,
    numbers: BTreeMap<Arc<str>, u64>,
    by_number: BTreeMap<u64, Arc<str>>,
}

impl RevisionLog {
    /// Records a tenant's stored revisions by shard; `None` for a shard that isn't stored as it should be.
    pub(super) fn record<'a>(
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
            let is_known = |current: &LoggedRevision| *current.revision == *revision;
            if tenant.current[shard].as_ref().is_some_and(is_known) {
                continue;
            }
            *last += 1;
            tenant.current[shard] = Some(tenant.number(revision, *last));
        }
        tenant.trim();
    }

    /// Keeps only the tenants for which `keep` returns `true`.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&TenantName) -> bool) {
        self.tenants.retain(|tenant, _| keep(tenant));
    }

    /// Returns the number of a revision; `None` if it is unknown or too old.
    pub(super) fn number(&self, tenant: &TenantName, revision: &str) -> Option<u64> {
        self.tenants.get(tenant)?.numbers.get(revision).copied()
    }

    /// Returns what the API server holds of a shard.
    pub(super) fn current(&self, tenant: &TenantName, shard: usize) -> Option<&LoggedRevision> {
        self.tenants.get(tenant)?.current.get(shard)?.as_ref()
    }

    /// Returns all tenants with what the API server holds of each shard.
    pub(super) fn tenants(&self) -> impl Iterator<Item = (&TenantName, &[Option<LoggedRevision>])> {
        self.tenants.iter().map(|(name, tenant)| (name, tenant.current.as_slice()))
    }
}

impl Tenant {
    fn number(&mut self, revision: &str, number: u64) -> LoggedRevision {
        let revision: Arc<str> = revision.into();
        if let Some(before) = self.numbers.insert(revision.clone(), number) {
            self.by_number.remove(&before);
        }
        self.by_number.insert(number, revision.clone());
        LoggedRevision { number, revision }
    }

    fn trim(&mut self) {
        let keep = MAX_REVISIONS * self.current.len().max(1);
        let current: Vec<u64> = self.current.iter().flatten().map(|current| current.number).collect();
        let excess = self.by_number.len().saturating_sub(keep);
        let old = self.by_number.keys().filter(|number| !current.contains(number)).take(excess);
        for number in old.copied().collect::<Vec<_>>() {
            if let Some(revision) = self.by_number.remove(&number) {
                self.numbers.remove(&revision);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_that_is_stored_again_gets_a_new_number() {
        let acme = TenantName::new("acme").unwrap();
        let mut log = RevisionLog::default();
        for revision in ["a", "b", "b", "a"] {
            log.record(&acme, [Some(revision)].into_iter());
        }
        assert_eq!((log.number(&acme, "b"), log.number(&acme, "a")), (Some(2), Some(3)));
        assert_eq!(log.current(&acme, 0).unwrap().number, 3);
        // A shard that isn't stored changes nothing.
        log.record(&acme, [None].into_iter());
        assert_eq!(log.current(&acme, 0).unwrap().number, 3);
        // Another number of shards is another set of documents.
        log.record(&acme, [Some("c"), None].into_iter());
        assert_eq!(log.current(&acme, 0).unwrap().number, 4);
        assert_eq!(log.current(&acme, 1), None);
        log.retain(|_| false);
        assert_eq!(log.number(&acme, "c"), None);
    }

    #[test]
    fn memory_is_bounded_and_stored_revisions_are_kept() {
        let acme = TenantName::new("acme").unwrap();
        let mut log = RevisionLog::default();
        for n in 0..1000 {
            let revision = n.to_string();
            log.record(&acme, [Some("always"), Some(revision.as_str())].into_iter());
        }
        assert_eq!(log.number(&acme, "always"), Some(1));
        assert_eq!(log.number(&acme, "999"), Some(1001));
        assert_eq!(log.number(&acme, "900"), Some(902));
        assert_eq!(log.number(&acme, "800"), None);
        assert_eq!(log.tenants[&acme].numbers.len(), 2 * MAX_REVISIONS);
        assert_eq!(log.tenants[&acme].by_number.len(), 2 * MAX_REVISIONS);
        // Two revisions that alternate are two entries.
        for n in 0..1000 {
            let revision = if n % 2 == 0 { "even" } else { "odd" };
            log.record(&acme, [Some("always"), Some(revision)].into_iter());
        }
        assert_eq!((log.number(&acme, "even"), log.number(&acme, "odd")), (Some(2000), Some(2001)));
        assert_eq!(log.tenants[&acme].by_number.len(), 2 * MAX_REVISIONS);
        assert_eq!(log.number(&acme, "999"), Some(1001), "forgotten for what came twice");
    }
}
