//! Keeps JetStream as wanted: applies changes at once, again when the broker comes back, and from time to
//! time to repair what somebody else changed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use flutecast_contract::name::TenantName;
use flutecast_contract::subject;
use flutecast_nats::api::StreamInfo;
use flutecast_nats::{JetStreamApi, RequestError};
use flutecast_process::backoff::{Backoff, RepairBackoff, jittered};
use futures_util::{StreamExt, stream};
use tokio::sync::watch;
use tokio::time::Instant;

use super::metrics::StreamMetrics;
use super::orphans::{self, Installation, Released};
use super::settings::{OWNER_NAME, OWNER_NAMESPACE};
use super::streams::TenantStreams;
use super::tenant::{self, Applied, Streams};
use crate::finding::{Finding, Reason};
use crate::metrics::CallResult;

/// The interval at which everything is compared without a change. Somebody may have changed or deleted a
/// stream.
const RESYNC: Duration = Duration::from_secs(30);
/// The wait for more changes after somebody changed a stream. Our own changes are reported to us too.
const SETTLE: Duration = Duration::from_millis(500);
/// The longest wait while somebody repeats a change, and the time without one after which a change is
/// repaired at once again.
const REPEATED_CHANGES: (Duration, Duration) = (RESYNC, Duration::from_secs(60));
/// The longest wait of the first pass for the connection.
const CONNECT: Duration = Duration::from_millis(500);
/// The first and the longest wait after the broker could not be asked.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));
/// The time that a Tenant must be gone before its streams are deleted. An editor, or a `git checkout`, may
/// remove a file and restore it a moment later, and a deleted stream can't be restored.
pub(crate) const REMOVAL_GRACE: Duration = Duration::from_secs(5);
const MAX_CONCURRENT: usize = 8;

/// The desired state of JetStream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct WantedStreams {
    /// The streams of the tenants in force.
    pub(crate) tenants: Vec<TenantStreams>,
    /// The namespace and name of every Tenant that exists, in force or not. The streams of a Tenant that
    /// exists are never deleted.
    pub(crate) existing: BTreeSet<OwnerKey>,
    /// The installation whose Tenants these are; `None` in folder mode, where a missing Tenant may come yet.
    pub(crate) installation: Option<Installation>,
}

/// The state of the tenants' streams; empty until the first pass.
pub(crate) type StreamReports = BTreeMap<TenantName, TenantReport>;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct TenantReport {
    pub(crate) findings: Vec<Finding>,
    /// `true` if the tenant's stream has another owner. Kept while the broker is away.
    pub(crate) foreign: bool,
    /// `true` if the tenant's stream exists. Kept while the broker is away.
    pub(crate) has_stream: bool,
    /// `true` if the stream of its last values exists and is its own. Kept while the broker is away.
    pub(crate) has_kept: bool,
    /// The streams that were applied, which tell if the report is about what is wanted now; `None` while the
    /// broker is away.
    pub(crate) applied: Option<TenantStreams>,
}

pub(crate) struct StreamTask {
    pub(crate) api: JetStreamApi,
    pub(crate) connected: watch::Receiver<bool>,
    /// `None` until the objects were read for the first time.
    pub(crate) wanted: watch::Receiver<Option<Arc<WantedStreams>>>,
    pub(crate) reports: watch::Sender<StreamReports>,
    pub(crate) metrics: Arc<StreamMetrics>,
}

/// The namespace and name of a Tenant.
type OwnerKey = (String, String);

fn key(tenant: &TenantStreams) -> OwnerKey {
    (tenant.owner.namespace.clone(), tenant.owner.name.clone())
}

impl StreamTask {
    pub(crate) async fn run(mut self) {
        let mut reconciler = StreamReconciler::new(self.api.clone());
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        // The connection is made in the background; without it for this long, the broker counts as away.
        let connect = self.connected.wait_for(|connected| *connected);
        let in_time = tokio::time::timeout(CONNECT, connect).await.is_ok();
        tracing::debug!(in_time, "first connection");
        // The client keeps the subscription also while it isn't connected.
        let mut changes = match self.api.changes().await {
            Ok(changes) => changes.left_stream(),
            Err(error) => {
                tracing::warn!(%error, "changes by others are noticed only from time to time");
                stream::pending().right_stream()
            }
        };
        let mut repairs = RepairBackoff::new(Backoff::new(SETTLE, REPEATED_CHANGES.0), REPEATED_CHANGES.1);
        let mut was_notified = false;
        loop {
            let wanted = self.wanted.borrow_and_update().clone();
            self.metrics.set_connected(*self.connected.borrow_and_update());
            let (wait, changed) = match wanted {
                None => (RESYNC, 0),
                Some(wanted) => self.pass(&mut reconciler, &wanted, &mut backoff).await,
            };
            if was_notified && changed > 0 {
                repairs.repaired(Instant::now());
            }
            was_notified = false;
            let mut next = Instant::now() + wait;
            loop {
                tokio::select! {
                    changed = self.wanted.changed() => match changed {
                        Ok(()) => break,
                        Err(_) => return,
                    },
                    Ok(()) = self.connected.changed() => break,
                    Some(advisory) = changes.next() => {
                        if may_be_ours(&advisory.subject) {
                            was_notified = true;
                            let soon = Instant::now() + SETTLE;
                            next = next.min(repairs.due().map_or(soon, |due| due.max(soon)));
                        }
                    }
                    () = tokio::time::sleep_until(next) => break,
                }
            }
        }
    }

