//! What the operator counts about itself, and whether it is ready.
//!
//! docs/operations.md lists all of it; a test holds the page to what is shown here.

mod labels;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use flutecast_crds::Presence;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

pub use self::labels::{
    ApiWrite, Ending, Enrolled, NatsCall, NatsResult, ObjectKind, Standing, Verb, WrittenKind,
};
use self::labels::{
    Closed, EndingLabel, EnrolledLabel, NatsLabels, ObjectLabels, PodLabel, PodState, PresenceLabel,
    PresenceValue, ReconcileLabels, RepairLabel, WriteLabels,
};

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

/// A queue, whose length is asked for whenever somebody wants to see it.
#[derive(Default)]
struct Queue(OnceLock<Box<dyn Fn() -> usize + Send + Sync>>);

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Queue").field(&self.len()).finish()
    }
}

impl Queue {
    fn len(&self) -> usize {
        self.0.get().map_or(0, |length| length())
    }
}

/// The operator's metrics.
#[derive(Debug, Default)]
pub struct Metrics {
    passes: Family<EndingLabel, Counter>,
    reconciles: Family<ReconcileLabels, Counter>,
    objects: Family<ObjectLabels, Gauge>,
    changes_waiting: Queue,
    statuses_waiting: Queue,
    mapping_writes: Counter,
    repairs: Family<RepairLabel, Counter>,
    repairs_waiting: Gauge,
    api_writes: Family<WriteLabels, Counter>,
    nats_calls: Family<NatsLabels, Counter>,
    nats_connected: Gauge,
    stream_passes: Family<EndingLabel, Counter>,
    stream_changes: Counter,
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
    /// Counts a pass over all that changed, and the documents of the mapping that it wrote.
    pub fn passed(&self, result: Ending, documents: usize) {
        self.passes.get_or_create(&EndingLabel { result }).inc();
        self.mapping_writes.inc_by(documents as u64);
        self.mapping_is_written.store(result == Ending::Done, Ordering::Relaxed);
    }

    /// Counts that an object was looked at, and what came of it.
    pub fn reconciled(&self, kind: ObjectKind, result: Standing) {
        self.reconciles.get_or_create(&ReconcileLabels { kind, result }).inc();
    }

    /// Notes how many objects of a kind there are, by how it stands with them.
    pub fn objects(&self, kind: ObjectKind, standings: impl Iterator<Item = Standing>) {
        let mut counts = Standing::all().into_iter().map(|standing| (standing, 0)).collect::<Vec<_>>();
        for standing in standings {
            counts.iter_mut().filter(|(counted, _)| *counted == standing).for_each(|(_, count)| *count += 1);
        }
        for (condition, count) in counts {
            self.objects.get_or_create(&ObjectLabels { kind, condition }).set(count);
        }
    }

    /// Has the changes shown that wait to be looked at.
    pub fn show_changes_waiting(&self, length: impl Fn() -> usize + Send + Sync + 'static) {
        // There is one operator in a program.
        let _ = self.changes_waiting.0.set(Box::new(length));
    }

    /// Has the statuses shown that wait to be written.
    pub fn show_statuses_waiting(&self, length: impl Fn() -> usize + Send + Sync + 'static) {
        let _ = self.statuses_waiting.0.set(Box::new(length));
    }

    /// Counts that something of the mapping was put right, since somebody else had changed or deleted it.
    pub fn repaired(&self, kind: WrittenKind) {
        self.repairs.get_or_create(&RepairLabel { kind }).inc();
    }

