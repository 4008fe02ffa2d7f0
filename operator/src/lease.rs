//! Leader election: of several operators the one that holds the Lease works.
//!
//! Guarantees: while the clocks of all operators run at about the same speed, at most one leads at a time;
//! the time that the clocks show doesn't matter. An operator that can't renew its Lease stops before another
//! one may take it. An operator that ends in order gives the Lease back as soon as all its work has ended:
//! each task that works keeps a receiver of [`Leadership`] until then.

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

/// The rights that taking terms needs, in the operator's own namespace. What isn't there yet can't be granted
/// by its name.
pub(crate) const RIGHTS: &[Right] = &[
    Right::new("coordination.k8s.io", &["leases"], &["create"]),
    Right::new("coordination.k8s.io", &["leases"], &["get", "update"]).named(&[MANAGER]),
];

/// The time for which a Lease that isn't renewed is respected. These times are those of the Kubernetes
/// controllers.
const LEASE_DURATION: Duration = Duration::from_secs(15);
/// The time after the last renewal at which the leader stops.
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
const RENEW_INTERVAL: Duration = Duration::from_secs(5);
/// The interval at which standbys check the Lease.
const POLL_INTERVAL: Duration = Duration::from_secs(2);
const DEADLINE: Duration = Duration::from_secs(3);
/// The longest wait for the end of work before the Lease is given back. The longest work is to build the
/// mapping of many devices, which can't be interrupted.
const WORK_END_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Debug, Clone)]
pub struct Candidate {
    pub namespace: String,
    pub name: String,
    /// The candidate in the Lease. Two operators never have the same one.
    pub identity: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Leadership {
    #[default]
    Standby,
    /// The number of the term since the start of the process, from 1. State from before a term may be old:
    /// the connection to the API server may have been interrupted while another operator led, and nothing
    /// shows that a watch doesn't receive any more (docs/decisions/107-one-control-loop.md).
    Leader(u64),
}

#[derive(Debug, Clone, Default)]
pub struct LeaseMetrics {
    writes: ApiWrites,
    leading: Gauge,
}

impl LeaseMetrics {
    pub(crate) fn new(writes: ApiWrites) -> Self {
        Self { writes, leading: Gauge::default() }
    }

    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register("leading", "1 while this operator is the one that works", self.leading.clone());
    }
}

/// Starts the task that takes the Lease, and renews it. Each task that works keeps a receiver while it does.
/// After `cancel` is cancelled and all receivers are dropped, the task gives the Lease back, and ends.
#[must_use = "a task whose handle is dropped fails silently"]
pub fn spawn(
    client: Client,
    candidate: Candidate,
    metrics: LeaseMetrics,
    cancel: CancellationToken,
) -> (watch::Receiver<Leadership>, JoinHandle<()>) {
    let (sender, leading) = watch::channel(Leadership::Standby);
    let api = Api::namespaced(client, &candidate.namespace);
    let mut election =
        Election { api, candidate, seen: None, renewed: None, terms: 0, leading: sender, metrics };
    let task = tokio::spawn(async move {
        cancel.run_until_cancelled(election.run()).await.unwrap_or_default();
        if tokio::time::timeout(WORK_END_TIMEOUT, election.leading.closed()).await.is_err() {
            tracing::warn!(
                waited = ?WORK_END_TIMEOUT,
                "something still works; the Lease is given back all the same"
            );
        }
        election.give_back().await;
    });
    (leading, task)
}

struct Election {
    api: Api<Lease>,
    candidate: Candidate,
    /// The version of another operator's Lease, and when it was seen first.
    seen: Option<(String, Instant)>,
    /// The start of the last successful renewal.
    renewed: Option<Instant>,
    terms: u64,
    leading: watch::Sender<Leadership>,
    metrics: LeaseMetrics,
}

impl Election {
    async fn run(&mut self) {
        loop {
            let began = Instant::now();
            match tokio::time::timeout(DEADLINE, self.attempt()).await {
                Ok(Ok(true)) => {
                    self.renewed = Some(began);
                    self.set_leading(true);
                }
                Ok(Ok(false)) => {
                    self.renewed = None;
                    self.set_leading(false);
                }
                Ok(Err(error)) => self.failed(&brief(&error)),
                Err(_) => self.failed(&format!("no answer within {DEADLINE:?}")),
            }
            let is_holder = *self.leading.borrow() != Leadership::Standby;
            // After a failed renewal the next attempt is soon.
            let is_fresh = self.renewed == Some(began);
            tokio::time::sleep(jittered(if is_holder && is_fresh { RENEW_INTERVAL } else { POLL_INTERVAL }))
                .await;
        }
    }

