//! The metrics of the fan-out. Labels come from closed sets.

use flutecast_format::program::DropReason;
use flutecast_nats::RequestError;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::pipeline::{Formatted, GapReason, Verdict};

/// The drop reason of a message that no stream has republished, or that can't be parsed.
const NOT_REPUBLISHED: &str = "NotRepublished";
/// The outcome of a read that succeeded.
pub(super) const DONE: &str = "Done";
/// The outcome of a replay of everything that was missed.
pub(super) const COMPLETE: &str = "Complete";

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ReasonLabel {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct OutcomeLabel {
    outcome: &'static str,
}

/// What is read from a stream with one request, beside descriptions of the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StreamRead {
    /// The newest messages of many channels.
    Last,
    /// A part of the tail of one channel.
    Tail,
    /// What was missed of one channel.
    Missed,
    /// Kept last values.
    Kept,
}

impl StreamRead {
    const ALL: [Self; 4] = [Self::Last, Self::Tail, Self::Missed, Self::Kept];

    fn as_str(self) -> &'static str {
        match self {
            Self::Last => "Last",
            Self::Tail => "Tail",
            Self::Missed => "Missed",
            Self::Kept => "Kept",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct KindLabel {
    kind: &'static str,
}

/// The metrics of all hubs. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct FanoutMetrics {
    formatted: Counter,
    skipped_fields: Counter,
    late: Counter,
    pub(crate) frames: Counter,
    pub(crate) overflowed: Counter,
    pub(crate) missed_latest: Counter,
    pub(crate) missed_every: Counter,
    pub(crate) slow_clients: Counter,
    pub(crate) clients: Gauge,
    pub(crate) channels: Gauge,
    pub(crate) hubs: Gauge,
    dropped: Family<ReasonLabel, Counter>,
    gaps: Family<ReasonLabel, Counter>,
    reads: Family<OutcomeLabel, Counter>,
    replays: Family<OutcomeLabel, Counter>,
    stream_reads: Family<KindLabel, Counter>,
}

impl FanoutMetrics {
    /// Creates the metrics and adds them to `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let m = &metrics;
        for (name, help, counter) in [
            ("messages_formatted", "Messages that became frames", &m.formatted),
            (
                "fields_skipped",
                "Fields that are null in a frame, since they could not be read or computed",
                &m.skipped_fields,
            ),
            ("events_late", "Events of Every channels that were marked as late", &m.late),
            ("frames_sent", "Frames that were put into the backlogs of clients", &m.frames),
            ("frames_overflowed", "Every events that a slow client lost", &m.overflowed),
            (
                "messages_missed_latest",
                "Times that messages of Latest channels did not come live",
                &m.missed_latest,
            ),
            (
                "messages_missed_every",
                "Times that messages of Every channels did not come live and were read back",
                &m.missed_every,
            ),
            ("slow_clients_closed", "Clients that took nothing and were closed", &m.slow_clients),
        ] {
            registry.register(name, help, counter.clone());
        }
        for (name, help, gauge) in [
            ("clients", "Clients that are connected", &m.clients),
            ("channels_watched", "Channels that are subscribed to on the broker", &m.channels),
            ("hubs", "Tenants that somebody watches", &m.hubs),
        ] {
            registry.register(name, help, gauge.clone());
        }
        registry.register("messages_dropped", "Messages that reach no client, by reason", m.dropped.clone());
        registry.register("gaps", "Gaps that were announced to clients, by reason", m.gaps.clone());
        registry.register("reads", "Reads from streams, by outcome", m.reads.clone());
        registry.register("replays", "Replays for resuming clients, by outcome", m.replays.clone());
        registry.register(
            "stream_reads",
            "Direct gets from streams, by what they are for",
            m.stream_reads.clone(),
        );
        metrics.show_zeros();
        metrics
    }

    /// Creates the series of every label value, so that each is visible with 0 from the start.
    fn show_zeros(&self) {
        let reason = |family: &Family<ReasonLabel, Counter>, reason| {
            drop(family.get_or_create(&ReasonLabel { reason }));
        };
        let outcome = |family: &Family<OutcomeLabel, Counter>, outcome| {
            drop(family.get_or_create(&OutcomeLabel { outcome }));
        };
        DropReason::ALL.iter().for_each(|dropped| reason(&self.dropped, dropped.as_str()));
        reason(&self.dropped, NOT_REPUBLISHED);
        for gap in GapReason::ALL {
            reason(&self.gaps, gap.as_str());
            outcome(&self.replays, gap.as_str());
        }
        outcome(&self.replays, COMPLETE);
        outcome(&self.reads, DONE);
        for read in StreamRead::ALL {
            drop(self.stream_reads.get_or_create(&KindLabel { kind: read.as_str() }));
        }
        RequestError::LABELS.iter().for_each(|error| outcome(&self.reads, error));
    }

    /// Counts a message that became a frame, or was dropped.
    pub(crate) fn verdict(&self, verdict: &Verdict) {
        match verdict {
            Verdict::Shown(Formatted { skipped_fields, late, .. }) => {
                self.formatted.inc();
                self.late.inc_by(u64::from(*late));
                if *skipped_fields > 0 {
                    self.skipped_fields.inc_by(u64::from(*skipped_fields));
                }
            }
            Verdict::Dropped(reason) => {
                self.dropped.get_or_create(&ReasonLabel { reason: reason.as_str() }).inc();
            }
            Verdict::NeedsTail => {}
        }
    }

    /// Counts one request to a stream.
    pub(super) fn stream_read(&self, read: StreamRead) {
        self.stream_reads.get_or_create(&KindLabel { kind: read.as_str() }).inc();
    }

    pub(crate) fn not_republished(&self) {
        self.dropped.get_or_create(&ReasonLabel { reason: NOT_REPUBLISHED }).inc();
    }

    /// Counts a gap, once for each of its clients.
    pub(crate) fn gaps(&self, reason: GapReason, clients: usize) {
        self.gaps.get_or_create(&ReasonLabel { reason: reason.as_str() }).inc_by(clients as u64);
    }

    pub(crate) fn read(&self, outcome: &'static str) {
        self.reads.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    pub(crate) fn replayed(&self, outcome: &'static str) {
        self.replays.get_or_create(&OutcomeLabel { outcome }).inc();
    }
}
