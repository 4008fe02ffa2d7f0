//! The other pods of this Service, as its EndpointSlices show them. Kubernetes decides which of them are
//! ready.

use std::collections::BTreeMap;
use std::sync::Arc;

use flutecast_contract::object::SERVICE_LABEL;
use flutecast_kube::{Observed, Right, ServicePod, ServicePods, Watch, WatchFault};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::sync::watch;

use crate::kubernetes::{Cluster, MANIFEST, watch_config};

/// The pods by name or, if an endpoint names no pod, by address.
pub(crate) type Peers = BTreeMap<String, ServicePod>;

pub(crate) const RIGHTS: &[Right] =
    &[Right::new("discovery.k8s.io", &["endpointslices"], &["list", "watch"])
        .because("The other pods of the Service.")];

/// Metrics of the peers. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct PeerMetrics {
    peers: Family<[(&'static str, &'static str); 1], Gauge>,
}

impl PeerMetrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let all = Self::default();
        let help = "Pods of the Service by what their endpoint says; one pod can be in several states";
        registry.register("peers", help, all.peers.clone());
        all
    }

    fn set(&self, peers: &Peers) {
        let set = |state, is_so: fn(&ServicePod) -> bool| {
            let count = peers.values().filter(|peer| is_so(peer)).count();
            self.peers.get_or_create(&[("state", state)]).set(count.try_into().unwrap_or(i64::MAX));
        };
        set("Ready", |peer| peer.ready);
        set("Serving", |peer| peer.serving);
        set("Terminating", |peer| peer.terminating);
    }
}

/// Returns the peers, and the task that follows the EndpointSlices of `service`. While the API server is away
/// the peers stay as they were. Nothing waits for them: a pod that can't see its peers serves all the same.
pub(crate) fn watch_peers(
    cluster: &Cluster,
    service: &str,
    metrics: PeerMetrics,
) -> (watch::Receiver<Arc<Peers>>, impl Future<Output = ()> + use<>) {
    let (sender, receiver) = watch::channel(Arc::default());
    let Cluster { client, namespace } = cluster.clone();
    let slices = Api::<EndpointSlice>::namespaced(client, &namespace);
    let config = watch_config().labels(&format!("{SERVICE_LABEL}={service}"));
    let watch = Watch::new(slices, config, MANIFEST);
    (receiver, follow(watch, sender, metrics))
}

async fn follow(mut watch: Watch<EndpointSlice>, peers: watch::Sender<Arc<Peers>>, metrics: PeerMetrics) {
    let mut pods = ServicePods::default();
    let mut fault = None;
    loop {
        match watch.next().await {
            Observed::Fault(WatchFault { text, .. }) => {
                if fault.as_ref() != Some(&text) {
                    tracing::warn!(fault = text, "the peers can't be seen; those known last are kept");
                }
                fault = Some(text);
                continue;
            }
            Observed::Recovered => {}
            Observed::Change(change) => pods.apply(change),
        }
        if fault.take().is_some() {
            tracing::info!("the peers can be seen again");
        }
        let now = pods.pods();
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
