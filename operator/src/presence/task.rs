//! The task of presence: carries out what the [`Scheduler`] decides.

use std::sync::Arc;
use std::time::Duration;

use async_nats::Client;
use flutecast_nats::RequestError;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::lookup::look_up;
use super::metrics::PresenceMetrics;
use super::scheduler::{DeviceId, Lookup, LookupReply, Scheduler};
use super::subscriptions::Subscriptions;
use super::table::{PresenceTable, Target};
use crate::metrics::CallResult;
use crate::object::Key;

const CONCURRENT_LOOKUPS: usize = 8;
/// The time for which due lookups are collected, so that many go into one request.
const BATCH_INTERVAL: Duration = Duration::from_millis(200);
const METRICS_INTERVAL: Duration = Duration::from_secs(2);

pub(crate) struct PresenceTask {
    pub(crate) client: Client,
    pub(crate) connected: watch::Receiver<bool>,
    pub(crate) table: PresenceTable,
    /// Whose messages are to be looked at soon.
    pub(crate) first_looks: mpsc::Sender<Arc<Target>>,
    pub(crate) metrics: Arc<PresenceMetrics>,
}

impl PresenceTask {
    /// Calls `notify` with each Device of which something else is to be said; it waits until that is queued.
    pub(crate) async fn run<F: Future<Output = ()>>(mut self, notify: impl Fn(Key) -> F) {
        let mut worker = PresenceWorker {
            scheduler: Scheduler::new(Instant::now()),
            subscriptions: Subscriptions::new(self.client.clone()),
            lookups: FuturesUnordered::new(),
            last_lookup: Instant::now(),
            is_connected: *self.connected.borrow_and_update(),
        };
        let mut next_metrics = Instant::now();
        loop {
            worker.apply_table_changes(&self.table);
            worker.start_lookups(&self.client);
            for device in worker.scheduler.take_first_looks() {
                let _ends_with_the_program = self.first_looks.send(device).await;
            }
            for report in worker.scheduler.take_reports(Instant::now()) {
                if self.table.update(&report.key, &report.target, report.observed) {
                    notify(report.key).await;
                }
            }
            if Instant::now() >= next_metrics {
                self.metrics.set_devices(&worker.scheduler.counts());
                self.metrics.set_understood(&worker.scheduler.understood_counts());
                self.metrics.set_subscriptions(worker.subscriptions.count());
                next_metrics = Instant::now() + METRICS_INTERVAL;
            }
            let wake = worker.next_action().unwrap_or(next_metrics).min(next_metrics);
            tokio::select! {
                () = self.table.changed() => {}
                changed = self.connected.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    worker.is_connected = *self.connected.borrow_and_update();
                    if worker.is_connected {
                        worker.scheduler.restart(Instant::now());
                    }
                }
                Some((lookup, reply)) = worker.lookups.next() => {
                    worker.apply_reply(&lookup, reply, &self.metrics).await;
                }
                (id, message) = worker.subscriptions.next() => {
                    if worker.scheduler.apply_message(id, &message, Instant::now()) {
                        worker.subscribe(vec![id]).await;
                    }
                }
                () = tokio::time::sleep_until(wake) => {}
            }
        }
    }
}

type PendingLookup = BoxFuture<'static, (Lookup, Result<LookupReply, RequestError>)>;

struct PresenceWorker {
    scheduler: Scheduler,
    subscriptions: Subscriptions,
    lookups: FuturesUnordered<PendingLookup>,
    last_lookup: Instant,
    is_connected: bool,
}

impl PresenceWorker {
    fn apply_table_changes(&mut self, table: &PresenceTable) {
        let now = Instant::now();
        for (key, target) in table.take_changes() {
            let before = match target {
                Some((target, state)) => self.scheduler.track(&key, target, state, now),
                None => self.scheduler.untrack(&key),
            };
            if let Some(id) = before {
                self.subscriptions.unsubscribe(id);
            }
        }
        for (key, judged) in table.take_judged() {
            self.scheduler.judged(&key, judged, now);
        }
    }

    fn start_lookups(&mut self, client: &Client) {
        if !self.is_connected || Instant::now() < self.last_lookup + BATCH_INTERVAL {
            return;
        }
        while self.lookups.len() < CONCURRENT_LOOKUPS
            && let Some(lookup) = self.scheduler.next_lookup(Instant::now())
        {
            self.last_lookup = Instant::now();
            let client = client.clone();
            self.lookups.push(Box::pin(async move {
                let reply = look_up(&client, &lookup).await;
                (lookup, reply)
            }));
        }
    }

    /// Returns when the next lookup or report is due.
    fn next_action(&self) -> Option<Instant> {
        let may_look_up = self.is_connected && self.lookups.len() < CONCURRENT_LOOKUPS;
        let lookup = self.scheduler.lookup_due().filter(|_| may_look_up);
        let lookup = lookup.map(|due| due.max(self.last_lookup + BATCH_INTERVAL));
        [lookup, self.scheduler.report_due(Instant::now())].into_iter().flatten().min()
    }

    async fn apply_reply(
        &mut self,
        lookup: &Lookup,
        reply: Result<LookupReply, RequestError>,
        metrics: &PresenceMetrics,
    ) {
        match reply {
            Ok(reply) => {
                metrics.count_lookup(CallResult::Done, lookup.subjects.len());
                let silent = self.scheduler.apply_reply(lookup, &reply, Instant::now());
                self.subscribe(silent).await;
            }
            Err(error) => {
                metrics.count_lookup(CallResult::Failed, lookup.subjects.len());
                tracing::debug!(tenant = %lookup.tenant, %error, "presence can't be looked up");
                self.scheduler.lookup_failed(lookup, Instant::now());
            }
        }
    }

    async fn subscribe(&mut self, devices: Vec<DeviceId>) {
        for id in devices {
            let Some(target) = self.scheduler.target(id).cloned() else { continue };
            if !self.subscriptions.subscribe(id, &target).await {
                // Too many, or no connection: these devices are polled.
                return;
            }
            self.scheduler.subscribed(id, Instant::now());
        }
    }
}