    /// Notes how much of the mapping is put right later only, since somebody keeps on changing it.
    pub fn repairs_waiting(&self, count: usize) {
        self.repairs_waiting.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Counts a write to the API server.
    pub fn api_write(&self, what: ApiWrite, result: Ending) {
        self.api_writes.get_or_create(&what.labels(result)).inc();
    }

    /// Counts a question to JetStream.
    pub fn nats_call(&self, kind: NatsCall, result: NatsResult) {
        self.nats_calls.get_or_create(&NatsLabels { kind, result }).inc();
    }

    /// Counts a comparison of all streams, and the calls that changed something.
    pub fn streams_compared(&self, result: Ending, changes: u32) {
        self.stream_passes.get_or_create(&EndingLabel { result }).inc();
        self.stream_changes.inc_by(u64::from(changes));
        if result == Ending::Done {
            self.streams_were_applied.store(true, Ordering::Relaxed);
        }
    }

    /// Counts a request of a device for its topics.
    pub fn enrolled(&self, result: Enrolled) {
        self.enrolment_requests.get_or_create(&EnrolledLabel { result }).inc();
    }

    /// Notes whether this operator knows everything and waits for its turn.
    pub fn stands_by(&self, stands_by: bool) {
        self.stands_by.store(stands_by, Ordering::Relaxed);
    }

    /// Notes whether this operator is the one that works.
    pub fn leading(&self, leading: bool) {
        self.leading.set(i64::from(leading));
    }

    /// Notes how many devices are Online, Silent and Unknown, and how many subjects of silent ones are
    /// listened to.
    pub fn presence(&self, counts: &[(Presence, usize)], subscriptions: usize) {
        for (presence, count) in counts {
            let gauge = self.presence.get_or_create(&PresenceLabel { presence: (*presence).into() });
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

    /// Whether the operator has done its work: the mapping is written, and streams were applied at least
    /// once; or another one does it, and this one knows enough to take over. That NATS went away later is a
    /// verdict and a metric, but no reason to take the operator for broken.
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
        self.show_zeros();
        let mut all = Registry::with_prefix("flutecast");
        // As the data plane's is called, so that one query tells which versions run.
        all.register("build", "What runs here", Info::new(vec![("version", flutecast_process::VERSION)]));
        let registry = all.sub_registry_with_prefix("operator");
        self.register_work(registry);
        self.register_parts(registry);
        let mut text = String::new();
        // Writing into a String can't fail.
        let _ = text::encode(&mut text, &all);
        text
    }

    fn register_work(&self, registry: &mut Registry) {
        let queue = |queue: &Queue| {
            let gauge = Gauge::<i64>::default();
            gauge.set(i64::try_from(queue.len()).unwrap_or(i64::MAX));
            gauge
        };
        let mut put = |name: &str, help: &str, family: &Family<EndingLabel, Counter>| {
            registry.register(name, help, family.clone());
        };
        put("passes", "Passes over all that changed: built, and the mapping written", &self.passes);
        put("stream_passes", "Comparisons of all streams with what is wanted", &self.stream_passes);
        registry.register(
            "reconciles",
            "Objects that were looked at, by what is said of them",
            self.reconciles.clone(),
        );
        registry.register("objects", "Objects, by what their conditions say", self.objects.clone());
        registry.register(
            "changes_waiting",
            "Changes on the API server that wait to be looked at",
            queue(&self.changes_waiting),
        );
        registry.register(
            "statuses_waiting",
            "Statuses that wait to be written",
            queue(&self.statuses_waiting),
        );
        registry.register(
            "mapping_writes",
            "Documents of the mapping written or removed",
            self.mapping_writes.clone(),
        );
        registry.register(
            "mapping_repairs",
            "Documents of the mapping put right after somebody else had changed or deleted them",
            self.repairs.clone(),
        );
        registry.register(
            "mapping_repairs_waiting",
            "Documents of the mapping that are put right later only, since somebody keeps on changing them",
            self.repairs_waiting.clone(),
        );
        registry.register("api_writes", "Writes to the API server", self.api_writes.clone());
        registry.register("nats_calls", "Questions to JetStream", self.nats_calls.clone());
        registry.register("nats_connected", "1 while NATS is connected", self.nats_connected.clone());
        registry.register(
            "stream_changes",
            "Calls that changed a stream or consumer",
            self.stream_changes.clone(),
        );
        registry.register("leading", "1 while this operator is the one that works", self.leading.clone());
    }

    fn register_parts(&self, registry: &mut Registry) {
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
    }

    /// Shows each value that a label can have, also of what never happened.
    fn show_zeros(&self) {
        fn show<L, M>(family: &Family<L, M>, labels: impl IntoIterator<Item = L>)
        where
            L: Clone + std::hash::Hash + Eq + EncodeLabelSet,
            M: Default,
        {
            labels.into_iter().for_each(|labels| drop(family.get_or_create(&labels)));
        }
        fn pairs<A: Closed + Copy, B: Closed>() -> impl Iterator<Item = (A, B)> {
            A::all().into_iter().flat_map(|one| B::all().into_iter().map(move |other| (one, other)))
        }
        let endings = || Ending::all().into_iter().map(|result| EndingLabel { result });
        show(&self.passes, endings());
        show(&self.stream_passes, endings());
        show(&self.presence_lookups, endings());
        show(&self.reconciles, pairs().map(|(kind, result)| ReconcileLabels { kind, result }));
        show(&self.objects, pairs().map(|(kind, condition)| ObjectLabels { kind, condition }));
        show(&self.nats_calls, pairs().map(|(kind, result)| NatsLabels { kind, result }));
        let writes = ApiWrite::all().into_iter();
        show(
            &self.api_writes,
            writes.flat_map(|what| Ending::all().into_iter().map(move |end| what.labels(end))),
        );
        show(&self.repairs, [WrittenKind::ConfigMap, WrittenKind::Secret].map(|kind| RepairLabel { kind }));
        show(&self.presence, PresenceValue::all().into_iter().map(|presence| PresenceLabel { presence }));
        show(&self.pods, PodState::all().into_iter().map(|state| PodLabel { state }));
        show(&self.enrolment_requests, Enrolled::all().into_iter().map(|result| EnrolledLabel { result }));
    }
}
