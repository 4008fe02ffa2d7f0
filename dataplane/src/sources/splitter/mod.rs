//! Splits the messages of sources whose device id stands in the payload.
//!
//! Each such source has a stream that captures it, and a durable consumer that all pods share: the broker
//! gives its messages to one pod at a time (`pinned_client`), and to the next one when that is gone. Each
//! item of a message is published on the subject of its device, with a message id made of the source's
//! stream, sequence and the item's index, so that an item which is published twice is stored once.
//!
//! Order per device: an item is published when the one before it of the same device was stored. When another
//! pod takes over, what the last one hasn't acknowledged comes before anything newer.

mod items;
mod task;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use flutecast_contract::document::PayloadSourceDocument;
use flutecast_contract::name::{SourceName, TenantName};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio::task::{Id, JoinHandle, JoinSet};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::broker::Broker;
use crate::catalog::Catalog;

use items::Skipped;
use task::SourceTask;

/// How long after a failure a source is started again.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// What the splitter counts.
#[derive(Debug, Clone, Default)]
pub(super) struct SplitterMetrics {
    messages: Counter,
    stored: Counter,
    duplicates: Counter,
    skipped: Family<SkippedLabel, Counter>,
    errors: Family<ErrorLabel, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SkippedLabel {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ErrorLabel {
    at: &'static str,
}

/// The steps at which the broker may fail.
const STEPS: [&str; 7] = ["Connect", "Bind", "Info", "Pull", "LookUp", "Store", "Acknowledge"];

impl From<&Skipped> for SkippedLabel {
    fn from(reason: &Skipped) -> Self {
        Self { reason: reason.as_str() }
    }
}

impl SplitterMetrics {
    fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let m = &metrics;
        registry.register(
            "split_messages",
            "Messages of payload sources that were split",
            m.messages.clone(),
        );
        registry.register("split_items_stored", "Items that were stored for their device", m.stored.clone());
        registry.register("split_items_duplicate", "Items that had been stored before", m.duplicates.clone());
        registry.register(
            "split_skipped",
            "Messages and items that were skipped, by reason",
            m.skipped.clone(),
        );
        registry.register("split_errors", "Errors of the broker while splitting, by step", m.errors.clone());
        // Each value is shown from the start.
        Skipped::ALL.iter().for_each(|reason| drop(m.skipped.get_or_create(&reason.into())));
        STEPS.iter().for_each(|at| drop(m.errors.get_or_create(&ErrorLabel { at })));
        metrics
    }

    fn skipped(&self, reason: Skipped) {
        self.skipped.get_or_create(&(&reason).into()).inc();
    }

    fn error(&self, at: &'static str) {
        self.errors.get_or_create(&ErrorLabel { at }).inc();
    }
}

/// Starts to split the payload sources of every tenant, and follows the mapping. The handle ends after `stop`
/// is cancelled.
#[must_use = "someone has to watch the task"]
pub fn start(
    broker: Broker,
    catalog: watch::Receiver<Arc<Catalog>>,
    registry: &mut Registry,
    stop: CancellationToken,
) -> JoinHandle<()> {
    let metrics = SplitterMetrics::register(registry);
    tokio::spawn(supervise(broker, catalog, metrics, stop))
}

/// The task of one source.
struct Running {
    source: PayloadSourceDocument,
    stop: CancellationToken,
    id: Id,
}

type Sources = HashMap<(TenantName, SourceName), PayloadSourceDocument>;

fn wanted(catalog: &Catalog) -> Sources {
    let mut wanted = Sources::new();
    for (tenant, entry) in &catalog.tenants {
        for source in &entry.settings.sources {
            wanted.insert((tenant.clone(), source.name.clone()), source.clone());
        }
    }
    wanted
}

async fn supervise(
    broker: Broker,
    mut catalog: watch::Receiver<Arc<Catalog>>,
    metrics: SplitterMetrics,
    stop: CancellationToken,
) {
    let mut running: HashMap<(TenantName, SourceName), Running> = HashMap::new();
    let mut tasks = JoinSet::new();
    loop {
        let wanted = wanted(&catalog.borrow_and_update());
        running.retain(|name, task| {
            let keep = wanted.get(name) == Some(&task.source);
            if !keep {
                task.stop.cancel();
            }
            keep
        });
        for (name, source) in wanted {
            if running.contains_key(&name) {
                continue;
            }
            let stop = stop.child_token();
            let task = SourceTask::new(
                name.0.clone(),
                source.clone(),
                broker.clone(),
                catalog.clone(),
                metrics.clone(),
            );
            let token = stop.clone();
            // One that ends by itself, as a source that can't be split does, is not started again before the
            // mapping changes.
            let id = tasks.spawn(async move { task.run(&token).await }).id();
            running.insert(name, Running { source, stop, id });
        }
        tokio::select! {
            () = stop.cancelled() => break,
            changed = catalog.changed() => if changed.is_err() { break },
            Some(ended) = tasks.join_next() => if let Err(error) = ended {
                tracing::error!(%error, "the task of a source has failed; it is started again");
                sleep(AFTER_FAILURE).await;
                running.retain(|_, task| task.id != error.id());
            },
        }
    }
    running.values().for_each(|task| task.stop.cancel());
    while tasks.join_next().await.is_some() {}
}
