//! Metrics of the splitter.

use prometheus_client::encoding::EncodeLabelValue;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::items::Skipped;

/// A step at which the broker may fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(super) enum SplitStep {
    Connect,
    Bind,
    Info,
    Pull,
    LookUp,
    Store,
    Acknowledge,
}

impl SplitStep {
    const ALL: [Self; 7] =
        [Self::Connect, Self::Bind, Self::Info, Self::Pull, Self::LookUp, Self::Store, Self::Acknowledge];
}

#[derive(Debug, Clone, Default)]
pub(super) struct SplitterMetrics {
    pub(super) messages: Counter,
    pub(super) stored: Counter,
    pub(super) duplicates: Counter,
    skipped: Family<[(&'static str, Skipped); 1], Counter>,
    errors: Family<[(&'static str, SplitStep); 1], Counter>,
}

impl SplitterMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let all = Self::default();
        let Self { messages, stored, duplicates, skipped, errors } = all.clone();
        registry.register("split_messages", "Messages of payload sources that were split", messages);
        registry.register("split_items_stored", "Items that were stored for their device", stored);
        registry.register("split_items_duplicate", "Items that had been stored before", duplicates);
        registry.register("split_skipped", "Messages and items that were skipped, by reason", skipped);
        registry.register("split_errors", "Errors of the broker while splitting, by step", errors);
        // Every label value is present from the start, at zero.
        for reason in Skipped::ALL {
            drop(all.skipped.get_or_create(&[("reason", reason)]));
        }
        for at in SplitStep::ALL {
            drop(all.errors.get_or_create(&[("at", at)]));
        }
        all
    }

    pub(super) fn skipped(&self, reason: Skipped) {
        self.skipped.get_or_create(&[("reason", reason)]).inc();
    }

    pub(super) fn error(&self, at: SplitStep) {
        self.errors.get_or_create(&[("at", at)]).inc();
    }
}
