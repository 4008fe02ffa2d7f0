//! Keeps JetStream as wanted: applies at once when something changes, again when the broker comes back, and from time to time
//! to repair what somebody else changed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use flutecast_mapping::name::TenantName;
use futures_util::{FutureExt, StreamExt, stream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::api::{Api, ApiError};
use super::config::{OWNER_NAME, OWNER_NAMESPACE};
use super::tenant::{self, Applied, Streams};
use crate::backoff::{Backoff, jittered};
use crate::build::streams::TenantStreams;
use crate::metrics::{Ending, Metrics};
use crate::verdict::{Finding, Reason};

/// How often everything is compared again without a reason; someone may have changed or deleted a stream.
const RESYNC: Duration = Duration::from_secs(30);
/// How long to wait for more after somebody changed a stream; our own changes are told to us as well.
const SETTLE: Duration = Duration::from_millis(500);
/// The first and the longest wait after the broker could not be asked.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));
/// For how long a Tenant must be gone before its streams are deleted: an editor, or a `git checkout`, may take a file away
/// and put it back a moment later, and what is deleted can't be brought back.
pub const REMOVAL_GRACE: Duration = Duration::from_secs(5);
/// How many tenants are worked on at once.
const AT_ONCE: usize = 8;

/// What is wanted of JetStream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The streams of the tenants that are in force.
    pub tenants: Vec<TenantStreams>,
    /// The namespace and name of every Tenant that exists, in force or not. The streams of one that exists are never deleted.
    pub existing: BTreeSet<(String, String)>,
}

/// What can't be done at the moment, by tenant; a tenant with nothing wrong has an empty list.
pub type Report = BTreeMap<TenantName, Vec<Finding>>;

/// What connects the task to the others.
pub struct Links {
    /// Changes when NATS comes and goes.
    pub connected: watch::Receiver<bool>,
    /// What is wanted; none until the objects were read for the first time.
    pub wanted: watch::Receiver<Option<Arc<Wanted>>>,
    /// Gets what can't be done.
    pub report: watch::Sender<Report>,
    /// Gets counts.
    pub metrics: Arc<Metrics>,
}

/// Starts the task. It ends when `cancel` is cancelled; whoever gets the handle watches it.
#[must_use = "a task that nobody watches fails unseen"]
pub fn spawn(api: Api, links: Links, cancel: CancellationToken) -> JoinHandle<()> {
    let keeper = Keeper { api, seen: BTreeMap::new(), leaving: BTreeMap::new(), warned: BTreeSet::new() };
    tokio::spawn(async move { cancel.run_until_cancelled_owned(keeper.run(links)).await.unwrap_or_default() })
}

struct Keeper {
    api: Api,
    /// The tenants that this process has applied.
    seen: BTreeMap<TenantName, TenantStreams>,
    /// Since when tenants that were seen no longer exist.
    leaving: BTreeMap<TenantName, Instant>,
    /// The streams without a Tenant that were spoken of already.
    warned: BTreeSet<String>,
}

