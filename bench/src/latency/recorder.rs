//! Collects what receivers saw.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use hdrhistogram::Histogram;

/// The longest time that is recorded as it is, in microseconds: a minute.
const LONGEST_US: u64 = 60_000_000;
/// Receivers share so many histograms, so that they seldom wait for each other.
const SHARDS: usize = 8;

/// The record of all receivers of one kind.
#[derive(Debug, Clone)]
pub(crate) struct Recorder(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    histograms: Vec<Mutex<Histogram<u64>>>,
    received: AtomicU64,
    /// Messages that were sent from here…
    from_us: AtomicU64,
    /// …until here count. Until it is opened, the window is empty.
    to_us: AtomicU64,
}

impl Recorder {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let histogram = || Histogram::new_with_bounds(1, LONGEST_US, 3).map(Mutex::new);
        let histograms: Result<_, _> = (0..SHARDS).map(|_| histogram()).collect();
        let histograms = histograms.context("the histogram's bounds")?;
        let zero = || AtomicU64::new(0);
        Ok(Self(Arc::new(Shared { histograms, received: zero(), from_us: zero(), to_us: zero() })))
    }

    /// From now on, messages that were sent in this time count, in microseconds.
    pub(crate) fn open(&self, window: Range<u64>) {
        self.0.from_us.store(window.start, Ordering::Relaxed);
        self.0.to_us.store(window.end, Ordering::Relaxed);
    }

    /// Notes what a receiver saw at `now_us`: the times at which messages were sent.
    pub(crate) fn note(&self, receiver: usize, now_us: u64, sent_us: &[u64]) {
        let Shared { histograms, received, from_us, to_us } = &*self.0;
        let window = from_us.load(Ordering::Relaxed)..to_us.load(Ordering::Relaxed);
        let mut histogram = histograms[receiver % SHARDS].lock().unwrap_or_else(PoisonError::into_inner);
        let mut counted = 0;
        for sent_us in sent_us.iter().filter(|sent_us| window.contains(sent_us)) {
            histogram.saturating_record(now_us.saturating_sub(*sent_us).max(1));
            counted += 1;
        }
        received.fetch_add(counted, Ordering::Relaxed);
    }

    /// Returns the number of messages of the window that were received.
    pub(crate) fn received(&self) -> u64 {
        self.0.received.load(Ordering::Relaxed)
    }

    /// All histograms as one.
    pub(crate) fn merged(&self) -> anyhow::Result<Histogram<u64>> {
        let mut merged = Histogram::new_with_bounds(1, LONGEST_US, 3).context("the histogram's bounds")?;
        for histogram in &self.0.histograms {
            let histogram = histogram.lock().unwrap_or_else(PoisonError::into_inner);
            merged.add(&*histogram).context("adding histograms")?;
        }
        Ok(merged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_messages_of_the_window_count() {
        let recorder = Recorder::new().unwrap();
        recorder.note(0, 1500, &[1400]);
        recorder.open(1000..2000);
        recorder.note(0, 2500, &[999, 1000, 1999, 2000]);
        recorder.note(9, 1100, &[1050]);
        assert_eq!(recorder.received(), 3);
        let merged = recorder.merged().unwrap();
        assert_eq!((merged.len(), merged.min(), merged.max()), (3, 50, 1500));
    }
}
