//! Counters of the messages.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counters that all senders share.
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
    /// A message was handed to the NATS connection.
    pub(crate) fn sent_by_nats(&self) {
        self.0.nats.fetch_add(1, Ordering::Relaxed);
    }

    /// A message was handed to an MQTT connection.
    pub(crate) fn sent_by_mqtt(&self) {
        self.0.mqtt.fetch_add(1, Ordering::Relaxed);
    }

    /// The broker has confirmed an event.
    pub(crate) fn acknowledged(&self) {
        self.0.acknowledged.fetch_add(1, Ordering::Relaxed);
    }

    /// An event is sent once more.
    pub(crate) fn retried(&self) {
        self.0.retries.fetch_add(1, Ordering::Relaxed);
    }

    /// Telemetry was dropped, since the broker is away or slow.
    pub(crate) fn unsent(&self) {
        self.0.unsent.fetch_add(1, Ordering::Relaxed);
    }

    /// Events were given up.
    pub(crate) fn lost(&self, count: u64) {
        self.0.lost.fetch_add(count, Ordering::Relaxed);
    }

    /// The counts now.
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

/// The counts at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TallySnapshot {
    /// Messages sent over NATS, without repeats.
    pub nats: u64,
    /// Messages sent over MQTT.
    pub mqtt: u64,
    /// Events that the broker has confirmed.
    pub acknowledged: u64,
    /// Number of times that an event was sent once more.
    pub retries: u64,
    /// Telemetry that was dropped, since the broker was away or slow.
    pub unsent: u64,
    /// Events that were given up.
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
