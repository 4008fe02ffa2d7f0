//! At most one value in an interval: the first passes at once, and the newest of those that follow passes
//! when the interval is over.

use std::time::Duration;

use tokio::time::Instant;

/// Serves the `minInterval` of a format and the `interval` of a client.
#[derive(Debug)]
pub(super) struct Throttle<T> {
    interval: Duration,
    /// Until when values are held back; `None` if the next one passes.
    closed_until: Option<Instant>,
    held: Option<T>,
}

impl<T: Clone> Throttle<T> {
    pub(super) fn new(interval: Duration) -> Self {
        Self { interval, closed_until: None, held: None }
    }

    /// Offers a value. Returns when a timer has to be set if the value passes; `None` if it is held back.
    pub(super) fn offer(&mut self, value: &T, now: Instant) -> Option<Instant> {
        if self.closed_until.is_some() {
            self.held = Some(value.clone());
            return None;
        }
        Some(self.close(now))
    }

    /// Handles a timer that is due. Returns the value that passes now, and when the next timer has to be set.
    pub(super) fn timer_due(&mut self, now: Instant) -> Option<(T, Instant)> {
        if self.closed_until.is_some_and(|until| until > now) {
            // The timer was set by an earlier subscription to the same channel.
            return None;
        }
        self.closed_until = None;
        let value = self.held.take()?;
        Some((value, self.close(now)))
    }

    pub(super) fn is_open(&self) -> bool {
        self.closed_until.is_none()
    }

    pub(super) fn clear(&mut self) {
        self.held = None;
    }

    fn close(&mut self, now: Instant) -> Instant {
        let until = now + self.interval;
        self.closed_until = Some(until);
        until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_value_passes_and_the_newest_of_the_others_follows() {
        let (start, interval) = (Instant::now(), Duration::from_secs(1));
        let mut throttle = Throttle::new(interval);
        assert_eq!(throttle.offer(&1, start), Some(start + interval));
        assert_eq!(throttle.offer(&2, start), None);
        // Also when the timer is late: what is held back must not come after what is newer.
        assert_eq!(throttle.offer(&3, start + interval * 2), None);
        let late = start + interval * 2;
        assert_eq!(throttle.timer_due(late), Some((3, late + interval)));
        assert_eq!(throttle.timer_due(late), None, "a timer that is no longer the right one");
        assert!(!throttle.is_open());
        assert_eq!(throttle.timer_due(late + interval), None);
        assert!(throttle.is_open());
        assert_eq!(throttle.offer(&4, late + interval), Some(late + interval * 2));
    }

    #[test]
    fn a_cleared_value_does_not_come() {
        let (start, interval) = (Instant::now(), Duration::from_secs(1));
        let mut throttle = Throttle::new(interval);
        throttle.offer(&1, start);
        throttle.offer(&2, start);
        throttle.clear();
        assert_eq!(throttle.timer_due(start + interval), None);
    }
}
