//! How often something may be told. Pure.

use std::time::Duration;

use tokio::time::Instant;

/// The shortest time between two changes that are told of one device.
pub const SHORTEST: Duration = Duration::from_secs(10);
/// The longest such time. When one could have been told for so long and none was, the shortest holds again.
pub const LONGEST: Duration = Duration::from_secs(600);
/// How many changes of all devices are told: 100 in a second, and 200 at once after a quiet time.
pub const CHANGES: Flow = Flow { each: Duration::from_millis(10), at_once: 200 };
/// How many Events are made of them: one in two seconds, and 50 at once after a quiet time.
pub const EVENTS: Flow = Flow { each: Duration::from_secs(2), at_once: 50 };

/// How much of something there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    /// In the long run, one in so long a time.
    pub each: Duration,
    /// So many at once after a quiet time.
    pub at_once: u32,
}

/// The pace of one device: each change that is told doubles the time until the next one may be, unless it
/// came after a long calm.
#[derive(Debug, Clone, Default)]
pub struct Pace(Option<(Instant, Duration)>);

impl Pace {
    /// When the next change may be told; none: at any time.
    #[must_use]
    pub fn earliest(&self) -> Option<Instant> {
        self.0.map(|(told, hold)| told + hold)
    }

    /// A change is told.
    pub fn tell(&mut self, now: Instant) {
        let hold = match self.0 {
            Some((told, hold)) if now < told + hold + LONGEST => (hold * 2).min(LONGEST),
            Some(_) | None => SHORTEST,
        };
        self.0 = Some((now, hold));
    }
}

/// The pace of all devices together: a bucket that fills evenly.
#[derive(Debug)]
pub struct Bucket {
    flow: Flow,
    /// When it would be full.
    full: Instant,
}

impl Bucket {
    /// A full one.
    #[must_use]
    pub fn new(flow: Flow, now: Instant) -> Self {
        Self { flow, full: now }
    }

    /// When there is something in it.
    #[must_use]
    pub fn earliest(&self, now: Instant) -> Instant {
        let depth = self.flow.each * self.flow.at_once.saturating_sub(1);
        self.full.checked_sub(depth).unwrap_or(now).max(now)
    }

    /// Takes one out. Answers false when it is empty.
    pub fn take(&mut self, now: Instant) -> bool {
        if self.earliest(now) > now {
            return false;
        }
        self.full = self.full.max(now) + self.flow.each;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_flaps_is_told_of_ever_more_seldom() {
        let start = Instant::now();
        let mut pace = Pace::default();
        let mut now = start;
        let mut told = Vec::new();
        while now < start + Duration::from_secs(3600) {
            if pace.earliest().is_none_or(|earliest| earliest <= now) {
                pace.tell(now);
                told.push((now - start).as_secs());
            }
            now += Duration::from_secs(1);
        }
        assert_eq!(told, [0, 10, 30, 70, 150, 310, 630, 1230, 1830, 2430, 3030]);
    }

    #[test]
    fn the_bucket_holds_a_burst_and_fills_again() {
        let start = Instant::now();
        let mut bucket = Bucket::new(CHANGES, start);
        assert_eq!((0..1000).filter(|_| bucket.take(start)).count(), 200);
        let later = start + Duration::from_secs(1);
        assert_eq!((0..1000).filter(|_| bucket.take(later)).count(), 100);
        assert!(
            bucket.earliest(later) > later && bucket.earliest(later) <= later + Duration::from_millis(10)
        );
    }
}
