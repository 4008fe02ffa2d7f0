//! Pods that have been behind a tenant's mapping for long, and make no progress. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use flutecast_contract::name::TenantName;
use tokio::time::Instant;

use super::announcement::Heard;
use super::floors::{At, in_words};
use super::ledger::{Ledger, Numbered};
use crate::metrics::PodCounts;

/// After how long without progress a pod is told of. A pod that counts as silent has been so for 15 s
/// already.
const LONG: Duration = Duration::from_secs(10);

/// Who is behind, and what is said of it.
#[derive(Debug, Default)]
pub(super) struct Behind {
    since: BTreeMap<(TenantName, String), (Instant, At)>,
    told: BTreeMap<TenantName, String>,
}

impl Behind {
    /// What is to be said of a tenant.
    pub(super) fn told(&self, tenant: &TenantName) -> Option<&str> {
        self.told.get(tenant).map(String::as_str)
    }

    /// Whether a pod is behind a tenant, but not for long: it may follow.
    pub(super) fn may_follow(&self, tenant: &TenantName) -> bool {
        self.since.range((tenant.clone(), String::new())..).next().is_some_and(|((of, _), _)| of == tenant)
    }

    /// Compares each ready pod with what is stored. Answers the tenants of which something else is to be
    /// said, how it stands with the pods, and when that may change by itself.
    pub(super) fn look(
        &mut self,
        heard: &Heard,
        ledger: &Ledger,
        ready: &BTreeSet<String>,
        now: Instant,
    ) -> (BTreeSet<TenantName>, PodCounts, Option<Instant>) {
        let mut before = std::mem::take(&mut self.since);
        let told_before = std::mem::take(&mut self.told);
        let mut lagging: BTreeSet<&str> = BTreeSet::new();
        let mut wake: Option<Instant> = None;
        for (tenant, current) in ledger.tenants() {
            let mut long: Vec<String> = Vec::new();
            for pod in ready {
                let at = At::of(heard, ledger, pod, tenant);
                if is_current(&at, current) {
                    continue;
                }
                lagging.insert(pod);
                if !heard.connected {
                    // Silence says nothing then; the count begins anew when NATS is back.
                    continue;
                }
                let key = (tenant.clone(), pod.clone());
                let since = match before.remove(&key) {
                    // To fall silent is no progress.
                    Some((since, was)) if was == at || !matches!(at, At::Serves(_)) => since,
                    Some(_) | None => now,
                };
                if now >= since + LONG {
                    long.push(words(pod, &at));
                } else {
                    wake = Some(wake.map_or(since + LONG, |wake| wake.min(since + LONG)));
                }
                self.since.insert(key, (since, at));
            }
            if !long.is_empty() {
                let (late, all) = (long.len(), ready.len());
                let pods = in_words(long.into_iter());
                let text = format!(
                    "{late} of {all} ready data-plane pods {} the mapping as it is: {pods}; their clients may miss devices and changes. Look at these pods' logs",
                    if late == 1 { "does not serve" } else { "do not serve" }
                );
                self.told.insert(tenant.clone(), text);
            }
        }
        let tenants = told_before.keys().chain(self.told.keys());
        let changed = tenants.filter(|tenant| told_before.get(*tenant) != self.told.get(*tenant));
        let silent = ready.iter().filter(|pod| !heard.pods.contains_key(*pod)).count();
        let lagging = lagging.iter().filter(|pod| heard.pods.contains_key(**pod)).count();
        let pods = PodCounts { confirmed: ready.len() - silent - lagging, lagging, silent };
        (changed.cloned().collect(), pods, wake)
    }
}

fn is_current(at: &At, current: &[Option<Numbered>]) -> bool {
    let At::Serves(numbers) = at else { return false };
    let is_stored = |(current, number): (&Option<Numbered>, &u64)| {
        // What isn't stored can't be served.
        current.as_ref().is_none_or(|current| current.number == *number)
    };
    numbers.len() == current.len() && current.iter().zip(numbers).all(is_stored)
}

fn words(pod: &str, at: &At) -> String {
    let what = match at {
        At::Silent => "is silent",
        At::Absent => "does not serve it",
        At::Serves(_) => "serves an older one",
    };
    format!("{pod} {what}")
}
