//! Metrics of the mapping on an API server.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::api_server::ApiWrites;
use crate::metrics::{closed_set, set, with_all_labels};

closed_set! {
    pub(super) enum RepairedKind {
        ConfigMap,
        Secret,
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RepairLabels {
    kind: RepairedKind,
}

#[derive(Debug, Clone)]
pub(crate) struct MappingMetrics {
    pub(super) writes: ApiWrites,
    repairs: Family<RepairLabels, Counter>,
    repairs_waiting: Gauge,
}

impl MappingMetrics {
    pub(crate) fn new(writes: ApiWrites) -> Self {
        Self { writes, repairs: Family::default(), repairs_waiting: Gauge::default() }
    }

    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register(
            "mapping_repairs",
            "Documents of the mapping put right after somebody else had changed or deleted them",
            with_all_labels(&self.repairs, |kind| RepairLabels { kind }),
        );
        registry.register(
            "mapping_repairs_waiting",
            "Documents of the mapping that are put right later only, since somebody keeps on changing them",
            self.repairs_waiting.clone(),
        );
    }

    pub(super) fn count_repair(&self, kind: RepairedKind) {
        self.repairs.get_or_create(&RepairLabels { kind }).inc();
    }

    pub(super) fn set_repairs_waiting(&self, count: usize) {
        set(&self.repairs_waiting, count);
    }
}
