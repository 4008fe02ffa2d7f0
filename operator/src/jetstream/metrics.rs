//! Metrics of JetStream.

use std::sync::atomic::{AtomicBool, Ordering};

use flutecast_nats::api::{Call, CallObserver, Outcome};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::metrics::{CallResult, ResultLabels, with_all_labels, with_labels};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    kind: &'static str,
    result: &'static str,
}

impl CallLabels {
    fn new(call: Call, outcome: Outcome) -> Self {
        Self { kind: call.label(), result: outcome.label() }
    }
}

#[derive(Debug, Default)]
pub(crate) struct StreamMetrics {
    calls: Family<CallLabels, Counter>,
    connected: Gauge,
    passes: Family<ResultLabels, Counter>,
    changes: Counter,
    were_applied: AtomicBool,
}

impl StreamMetrics {
    pub(crate) fn register(&self, registry: &mut Registry) {
        let all_calls =
            Call::ALL.into_iter().flat_map(|call| Outcome::ALL.map(|outcome| CallLabels::new(call, outcome)));
        registry.register(
            "stream_passes",
            "Comparisons of all streams with what is wanted",
            with_all_labels(&self.passes, |result| ResultLabels { result }),
        );
        registry.register("nats_calls", "Questions to JetStream", with_labels(&self.calls, all_calls));
        registry.register("nats_connected", "1 while NATS is connected", self.connected.clone());
        registry.register("stream_changes", "Calls that changed a stream or consumer", self.changes.clone());
    }

    /// Counts a comparison of all streams, and the calls that changed something.
    pub(crate) fn count_pass(&self, result: CallResult, changes: u32) {
        self.passes.get_or_create(&ResultLabels { result }).inc();
        self.changes.inc_by(u64::from(changes));
        if result == CallResult::Done {
            self.were_applied.store(true, Ordering::Relaxed);
        }
    }

    pub(crate) fn set_connected(&self, connected: bool) {
        self.connected.set(i64::from(connected));
    }

    /// Returns whether the streams were applied at least once.
    pub(crate) fn were_applied(&self) -> bool {
        self.were_applied.load(Ordering::Relaxed)
    }
}

impl CallObserver for StreamMetrics {
    fn observe(&self, call: Call, outcome: Outcome) {
        self.calls.get_or_create(&CallLabels::new(call, outcome)).inc();
    }
}
