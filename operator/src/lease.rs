//! Who works, when several operators run: the one that holds the Lease.
//!
//! Promised: as long as all operators' clocks run at about the same speed, at most one works at a time; what
//! their clocks show doesn't matter. An operator that can't renew its Lease stops to work before another may
//! take it. One that ends in order gives it back as soon as nobody in it works any more: whoever works holds
//! a receiver of whether this operator leads until he has ended.

use flutecast_kube::Right;
use flutecast_kube::fault::brief;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::api_server::{ApiWrite, ApiWrites, MANAGER};
use crate::metrics::CallResult;
use flutecast_process::backoff::jittered;

/// The rights that taking turns needs, in the operator's own namespace. What isn't there yet can't be granted
/// by its name.
pub(crate) const RIGHTS: &[Right] = &[
    Right { group: "coordination.k8s.io", resources: &["leases"], names: &[], verbs: &["create"], why: "" },
    Right {
        group: "coordination.k8s.io",
        resources: &["leases"],
        names: &[MANAGER],
        verbs: &["get", "update"],
        why: "",
    },
];

/// For how long a Lease that isn't renewed is respected. The times are those of the Kubernetes controllers.
const DURATION: Duration = Duration::from_secs(15);
/// After how long without a renewal the holder stops to work.
const GIVE_UP: Duration = Duration::from_secs(10);
/// How often it is renewed.
const RENEW: Duration = Duration::from_secs(5);
/// How often the others look.
const LOOK: Duration = Duration::from_secs(2);
/// How long one request may take.
const DEADLINE: Duration = Duration::from_secs(3);
/// For how long the end of work is waited for before the Lease is given back. The longest is to build the
/// mapping of many devices, which nothing interrupts.
const LAST_WORK: Duration = Duration::from_secs(2);

/// Which Lease, and who asks for it.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// The namespace of the Lease.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Who asks. Two operators never have the same one.
    pub identity: String,
}

/// Whether this operator is the one that works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Lead {
    /// It isn't.
    #[default]
    No,
    /// It is; which time since its start, counted from 1. What was known before may have been told long ago:
    /// the way to the API server may have been cut while another operator worked, and nothing tells that a
    /// watch is deaf (docs/decisions/107-one-control-loop.md).
    Turn(u64),
}

#[derive(Debug, Clone)]
pub struct LeaseMetrics {
    writes: ApiWrites,
    leading: Gauge,
}

impl Default for LeaseMetrics {
    fn default() -> Self {
        Self::new(ApiWrites::default())
    }
}

impl LeaseMetrics {
    pub(crate) fn new(writes: ApiWrites) -> Self {
        Self { writes, leading: Gauge::default() }
    }

    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register("leading", "1 while this operator is the one that works", self.leading.clone());
    }
}

/// Starts the task that holds the Lease, or waits for it. The value says whether this operator is the one
/// that works; whoever works keeps a receiver of it as long as he does. After `cancel` is cancelled and all
/// receivers are dropped the task gives the Lease back, and ends; whoever gets the handle watches it.
#[must_use = "a task that nobody watches fails unseen"]
pub fn spawn(
    client: Client,
    candidate: Candidate,
    metrics: LeaseMetrics,
    cancel: CancellationToken,
) -> (watch::Receiver<Lead>, JoinHandle<()>) {
    let (sender, leading) = watch::channel(Lead::No);
    let api = Api::namespaced(client, &candidate.namespace);
    let mut election =
        Election { api, candidate, seen: None, renewed: None, turns: 0, leading: sender, metrics };
    let task = tokio::spawn(async move {
        cancel.run_until_cancelled(election.run()).await.unwrap_or_default();
        if tokio::time::timeout(LAST_WORK, election.leading.closed()).await.is_err() {
            tracing::warn!(waited = ?LAST_WORK, "something still works; the Lease is given back all the same");
        }
        election.give_back().await;
    });
    (leading, task)
}

struct Election {
    api: Api<Lease>,
    candidate: Candidate,
    /// The version of another's Lease, and since when we have seen it.
    seen: Option<(String, Instant)>,
    /// When we began to renew ours for the last time.
    renewed: Option<Instant>,
    /// How often it was our turn.
    turns: u64,
    leading: watch::Sender<Lead>,
    metrics: LeaseMetrics,
}

impl Election {
    async fn run(&mut self) {
        loop {
            let began = Instant::now();
            match tokio::time::timeout(DEADLINE, self.attempt()).await {
                Ok(Ok(true)) => {
                    self.renewed = Some(began);
                    self.lead(true);
                }
                Ok(Ok(false)) => {
                    self.renewed = None;
                    self.lead(false);
                }
                Ok(Err(error)) => self.failed(&brief(&error)),
                Err(_) => self.failed(&format!("no answer within {DEADLINE:?}")),
            }
            let is_holder = *self.leading.borrow() != Lead::No;
            // A holder whose renewal failed tries again soon.
            let is_fresh = self.renewed == Some(began);
            tokio::time::sleep(jittered(if is_holder && is_fresh { RENEW } else { LOOK })).await;
        }
    }

