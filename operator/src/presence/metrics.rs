//! Metrics of presence.

use flutecast_crds::Presence;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::Understood;
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

closed_set! {
    /// [`Understood`] as a label.
    enum UnderstoodLabel {
        True,
        False,
        Unknown,
    }
}

impl From<Understood> for UnderstoodLabel {
    fn from(status: Understood) -> Self {
        match status {
            Understood::True => Self::True,
            Understood::False => Self::False,
            Understood::Unknown => Self::Unknown,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DeviceLabels {
    presence: PresenceLabel,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct UnderstoodLabels {
    status: UnderstoodLabel,
}

#[derive(Debug, Default)]
pub(crate) struct PresenceMetrics {
    devices: Family<DeviceLabels, Gauge>,
    understood: Family<UnderstoodLabels, Gauge>,
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
            "devices_messages_understood",
            "Devices by whether their newest messages are understood; only where the operator works",
            with_all_labels(&self.understood, |status| UnderstoodLabels { status }),
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

    pub(super) fn set_understood(&self, counts: &[(Understood, usize)]) {
        for (status, count) in counts {
            set(&self.understood.get_or_create(&UnderstoodLabels { status: (*status).into() }), *count);
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
