//! What the operator counts about itself, and whether it is ready. Labels have closed sets of values.

use std::sync::atomic::{AtomicBool, Ordering};

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use flutecast_crds::Presence;

use crate::enrolment::answer::Reason;
use crate::verdict::{Kind, Outcome, Verdicts};

/// How something ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Ending {
    /// Well.
    Done,
    /// Badly; it is tried again.
    Failed,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EndingLabel {
    result: Ending,
}

/// What is written to the API server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum ApiWrite {
    /// The status of an object.
    Status,
    /// A ConfigMap of the mapping.
    Mapping,
    /// The Secret with the access document.
    Access,
    /// An Event.
    Event,
    /// The Lease of the leader.
    Lease,
    /// The finalizer of what is in use.
    Finalizer,
    /// A Device that enrolled.
    Device,
}

/// What became of a device's request for its topics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Enrolled {
    /// It was told its topics.
    Answered,
    /// A Device was created for it, and it was told its topics.
    Created,
    /// The request or the code can't be understood.
    Invalid,
    /// No Device has the code, and none is created.
    Unknown,
    /// The code isn't one for which a Device is created.
    NotAllowed,
    /// The Device is refused.
    NotReady,
    /// The Device was created and isn't in force yet.
    Pending,
    /// There is no room for more devices.
    QuotaExceeded,
    /// It was told that the tenant's devices ask too often.
    RateLimited,
    /// A Device should be created and can't be.
    Unavailable,
    /// It was not even told that.
    Dropped,
}