    fn failed(&mut self, error: &str) {
        self.metrics.writes.count(ApiWrite::Lease, CallResult::Failed);
        tracing::warn!(lease = self.candidate.name, error, "the Lease can't be asked for");
        if self.renewed.is_some_and(|renewed| renewed.elapsed() >= RENEW_DEADLINE) {
            self.renewed = None;
            self.set_leading(false);
        }
    }

    fn set_leading(&mut self, leads: bool) {
        let led = *self.leading.borrow() != Leadership::Standby;
        if led != leads {
            self.terms += u64::from(leads);
            self.leading.send_replace(if leads {
                Leadership::Leader(self.terms)
            } else {
                Leadership::Standby
            });
            self.metrics.leading.set(i64::from(leads));
            let identity = &self.candidate.identity;
            if leads {
                tracing::info!(identity, "this operator is the one that works");
            } else {
                tracing::warn!(identity, "this operator stops to work: it doesn't hold the Lease");
            }
        }
    }

    /// Renews the Lease or takes it. Returns whether this operator holds it.
    async fn attempt(&mut self) -> Result<bool, kube::Error> {
        let Some(lease) = self.api.get_opt(&self.candidate.name).await? else {
            let lease = Lease {
                metadata: ObjectMeta { name: Some(self.candidate.name.clone()), ..ObjectMeta::default() },
                spec: Some(self.spec(None)),
            };
            return self.settled(self.api.create(&PostParams::default(), &lease).await);
        };
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        let spec = lease.spec.clone().unwrap_or_default();
        match Holder::of(&spec, &self.candidate.identity) {
            Holder::None | Holder::Us => {}
            Holder::Other(duration) => {
                if self.seen.as_ref().is_none_or(|(seen, _)| *seen != version) {
                    self.seen = Some((version, Instant::now()));
                }
                if self.seen.as_ref().is_some_and(|(_, since)| since.elapsed() <= duration) {
                    return Ok(false);
                }
            }
        }
        let lease = Lease { spec: Some(self.spec(Some(spec))), ..lease };
        self.settled(self.api.replace(&self.candidate.name, &PostParams::default(), &lease).await)
    }

    fn settled(&self, result: Result<Lease, kube::Error>) -> Result<bool, kube::Error> {
        match result {
            Ok(_) => {
                self.metrics.writes.count(ApiWrite::Lease, CallResult::Done);
                Ok(true)
            }
            // Another operator was faster.
            Err(kube::Error::Api(answer)) if answer.is_conflict() || answer.is_already_exists() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Returns the spec of the Lease with this operator as the holder.
    fn spec(&self, before: Option<LeaseSpec>) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        let before = before.unwrap_or_default();
        let was_ours = before.holder_identity.as_ref() == Some(&self.candidate.identity);
        LeaseSpec {
            holder_identity: Some(self.candidate.identity.clone()),
            lease_duration_seconds: i32::try_from(LEASE_DURATION.as_secs()).ok(),
            acquire_time: if was_ours { before.acquire_time } else { Some(now.clone()) },
            lease_transitions: Some(before.lease_transitions.unwrap_or(0) + i32::from(!was_ours)),
            renew_time: Some(now),
            ..LeaseSpec::default()
        }
    }

    /// Gives the Lease back, if this operator holds it.
    async fn give_back(&mut self) {
        if self.leading.send_replace(Leadership::Standby) == Leadership::Standby {
            return;
        }
        let give_back = async {
            let lease = self.api.get(&self.candidate.name).await?;
            let mut spec = lease.spec.clone().unwrap_or_default();
            if Holder::of(&spec, &self.candidate.identity) != Holder::Us {
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

#[derive(Debug, PartialEq, Eq)]
enum Holder {
    None,
    /// This operator.
    Us,
    /// Another operator, for this long after its last renewal.
    Other(Duration),
}

impl Holder {
    fn of(spec: &LeaseSpec, identity: &str) -> Self {
        match spec.holder_identity.as_deref() {
            None | Some("") => Self::None,
            Some(holder) if holder == identity => Self::Us,
            Some(_) => {
                let seconds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
                Self::Other(seconds.map_or(LEASE_DURATION, Duration::from_secs))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_of_a_lease() {
        let held = |holder: Option<&str>, seconds| LeaseSpec {
            holder_identity: holder.map(str::to_owned),
            lease_duration_seconds: seconds,
            ..LeaseSpec::default()
        };
        for (holder, seconds, expected) in [
            (None, None, Holder::None),
            (Some(""), Some(1), Holder::None),
            (Some("us"), Some(1), Holder::Us),
            (Some("them"), Some(7), Holder::Other(Duration::from_secs(7))),
            (Some("them"), None, Holder::Other(LEASE_DURATION)),
            (Some("them"), Some(-1), Holder::Other(LEASE_DURATION)),
        ] {
            assert_eq!(Holder::of(&held(holder, seconds), "us"), expected, "{holder:?} {seconds:?}");
        }
    }
}
