//! The broker's clock, which gives messages their times and judges them.
//!
//! A pod can't ask for the time whenever it needs it. Each description of a stream tells it the broker's
//! time, at some moment between question and answer. From then on the monotonic clock counts, which nobody
//! sets.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use flutecast_format::program::Timestamp;
use flutecast_nats::stream::StreamState;
use flutecast_nats::{RequestError, StreamReader};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::time::Instant;

use crate::pipeline::Now;

/// For how long a measurement counts although later ones are less exact. Clocks of machines drift apart by
/// some milliseconds in this time.
const RECENT: Duration = Duration::from_secs(120);
/// A warning is logged when the clocks differ by more than this.
const WARN_BEYOND_MICROS: i64 = 2_000_000;
/// It ends when they differ by less than this.
const END_WITHIN_MICROS: i64 = 1_500_000;

/// The broker's clock as this pod knows it. Before the first measurement the pod's own clock counts. Cheap to
/// clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct BrokerClock {
    measured: Arc<Mutex<Measured>>,
    offset_seconds: Gauge<f64, AtomicU64>,
}

/// One measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Offset {
    /// The broker's time less the pod's.
    micros: i64,
    /// The broker's time at `measured_at`.
    broker: Timestamp,
    /// By how much it may be wrong: half of the time that the answer took.
    error_micros: i64,
    measured_at: Instant,
}

#[derive(Debug, Default)]
struct Measured {
    best: Option<Offset>,
    /// When it was said that the clocks differ by too much, while they do.
    warned_at: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Warning {
    Begins,
    Ends,
}

impl BrokerClock {
    /// Creates the clock and adds its metric to `registry`.
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let clock = Self::default();
        let help = "The broker's clock less this pod's, as measured last";
        registry.register("broker_clock_offset_seconds", help, clock.offset_seconds.clone());
        clock
    }

    /// Returns the current time.
    pub(crate) fn now(&self) -> Now {
        let now = Now::of_pod();
        let Some(best) = self.locked().best else { return now };
        let since = now.instant.saturating_duration_since(best.measured_at);
        let since = i64::try_from(since.as_micros()).unwrap_or(i64::MAX);
        Now { wall: Timestamp(best.broker.0.saturating_add(since)), ..now }
    }

    /// Returns the state of a stream, and measures the clock by the answer.
    ///
    /// # Errors
    /// As [`StreamReader::state`].
    pub(crate) async fn state(&self, reader: &StreamReader) -> Result<StreamState, RequestError> {
        let asked = Now::of_pod();
        let state = reader.state().await?;
        self.measure(Offset::between(asked, state.time.into(), Now::of_pod()));
        Ok(state)
    }

