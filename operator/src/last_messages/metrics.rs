//! Metrics of the pass over last messages.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use crate::metrics::{CallResult, ResultLabels, with_all_labels};

#[derive(Debug, Default)]
pub(crate) struct LookMetrics {
    looks: Family<ResultLabels, Counter>,
    seconds: Counter<f64, AtomicU64>,
    kept: Family<ResultLabels, Counter>,
    purges: Family<ResultLabels, Counter>,
}

impl LookMetrics {
    pub(crate) fn register(&self, registry: &mut Registry) {
        let by_result = |family| with_all_labels(family, |result| ResultLabels { result });
        registry.register(
            "looks",
            "Looks at the last messages of a tenant's channels, by how they ended",
            by_result(&self.looks),
        );
        registry.register("look_seconds", "Time that these looks took together", self.seconds.clone());
        registry.register(
            "kept_values",
            "Last values that were copied because their messages expire",
            by_result(&self.kept),
        );
        registry.register(
            "kept_value_purges",
            "Removals of kept values of what is gone, or of another stream",
            by_result(&self.purges),
        );
    }

    pub(super) fn count_look(&self, result: CallResult, took: Duration) {
        self.looks.get_or_create(&ResultLabels { result }).inc();
        self.seconds.inc_by(took.as_secs_f64());
    }

    /// Returns the number of good looks.
    #[cfg(test)]
    pub(super) fn looks(&self) -> u64 {
        self.looks.get_or_create(&ResultLabels { result: CallResult::Done }).get()
    }

    /// Returns the number of copies that failed.
    #[cfg(test)]
    pub(super) fn kept_failures(&self) -> u64 {
        self.kept.get_or_create(&ResultLabels { result: CallResult::Failed }).get()
    }

    pub(super) fn count_kept(&self, result: CallResult) {
        self.kept.get_or_create(&ResultLabels { result }).inc();
    }

    pub(super) fn count_purge(&self, result: CallResult) {
        self.purges.get_or_create(&ResultLabels { result }).inc();
    }
}
