//! Keeps JetStream as wanted: applies at once when something changes, again when the broker comes back, and
//! from time to time to repair what somebody else changed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use flutecast_contract::name::TenantName;
use flutecast_nats::api::StreamInfo;
use flutecast_nats::{JetStreamApi, RequestError};
use futures_util::{StreamExt, stream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::config::{OWNER_NAME, OWNER_NAMESPACE};
use super::leftover::{self, LetGo, Realm};
use super::metrics::StreamMetrics;
use super::tenant::{self, Applied, Streams};
use crate::finding::{Finding, Reason};
use crate::jetstream::streams::TenantStreams;
use crate::metrics::CallResult;
use flutecast_process::backoff::{Backoff, RepairBackoff, jittered};

/// How often everything is compared again without a reason; someone may have changed or deleted a stream.
const RESYNC: Duration = Duration::from_secs(30);
/// How long to wait for more after somebody changed a stream; our own changes are told to us as well.
const SETTLE: Duration = Duration::from_millis(500);
/// The longest wait when somebody keeps on changing streams, and after how long without that a change is
/// answered at once again.
const WAR: (Duration, Duration) = (RESYNC, Duration::from_secs(60));
/// For how long the first look waits for the connection.
const CONNECT: Duration = Duration::from_millis(500);
/// The first and the longest wait after the broker could not be asked.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));
/// For how long a Tenant must be gone before its streams are deleted: an editor, or a `git checkout`, may
/// take a file away and put it back a moment later, and what is deleted can't be brought back.
pub(crate) const REMOVAL_GRACE: Duration = Duration::from_secs(5);
/// How many tenants are worked on at once.
const AT_ONCE: usize = 8;

/// What is wanted of JetStream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// The streams of the tenants that are in force.
    pub(crate) tenants: Vec<TenantStreams>,
    /// The namespace and name of every Tenant that exists, in force or not. The streams of one that exists
    /// are never deleted.
    pub(crate) existing: BTreeSet<OwnerKey>,
    /// The part of the world in which this is all there is; none in folder mode, where a Tenant that isn't
    /// there may come yet.
    pub(crate) realm: Option<Realm>,
}

/// How it stands with the tenants' streams; none until the first look.
pub(crate) type Report = BTreeMap<TenantName, TenantReport>;

/// How it stands with one tenant's streams.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct TenantReport {
    /// What can't be done at the moment; empty when nothing is wrong.
    pub(crate) findings: Vec<Finding>,
    /// Whether the tenant's stream belongs to somebody else. Remembered while the broker is away.
    pub(crate) foreign: bool,
    /// Whether the tenant's stream is there. Remembered while the broker is away.
    pub(crate) has_stream: bool,
    /// What was applied, so that one can tell whether the report is about what is wanted now; none while the
    /// broker is away.
    pub(crate) applied: Option<TenantStreams>,
}

/// What connects the task to the others.
pub(crate) struct Links {
    /// Changes when NATS comes and goes.
    pub(crate) connected: watch::Receiver<bool>,
    /// What is wanted; none until the objects were read for the first time.
    pub(crate) wanted: watch::Receiver<Option<Arc<Wanted>>>,
    /// Gets what can't be done.
    pub(crate) report: watch::Sender<Report>,
    /// Gets counts.
    pub(crate) metrics: Arc<StreamMetrics>,
}

/// Starts the task. It ends when `cancel` is cancelled; whoever gets the handle watches it.
#[must_use = "a task that nobody watches fails unseen"]
pub(crate) fn spawn(api: JetStreamApi, links: Links, cancel: CancellationToken) -> JoinHandle<()> {
    let keeper = Keeper { api, seen: BTreeMap::new(), leaving: BTreeMap::new(), warned: BTreeSet::new() };
    tokio::spawn(async move { cancel.run_until_cancelled_owned(keeper.run(links)).await.unwrap_or_default() })
}

/// The namespace and name of a Tenant.
type OwnerKey = (String, String);

