//! Announces on NATS which mapping revisions this pod serves, so that the operator knows when a device is
//! ready. [`flutecast_contract::serving`] is the contract.

use std::sync::Arc;
use std::time::Duration;

use async_nats::{SubscribeError, Subscriber};
use bytes::Bytes;
use flutecast_contract::serving::{ANNOUNCE_PERIOD, Announcement};
use flutecast_contract::subject;
use flutecast_nats::NatsConnection;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::catalog::Catalog;
use crate::ingest::broker::next_message;

/// The shortest time between two announcements; the next one says what changed in between.
const PAUSE: Duration = Duration::from_millis(50);
/// The longest that it may take until the NATS client has accepted an announcement.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(5);

/// Clones count together.
#[derive(Debug, Clone, Default)]
pub(crate) struct ServingMetrics {
    announced: Counter,
    failed: Counter,
}

impl ServingMetrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let all = Self::default();
        let Self { announced, failed } = all.clone();
        registry.register("announcements", "Announcements of the served revisions", announced);
        registry.register("announcements_failed", "Announcements that could not be published", failed);
        all
    }
}

/// Announces what `catalog` holds: at once when it or the connection changes or a query arrives, otherwise
/// after each [`ANNOUNCE_PERIOD`]. Ends only when the catalog's publisher has ended, which ends the process.
pub(crate) async fn announce(
    broker: NatsConnection,
    catalog: watch::Receiver<Arc<Catalog>>,
    release: String,
    server_name: String,
    metrics: ServingMetrics,
) {
    let subject = subject::serving(&release, &server_name);
    let query = subject::serving_query(&release);
    Announcer { broker, catalog, subject, query, server_name, metrics, failing: false }.run().await;
}

struct Announcer {
    broker: NatsConnection,
    catalog: watch::Receiver<Arc<Catalog>>,
    subject: String,
    query: String,
    server_name: String,
    metrics: ServingMetrics,
    failing: bool,
}

impl Announcer {
    async fn run(mut self) {
        let mut connection = self.broker.watch();
        let mut queries = self.subscribe().await;
        let mut body = self.body();
        loop {
            self.publish(body.clone()).await;
            sleep(PAUSE).await;
            let period = rand::random_range(ANNOUNCE_PERIOD);
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
                query = next_message(&mut queries) => {
                    if query.is_none() {
                        queries = self.subscribe().await;
                    }
                }
                () = sleep(period) => {}
            }
        }
    }

    fn body(&mut self) -> Bytes {
        let catalog = Arc::clone(&self.catalog.borrow_and_update());
        announcement(&self.server_name, &catalog).to_json().into()
    }

    async fn subscribe(&self) -> Option<Subscriber> {
        let warn = |error: &SubscribeError| {
            let every = ANNOUNCE_PERIOD.end;
            tracing::warn!(%error, "this pod can't be asked what it serves; it says so every {every:?}");
        };
        self.broker.client.subscribe(self.query.clone()).await.inspect_err(warn).ok()
    }

    /// Publishes `body`, unless the broker is away: the NATS client would keep it, and send it when it
    /// is no longer true.
    async fn publish(&mut self, body: Bytes) {
        if !self.broker.state().connected {
            return;
        }
        let subject = self.subject.clone();
        let published = timeout(PUBLISH_TIMEOUT, self.broker.client.publish(subject, body)).await;
        let error = match published {
            Ok(Ok(())) => {
                self.metrics.announced.inc();
                self.failing = false;
                return;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("not taken within {} s", PUBLISH_TIMEOUT.as_secs()),
        };
        self.metrics.failed.inc();
        if !self.failing {
            tracing::warn!(error, "the served revisions could not be announced");
        }
        self.failing = true;
    }
}

fn announcement(server_name: &str, catalog: &Catalog) -> Announcement {
    let tenants = catalog.tenants.iter();
    let tenants =
        tenants.map(|(name, tenant)| (name.to_string(), tenant.revisions.iter().cloned().collect()));
    Announcement { server: server_name.to_owned(), tenants: tenants.collect() }
}

#[cfg(test)]
mod tests {
    use flutecast_contract::document::ShardDocument;

    use super::*;

    #[test]
    fn every_shard_of_every_tenant_is_announced() {
        let shard = |tenant: &str, shard: u32, shards: u32, revision: &str| -> ShardDocument {
            serde_yaml::from_str(&format!(
                "apiVersion: mapping.flutecast.io/v1\ntenant: {tenant}\nshard: {shard}\nshards: {shards}\n\
                 revision: {revision}\nsettings: {{stream: S}}\n"
            ))
            .unwrap()
        };
        let documents =
            vec![shard("other", 0, 1, "r3"), shard("acme", 1, 2, "r2"), shard("acme", 0, 2, "r1")];
        let (catalog, problems) = Catalog::build(documents, None);
        assert_eq!(problems, []);
        let json = announcement("pod \"1\"", &catalog).to_json();
        let expected = concat!(
            r#"{"server":"pod \"1\"","tenants":{"acme":{"shards":{"0":"r1","1":"r2"}},"#,
            r#""other":{"shards":{"0":"r3"}}}}"#
        );
        assert_eq!(String::from_utf8(json).unwrap(), expected);
        assert_eq!(announcement("p", &Catalog::default()).to_json(), br#"{"server":"p","tenants":{}}"#);
    }
}
