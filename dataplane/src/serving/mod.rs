//! Tells on NATS which mapping revisions this pod serves, so that the operator knows when a device is ready.
//!
//! An announcement is whole: the newest one of a pod replaces all earlier ones. The contract is
//! docs/protocol-internal.md.

use std::sync::Arc;
use std::time::Duration;

use async_nats::Subscriber;
use bytes::Bytes;
use futures_util::StreamExt;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use rand::RngExt as _;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::catalog::Catalog;
use crate::sources::broker::Broker;

mod announcement;

pub(crate) use announcement::token as subject_token;
pub use announcement::{Subjects, announcement};

/// How often a pod announces when nothing changes, give or take [`JITTER`].
const PERIOD: Duration = Duration::from_secs(5);
/// So that pods that started together don't announce together.
const JITTER: Duration = Duration::from_secs(1);
/// The least time between two announcements: what changes in between is told by the next one.
const PAUSE: Duration = Duration::from_millis(50);
/// How long handing an announcement to the connection may take.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(5);

/// What is counted about announcements. Cheap to clone; clones count together.
#[derive(Debug, Clone, Default)]
pub struct ServingMetrics {
    announced: Counter,
    failed: Counter,
}

impl ServingMetrics {
    /// Makes them known to `registry`.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let all = Self::default();
        let Self { announced, failed } = all.clone();
        registry.register("announcements", "Announcements of the served revisions", announced);
        registry.register("announcements_failed", "Announcements that could not be published", failed);
        all
    }
}

/// Announces what `catalog` holds until `stop`: at once when it or the connection changes, when asked, and
/// else every 5 s.
#[must_use = "someone has to watch the task"]
pub fn announce(
    broker: Broker,
    catalog: watch::Receiver<Arc<Catalog>>,
    subjects: Subjects,
    server_name: String,
    metrics: ServingMetrics,
    stop: CancellationToken,
) -> JoinHandle<()> {
    let announcer = Announcer { broker, catalog, subjects, server_name, metrics, failing: false };
    tokio::spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = announcer.run() => {}
        }
    })
}

struct Announcer {
    broker: Broker,
    catalog: watch::Receiver<Arc<Catalog>>,
    subjects: Subjects,
    server_name: String,
    metrics: ServingMetrics,
    failing: bool,
}

impl Announcer {
    /// Ends only when the catalog's writer has ended, which ends the process.
    async fn run(mut self) {
        let mut connection = self.broker.watch();
        let mut questions = self.subscribe().await;
        let mut body = self.body();
        loop {
            self.publish(body.clone()).await;
            sleep(PAUSE).await;
            let period = PERIOD - JITTER + rand::rng().random_range(Duration::ZERO..JITTER * 2);
            tokio::select! {
                changed = self.catalog.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    body = self.body();
                }
                changed = connection.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                asked = next_question(&mut questions) => {
                    if !asked {
                        questions = self.subscribe().await;
                    }
                }
                () = sleep(period) => {}
            }
        }
    }

    fn body(&mut self) -> Bytes {
        let catalog = Arc::clone(&self.catalog.borrow_and_update());
        announcement(&self.server_name, &catalog)
    }

    async fn subscribe(&self) -> Option<Subscriber> {
        match self.broker.client.subscribe(self.subjects.query.clone()).await {
            Ok(subscriber) => Some(subscriber),
            Err(error) => {
                tracing::warn!(%error, "this pod can't be asked what it serves; it says so every {} s", PERIOD.as_secs());
                None
            }
        }
    }

    /// While the broker is away nothing is published: what the client would keep for later is then no longer
    /// true.
    async fn publish(&mut self, body: Bytes) {
        if !self.broker.state().connected {
            return;
        }
        let subject = self.subjects.announce.clone();
        let published = timeout(PUBLISH_TIMEOUT, self.broker.client.publish(subject, body)).await;
        let error = match published {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some(format!("not taken within {} s", PUBLISH_TIMEOUT.as_secs())),
        };
        match error {
            None => {
                self.metrics.announced.inc();
                self.failing = false;
            }
            Some(error) => {
                self.metrics.failed.inc();
                if !self.failing {
                    tracing::warn!(error, "the served revisions could not be announced");
                }
                self.failing = true;
            }
        }
    }
}

/// Whether somebody asked; not: the subscription has ended.
async fn next_question(questions: &mut Option<Subscriber>) -> bool {
    match questions {
        Some(subscriber) => subscriber.next().await.is_some(),
        None => std::future::pending().await,
    }
}