fn key(tenant: &TenantStreams) -> OwnerKey {
    (tenant.owner.namespace.clone(), tenant.owner.name.clone())
}

struct Keeper {
    api: JetStreamApi,
    /// The tenants that this process has applied, by their owners.
    seen: BTreeMap<OwnerKey, TenantStreams>,
    /// Since when tenants that were seen no longer exist.
    leaving: BTreeMap<OwnerKey, Instant>,
    /// What was said already of streams without a Tenant.
    warned: BTreeSet<String>,
}

impl Keeper {
    async fn run(mut self, links: Links) {
        let Links { mut connected, mut wanted, report, metrics } = links;
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        // The connection is being made in the background; a moment later is early enough to call the broker
        // away.
        let in_time = tokio::time::timeout(CONNECT, connected.wait_for(|connected| *connected)).await.is_ok();
        tracing::debug!(in_time, "first connection");
        // The client remembers the subscription, also while it isn't connected.
        let mut changes = match self.api.changes().await {
            Ok(changes) => changes.left_stream(),
            Err(error) => {
                tracing::warn!(%error, "changes by others are noticed only from time to time");
                stream::pending().right_stream()
            }
        };
        let mut war = RepairBackoff::new(Backoff::new(SETTLE, WAR.0), WAR.1);
        let mut is_told = false;
        loop {
            let now = wanted.borrow_and_update().clone();
            metrics.set_connected(*connected.borrow_and_update());
            let (wait, changed) = match now {
                None => (RESYNC, 0),
                Some(now) => self.pass_and_report(&now, &report, &metrics, &mut backoff).await,
            };
            if is_told && changed > 0 {
                war.repaired(Instant::now());
            }
            is_told = false;
            let mut next = Instant::now() + wait;
            loop {
                tokio::select! {
                    changed = wanted.changed() => match changed {
                        Ok(()) => break,
                        Err(_) => return,
                    },
                    Ok(()) = connected.changed() => break,
                    Some(advisory) = changes.next() => {
                        if is_about_us(&advisory.subject) {
                            is_told = true;
                            let soon = Instant::now() + SETTLE;
                            next = next.min(war.due().map_or(soon, |due| due.max(soon)));
                        }
                    }
                    () = tokio::time::sleep_until(next) => break,
                }
            }
        }
    }

    /// One pass; answers how long to wait before the next, and how many calls changed something.
    async fn pass_and_report(
        &mut self,
        wanted: &Wanted,
        report: &watch::Sender<Report>,
        metrics: &StreamMetrics,
        backoff: &mut Backoff,
    ) -> (Duration, u32) {
        let before = report.borrow().clone();
        match self.pass(wanted, &before).await {
            Ok(Passed { report: new, changes, away }) => {
                report.send_if_modified(|old| replace(old, new));
                if let Some(error) = away {
                    metrics.count_pass(CallResult::Failed, changes);
                    tracing::debug!(%error, "JetStream can't be asked about some streams");
                    return (backoff.next_wait(), changes);
                }
                backoff.reset();
                metrics.count_pass(CallResult::Done, changes);
                (self.next_removal().unwrap_or_else(|| jittered(RESYNC)).min(RESYNC), changes)
            }
            Err(error) => {
                metrics.count_pass(CallResult::Failed, 0);
                tracing::debug!(%error, "JetStream can't be asked");
                let finding = away(&error);
                report.send_if_modified(|old| note_away(old, wanted, &finding));
                (backoff.next_wait(), 0)
            }
        }
    }

