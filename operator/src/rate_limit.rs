//! A token bucket. The time is passed in.

use std::time::Duration;

use tokio::time::Instant;

/// The highest rate of an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rate {
    /// The mean time between two events.
    pub(crate) interval: Duration,
    /// The most actions at once after a pause.
    pub(crate) burst: u32,
}

impl Rate {
    /// `count` events a second on average.
    pub(crate) const fn per_second(count: u32, burst: u32) -> Self {
        Self { interval: Duration::from_nanos(1_000_000_000_u64.div_ceil(count as u64)), burst }
    }
}

/// A bucket that holds at most [`Rate::burst`] tokens and gets one back each [`Rate::interval`].
#[derive(Debug, Clone)]
pub(crate) struct TokenBucket {
    rate: Rate,
    /// The time at which the bucket will be full.
    full_at: Instant,
}

impl TokenBucket {
    pub(crate) fn new(rate: Rate, now: Instant) -> Self {
        Self { rate, full_at: now }
    }

    /// Returns the time from which on [`Self::take`] succeeds; not before `now`.
    pub(crate) fn available_at(&self, now: Instant) -> Instant {
        let depth = self.rate.interval * self.rate.burst.saturating_sub(1);
        self.full_at.checked_sub(depth).unwrap_or(now).max(now)
    }

    /// Takes a token. Returns `false` if the bucket is empty.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        if self.available_at(now) > now {
            return false;
        }
        self.full_at = self.full_at.max(now) + self.rate.interval;
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn never_more_than_burst_and_rate_allow(
            waits in prop::collection::vec(0_u64..2000, 1..300),
            per_second in 1_u32..50,
            burst in 1_u32..60,
        ) {
            let start = Instant::now();
            let mut bucket = TokenBucket::new(Rate::per_second(per_second, burst), start);
            let (mut now, mut taken) = (start, 0_u32);
            for wait in waits {
                now += Duration::from_millis(wait);
                taken += u32::from(bucket.take(now));
                let allowed = f64::from(burst) + (now - start).as_secs_f64() * f64::from(per_second);
                prop_assert!(f64::from(taken) <= allowed + 1e-6, "{taken} of {allowed}");
            }
        }
    }

    #[test]
    fn tokens_come_back_at_the_rate() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(Rate::per_second(2, 3), start);
        assert_eq!((0..5).filter(|_| bucket.take(start)).count(), 3);
        assert!(!bucket.take(start + Duration::from_millis(400)));
        assert!(bucket.take(start + Duration::from_millis(500)));
        assert_eq!((0..9).filter(|_| bucket.take(start + Duration::from_secs(60))).count(), 3);
        let minute = Duration::from_secs(60);
        let mut seldom = TokenBucket::new(Rate { interval: minute, burst: 1 }, start);
        assert!(seldom.take(start) && !seldom.take(start + minute / 2));
        assert!(seldom.take(start + minute));
    }

    #[test]
    fn holds_a_burst_and_fills_again() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(Rate::per_second(100, 200), start);
        assert_eq!((0..1000).filter(|_| bucket.take(start)).count(), 200);
        let later = start + Duration::from_secs(1);
        assert_eq!((0..1000).filter(|_| bucket.take(later)).count(), 100);
        let next = bucket.available_at(later);
        assert!(next > later && next <= later + Duration::from_millis(10));
    }
}