impl Keeper {
    async fn run(mut self, links: Links) {
        let Links { mut connected, mut wanted, report, metrics } = links;
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        // The client remembers the subscription, also while it isn't connected.
        let mut changes = match self.api.changes().await {
            Ok(changes) => changes.left_stream(),
            Err(error) => {
                tracing::warn!(%error, "changes by others are noticed only from time to time");
                stream::pending().right_stream()
            }
        };
        loop {
            let now = wanted.borrow_and_update().clone();
            metrics.nats_connected(*connected.borrow_and_update());
            let wait = match now {
                None => RESYNC,
                Some(now) => self.pass_and_report(&now, &report, &metrics, &mut backoff).await,
            };
            tokio::select! {
                changed = wanted.changed() => if changed.is_err() { return },
                Ok(()) = connected.changed() => {}
                Some(_) = changes.next() => {
                    tokio::time::sleep(SETTLE).await;
                    while changes.next().now_or_never().flatten().is_some() {}
                }
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// One pass; answers how long to wait before the next.
    async fn pass_and_report(
        &mut self,
        wanted: &Wanted,
        report: &watch::Sender<Report>,
        metrics: &Metrics,
        backoff: &mut Backoff,
    ) -> Duration {
        match self.pass(wanted).await {
            Ok((findings, changes)) => {
                backoff.reset();
                metrics.streams_compared(Ending::Done, changes);
                report.send_if_modified(|old| replace(old, findings));
                self.next_removal().unwrap_or_else(|| jittered(RESYNC)).min(RESYNC)
            }
            Err(error) => {
                metrics.streams_compared(Ending::Failed, 0);
                tracing::debug!(%error, "JetStream can't be asked");
                let message =
                    format!("streams and sources can't be looked after: {error}; tried again until it works");
                let finding = Finding::new(Reason::BrokerAway, "", message);
                let away = wanted
                    .tenants
                    .iter()
                    .map(|tenant| (tenant.tenant.clone(), vec![finding.clone()]))
                    .collect();
                // The wording of the cause may vary from attempt to attempt; that the broker is away is said once.
                report.send_if_modified(|old| !is_away(old, wanted) && replace(old, away));
                backoff.next_wait()
            }
        }
    }

    /// Compares and applies everything once. Answers what could not be done, and how many calls changed something.
    async fn pass(&mut self, wanted: &Wanted) -> Result<(Report, u32), ApiError> {
        let streams: Streams = self.api.streams().await?.into_iter().filter_map(named).collect();
        let mut changes = self.remove_gone(wanted, &streams).await?;
        self.mention_orphans(wanted, &streams);
        for tenant in &wanted.tenants {
            self.seen.insert(tenant.tenant.clone(), tenant.clone());
        }
        let work: Vec<_> =
            wanted.tenants.iter().map(|tenant| apply_one(&self.api, &streams, tenant)).collect();
        let mut report = Report::new();
        for applied in stream::iter(work).buffer_unordered(AT_ONCE).collect::<Vec<_>>().await {
            let (tenant, applied) = applied?;
            changes += applied.changes;
            report.insert(tenant, applied.findings);
        }
        Ok((report, changes))
    }

    /// Lets go of the streams of Tenants that this process saw and that have been gone for a while.
    async fn remove_gone(&mut self, wanted: &Wanted, streams: &Streams) -> Result<u32, ApiError> {
        let mut all_changes = 0;
        let exists = |tenant: &TenantStreams| {
            wanted.existing.contains(&(tenant.owner.namespace.clone(), tenant.owner.name.clone()))
        };
        let now = Instant::now();
        let gone: Vec<TenantStreams> = self.seen.values().filter(|tenant| !exists(tenant)).cloned().collect();
        self.leaving.retain(|name, _| gone.iter().any(|tenant| tenant.tenant == *name));
        for tenant in gone {
            let since = *self.leaving.entry(tenant.tenant.clone()).or_insert(now);
            if now.duration_since(since) < REMOVAL_GRACE {
                continue;
            }
            let changes = tenant::remove(&self.api, streams, &tenant).await?;
            tracing::info!(tenant = %tenant.tenant, changes, on_delete = ?tenant.on_delete, "the Tenant is gone, its streams were let go");
            all_changes += changes;
            self.seen.remove(&tenant.tenant);
            self.leaving.remove(&tenant.tenant);
        }
        Ok(all_changes)
    }

    /// How long until a tenant that is gone is removed.
    fn next_removal(&self) -> Option<Duration> {
        let first = self.leaving.values().min()?;
        Some((*first + REMOVAL_GRACE).saturating_duration_since(Instant::now()))
    }

    /// Says once of each stream that its Tenant is unknown. It may have gone while the operator was down, or this may be the
    /// wrong folder: so the streams stay.
    fn mention_orphans(&mut self, wanted: &Wanted, streams: &Streams) {
        for (name, stream) in streams {
            let (Some(namespace), Some(owner)) =
                (stream.metadata(OWNER_NAMESPACE), stream.metadata(OWNER_NAME))
            else {
                continue;
            };
            let known = wanted.existing.contains(&(namespace.to_owned(), owner.to_owned()))
                || self
                    .seen
                    .values()
                    .any(|seen| seen.owner.namespace == namespace && seen.owner.name == owner);
            if !known && self.warned.insert(name.clone()) {
                tracing::warn!(
                    stream = %name, tenant = %format!("{namespace}/{owner}"),
                    "this stream's Tenant does not exist; it is kept. If nobody needs it: nats stream rm {name}"
                );
            }
        }
    }
}

async fn apply_one(
    api: &Api,
    streams: &Streams,
    wanted: &TenantStreams,
) -> Result<(TenantName, Applied), ApiError> {
    Ok((wanted.tenant.clone(), tenant::apply(api, streams, wanted).await?))
}

fn named(stream: super::api::StreamInfo) -> Option<(String, super::api::StreamInfo)> {
    let name = stream.config.get("name")?.as_str()?.to_owned();
    Some((name, stream))
}

fn replace(old: &mut Report, new: Report) -> bool {
    let changed = *old != new;
    *old = new;
    changed
}

fn is_away(report: &Report, wanted: &Wanted) -> bool {
    let away = |findings: &Vec<Finding>| {
        findings.iter().all(|finding| finding.reason == Reason::BrokerAway) && !findings.is_empty()
    };
    report.len() == wanted.tenants.len()
        && wanted.tenants.iter().all(|tenant| report.get(&tenant.tenant).is_some_and(away))
}
