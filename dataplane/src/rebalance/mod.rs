//! Moves clients gently to pods that have fewer, so that a pod that joins takes its share.
//!
//! Each pod tells on NATS how many clients it has and hears it from the others; the Service's EndpointSlices
//! say which of them are ready. What a pod has over the mean it sends away at a bounded rate with `bye`; the
//! clients come back through the Service and resume where they were.

use std::sync::Arc;
use std::time::Duration;

use async_nats::Subscriber;
use futures_util::StreamExt;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::fanout::Hubs;
use crate::http::{End, OpenStreams, Rest};
use crate::peers::Peers;
use crate::sources::broker::Broker;

mod load;
mod planner;
#[cfg(test)]
mod simulation;

pub(crate) use load::LoadSubjects;

use load::{PERIOD, Report, Reports};
use planner::{Limits, Planner};

/// How often it is looked whether clients have to be sent away.
const STEP: Duration = Duration::from_millis(250);
/// How long handing a report to the connection may take.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a client that didn't come back from anywhere must have been here before it is sent away: one that
/// just opened its page shall see something.
const NEW_CLIENT: Duration = Duration::from_secs(10);

/// What is set on the command line.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RebalanceSettings {
    /// Which part of its clients a pod sends away in a second.
    pub(crate) rate: f64,
    /// How long a client that came back stays at least, and how long a pod rests after a pass.
    pub(crate) rest: Duration,
}

/// What is counted about moves. Cheap to clone; clones count together.
#[derive(Debug, Clone, Default)]
pub(crate) struct RebalanceMetrics {
    moved: Counter,
    share: Gauge,
    pods: Gauge,
    moving: Gauge,
}

impl RebalanceMetrics {
    /// Makes them known to `registry`.
    #[must_use]
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

/// What the task works on.
#[derive(Debug)]
pub(crate) struct Rebalance {
    pub(crate) broker: Broker,
    pub(crate) subjects: LoadSubjects,
    /// The name that this pod's endpoint has.
    pub(crate) server_name: String,
    pub(crate) peers: watch::Receiver<Arc<Peers>>,
    pub(crate) hubs: Hubs,
    pub(crate) open: OpenStreams,
    pub(crate) settings: RebalanceSettings,
    pub(crate) metrics: RebalanceMetrics,
    /// From then on this pod sends all of them away, and tells so.
    pub(crate) draining: CancellationToken,
}

impl Rebalance {
    /// Tells this pod's load and moves clients until `stop`.
    #[must_use = "someone has to watch the task"]
    pub(crate) fn start(self, stop: CancellationToken) -> JoinHandle<()> {
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.run() => {}
            }
        })
    }

    async fn run(self) {
        let RebalanceSettings { rate, rest } = self.settings;
        let mut planner = Planner::new(Limits { rate, rest }, Instant::now());
        let mut reports = Reports::default();
        let mut subscription = None;
        let mut report_at = Instant::now();
        let mut told_draining = false;
        loop {
            if subscription.is_none() {
                subscription = self.subscribe().await;
            }
            let draining = self.draining.is_cancelled();
            let now = Instant::now();
            if report_at <= now || draining != told_draining {
                // So that pods that started together don't tell together.
                report_at = now + PERIOD.mul_f64(rand::random_range(0.9..1.1));
                told_draining = draining;
                self.report(draining).await;
            }
            self.step(&mut planner, &reports, draining);
            tokio::select! {
                message = next_report(&mut subscription) => match message {
                    Some(payload) => {
                        if !reports.take(&payload, Instant::now()) {
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

    /// Sends away what has to go now.
    fn step(&self, planner: &mut Planner, reports: &Reports, draining: bool) {
        let now = Instant::now();
        let peers = Arc::clone(&self.peers.borrow());
        let own = self.hubs.connections();
        let view = reports.view(&self.server_name, own, &peers, now);
        // While the broker is away nobody's count is known, and clients had better stay where they are.
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
            let rest = Rest { new: NEW_CLIENT, returned: self.settings.rest };
            let moved = self.open.send_away(count, End::Rebalancing, Some(rest));
            planner.moved(moved);
            self.metrics.moved.inc_by(moved as u64);
        }
    }

    async fn subscribe(&self) -> Option<Subscriber> {
        match self.broker.client.subscribe(self.subjects.all.clone()).await {
            Ok(subscriber) => Some(subscriber),
            Err(error) => {
                tracing::warn!(%error, "the load of other pods can't be heard; no client is moved to them");
                None
            }
        }
    }

    /// While the broker is away nothing is told: what the client would keep for later is then no longer true.
    async fn report(&self, draining: bool) {
        if !self.broker.state().connected {
            return;
        }
        let server = self.server_name.clone();
        let report = Report { server, connections: self.hubs.connections(), draining };
        let published = self.broker.client.publish(self.subjects.own.clone(), report.to_bytes());
        if !matches!(timeout(PUBLISH_TIMEOUT, published).await, Ok(Ok(()))) {
            tracing::debug!("this pod's load could not be told");
        }
    }
}

/// The next report; none: the subscription has ended.
async fn next_report(subscription: &mut Option<Subscriber>) -> Option<bytes::Bytes> {
    match subscription {
        Some(subscriber) => Some(subscriber.next().await?.payload),
        None => std::future::pending().await,
    }
}