    /// Compares and applies everything once. What is wrong with the streams of one tenant, or with what is
    /// left over, holds up no other tenant. `before` is what was reported last.
    async fn pass(&mut self, wanted: &Wanted, before: &Report) -> Result<Passed, RequestError> {
        let mut streams = self.streams().await?;
        let orphans = leftover::remove(&self.api, &streams, wanted.realm.as_ref()).await?;
        if orphans.changes > 0 {
            streams = self.streams().await?;
        }
        self.mention_refused(orphans.refused);
        let mut passed = Passed { changes: orphans.changes, ..Passed::default() };
        passed.changes += self.remove_gone(wanted, &streams).await?;
        self.mention_orphans(wanted, &streams);
        for tenant in &wanted.tenants {
            self.seen.insert(key(tenant), tenant.clone());
        }
        let work: Vec<_> =
            wanted.tenants.iter().map(|tenant| apply_one(&self.api, &streams, tenant)).collect();
        for (wanted, applied) in stream::iter(work).buffer_unordered(AT_ONCE).collect::<Vec<_>>().await {
            let told = match applied {
                Ok(Applied { changes, findings, foreign, has_stream }) => {
                    passed.changes += changes;
                    TenantReport { findings, foreign, has_stream, applied: Some(wanted.clone()) }
                }
                Err(error) => {
                    let told = told_away(before.get(&wanted.tenant), &away(&error));
                    passed.away = Some(error);
                    told
                }
            };
            passed.report.insert(wanted.tenant.clone(), told);
        }
        Ok(passed)
    }

    async fn streams(&self) -> Result<Streams, RequestError> {
        Ok(self.api.streams().await?.into_iter().filter_map(named).collect())
    }

    /// Lets go of the streams of Tenants that this process saw and that have been gone for a while.
    async fn remove_gone(&mut self, wanted: &Wanted, streams: &Streams) -> Result<u32, RequestError> {
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
            let LetGo { changes, refused } = tenant::remove(&self.api, streams, &tenant).await?;
            all_changes += changes;
            if !refused.is_empty() {
                // It stays among those that were seen, and is tried again with the next pass.
                self.mention_refused(refused);
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

    /// How long until a tenant that is gone is removed.
    fn next_removal(&self) -> Option<Duration> {
        let first = self.leaving.values().min()?;
        Some((*first + REMOVAL_GRACE).saturating_duration_since(Instant::now()))
    }

    /// Says once of each stream that NATS doesn't let it go.
    fn mention_refused(&mut self, refused: Vec<(String, String)>) {
        for (stream, error) in refused {
            if self.warned.insert(format!("{stream} is refused")) {
                tracing::warn!(
                    stream,
                    error,
                    "the Tenant is gone, and NATS doesn't let go of its stream; tried again until it works. If nobody needs it: nats stream rm {stream}"
                );
            }
        }
    }

    /// Says once of each stream that its Tenant is unknown. It may have gone while the operator was down, or
    /// this may be the wrong folder: so the streams stay.
    fn mention_orphans(&mut self, wanted: &Wanted, streams: &Streams) {
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
                    "this stream's Tenant does not exist; it is kept. If nobody needs it: nats stream rm {name}"
                );
            }
        }
    }
}

/// What one pass came to.
#[derive(Debug, Default)]
struct Passed {
    report: Report,
    /// How many calls changed something.
    changes: u32,
    /// Why some tenants' streams could not be asked about.
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

/// What is told of a tenant that can't be asked about; if that was told before, in the same words: those of
/// the cause may vary from attempt to attempt.
fn told_away(before: Option<&TenantReport>, finding: &Finding) -> TenantReport {
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

fn replace(old: &mut Report, new: Report) -> bool {
    let changed = *old != new;
    *old = new;
    changed
}

/// Notes that the broker is away.
fn note_away(report: &mut Report, wanted: &Wanted, finding: &Finding) -> bool {
    let told =
        |tenant: &TenantStreams| (tenant.tenant.clone(), told_away(report.get(&tenant.tenant), finding));
    let new = wanted.tenants.iter().map(told).collect();
    replace(report, new)
}

/// Whether an advisory is about a stream that could be ours: `$JS.EVENT.ADVISORY.STREAM.DELETED.IOT_demo`.
fn is_about_us(subject: &str) -> bool {
    subject.rsplit('.').next().is_some_and(|stream| stream.starts_with("IOT_") || stream.starts_with("SRC_"))
}
