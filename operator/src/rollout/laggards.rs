//! Ready pods that serve an old mapping for long, without progress. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use flutecast_contract::name::TenantName;
use tokio::time::Instant;

use super::confirmed::{PodState, list_pods};
use super::metrics::PodCounts;
use super::pod_states::PodStates;
use super::revision_log::{LoggedRevision, RevisionLog};

/// The longest time without progress of a pod. A pod that counts as silent has been so for 15 s already.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(super) struct Laggards {
    since: BTreeMap<(TenantName, String), (Instant, PodState)>,
    messages: BTreeMap<TenantName, String>,
}

impl Laggards {
    /// Returns the message about a tenant whose pods lag.
    pub(super) fn message(&self, tenant: &TenantName) -> Option<&str> {
        self.messages.get(tenant).map(String::as_str)
    }

    /// Returns whether a pod lags, but not for long: it may catch up.
    pub(super) fn may_catch_up(&self, tenant: &TenantName) -> bool {
        self.since.range((tenant.clone(), String::new())..).next().is_some_and(|((of, _), _)| of == tenant)
    }

    /// Compares each ready pod with what is stored. Returns the tenants whose message changed, the number of
    /// pods by state, and when the result may change without an event.
    pub(super) fn evaluate(
        &mut self,
        states: &PodStates,
        log: &RevisionLog,
        ready: &BTreeSet<String>,
        now: Instant,
    ) -> (BTreeSet<TenantName>, PodCounts, Option<Instant>) {
        let mut before = std::mem::take(&mut self.since);
        let messages_before = std::mem::take(&mut self.messages);
        let mut lagging: BTreeSet<&str> = BTreeSet::new();
        let mut wake: Option<Instant> = None;
        for (tenant, current) in log.tenants() {
            let mut late_pods: Vec<String> = Vec::new();
            for pod in ready {
                let state = PodState::of(states, log, pod, tenant);
                if serves_current(&state, current) {
                    continue;
                }
                lagging.insert(pod);
                if !states.connected {
                    // Silence says nothing then; the time starts again when NATS is back.
                    continue;
                }
                let key = (tenant.clone(), pod.clone());
                let since = match before.remove(&key) {
                    // Falling silent is no progress.
                    Some((since, was)) if was == state || !matches!(state, PodState::Serves(_)) => since,
                    Some(_) | None => now,
                };
                if now >= since + PATIENCE {
                    late_pods.push(describe(pod, &state));
                } else {
                    wake = Some(wake.map_or(since + PATIENCE, |wake| wake.min(since + PATIENCE)));
                }
                self.since.insert(key, (since, state));
            }
            if !late_pods.is_empty() {
                let (late, all) = (late_pods.len(), ready.len());
                let pods = list_pods(late_pods.into_iter());
                let text = format!(
                    "{late} of {all} ready data-plane pods {} the mapping as it is: {pods}; their clients \
                     may miss devices and changes. Look at these pods' logs",
                    if late == 1 { "does not serve" } else { "do not serve" }
                );
                self.messages.insert(tenant.clone(), text);
            }
        }
        let tenants = messages_before.keys().chain(self.messages.keys());
        let changed = tenants.filter(|tenant| messages_before.get(*tenant) != self.messages.get(*tenant));
        let silent = ready.iter().filter(|pod| !states.pods.contains_key(*pod)).count();
        let lagging = lagging.iter().filter(|pod| states.pods.contains_key(**pod)).count();
        let pods = PodCounts { confirmed: ready.len() - silent - lagging, lagging, silent };
        (changed.cloned().collect(), pods, wake)
    }
}

fn serves_current(state: &PodState, current: &[Option<LoggedRevision>]) -> bool {
    let PodState::Serves(numbers) = state else { return false };
    let is_stored = |(current, number): (&Option<LoggedRevision>, &u64)| {
        // A revision that isn't stored can't be served.
        current.as_ref().is_none_or(|current| current.number == *number)
    };
    numbers.len() == current.len() && current.iter().zip(numbers).all(is_stored)
}

fn describe(pod: &str, state: &PodState) -> String {
    let what = match state {
        PodState::Silent => "is silent",
        PodState::NotServing => "does not serve it",
        PodState::Serves(_) => "serves an older one",
    };
    format!("{pod} {what}")
}
