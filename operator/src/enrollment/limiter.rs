//! How often something may be done. The time is handed in.

use std::time::Duration;

use tokio::time::Instant;

/// A rate, and how much may come at once after a pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// On average.
    pub per_second: u32,
    /// At once.
    pub burst: u32,
}

/// A bucket of tokens: each act takes one, and they come back at the rate.
#[derive(Debug, Clone)]
pub struct Bucket {
    rate: Rate,
    tokens: f64,
    at: Instant,
}

impl Bucket {
    /// A full one.
    #[must_use]
    pub fn new(rate: Rate, now: Instant) -> Self {
        Self { rate, tokens: f64::from(rate.burst), at: now }
    }

    /// Takes a token. Answers whether there was one.
    pub fn take(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.at);
        self.at = self.at.max(now);
        let refilled = self.tokens + passed.as_secs_f64() * f64::from(self.rate.per_second);
        self.tokens = refilled.min(f64::from(self.rate.burst));
        let is_there = self.tokens >= 1.0;
        if is_there {
            self.tokens -= 1.0;
        }
        is_there
    }
}

/// Lets something be said once in a while.
#[derive(Debug, Clone, Default)]
pub struct Seldom(Option<Instant>);

impl Seldom {
    /// Whether it is time again.
    pub fn is_due(&mut self, now: Instant, interval: Duration) -> bool {
        let is_due = self.0.is_none_or(|last| now.saturating_duration_since(last) >= interval);
        if is_due {
            self.0 = Some(now);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn never_more_than_burst_and_rate_allow(waits in prop::collection::vec(0_u64..2000, 1..300), per_second in 1_u32..50, burst in 1_u32..60) {
            let start = Instant::now();
            let mut bucket = Bucket::new(Rate { per_second, burst }, start);
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
    fn it_comes_back() {
        let start = Instant::now();
        let mut bucket = Bucket::new(Rate { per_second: 2, burst: 3 }, start);
        assert_eq!((0..5).filter(|_| bucket.take(start)).count(), 3);
        assert!(!bucket.take(start + Duration::from_millis(400)));
        assert!(bucket.take(start + Duration::from_millis(500)));
        assert_eq!((0..9).filter(|_| bucket.take(start + Duration::from_secs(60))).count(), 3);
        let mut seldom = Seldom::default();
        let minute = Duration::from_secs(60);
        assert!(seldom.is_due(start, minute) && !seldom.is_due(start + minute / 2, minute));
        assert!(seldom.is_due(start + minute, minute));
    }
}
