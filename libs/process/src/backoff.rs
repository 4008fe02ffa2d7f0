//! How long to wait before the next attempt.

use std::time::Duration;

use tokio::time::Instant;

/// Waits that double from `first` to `longest`, each shortened by up to a half at random, so that many who
/// failed together don't come back together.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl Backoff {
    /// Waits of about `first`, later of at most `longest`.
    #[must_use]
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, failures: 0 }
    }

    /// The wait after one more failure.
    pub fn next_wait(&mut self) -> Duration {
        let wait = self.first.saturating_mul(1 << self.failures.min(16)).min(self.longest);
        self.failures = self.failures.saturating_add(1);
        jittered(wait)
    }

    /// It worked: the next failure waits shortly again.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

/// When what somebody else keeps on changing is put right again: later and later, so that two who want
/// different things don't write against each other as fast as they can.
#[derive(Debug)]
pub struct Pace {
    backoff: Backoff,
    quiet: Duration,
    /// When something was put right last, and until when nothing is.
    last: Option<(Instant, Instant)>,
}

impl Pace {
    /// Waits as `backoff` does, and from its beginning again after `quiet` without anything to put right.
    #[must_use]
    pub fn new(backoff: Backoff, quiet: Duration) -> Self {
        Self { backoff, quiet, last: None }
    }

    /// Something that others had changed was put right.
    pub fn repaired(&mut self, now: Instant) {
        if self.last.is_some_and(|(last, _)| now.duration_since(last) >= self.quiet) {
            self.backoff.reset();
        }
        self.last = Some((now, now + self.backoff.next_wait()));
    }

    /// Until when nothing is put right; none: nothing was yet.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        self.last.map(|(_, due)| due)
    }
}

/// A time between a half of `wait` and all of it.
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
}