impl From<Reason> for Enrolled {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::InvalidRequest | Reason::InvalidCode => Self::Invalid,
            Reason::UnknownDevice => Self::Unknown,
            Reason::CodeNotAllowed => Self::NotAllowed,
            Reason::NotReady => Self::NotReady,
            Reason::Pending => Self::Pending,
            Reason::QuotaExceeded => Self::QuotaExceeded,
            Reason::RateLimited => Self::RateLimited,
            Reason::Unavailable => Self::Unavailable,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EnrolledLabel {
    result: Enrolled,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WriteLabels {
    what: ApiWrite,
    result: Ending,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VerdictLabels {
    kind: String,
    verdict: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PresenceLabel {
    presence: &'static str,
}

/// How it stands with a ready pod of the data plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
enum PodState {
    Confirmed,
    Lagging,
    Silent,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PodLabel {
    state: PodState,
}

/// How many ready pods of the data plane there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PodCounts {
    /// That serve the mapping as it is.
    pub confirmed: usize,
    /// That serve an older one, or not all tenants.
    pub lagging: usize,
    /// That were not heard of lately.
    pub silent: usize,
}

/// The version of this program: the workspace's, unless it was built as another one (`FLUTECAST_VERSION`, see `make images`).
pub const VERSION: &str = match option_env!("FLUTECAST_VERSION") {
    Some(version) => version,
    None => env!("CARGO_PKG_VERSION"),
};

/// The operator's metrics.
#[derive(Debug, Default)]
pub struct Metrics {
    reconciles: Family<EndingLabel, Counter>,
    stream_passes: Family<EndingLabel, Counter>,
    stream_changes: Counter,
    mapping_writes: Counter,
    objects: Family<VerdictLabels, Gauge>,
    nats_connected: Gauge,
    api_writes: Family<WriteLabels, Counter>,
    statuses_waiting: Gauge,
    leading: Gauge,
    presence: Family<PresenceLabel, Gauge>,
    presence_lookups: Family<EndingLabel, Counter>,
    presence_subjects: Counter,
    presence_subscriptions: Gauge,
    pods: Family<PodLabel, Gauge>,
    devices_not_served: Gauge,
    enrolment_requests: Family<EnrolledLabel, Counter>,
    mapping_is_written: AtomicBool,
    streams_were_applied: AtomicBool,
    stands_by: AtomicBool,
}

impl Metrics {
    /// Counts a reconcile, and the mapping files that it changed.
    pub fn reconciled(&self, result: Ending, files: usize) {
        self.reconciles.get_or_create(&EndingLabel { result }).inc();
        self.mapping_writes.inc_by(files as u64);
        self.mapping_is_written.store(result == Ending::Done, Ordering::Relaxed);
    }

    /// Counts a comparison of all streams, and the calls that changed something.
    pub fn streams_compared(&self, result: Ending, changes: u32) {
        self.stream_passes.get_or_create(&EndingLabel { result }).inc();
        self.stream_changes.inc_by(u64::from(changes));
        if result == Ending::Done {
            self.streams_were_applied.store(true, Ordering::Relaxed);
        }
    }

    /// Counts a write to the API server.
    pub fn api_write(&self, what: ApiWrite, result: Ending) {
        self.api_writes.get_or_create(&WriteLabels { what, result }).inc();
    }

    /// Counts a request of a device for its topics.
    pub fn enrolled(&self, result: Enrolled) {
        self.enrolment_requests.get_or_create(&EnrolledLabel { result }).inc();
    }

    /// Notes how many statuses wait to be written.
    pub fn statuses_waiting(&self, count: usize) {
        self.statuses_waiting.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Notes whether this operator knows everything and waits for its turn.
    pub fn stands_by(&self, stands_by: bool) {
        self.stands_by.store(stands_by, Ordering::Relaxed);
    }

    /// Notes whether this operator is the one that works.
    pub fn leading(&self, leading: bool) {
        self.leading.set(i64::from(leading));
    }

    /// Notes how many devices are Online, Silent and Unknown, and how many subjects of silent ones are listened to.
    pub fn presence(&self, counts: &[(Presence, usize)], subscriptions: usize) {
        for (presence, count) in counts {
            let presence = match presence {
                Presence::Online => "Online",
                Presence::Silent => "Silent",
                Presence::Unknown => "Unknown",
            };
            let gauge = self.presence.get_or_create(&PresenceLabel { presence });
            gauge.set(i64::try_from(*count).unwrap_or(i64::MAX));
        }
        self.presence_subscriptions.set(i64::try_from(subscriptions).unwrap_or(i64::MAX));
    }

    /// Counts a lookup of last messages, and the subjects that it asked for.
    pub fn looked_up(&self, result: Ending, subjects: usize) {
        self.presence_lookups.get_or_create(&EndingLabel { result }).inc();
        self.presence_subjects.inc_by(subjects as u64);
    }

    /// Notes how it stands with the data plane's ready pods, and how many Devices wait for them.
    pub fn pods(&self, counts: &PodCounts, devices: usize) {
        let PodCounts { confirmed, lagging, silent } = *counts;
        let states =
            [(PodState::Confirmed, confirmed), (PodState::Lagging, lagging), (PodState::Silent, silent)];
        for (state, count) in states {
            self.pods.get_or_create(&PodLabel { state }).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        self.devices_not_served.set(i64::try_from(devices).unwrap_or(i64::MAX));
    }

    /// Notes whether NATS is connected.
    pub fn nats_connected(&self, connected: bool) {
        self.nats_connected.set(i64::from(connected));
    }

    /// Counts the objects by verdict.
    pub fn judged(&self, verdicts: &Verdicts) {
        self.objects.clear();
        for (object, outcome) in verdicts.iter().filter(|(object, _)| object.kind != Kind::File) {
            let labels =
                VerdictLabels { kind: object.kind.to_string(), verdict: Outcome::word(outcome).to_owned() };
            self.objects.get_or_create(&labels).inc();
        }
    }

    /// Whether the operator has done its work: the mapping is written, and streams were applied at least once; or another one does
    /// it, and this one knows enough to take over. That NATS
    /// went away later is a verdict and a metric, but no reason to take the operator for broken.
    ///
    /// # Errors
    /// What is missing.
    pub fn ready(&self) -> Result<(), &'static str> {
        if self.stands_by.load(Ordering::Relaxed) {
            return Ok(());
        }
        if !self.mapping_is_written.load(Ordering::Relaxed) {
            return Err("the mapping is not written");
        }
        if !self.streams_were_applied.load(Ordering::Relaxed) {
            return Err("streams were not applied yet; is NATS there?");
        }
        Ok(())
    }

    /// All metrics in the OpenMetrics text format.
    #[must_use]
    pub fn text(&self) -> String {
        let mut all = Registry::with_prefix("flutecast");
        // As the data plane's is called, so that one query tells which versions run.
        all.register("build", "What runs here", Info::new(vec![("version", VERSION)]));
        let registry = all.sub_registry_with_prefix("operator");
        registry.register("reconciles", "Reconciles, by how they ended", self.reconciles.clone());
        registry.register(
            "stream_passes",
            "Comparisons of all streams, by how they ended",
            self.stream_passes.clone(),
        );
        registry.register(
            "stream_changes",
            "Calls that changed a stream or consumer",
            self.stream_changes.clone(),
        );
        registry.register("mapping_writes", "Mapping files written or removed", self.mapping_writes.clone());
        registry.register("objects", "Objects, by kind and verdict", self.objects.clone());
        registry.register("nats_connected", "1 while NATS is connected", self.nats_connected.clone());
        registry.register(
            "api_writes",
            "Writes to the API server, by what and result",
            self.api_writes.clone(),
        );
        registry.register(
            "statuses_waiting",
            "Statuses that wait to be written",
            self.statuses_waiting.clone(),
        );
        registry.register("leading", "1 while this operator is the one that works", self.leading.clone());
        registry.register(
            "devices",
            "Devices with a staleAfter, by presence; only where the operator works",
            self.presence.clone(),
        );
        registry.register(
            "presence_lookups",
            "Requests for last messages, by how they ended",
            self.presence_lookups.clone(),
        );
        registry.register(
            "presence_subjects",
            "Subjects whose last message was asked for",
            self.presence_subjects.clone(),
        );
        registry.register(
            "presence_subscriptions",
            "Subjects of silent devices that are listened to",
            self.presence_subscriptions.clone(),
        );
        registry.register(
            "pods",
            "Ready pods of the data plane, by whether they serve the mapping as it is",
            self.pods.clone(),
        );
        registry.register(
            "devices_not_served",
            "Devices that wait for a pod to serve them",
            self.devices_not_served.clone(),
        );
        registry.register(
            "enrolment_requests",
            "Requests of devices for their topics, by what became of them",
            self.enrolment_requests.clone(),
        );
        let mut text = String::new();
        // Writing into a String can't fail.
        let _ = text::encode(&mut text, &all);
        text
    }
}
