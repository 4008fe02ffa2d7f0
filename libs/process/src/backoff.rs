//! Pauses between attempts.

use std::time::Duration;

use tokio::time::Instant;

/// Pauses that double from `first` to `longest`. Each is shortened by up to a half at random, so that
/// programs that failed together do not come back together.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl Backoff {
    /// Returns a backoff that has seen no failure yet.
    #[must_use]
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, failures: 0 }
    }

    /// Returns the pause after one more failure.
    pub fn next_wait(&mut self) -> Duration {
        let wait = self.wait_after(self.failures);
        self.failures = self.failures.saturating_add(1);
        wait
    }

    /// Returns the pause after `failures` earlier ones, for callers that count themselves.
    #[must_use]
    pub fn wait_after(&self, failures: u32) -> Duration {
        jittered(self.first.saturating_mul(1 << failures.min(16)).min(self.longest))
    }

    /// Starts again with `first`, after a success.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

/// Spaces out repairs of an object that another writer keeps changing: later and later, so that two writers
/// that disagree do not write against each other as fast as they can.
#[derive(Debug)]
pub struct RepairBackoff {
    backoff: Backoff,
    quiet: Duration,
    /// The last repair, and when the next one may come.
    last: Option<(Instant, Instant)>,
}

impl RepairBackoff {
    /// Waits as `backoff` does, and starts it again after `quiet` without a repair.
    #[must_use]
    pub fn new(backoff: Backoff, quiet: Duration) -> Self {
        Self { backoff, quiet, last: None }
    }

    /// Records a repair.
    pub fn repaired(&mut self, now: Instant) {
        if self.last.is_some_and(|(last, _)| now.duration_since(last) >= self.quiet) {
            self.backoff.reset();
        }
        self.last = Some((now, now + self.backoff.next_wait()));
    }

    /// Returns when the next repair may come, or `None` before the first one.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        self.last.map(|(_, due)| due)
    }
}

/// Returns a time between a half of `wait` and all of it.
#[must_use]
pub fn jittered(wait: Duration) -> Duration {
    wait.mul_f64(rand::random_range(0.5..=1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_cap_and_start_again() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        let waits: Vec<Duration> = (0..40).map(|_| backoff.next_wait()).collect();
        assert!(waits[0] <= Duration::from_millis(100) && waits[0] >= Duration::from_millis(50), "{waits:?}");
        assert!(waits[39] <= Duration::from_secs(5) && waits[39] >= Duration::from_millis(2500), "{waits:?}");
        backoff.reset();
        assert!(backoff.next_wait() <= Duration::from_millis(100));
    }

    #[tokio::test(start_paused = true)]
    async fn repairs_come_later_and_later_until_it_is_quiet() {
        let (first, quiet) = (Duration::from_secs(1), Duration::from_secs(60));
        let mut repairs = RepairBackoff::new(Backoff::new(first, Duration::from_secs(30)), quiet);
        assert_eq!(repairs.due(), None);
        let mut now = Instant::now();
        for _ in 0..5 {
            repairs.repaired(now);
            now = repairs.due().unwrap();
        }
        repairs.repaired(now);
        assert!(repairs.due().unwrap() > now + first);
        now += quiet;
        repairs.repaired(now);
        assert!(repairs.due().unwrap() <= now + first);
    }
}