    /// Returns whether the clock was measured a short while ago.
    pub(crate) fn is_recent(&self) -> bool {
        self.locked().best.is_some_and(|best| best.measured_at.elapsed() < RECENT)
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, Measured> {
        // A measurement is never left half changed.
        self.measured.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn measure(&self, offset: Offset) {
        let (warning, micros) = {
            let mut measured = self.locked();
            (measured.add(offset), measured.best.map_or(0, |best| best.micros))
        };
        let seconds = Duration::from_micros(micros.unsigned_abs()).as_secs_f64();
        let seconds = if micros < 0 { -seconds } else { seconds };
        self.offset_seconds.set(seconds);
        match warning {
            Some(Warning::Begins) => tracing::warn!(
                offset_seconds = seconds,
                "this pod's clock and the broker's differ; the broker's counts, but one of both isn't right"
            ),
            Some(Warning::Ends) => tracing::info!(offset_seconds = seconds, "the clocks agree again"),
            None => {}
        }
    }
}

impl Offset {
    /// Returns the offset by a question asked and answered at these times of the pod.
    fn between(asked: Now, broker: Timestamp, answered: Now) -> Self {
        let took = answered.instant.saturating_duration_since(asked.instant);
        let error_micros = i64::try_from(took.as_micros() / 2).unwrap_or(i64::MAX);
        let broker = Timestamp(broker.0.saturating_add(error_micros));
        // Only one of the pod's times is taken: its clock may be set meanwhile.
        let micros = broker.0.saturating_sub(answered.wall.0);
        Self { micros, broker, error_micros, measured_at: answered.instant }
    }

    /// Returns whether both can't be right of one offset: one of the clocks was set in between.
    fn contradicts(self, other: Self) -> bool {
        self.micros.abs_diff(other.micros)
            > self.error_micros.unsigned_abs().saturating_add(other.error_micros.unsigned_abs())
    }
}

impl Measured {
    /// Adds a measurement: it counts if it is the most exact recent one, or if a clock was set.
    fn add(&mut self, new: Offset) -> Option<Warning> {
        let replaces = self.best.is_none_or(|best| {
            new.error_micros <= best.error_micros
                || best.measured_at + RECENT <= new.measured_at
                || new.contradicts(best)
        });
        if replaces {
            self.best = Some(new);
        }
        let Offset { micros, error_micros, .. } = self.best?;
        let differ = micros.saturating_abs().saturating_sub(error_micros) > WARN_BEYOND_MICROS;
        match self.warned_at {
            None if differ => {
                self.warned_at = Some(new.measured_at);
                Some(Warning::Begins)
            }
            // Not sooner: streams may have leaders whose clocks differ from each other.
            Some(at) if micros.saturating_abs() < END_WITHIN_MICROS && at + RECENT <= new.measured_at => {
                self.warned_at = None;
                Some(Warning::Ends)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offset(micros: i64, error_micros: i64, measured_at: Instant) -> Offset {
        Offset { micros, broker: Timestamp(micros), error_micros, measured_at }
    }

    #[test]
    fn an_offset_is_measured_in_the_middle_of_a_request() {
        let asked = Now { instant: Instant::now(), wall: Timestamp(1_000_000) };
        let took = Duration::from_millis(200);
        let answered = Now { instant: asked.instant + took, wall: Timestamp(1_200_000) };
        let measured = Offset::between(asked, Timestamp(4_100_000), answered);
        let broker = Timestamp(4_200_000);
        assert_eq!(measured, Offset { broker, ..offset(3_000_000, 100_000, answered.instant) });
    }

    #[test]
    fn the_most_exact_recent_measurement_counts_unless_a_clock_was_set() {
        let (start, mut measured) = (Instant::now(), Measured::default());
        let second = Duration::from_secs(1);
        let mut best_after = |new| {
            measured.add(new);
            measured.best.unwrap()
        };
        let exact = offset(1_000, 100, start);
        assert_eq!(best_after(exact), exact);
        assert_eq!(best_after(offset(5_000, 9_000, start + second)), exact, "less exact");
        let set = offset(80_000, 9_000, start + second);
        assert_eq!(best_after(set), set, "a clock was set");
        let exact = offset(79_000, 100, start + second * 2);
        assert_eq!(best_after(exact), exact);
        let later = offset(80_000, 9_000, start + second * 2 + RECENT);
        assert_eq!(best_after(later), later, "the exact one is too long ago");
    }

    #[test]
    fn a_warning_begins_beyond_two_seconds_and_ends_once() {
        let (start, mut measured) = (Instant::now(), Measured::default());
        let mut add = |micros, at| measured.add(offset(micros, 0, at));
        assert_eq!(add(1_900_000, start), None);
        assert_eq!(add(-2_100_000, start), Some(Warning::Begins));
        assert_eq!(add(-2_200_000, start), None);
        assert_eq!(add(-1_900_000, start), None);
        assert_eq!(add(0, start + RECENT), Some(Warning::Ends));
        assert_eq!(add(0, start + RECENT), None);
    }

    #[test]
    fn leaders_whose_clocks_differ_are_few_lines() {
        let (start, mut measured) = (Instant::now(), Measured::default());
        let measurements = (0..600_u32).map(|n| (n, start + Duration::from_secs(u64::from(n))));
        let lines = measurements
            .filter_map(|(n, at)| measured.add(offset(if n % 2 == 0 { 0 } else { 3_000_000 }, 0, at)));
        assert!(lines.count() <= 10, "in ten minutes");
    }

    #[test]
    fn without_a_measurement_the_pods_own_clock_counts() {
        let clock = BrokerClock::default();
        let pod = Now::of_pod();
        let difference = clock.now().wall.0 - pod.wall.0;
        assert!((0..1_000_000).contains(&difference), "{difference}");
        clock.measure(offset(3_600_000_000, 0, pod.instant));
        // Whatever the pod's own clock says from now on.
        let since = clock.now().wall.0 - 3_600_000_000;
        assert!((0..1_000_000).contains(&since), "{since}");
        assert!((clock.offset_seconds.get() - 3_600.0).abs() < 1e-6);
    }
}
