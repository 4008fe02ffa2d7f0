//! When what somebody else changed is put right: at once the first time, then less and less often, so that
//! two who want different things don't write against each other as fast as they can. Synchronous; the time is
//! handed in.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use flutecast_process::backoff::{Backoff, RepairBackoff};

/// The first and the longest wait after something was put right.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// After this long without anything to put right, it is at once again.
const QUIET: Duration = Duration::from_secs(300);

/// What was put right, and what waits for it.
#[derive(Debug, Default)]
pub(super) struct Repairs {
    made: BTreeMap<String, RepairBackoff>,
    waiting: BTreeSet<String>,
}

/// Whether something is put right now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Yes.
    Now,
    /// In so long. The flag: it is the first time that it has to wait since it was put right.
    Later(Duration, bool),
}

impl Repairs {
    /// Whether `name`, which somebody else changed or deleted, is put right now.
    pub(super) fn turn(&mut self, name: &str, now: Instant) -> Turn {
        match self.made.get(name).and_then(RepairBackoff::due) {
            Some(due) if now < due => {
                let is_first = self.waiting.insert(name.to_owned());
                Turn::Later(due - now, is_first)
            }
            Some(_) | None => {
                // If it fails, whoever writes tries again at his own pace.
                self.waiting.remove(name);
                Turn::Now
            }
        }
    }

    /// `name` was put right.
    pub(super) fn made(&mut self, name: &str, now: Instant) {
        self.waiting.remove(name);
        let pace = || RepairBackoff::new(Backoff::new(AGAIN.0, AGAIN.1), QUIET);
        self.made.entry(name.to_owned()).or_insert_with(pace).repaired(now);
    }

    /// `name` is as it should be, whoever did it.
    pub(super) fn is_right(&mut self, name: &str) {
        self.waiting.remove(name);
    }

    /// Forgets all but these.
    pub(super) fn keep(&mut self, is_there: impl Fn(&str) -> bool) {
        self.made.retain(|name, _| is_there(name));
        self.waiting.retain(|name| is_there(name));
    }

    /// How many wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// When the first of those that wait is put right.
    pub(super) fn next(&self) -> Option<Instant> {
        self.waiting.iter().filter_map(|name| self.made.get(name)?.due()).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Somebody changes `name` the moment it was put right, for so long. Answers when it was put right.
    fn war(repairs: &mut Repairs, name: &str, mut now: Instant, time: Duration) -> Vec<Duration> {
        let (begun, mut made) = (now, Vec::new());
        while now < begun + time {
            match repairs.turn(name, now) {
                Turn::Now => {
                    repairs.made(name, now);
                    made.push(now - begun);
                }
                Turn::Later(wait, _) => {
                    assert_eq!(repairs.next(), Some(now + wait));
                    now += wait;
                }
            }
        }
        made
    }

    #[test]
    fn a_war_gets_slower_and_slower_up_to_a_cap() {
        let mut repairs = Repairs::default();
        let made = war(&mut repairs, "a", Instant::now(), Duration::from_secs(3600));
        assert_eq!(made[0], Duration::ZERO, "the first time at once");
        let waits: Vec<Duration> = made.windows(2).map(|two| two[1] - two[0]).collect();
        assert!(waits[0] >= SECOND / 2 && waits[0] <= SECOND, "{waits:?}");
        assert!(waits.iter().all(|wait| *wait <= AGAIN.1), "{waits:?}");
        assert!(waits.iter().skip(7).all(|wait| *wait >= AGAIN.1 / 2), "{waits:?}");
        assert!(made.len() < 140, "{}", made.len());
    }

    #[test]
    fn others_are_not_held_up_and_peace_is_forgotten() {
        let (mut repairs, begun) = (Repairs::default(), Instant::now());
        war(&mut repairs, "a", begun, SECOND * 100);
        repairs.made("a", begun + SECOND * 100);
        let now = begun + SECOND * 101;
        assert!(matches!(repairs.turn("a", now), Turn::Later(_, true)));
        assert!(matches!(repairs.turn("a", now), Turn::Later(_, false)), "it is told once");
        assert_eq!(repairs.turn("b", now), Turn::Now);
        assert_eq!(repairs.waiting(), 1);
        // Its editor puts it right himself.
        repairs.is_right("a");
        assert_eq!((repairs.waiting(), repairs.next()), (0, None));
        // Long after: at once, and the next one soon again.
        let later = now + QUIET + SECOND * 60;
        let made = war(&mut repairs, "a", later, SECOND * 10);
        assert!(made.len() >= 3, "{made:?}");
        repairs.keep(|name| name != "a");
        assert!(repairs.made.is_empty());
    }
}
