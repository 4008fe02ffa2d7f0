//! A gauge that is computed when it is scraped.

use std::fmt;
use std::sync::{Arc, OnceLock};

use prometheus_client::encoding::{EncodeMetric, MetricEncoder};
use prometheus_client::metrics::{MetricType, TypedMetric};

/// The length of a queue, which clones share; 0 until [`Self::observe`] is called.
#[derive(Clone, Default)]
pub(crate) struct QueueLength(Arc<OnceLock<Box<dyn Fn() -> usize + Send + Sync>>>);

impl QueueLength {
    /// Sets where the length comes from. Only the first call has an effect.
    pub(crate) fn observe(&self, length: impl Fn() -> usize + Send + Sync + 'static) {
        let _only_the_first = self.0.set(Box::new(length));
    }

    fn get(&self) -> usize {
        self.0.get().map_or(0, |length| length())
    }
}

impl fmt::Debug for QueueLength {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("QueueLength").field(&self.get()).finish()
    }
}

impl EncodeMetric for QueueLength {
    fn encode(&self, mut encoder: MetricEncoder) -> fmt::Result {
        encoder.encode_gauge(&i64::try_from(self.get()).unwrap_or(i64::MAX))
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

impl TypedMetric for QueueLength {
    const TYPE: MetricType = MetricType::Gauge;
}