    fn failed(&mut self, error: &str) {
        self.metrics.writes.count(ApiWrite::Lease, CallResult::Failed);
        tracing::warn!(lease = self.candidate.name, error, "the Lease can't be asked for");
        if self.renewed.is_some_and(|renewed| renewed.elapsed() >= GIVE_UP) {
            self.renewed = None;
            self.lead(false);
        }
    }

    fn lead(&mut self, leads: bool) {
        let led = *self.leading.borrow() != Lead::No;
        if led != leads {
            self.turns += u64::from(leads);
            self.leading.send_replace(if leads { Lead::Turn(self.turns) } else { Lead::No });
            self.metrics.leading.set(i64::from(leads));
            let identity = &self.candidate.identity;
            if leads {
                tracing::info!(identity, "this operator is the one that works");
            } else {
                tracing::warn!(identity, "this operator stops to work: it doesn't hold the Lease");
            }
        }
    }

    /// Renews the Lease or takes it. Answers whether we hold it.
    async fn attempt(&mut self) -> Result<bool, kube::Error> {
        let Some(lease) = self.api.get_opt(&self.candidate.name).await? else {
            let lease = Lease {
                metadata: ObjectMeta { name: Some(self.candidate.name.clone()), ..ObjectMeta::default() },
                spec: Some(self.held(None)),
            };
            return self.settled(self.api.create(&PostParams::default(), &lease).await);
        };
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        let spec = lease.spec.clone().unwrap_or_default();
        match Turn::of(&spec, &self.candidate.identity) {
            Turn::Free | Turn::Ours => {}
            Turn::Others(duration) => {
                if self.seen.as_ref().is_none_or(|(seen, _)| *seen != version) {
                    self.seen = Some((version, Instant::now()));
                }
                if self.seen.as_ref().is_some_and(|(_, since)| since.elapsed() <= duration) {
                    return Ok(false);
                }
            }
        }
        let lease = Lease { spec: Some(self.held(Some(spec))), ..lease };
        self.settled(self.api.replace(&self.candidate.name, &PostParams::default(), &lease).await)
    }

    fn settled(&self, result: Result<Lease, kube::Error>) -> Result<bool, kube::Error> {
        match result {
            Ok(_) => {
                self.metrics.writes.count(ApiWrite::Lease, CallResult::Done);
                Ok(true)
            }
            // Somebody else was faster.
            Err(kube::Error::Api(answer)) if answer.is_conflict() || answer.is_already_exists() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The Lease as we hold it.
    fn held(&self, before: Option<LeaseSpec>) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        let before = before.unwrap_or_default();
        let was_ours = before.holder_identity.as_ref() == Some(&self.candidate.identity);
        LeaseSpec {
            holder_identity: Some(self.candidate.identity.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: if was_ours { before.acquire_time } else { Some(now.clone()) },
            lease_transitions: Some(before.lease_transitions.unwrap_or(0) + i32::from(!was_ours)),
            renew_time: Some(now),
            ..LeaseSpec::default()
        }
    }

    /// Gives the Lease back, if it is ours.
    async fn give_back(&mut self) {
        if self.leading.send_replace(Lead::No) == Lead::No {
            return;
        }
        let give_back = async {
            let lease = self.api.get(&self.candidate.name).await?;
            let mut spec = lease.spec.clone().unwrap_or_default();
            if Turn::of(&spec, &self.candidate.identity) != Turn::Ours {
                return Ok(());
            }
            spec.holder_identity = None;
            let lease = Lease { spec: Some(spec), ..lease };
            self.api.replace(&self.candidate.name, &PostParams::default(), &lease).await.map(drop)
        };
        match tokio::time::timeout(DEADLINE, give_back).await {
            Ok(Ok(())) => tracing::info!("the Lease is given back"),
            Ok(Err(error)) => {
                let error: kube::Error = error;
                tracing::warn!(%error, "the Lease isn't given back; another operator waits until it ends");
            }
            Err(_) => {
                tracing::warn!("the Lease isn't given back in time; another operator waits until it ends")
            }
        }
    }
}

/// Whose turn it is by what a Lease says.
#[derive(Debug, PartialEq, Eq)]
enum Turn {
    /// Nobody's.
    Free,
    /// Ours.
    Ours,
    /// Another's, for so long after its last renewal.
    Others(Duration),
}

impl Turn {
    fn of(spec: &LeaseSpec, identity: &str) -> Self {
        match spec.holder_identity.as_deref() {
            None | Some("") => Self::Free,
            Some(holder) if holder == identity => Self::Ours,
            Some(_) => {
                let seconds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
                Self::Others(seconds.map_or(DURATION, Duration::from_secs))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_turn_it_is() {
        let held = |holder: Option<&str>, seconds| LeaseSpec {
            holder_identity: holder.map(str::to_owned),
            lease_duration_seconds: seconds,
            ..LeaseSpec::default()
        };
        for (holder, seconds, turn) in [
            (None, None, Turn::Free),
            (Some(""), Some(1), Turn::Free),
            (Some("us"), Some(1), Turn::Ours),
            (Some("them"), Some(7), Turn::Others(Duration::from_secs(7))),
            (Some("them"), None, Turn::Others(DURATION)),
            (Some("them"), Some(-1), Turn::Others(DURATION)),
        ] {
            assert_eq!(Turn::of(&held(holder, seconds), "us"), turn, "{holder:?} {seconds:?}");
        }
    }
}
