//! Metrics of the control loop.

use std::sync::atomic::{AtomicBool, Ordering};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::finding::ConditionLabel;
use crate::metrics::{
    CallResult, ClosedSet, QueueLength, ResultLabels, pairs, set, with_all_labels, with_labels,
};
use crate::object::ObjectKind;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReconcileLabels {
    kind: ObjectKind,
    result: ConditionLabel,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ObjectLabels {
    kind: ObjectKind,
    condition: ConditionLabel,
}

#[derive(Debug, Default)]
pub(crate) struct ControllerMetrics {
    passes: Family<ResultLabels, Counter>,
    reconciles: Family<ReconcileLabels, Counter>,
    objects: Family<ObjectLabels, Gauge>,
    pub(crate) changes_waiting: QueueLength,
    pub(crate) statuses_waiting: QueueLength,
    mapping_writes: Counter,
    mapping_is_written: AtomicBool,
    is_standby: AtomicBool,
}

impl ControllerMetrics {
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register(
            "passes",
            "Passes over all that changed: built, and the mapping written",
            with_all_labels(&self.passes, |result| ResultLabels { result }),
        );
        registry.register(
            "reconciles",
            "Objects that were looked at, by what is said of them",
            with_labels(&self.reconciles, pairs().map(|(kind, result)| ReconcileLabels { kind, result })),
        );
        registry.register(
            "objects",
            "Objects, by what their conditions say",
            with_labels(&self.objects, pairs().map(|(kind, condition)| ObjectLabels { kind, condition })),
        );
        registry.register(
            "changes_waiting",
            "Changes on the API server that wait to be looked at",
            self.changes_waiting.clone(),
        );
        registry.register(
            "statuses_waiting",
            "Statuses that wait to be written",
            self.statuses_waiting.clone(),
        );
        registry.register(
            "mapping_writes",
            "Documents of the mapping written or removed",
            self.mapping_writes.clone(),
        );
    }

    /// Counts a pass over all changes, and the documents of the mapping that it wrote.
    pub(crate) fn count_pass(&self, result: CallResult, documents: usize) {
        self.passes.get_or_create(&ResultLabels { result }).inc();
        self.mapping_writes.inc_by(documents as u64);
        self.mapping_is_written.store(result == CallResult::Done, Ordering::Relaxed);
    }

    pub(crate) fn count_reconcile(&self, kind: ObjectKind, result: ConditionLabel) {
        self.reconciles.get_or_create(&ReconcileLabels { kind, result }).inc();
    }

    /// Sets the number of objects of a kind, by their conditions.
    pub(crate) fn set_objects(&self, kind: ObjectKind, conditions: impl Iterator<Item = ConditionLabel>) {
        let mut counts: Vec<_> = ConditionLabel::ALL.iter().map(|condition| (*condition, 0)).collect();
        for condition in conditions {
            counts.iter_mut().filter(|(counted, _)| *counted == condition).for_each(|(_, count)| *count += 1);
        }
        for (condition, count) in counts {
            set(&self.objects.get_or_create(&ObjectLabels { kind, condition }), count);
        }
    }

    /// Sets whether this operator knows all objects and waits for the Lease.
    pub(crate) fn set_standby(&self, is_standby: bool) {
        self.is_standby.store(is_standby, Ordering::Relaxed);
    }

    pub(crate) fn is_standby(&self) -> bool {
        self.is_standby.load(Ordering::Relaxed)
    }

    pub(crate) fn mapping_is_written(&self) -> bool {
        self.mapping_is_written.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;

    use super::*;

    fn text(metrics: &ControllerMetrics) -> String {
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text
    }

    #[test]
    fn queue_lengths_are_read_when_scraped() {
        let metrics = ControllerMetrics::default();
        let length = Arc::new(AtomicUsize::new(3));
        let read = length.clone();
        metrics.changes_waiting.observe(move || read.load(Ordering::Relaxed));
        assert!(text(&metrics).contains("\nchanges_waiting 3\n"), "{}", text(&metrics));
        length.store(7, Ordering::Relaxed);
        assert!(text(&metrics).contains("\nchanges_waiting 7\n"), "{}", text(&metrics));
    }

    #[test]
    fn objects_are_counted_again_each_time() {
        let metrics = ControllerMetrics::default();
        let of = |condition: &str| format!("objects{{kind=\"Device\",condition=\"{condition}\"}}");
        let ready = ConditionLabel::Ready;
        metrics.set_objects(ObjectKind::Device, [ready, ready, ConditionLabel::Stalled].into_iter());
        assert!(text(&metrics).contains(&format!("{} 2\n", of("Ready"))), "{}", text(&metrics));
        metrics.set_objects(ObjectKind::Device, [ready].into_iter());
        for (condition, count) in [("Ready", 1), ("Stalled", 0), ("Reconciling", 0)] {
            assert!(text(&metrics).contains(&format!("{} {count}\n", of(condition))), "{}", text(&metrics));
        }
    }
}
