//! What the fan-out counts.

use prometheus_client::registry::Registry;

/// The counters of all hubs.
#[derive(Debug, Clone, Default)]
pub struct FanoutMetrics {}

impl FanoutMetrics {
    /// Makes them known to `registry`.
    #[must_use]
    pub fn register(_registry: &mut Registry) -> Self {
        Self::default()
    }
}
