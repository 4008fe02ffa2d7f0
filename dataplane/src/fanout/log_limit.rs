//! How many log lines messages may cause. Pure: the caller says what time it is.

use std::collections::{HashSet, VecDeque};
use std::hash::Hash;
use std::time::Duration;

use tokio::time::Instant;

/// The least time between two lines about the same thing.
const SAME: Duration = Duration::from_secs(60);
/// The most lines in [`ALL`].
const LINES: usize = 10;
const ALL: Duration = Duration::from_secs(1);

/// Decides which lines are written. What it remembers is bounded by its own limit: the lines of a minute.
#[derive(Debug)]
pub(super) struct LogLimit<K> {
    /// What was written within [`SAME`], oldest first.
    written: VecDeque<(Instant, K)>,
    recent: HashSet<K>,
    left_out: u64,
}

impl<K> Default for LogLimit<K> {
    fn default() -> Self {
        Self { written: VecDeque::new(), recent: HashSet::new(), left_out: 0 }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    Write,
    /// A line about the same thing was written a short time ago.
    Known,
    /// Too many lines were written in the last second. Such a line is counted.
    LeftOut,
}

impl<K: Eq + Hash + Clone> LogLimit<K> {
    pub(super) fn decide(&mut self, about: K, now: Instant) -> Decision {
        while let Some((at, _)) = self.written.front()
            && now.duration_since(*at) >= SAME
        {
            if let Some((_, old)) = self.written.pop_front() {
                self.recent.remove(&old);
            }
        }
        if self.recent.contains(&about) {
            return Decision::Known;
        }
        let last_but_some = self.written.len().checked_sub(LINES).and_then(|index| self.written.get(index));
        if last_but_some.is_some_and(|(at, _)| now.duration_since(*at) < ALL) {
            self.left_out += 1;
            return Decision::LeftOut;
        }
        self.written.push_back((now, about.clone()));
        self.recent.insert(about);
        Decision::Write
    }

    /// Returns how many lines were left out since the last call.
    pub(super) fn take_left_out(&mut self) -> u64 {
        std::mem::take(&mut self.left_out)
    }
}

#[cfg(test)]
mod tests {
    use super::Decision::{Known, LeftOut, Write};
    use super::*;

    fn after(start: Instant, millis: u64) -> Instant {
        start + Duration::from_millis(millis)
    }

    #[test]
    fn the_same_line_is_written_once_in_a_minute() {
        let (start, mut limit) = (Instant::now(), LogLimit::default());
        assert_eq!(limit.decide("a", start), Write);
        assert_eq!(limit.decide("b", start), Write);
        for millis in [0, 1_000, 59_999] {
            assert_eq!(limit.decide("a", after(start, millis)), Known);
        }
        assert_eq!(limit.decide("a", after(start, 60_000)), Write);
        assert_eq!(limit.decide("a", after(start, 60_001)), Known);
        assert_eq!(limit.take_left_out(), 0, "what is known isn't left out");
    }

    #[test]
    fn ten_lines_are_written_in_any_second_and_the_rest_is_counted() {
        let (start, mut limit) = (Instant::now(), LogLimit::default());
        let decided: Vec<_> = (0..25).map(|n| limit.decide(n, after(start, 20 * n))).collect();
        assert_eq!(decided[..10], [Write; 10]);
        assert_eq!(decided[10..], [LeftOut; 15]);
        assert_eq!((limit.take_left_out(), limit.take_left_out()), (15, 0));
        // The second begins with each line, not with the clock.
        assert_eq!(limit.decide(100, after(start, 999)), LeftOut);
        assert_eq!(limit.decide(100, after(start, 1_000)), Write);
        assert_eq!(limit.decide(101, after(start, 1_001)), LeftOut);
        assert_eq!(limit.decide(101, after(start, 1_020)), Write);
    }

    #[test]
    fn a_line_that_was_left_out_is_written_when_there_is_room() {
        let (start, mut limit) = (Instant::now(), LogLimit::default());
        for n in 0..10 {
            limit.decide(n, start);
        }
        assert_eq!(limit.decide(10, start), LeftOut);
        assert_eq!(limit.decide(10, after(start, 1_000)), Write);
    }

    #[test]
    fn memory_is_that_of_the_lines_of_a_minute() {
        let (start, mut limit) = (Instant::now(), LogLimit::default());
        for n in 0..200_000 {
            limit.decide(n, after(start, n));
        }
        assert!(limit.written.len() <= 601 && limit.recent.len() == limit.written.len());
    }
}
