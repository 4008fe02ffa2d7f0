//! Splits the messages of sources whose device id is in the payload.
//!
//! Each such source has a stream that captures it, and a durable consumer shared by all pods: the broker
//! delivers its messages to one pod at a time (`pinned_client`), and to the next one when that pod is gone.
//! Each item of a message is published on the subject of its device. Its message id consists of the source's
//! stream, the message's sequence and the item's index, so that an item published twice is stored once.
//!
//! Order per device: an item is published after the device's previous item was stored. When another pod takes
//! over, messages that the last pod has not acknowledged come before newer ones.

mod items;
mod metrics;
mod task;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use flutecast_contract::document::PayloadSourceDocument;
use flutecast_contract::name::{SourceName, TenantName};
use flutecast_nats::NatsConnection;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio::task::{Id, JoinHandle, JoinSet};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::catalog::Catalog;

use metrics::SplitterMetrics;
use task::SourceTask;

/// The pause before the task of a source is restarted.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// Splits the payload sources of every tenant, as the mapping lists them, until `stop` is cancelled.
#[must_use = "the task has to be supervised"]
pub fn start(
    broker: NatsConnection,
    catalog: watch::Receiver<Arc<Catalog>>,
    registry: &mut Registry,
    stop: CancellationToken,
) -> JoinHandle<()> {
    let metrics = SplitterMetrics::register(registry);
    tokio::spawn(supervise(broker, catalog, metrics, stop))
}

struct RunningSource {
    source: PayloadSourceDocument,
    stop: CancellationToken,
    id: Id,
}

type WantedSources = HashMap<(TenantName, SourceName), PayloadSourceDocument>;

fn wanted(catalog: &Catalog) -> WantedSources {
    let mut wanted = WantedSources::new();
    for (tenant, entry) in &catalog.tenants {
        for source in &entry.settings.sources {
            wanted.insert((tenant.clone(), source.name.clone()), source.clone());
        }
    }
    wanted
}

async fn supervise(
    broker: NatsConnection,
    mut catalog: watch::Receiver<Arc<Catalog>>,
    metrics: SplitterMetrics,
    stop: CancellationToken,
) {
    let mut running: HashMap<(TenantName, SourceName), RunningSource> = HashMap::new();
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
            let (tenant, catalog) = (name.0.clone(), catalog.clone());
            let task = SourceTask::new(tenant, source.clone(), broker.clone(), catalog, metrics.clone());
            let token = stop.clone();
            // A task that ends by itself, as that of a source that can't be split, is not restarted before
            // the mapping changes.
            let id = tasks.spawn(async move { task.run(&token).await }).id();
            running.insert(name, RunningSource { source, stop, id });
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
