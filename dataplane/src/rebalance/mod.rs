//! Moves clients gradually to pods that have fewer, so that a new pod gets its share.
//!
//! The pods publish on NATS how many clients they have; the Service's EndpointSlices say which of them are
//! ready. A pod sends its surplus over the mean away with `bye`, at a bounded rate. The clients come back
//! through the Service and resume where they were.

use std::sync::Arc;
use std::time::Duration;

use async_nats::{SubscribeError, Subscriber};
use flutecast_contract::load::{LoadReport, REPORT_PERIOD};
use flutecast_contract::subject;
use flutecast_nats::NatsConnection;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::fanout::Hubs;
use crate::http::{CloseReason, MinimumStay, StreamRegistry};
use crate::ingest::broker::next_message;
use crate::peers::Peers;

mod load;
mod planner;
#[cfg(test)]
mod simulation;

pub(crate) use planner::RebalanceLimits;

use load::Reports;
use planner::Planner;

/// The interval of the planner's steps.
const STEP: Duration = Duration::from_millis(250);
/// The longest that handing a report to the connection may take.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(2);
/// The least stay of a client on its first connection, so that a page that was just opened shows
/// something.
const NEW_CLIENT: Duration = Duration::from_secs(10);

/// Clones count together.
#[derive(Debug, Clone, Default)]
pub(crate) struct RebalanceMetrics {
    moved: Counter,
    share: Gauge,
    pods: Gauge,
    moving: Gauge,
}

impl RebalanceMetrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let all = Self::default();
        let Self { moved, share, pods, moving } = all.clone();
        registry.register(
            "rebalance_moved",
            "Clients that were sent to other pods, to even out the load",
            moved,
        );
        registry.register("rebalance_share", "Clients that each pod would have if all had the same", share);
        registry.register("rebalance_pods", "Pods among which clients are shared, this one included", pods);
        registry.register("rebalance_moving", "Whether this pod sends clients to other pods now", moving);
        all
    }
}

#[derive(Debug)]
pub(crate) struct Rebalance {
    pub(crate) broker: NatsConnection,
    pub(crate) release: String,
    /// The name of this pod, as in its endpoint.
    pub(crate) server_name: String,
    pub(crate) peers: watch::Receiver<Arc<Peers>>,
    pub(crate) hubs: Hubs,
    pub(crate) streams: StreamRegistry,
    pub(crate) limits: RebalanceLimits,
    pub(crate) metrics: RebalanceMetrics,
    /// Cancelled when the drain begins, which the reports then say.
    pub(crate) draining: CancellationToken,
}

impl Rebalance {
    /// Reports this pod's load and moves clients, for ever.
    pub(crate) async fn run(self) {
        let mut planner = Planner::new(self.limits, Instant::now());
        let mut reports = Reports::default();
        let mut subscription = None;
        let mut report_at = Instant::now();
        let mut reported_draining = false;
        loop {
            if subscription.is_none() {
                subscription = self.subscribe().await;
            }
            let draining = self.draining.is_cancelled();
            let now = Instant::now();
            if report_at <= now || draining != reported_draining {
                // Jitter, so that pods that started together don't report together.
                report_at = now + rand::random_range(REPORT_PERIOD);
                reported_draining = draining;
                self.report(draining).await;
            }
            self.step(&mut planner, &reports, draining);
            tokio::select! {
                message = next_message(&mut subscription) => match message {
                    Some(message) => {
                        if !reports.take(&message.payload, Instant::now()) {
                            tracing::debug!("a report of a pod's load can't be understood");
                        }
                    }
                    None => subscription = None,
                },
                () = self.draining.cancelled(), if !draining => {}
                () = sleep(STEP) => reports.forget_old(Instant::now()),
            }
        }
    }

    /// Sends away as many clients as the planner says.
    fn step(&self, planner: &mut Planner, reports: &Reports, draining: bool) {
        let now = Instant::now();
        let own = self.hubs.connections();
        let view = reports.view(&self.server_name, own, &self.peers.borrow(), now);
        // While the broker is away no other pod's count is known, so clients stay where they are.
        let view = view.filter(|_| !draining && self.broker.state().connected);
        let Some(view) = view else {
            self.metrics.pods.set(0);
            self.metrics.moving.set(0);
            return;
        };
        let was_moving = planner.is_moving();
        let count = planner.step(now, &view);
        self.metrics.pods.set(i64::try_from(view.others.len() + 1).unwrap_or(i64::MAX));
        self.metrics.share.set(view.share().round() as i64);
        self.metrics.moving.set(i64::from(planner.is_moving()));
        if planner.is_moving() != was_moving {
            let (share, pods) = (view.share().round(), view.others.len() + 1);
            if was_moving {
                tracing::info!(clients = own, share, pods, "this pod has its share of the clients");
            } else {
                tracing::info!(clients = own, share, pods, "clients are moved to pods that have fewer");
            }
        }
        if count > 0 {
            let stay = MinimumStay { new: NEW_CLIENT, returned: self.limits.rest };
            let moved = self.streams.send_away(count, CloseReason::Rebalancing, Some(stay));
            planner.moved(moved);
            self.metrics.moved.inc_by(moved as u64);
        }
    }

    async fn subscribe(&self) -> Option<Subscriber> {
        let warn = |error: &SubscribeError| {
            tracing::warn!(%error, "the load of other pods can't be heard; no client is moved to them");
        };
        self.broker.client.subscribe(subject::load_all(&self.release)).await.inspect_err(warn).ok()
    }

    /// Publishes nothing while the broker is away: a report that the connection kept would be outdated later.
    async fn report(&self, draining: bool) {
        if !self.broker.state().connected {
            return;
        }
        let server = self.server_name.clone();
        let report = LoadReport { server, connections: self.hubs.connections(), draining };
        let subject = subject::load(&self.release, &self.server_name);
        let published = self.broker.client.publish(subject, report.to_json().into());
        if !matches!(timeout(PUBLISH_TIMEOUT, published).await, Ok(Ok(()))) {
            tracing::debug!("this pod's load could not be told");
        }
    }
}
