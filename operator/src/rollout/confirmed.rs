//! The revisions of one tenant that all ready pods have confirmed, so that a Device is checked without
//! looking at each pod.

use std::collections::{BTreeMap, BTreeSet};

use flutecast_contract::name::TenantName;

use super::pod_states::PodStates;
use super::revision_log::RevisionLog;

/// The state of one pod for one tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PodState {
    /// It has not announced lately.
    Silent,
    /// It doesn't serve the tenant.
    NotServing,
    /// The number of the revision it serves, by shard; 0 if unknown.
    Serves(Vec<u64>),
}

impl PodState {
    pub(super) fn of(states: &PodStates, log: &RevisionLog, pod: &str, tenant: &TenantName) -> Self {
        let Some(announced) = states.pods.get(pod) else { return Self::Silent };
        let Some(revisions) = announced.tenants.get(tenant.as_str()) else { return Self::NotServing };
        let number = |revision: &String| log.number(tenant, revision).unwrap_or(0);
        Self::Serves(revisions.iter().map(number).collect())
    }

    /// Returns the number of the revision that it serves of a device's slot; 0 if unknown.
    pub(super) fn number(&self, slot: u32) -> u64 {
        match self {
            Self::Silent | Self::NotServing => 0,
            Self::Serves(numbers) => numbers.get(shard(slot, numbers.len())).copied().unwrap_or(0),
        }
    }
}

/// Returns the shard of a slot among `count` shards, a power of two.
pub(super) fn shard(slot: u32, count: usize) -> usize {
    slot as usize & count.saturating_sub(1)
}

#[derive(Debug)]
pub(super) struct ConfirmedRevisions {
    pub(super) pods: Vec<(String, PodState)>,
    /// The least number of each shard, by the number of shards; `None` if a pod serves nothing of the tenant.
    least: Option<BTreeMap<usize, Vec<u64>>>,
}

impl ConfirmedRevisions {
    pub(super) fn new(
        states: &PodStates,
        log: &RevisionLog,
        ready: &BTreeSet<String>,
        tenant: &TenantName,
    ) -> Self {
        let state = |pod: &String| (pod.clone(), PodState::of(states, log, pod, tenant));
        let pods: Vec<_> = ready.iter().map(state).collect();
        let mut least = Some(BTreeMap::<usize, Vec<u64>>::new());
        for (_, state) in &pods {
            let PodState::Serves(numbers) = state else {
                least = None;
                break;
            };
            if let Some(least) = &mut least {
                let confirmed = least.entry(numbers.len()).or_insert_with(|| numbers.clone());
                confirmed.iter_mut().zip(numbers).for_each(|(least, number)| *least = (*least).min(*number));
            }
        }
        Self { pods, least }
    }

    /// Returns whether each pod serves the revision with this number, or a later one.
    pub(super) fn covers(&self, slot: u32, number: u64) -> bool {
        let reaches = |numbers: &Vec<u64>| {
            numbers.get(shard(slot, numbers.len())).is_some_and(|confirmed| *confirmed >= number)
        };
        self.least.as_ref().is_some_and(|least| least.values().all(reaches))
    }

    /// Lists the pods that don't.
    pub(super) fn laggards(&self, slot: u32, number: u64) -> String {
        let late = self.pods.iter().filter(|(_, state)| state.number(slot) < number);
        list_pods(late.map(|(pod, state)| {
            let what = match state {
                PodState::Silent => "is silent",
                PodState::NotServing => "does not serve the tenant",
                PodState::Serves(_) => "serves an older one",
            };
            format!("{pod} {what}")
        }))
    }
}

const MAX_LISTED: usize = 5;

/// Lists the first few, and the number of the others.
pub(super) fn list_pods(pods: impl Iterator<Item = String>) -> String {
    let mut pods: Vec<String> = pods.collect();
    let more = pods.len().saturating_sub(MAX_LISTED);
    pods.truncate(MAX_LISTED);
    if more > 0 {
        pods.push(format!("{more} more"));
    }
    pods.join(", ")
}