    /// Makes one pass, and reports. Returns the wait until the next, and the number of changes.
    async fn pass(
        &self,
        reconciler: &mut StreamReconciler,
        wanted: &WantedStreams,
        backoff: &mut Backoff,
    ) -> (Duration, u32) {
        let before = self.reports.borrow().clone();
        match reconciler.pass(wanted, &before).await {
            Ok(Passed { reports, changes, away }) => {
                self.reports.send_if_modified(|old| replace(old, reports));
                if let Some(error) = away {
                    self.metrics.count_pass(CallResult::Failed, changes);
                    tracing::debug!(%error, "JetStream can't be asked about some streams");
                    return (backoff.next_wait(), changes);
                }
                backoff.reset();
                self.metrics.count_pass(CallResult::Done, changes);
                (reconciler.next_removal().unwrap_or_else(|| jittered(RESYNC)).min(RESYNC), changes)
            }
            Err(error) => {
                self.metrics.count_pass(CallResult::Failed, 0);
                tracing::debug!(%error, "JetStream can't be asked");
                let finding = away(&error);
                self.reports.send_if_modified(|old| set_away(old, wanted, &finding));
                (backoff.next_wait(), 0)
            }
        }
    }
}

struct StreamReconciler {
    api: JetStreamApi,
    /// The tenants that this process has applied, by their owners.
    seen: BTreeMap<OwnerKey, TenantStreams>,
    /// The tenants of `seen` that no longer exist, and since when.
    leaving: BTreeMap<OwnerKey, Instant>,
    /// The streams about which a warning was logged.
    warned: BTreeSet<String>,
}

impl StreamReconciler {
    fn new(api: JetStreamApi) -> Self {
        Self { api, seen: BTreeMap::new(), leaving: BTreeMap::new(), warned: BTreeSet::new() }
    }

    /// Compares and applies everything once. A problem with the streams of one tenant, or with orphaned
    /// streams, delays no other tenant. `before` are the last reports.
    async fn pass(&mut self, wanted: &WantedStreams, before: &StreamReports) -> Result<Passed, RequestError> {
        let mut streams = self.streams().await?;
        let WantedStreams { installation, existing, .. } = wanted;
        let orphans = orphans::remove(&self.api, &streams, installation.as_ref(), existing).await?;
        if orphans.changes > 0 {
            streams = self.streams().await?;
        }
        self.warn_refused(orphans.refused);
        let mut passed = Passed { changes: orphans.changes, ..Passed::default() };
        passed.changes += self.remove_gone(wanted, &streams).await?;
        self.warn_orphans(wanted, &streams);
        for tenant in &wanted.tenants {
            self.seen.insert(key(tenant), tenant.clone());
        }
        let work: Vec<_> =
            wanted.tenants.iter().map(|tenant| apply_one(&self.api, &streams, tenant)).collect();
        for (wanted, applied) in stream::iter(work).buffer_unordered(MAX_CONCURRENT).collect::<Vec<_>>().await
        {
            let report = match applied {
                Ok(Applied { changes, findings, foreign, has_stream, has_kept }) => {
                    passed.changes += changes;
                    let applied = Some(wanted.clone());
                    TenantReport { findings, foreign, has_stream, has_kept, applied }
                }
                Err(error) => {
                    let report = away_report(before.get(&wanted.tenant), &away(&error));
                    passed.away = Some(error);
                    report
                }
            };
            passed.reports.insert(wanted.tenant.clone(), report);
        }
        Ok(passed)
    }

    async fn streams(&self) -> Result<Streams, RequestError> {
        Ok(self.api.streams().await?.into_iter().filter_map(named).collect())
    }

