//! Metrics of presence.

use flutecast_crds::Presence;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::metrics::{CallResult, ResultLabels, closed_set, set, with_all_labels};

closed_set! {
    /// [`Presence`] as a label.
    enum PresenceLabel {
        Online,
        Silent,
        Unknown,
    }
}

impl From<Presence> for PresenceLabel {
    fn from(presence: Presence) -> Self {
        match presence {
            Presence::Online => Self::Online,
            Presence::Silent => Self::Silent,
            Presence::Unknown => Self::Unknown,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DeviceLabels {
    presence: PresenceLabel,
}

#[derive(Debug, Default)]
pub(crate) struct PresenceMetrics {
    devices: Family<DeviceLabels, Gauge>,
    lookups: Family<ResultLabels, Counter>,
    subjects: Counter,
    subscriptions: Gauge,
}

impl PresenceMetrics {
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register(
            "devices",
            "Devices with a staleAfter, by presence; only where the operator works",
            with_all_labels(&self.devices, |presence| DeviceLabels { presence }),
        );
        registry.register(
            "presence_lookups",
            "Requests for last messages, by how they ended",
            with_all_labels(&self.lookups, |result| ResultLabels { result }),
        );
        registry.register(
            "presence_subjects",
            "Subjects whose last message was asked for",
            self.subjects.clone(),
        );
        registry.register(
            "presence_subscriptions",
            "Subjects of silent devices that are listened to",
            self.subscriptions.clone(),
        );
    }

    pub(super) fn set_devices(&self, counts: &[(Presence, usize)]) {
        for (presence, count) in counts {
            set(&self.devices.get_or_create(&DeviceLabels { presence: (*presence).into() }), *count);
        }
    }

    pub(super) fn set_subscriptions(&self, count: usize) {
        set(&self.subscriptions, count);
    }

    pub(super) fn count_lookup(&self, result: CallResult, subjects: usize) {
        self.lookups.get_or_create(&ResultLabels { result }).inc();
        self.subjects.inc_by(subjects as u64);
    }
}
