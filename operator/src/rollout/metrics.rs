//! Metrics of the rollout.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::metrics::{closed_set, set, with_all_labels};

closed_set! {
    /// The state of a ready data-plane pod.
    enum PodStateLabel {
        /// It serves the current mapping.
        Confirmed,
        /// It serves an older one, or not all tenants.
        Lagging,
        /// It has not announced lately.
        Silent,
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PodLabels {
    state: PodStateLabel,
}

/// The ready data-plane pods by state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct PodCounts {
    pub(crate) confirmed: usize,
    pub(crate) lagging: usize,
    pub(crate) silent: usize,
}

#[derive(Debug, Default)]
pub(crate) struct RolloutMetrics {
    pods: Family<PodLabels, Gauge>,
    devices_not_served: Gauge,
}

impl RolloutMetrics {
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register(
            "pods",
            "Ready pods of the data plane, by whether they serve the mapping as it is",
            with_all_labels(&self.pods, |state| PodLabels { state }),
        );
        registry.register(
            "devices_not_served",
            "Devices that wait for a pod to serve them",
            self.devices_not_served.clone(),
        );
    }

    /// Sets the number of pods by state, and of Devices that wait for them.
    pub(crate) fn set(&self, pods: &PodCounts, devices: usize) {
        let PodCounts { confirmed, lagging, silent } = *pods;
        for (state, count) in [
            (PodStateLabel::Confirmed, confirmed),
            (PodStateLabel::Lagging, lagging),
            (PodStateLabel::Silent, silent),
        ] {
            set(&self.pods.get_or_create(&PodLabels { state }), count);
        }
        set(&self.devices_not_served, devices);
    }
}
