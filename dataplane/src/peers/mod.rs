//! The other pods of this service, as the EndpointSlices of its Service show them.
//!
//! Who is ready is decided by Kubernetes; this is only what it says.

use flutecast_kube::Right;
use std::sync::Arc;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::runtime::watcher::Config;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::kubernetes::{Cluster, Observed, Watch};

mod slices;

pub use slices::{Peer, Peers};

use slices::Slices;

/// The rights that knowing the other pods needs.
pub(crate) const RIGHTS: &[Right] = &[Right {
    group: "discovery.k8s.io",
    resources: &["endpointslices"],
    names: &[],
    verbs: &["list", "watch"],
    why: "The other pods of the Service.",
}];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    state: &'static str,
}

/// What is counted about peers. Cheap to clone; clones count together.
#[derive(Debug, Clone, Default)]
pub struct PeerMetrics {
    peers: Family<StateLabels, Gauge>,
}

impl PeerMetrics {
    /// Makes them known to `registry`.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let all = Self::default();
        registry.register(
            "peers",
            "Pods of the Service by what their endpoint says; one pod can be in several states",
            all.peers.clone(),
        );
        all
    }

    fn set(&self, peers: &Peers) {
        let set = |state, is_so: fn(&Peer) -> bool| {
            let count = peers.by_name.values().filter(|peer| is_so(peer)).count();
            self.peers.get_or_create(&StateLabels { state }).set(count.try_into().unwrap_or(i64::MAX));
        };
        set("Ready", |peer| peer.ready);
        set("Serving", |peer| peer.serving);
        set("Terminating", |peer| peer.terminating);
    }
}

/// Follows the EndpointSlices of `service` until `stop`. While the API server is away, what was known last
/// holds on. Nothing waits for this: a pod that can't see its peers serves all the same.
#[must_use = "someone has to watch the task"]
pub fn watch_peers(
    cluster: &Cluster,
    service: &str,
    metrics: PeerMetrics,
    stop: CancellationToken,
) -> (watch::Receiver<Arc<Peers>>, JoinHandle<()>) {
    let (sender, receiver) = watch::channel(Arc::default());
    let Cluster { client, namespace } = cluster.clone();
    let slices = Api::<EndpointSlice>::namespaced(client, &namespace);
    let config = Config::default().labels(&format!("kubernetes.io/service-name={service}"));
    let watch = Watch::new(slices, "endpointslices", config);
    let handle = tokio::spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = follow(watch, sender, metrics) => {}
        }
    });
    (receiver, handle)
}

async fn follow(mut watch: Watch<EndpointSlice>, peers: watch::Sender<Arc<Peers>>, metrics: PeerMetrics) {
    let mut slices = Slices::default();
    let mut fault = None;
    loop {
        match watch.next().await {
            Observed::Fault(text) => {
                if fault.as_ref() != Some(&text) {
                    tracing::warn!(fault = text, "the peers can't be seen; those known last are kept");
                }
                fault = Some(text);
                continue;
            }
            Observed::Recovered => {}
            Observed::Change(change) => slices.observe(change),
        }
        if fault.take().is_some() {
            tracing::info!("the peers can be seen again");
        }
        let now = slices.peers();
        metrics.set(&now);
        peers.send_if_modified(|before| {
            let changed = **before != now;
            if changed {
                *before = Arc::new(now);
            }
            changed
        });
    }
}
