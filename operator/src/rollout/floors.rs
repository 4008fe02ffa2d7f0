//! How far the ready pods are with one tenant, put together so that each Device can be looked up without
//! looking at each pod.

use std::collections::{BTreeMap, BTreeSet};

use flutecast_contract::name::TenantName;

use super::announcement::Heard;
use super::ledger::Ledger;

/// How it stands with one pod and one tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum At {
    /// It wasn't heard of lately.
    Silent,
    /// It doesn't serve the tenant.
    Absent,
    /// The number of what it serves, by shard; 0: it isn't known.
    Serves(Vec<u64>),
}

impl At {
    pub(super) fn of(heard: &Heard, ledger: &Ledger, pod: &str, tenant: &TenantName) -> Self {
        let Some(announced) = heard.pods.get(pod) else { return Self::Silent };
        let Some(revisions) = announced.tenants.get(tenant.as_str()) else { return Self::Absent };
        let number = |revision: &String| ledger.number(tenant, revision).unwrap_or(0);
        Self::Serves(revisions.iter().map(number).collect())
    }

    /// The number of what it serves of a device's place; 0: nothing that is known.
    pub(super) fn number(&self, place: u32) -> u64 {
        match self {
            Self::Silent | Self::Absent => 0,
            Self::Serves(numbers) => numbers.get(shard(place, numbers.len())).copied().unwrap_or(0),
        }
    }
}

/// The shard of a device's place among `count` shards, a power of two.
pub(super) fn shard(place: u32, count: usize) -> usize {
    place as usize & count.saturating_sub(1)
}

/// The ready pods with one tenant.
#[derive(Debug)]
pub(super) struct Floors {
    /// Each pod.
    pub(super) pods: Vec<(String, At)>,
    /// The least number of each shard, by the count of shards; none: a pod serves nothing of the tenant.
    least: Option<BTreeMap<usize, Vec<u64>>>,
}

impl Floors {
    pub(super) fn new(heard: &Heard, ledger: &Ledger, ready: &BTreeSet<String>, tenant: &TenantName) -> Self {
        let at = |pod: &String| (pod.clone(), At::of(heard, ledger, pod, tenant));
        let pods: Vec<_> = ready.iter().map(at).collect();
        let mut least = Some(BTreeMap::<usize, Vec<u64>>::new());
        for (_, at) in &pods {
            let At::Serves(numbers) = at else {
                least = None;
                break;
            };
            if let Some(least) = &mut least {
                let floor = least.entry(numbers.len()).or_insert_with(|| numbers.clone());
                floor.iter_mut().zip(numbers).for_each(|(least, number)| *least = (*least).min(*number));
            }
        }
        Self { pods, least }
    }

    /// Whether each pod serves what was stored with this number, or later.
    pub(super) fn confirm(&self, place: u32, number: u64) -> bool {
        let reaches =
            |numbers: &Vec<u64>| numbers.get(shard(place, numbers.len())).is_some_and(|at| *at >= number);
        self.least.as_ref().is_some_and(|least| least.values().all(reaches))
    }

    /// The pods that don't, in words.
    pub(super) fn laggards(&self, place: u32, number: u64) -> String {
        let late = self.pods.iter().filter(|(_, at)| at.number(place) < number);
        in_words(late.map(|(pod, at)| {
            let what = match at {
                At::Silent => "is silent",
                At::Absent => "does not serve the tenant",
                At::Serves(_) => "serves an older one",
            };
            format!("{pod} {what}")
        }))
    }
}

/// How many pods a message names.
const NAMED: usize = 5;

/// The first few, and how many more there are.
pub(super) fn in_words(pods: impl Iterator<Item = String>) -> String {
    let mut pods: Vec<String> = pods.collect();
    let more = pods.len().saturating_sub(NAMED);
    pods.truncate(NAMED);
    if more > 0 {
        pods.push(format!("{more} more"));
    }
    pods.join(", ")
}