    /// Releases the streams of Tenants that this process applied and that have been gone for a while.
    async fn remove_gone(&mut self, wanted: &WantedStreams, streams: &Streams) -> Result<u32, RequestError> {
        let mut all_changes = 0;
        let now = Instant::now();
        let gone: Vec<TenantStreams> =
            self.seen.values().filter(|tenant| !wanted.existing.contains(&key(tenant))).cloned().collect();
        self.leaving.retain(|owner, _| gone.iter().any(|tenant| key(tenant) == *owner));
        for tenant in gone {
            let since = *self.leaving.entry(key(&tenant)).or_insert(now);
            if now.duration_since(since) < REMOVAL_GRACE {
                continue;
            }
            let Released { changes, refused } = tenant::remove(&self.api, streams, &tenant).await?;
            all_changes += changes;
            if !refused.is_empty() {
                // It stays in `seen`, and is tried again with the next pass.
                self.warn_refused(refused);
                self.leaving.insert(key(&tenant), now);
                continue;
            }
            tracing::info!(
                tenant = %tenant.tenant, changes, on_delete = tenant.on_delete.as_str(),
                "the Tenant is gone, its streams were let go"
            );
            self.seen.remove(&key(&tenant));
            self.leaving.remove(&key(&tenant));
        }
        Ok(all_changes)
    }

    /// Returns the time until the streams of a Tenant are released.
    fn next_removal(&self) -> Option<Duration> {
        let first = self.leaving.values().min()?;
        Some((*first + REMOVAL_GRACE).saturating_duration_since(Instant::now()))
    }

    /// Logs once for each stream that NATS refuses to release it.
    fn warn_refused(&mut self, refused: Vec<(String, String)>) {
        for (stream, error) in refused {
            if self.warned.insert(format!("{stream} is refused")) {
                tracing::warn!(
                    stream,
                    error,
                    "the Tenant is gone, and NATS doesn't let go of its stream; tried again until it works. \
                     If nobody needs it: nats stream rm {stream}"
                );
            }
        }
    }

    /// Logs once for each stream that its Tenant is unknown. The Tenant may have gone while the operator was
    /// down, or this may be the wrong folder, so the streams are kept.
    fn warn_orphans(&mut self, wanted: &WantedStreams, streams: &Streams) {
        for (name, stream) in streams {
            let (Some(namespace), Some(owner)) =
                (stream.metadata(OWNER_NAMESPACE), stream.metadata(OWNER_NAME))
            else {
                continue;
            };
            let owner_key = (namespace.to_owned(), owner.to_owned());
            let known = wanted.existing.contains(&owner_key) || self.seen.contains_key(&owner_key);
            if !known && self.warned.insert(name.clone()) {
                tracing::warn!(
                    stream = %name, tenant = %format!("{namespace}/{owner}"),
                    "this stream's Tenant does not exist; it is kept. If nobody needs it: nats stream rm \
                     {name}"
                );
            }
        }
    }
}

#[derive(Debug, Default)]
struct Passed {
    reports: StreamReports,
    /// Number of calls that changed something.
    changes: u32,
    /// The error, if some tenants' streams could not be asked about.
    away: Option<RequestError>,
}

async fn apply_one<'a>(
    api: &JetStreamApi,
    streams: &Streams,
    wanted: &'a TenantStreams,
) -> (&'a TenantStreams, Result<Applied, RequestError>) {
    (wanted, tenant::apply(api, streams, wanted).await)
}

fn away(error: &RequestError) -> Finding {
    let message = format!("streams and sources can't be looked after: {error}; tried again until it works");
    Finding::new(Reason::BrokerAway, "", message)
}

/// Returns the report about a tenant that can't be asked about. If that was reported before, the report stays
/// the same: the words of the cause may vary between attempts.
fn away_report(before: Option<&TenantReport>, finding: &Finding) -> TenantReport {
    let before = before.cloned().unwrap_or_default();
    if before.findings.iter().any(|finding| finding.reason == Reason::BrokerAway) {
        return before;
    }
    TenantReport { findings: vec![finding.clone()], applied: None, ..before }
}

fn named(stream: StreamInfo) -> Option<(String, StreamInfo)> {
    let name = stream.config.get("name")?.as_str()?.to_owned();
    Some((name, stream))
}

fn replace(old: &mut StreamReports, new: StreamReports) -> bool {
    let changed = *old != new;
    *old = new;
    changed
}

fn set_away(reports: &mut StreamReports, wanted: &WantedStreams, finding: &Finding) -> bool {
    let report =
        |tenant: &TenantStreams| (tenant.tenant.clone(), away_report(reports.get(&tenant.tenant), finding));
    let new = wanted.tenants.iter().map(report).collect();
    replace(reports, new)
}

/// Returns whether an advisory is about a stream that could be ours:
/// `$JS.EVENT.ADVISORY.STREAM.DELETED.IOT_demo`.
fn may_be_ours(advisory: &str) -> bool {
    advisory.rsplit('.').next().is_some_and(subject::is_tenant_stream)
}
