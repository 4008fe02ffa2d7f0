//! Counts published messages.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counters shared by all senders.
#[derive(Debug, Clone, Default)]
pub struct Tally(Arc<Cells>);

#[derive(Debug, Default)]
struct Cells {
    nats: AtomicU64,
    mqtt: AtomicU64,
    acknowledged: AtomicU64,
    retries: AtomicU64,
    unsent: AtomicU64,
    lost: AtomicU64,
}

impl Tally {
    /// Counts a message that was handed to the NATS connection.
    pub(crate) fn sent_by_nats(&self) {
        self.0.nats.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a message that was handed to an MQTT connection.
    pub(crate) fn sent_by_mqtt(&self) {
        self.0.mqtt.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an event that the broker acknowledged.
    pub(crate) fn acknowledged(&self) {
        self.0.acknowledged.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a repeated attempt to send an event.
    pub(crate) fn retried(&self) {
        self.0.retries.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a telemetry message that was dropped because the broker is unavailable or slow.
    pub(crate) fn unsent(&self) {
        self.0.unsent.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts events that were discarded.
    pub(crate) fn lost(&self, count: u64) {
        self.0.lost.fetch_add(count, Ordering::Relaxed);
    }

    /// Returns the current counts.
    #[must_use]
    pub fn snapshot(&self) -> TallySnapshot {
        let read = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
        let Cells { nats, mqtt, acknowledged, retries, unsent, lost } = &*self.0;
        TallySnapshot {
            nats: read(nats),
            mqtt: read(mqtt),
            acknowledged: read(acknowledged),
            retries: read(retries),
            unsent: read(unsent),
            lost: read(lost),
        }
    }
}

/// The counts at one point in time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TallySnapshot {
    /// Number of messages sent over NATS, without repeats.
    pub nats: u64,
    /// Number of messages sent over MQTT.
    pub mqtt: u64,
    /// Number of events that the broker acknowledged.
    pub acknowledged: u64,
    /// Number of repeated attempts to send an event.
    pub retries: u64,
    /// Number of telemetry messages that were dropped because the broker was unavailable or slow.
    pub unsent: u64,
    /// Number of events that were discarded.
    pub lost: u64,
}

impl fmt::Display for TallySnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { nats, mqtt, acknowledged, retries, unsent, lost } = self;
        write!(
            f,
            "sent {nats} by NATS and {mqtt} by MQTT, {acknowledged} acknowledged, {retries} retries, \
             {unsent} unsent, {lost} lost"
        )
    }
}
