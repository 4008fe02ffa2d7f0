//! The times at which documents that somebody else changed are repaired: at once the first time, then later
//! and later, so that two writers who want different things don't overwrite each other as fast as they can.
//! Synchronous; the time is passed in.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use flutecast_process::backoff::{Backoff, RepairBackoff};

/// The first and the longest wait after a repair.
const WAIT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// After this long without a repair, the next one is made at once.
const QUIET: Duration = Duration::from_secs(300);

/// The repairs of documents, by name.
#[derive(Debug, Default)]
pub(super) struct Repairs {
    made: BTreeMap<String, RepairBackoff>,
    waiting: BTreeSet<String>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Repair {
    Now,
    Later {
        wait: Duration,
        /// `true` if it has not had to wait since its last repair.
        is_first: bool,
    },
}

impl Repairs {
    /// Requests the repair of a document that somebody else changed or deleted.
    pub(super) fn request(&mut self, name: &str, now: Instant) -> Repair {
        match self.made.get(name).and_then(RepairBackoff::due) {
            Some(due) if now < due => {
                Repair::Later { wait: due - now, is_first: self.waiting.insert(name.to_owned()) }
            }
            Some(_) | None => {
                // If the write fails, it is repeated by the control loop.
                self.waiting.remove(name);
                Repair::Now
            }
        }
    }

    pub(super) fn record(&mut self, name: &str, now: Instant) {
        self.waiting.remove(name);
        let pace = || RepairBackoff::new(Backoff::new(WAIT.0, WAIT.1), QUIET);
        self.made.entry(name.to_owned()).or_insert_with(pace).repaired(now);
    }

    /// Cancels the repair of a document that is as wanted again.
    pub(super) fn cancel(&mut self, name: &str) {
        self.waiting.remove(name);
    }

    pub(super) fn retain(&mut self, is_wanted: impl Fn(&str) -> bool) {
        self.made.retain(|name, _| is_wanted(name));
        self.waiting.retain(|name| is_wanted(name));
    }

    /// Returns the number of repairs that wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Returns when the first of those that wait is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.waiting.iter().filter_map(|name| self.made.get(name)?.due()).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Changes `name` whenever it was repaired, for `time`. Returns when it was repaired.
    fn war(repairs: &mut Repairs, name: &str, mut now: Instant, time: Duration) -> Vec<Duration> {
        let (begun, mut made) = (now, Vec::new());
        while now < begun + time {
            match repairs.request(name, now) {
                Repair::Now => {
                    repairs.record(name, now);
                    made.push(now - begun);
                }
                Repair::Later { wait, .. } => {
                    assert_eq!(repairs.next(), Some(now + wait));
                    now += wait;
                }
            }
        }
        made
    }

    #[test]
    fn repeated_repairs_wait_longer_up_to_a_cap() {
        let mut repairs = Repairs::default();
        let made = war(&mut repairs, "a", Instant::now(), Duration::from_secs(3600));
        assert_eq!(made[0], Duration::ZERO, "the first time at once");
        let waits: Vec<Duration> = made.windows(2).map(|two| two[1] - two[0]).collect();
        assert!(waits[0] >= SECOND / 2 && waits[0] <= SECOND, "{waits:?}");
        assert!(waits.iter().all(|wait| *wait <= WAIT.1), "{waits:?}");
        assert!(waits.iter().skip(7).all(|wait| *wait >= WAIT.1 / 2), "{waits:?}");
        assert!(made.len() < 140, "{}", made.len());
    }

    #[test]
    fn documents_wait_separately_and_start_over_after_a_quiet_time() {
        let (mut repairs, begun) = (Repairs::default(), Instant::now());
        war(&mut repairs, "a", begun, SECOND * 100);
        repairs.record("a", begun + SECOND * 100);
        let now = begun + SECOND * 101;
        assert!(matches!(repairs.request("a", now), Repair::Later { is_first: true, .. }));
        assert!(
            matches!(repairs.request("a", now), Repair::Later { is_first: false, .. }),
            "it is logged once"
        );
        assert_eq!(repairs.request("b", now), Repair::Now);
        assert_eq!(repairs.len(), 1);
        // Its editor undoes the change.
        repairs.cancel("a");
        assert_eq!((repairs.len(), repairs.next()), (0, None));
        // Long after: at once, and the next one soon again.
        let later = now + QUIET + SECOND * 60;
        let made = war(&mut repairs, "a", later, SECOND * 10);
        assert!(made.len() >= 3, "{made:?}");
        repairs.retain(|name| name != "a");
        assert!(repairs.made.is_empty());
    }
}
