//! The queue of statuses to write: at most one for each object. Synchronous; the time is passed in.
//!
//! A status that could not be written rests for a while, longer each time, while others are written: one
//! object, or a whole namespace, whose statuses the API server refuses delays no other.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::backend::cluster::events::Notice;
use crate::index::kind::AnyStatus;
use crate::object::{Key, Kind};
use flutecast_process::backoff::Backoff;

/// The first and the longest rest of a status while the API server is unavailable. Once it is back, all are
/// written within this.
const UNAVAILABLE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));
/// The first and the longest rest of a status that the API server refuses: somebody has to change something,
/// and it may refuse thousands.
const REFUSED: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(60));

#[derive(Debug, Clone)]
pub(crate) struct QueuedStatus {
    pub(crate) uid: String,
    pub(crate) status: AnyStatus,
    /// The Event to create once it is written.
    pub(crate) notice: Option<Notice>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WriteProblem {
    /// The API server is away, or in trouble of its own.
    Unavailable,
    Refused,
}

pub(super) type Name = (Kind, Key);

#[derive(Debug, Clone, Default)]
pub(crate) struct StatusQueue(Arc<Queue>);

#[derive(Debug, Default)]
struct Queue {
    state: Mutex<QueueState>,
    added: Notify,
}

#[derive(Debug, Default)]
struct QueueState {
    waiting: BTreeMap<Name, QueuedStatus>,
    in_flight: BTreeMap<Name, QueuedStatus>,
    /// Those that rest, and until when.
    resting: BTreeMap<Name, (QueuedStatus, Instant)>,
    /// The end of the first rest, or an earlier time.
    due: Option<Instant>,
    /// The next rests of objects whose status could not be written.
    rests: BTreeMap<Name, Rests>,
}

#[derive(Debug)]
struct Rests {
    unavailable: Backoff,
    refused: Backoff,
}

impl Default for Rests {
    fn default() -> Self {
        Self {
            unavailable: Backoff::new(UNAVAILABLE.0, UNAVAILABLE.1),
            refused: Backoff::new(REFUSED.0, REFUSED.1),
        }
    }
}

impl StatusQueue {
    /// Queues a status in place of any other of the object, unless it is being written already.
    pub(crate) fn put(&self, kind: Kind, key: &Key, status: QueuedStatus) {
        let name = (kind, key.clone());
        let mut state = self.lock();
        if state.in_flight.get(&name).is_some_and(|in_flight| same(in_flight, &status)) {
            state.waiting.remove(&name);
        } else if let Some((resting, _)) = state.resting.get_mut(&name) {
            if !same(resting, &status) {
                *resting = status;
            }
        } else if !state.waiting.get(&name).is_some_and(|queued| same(queued, &status)) {
            state.waiting.insert(name, status);
            self.0.added.notify_one();
        }
    }

    /// Removes the status of an object, which has the wanted one.
    pub(crate) fn remove(&self, kind: Kind, key: &Key) {
        let name = (kind, key.clone());
        let mut state = self.lock();
        state.waiting.remove(&name);
        state.resting.remove(&name);
        state.rests.remove(&name);
    }

    /// Returns the status of an object that waits or is being written.
    pub(crate) fn pending(&self, kind: Kind, key: &Key) -> Option<QueuedStatus> {
        let name = (kind, key.clone());
        let state = self.lock();
        let resting = || state.resting.get(&name).map(|(status, _)| status);
        state.waiting.get(&name).or_else(resting).or_else(|| state.in_flight.get(&name)).cloned()
    }

    /// Removes all that wait. Writes in flight go on.
    pub(crate) fn clear(&self) {
        let mut state = self.lock();
        state.waiting.clear();
        state.resting.clear();
        state.rests.clear();
    }

    /// Returns the number of statuses that wait or are being written.
    pub(crate) fn len(&self) -> usize {
        let QueueState { waiting, in_flight, resting, due: _, rests: _ } = &*self.lock();
        waiting.len() + in_flight.len() + resting.len()
    }

    /// Waits until there may be something to write.
    ///
    /// # Cancel safety
    /// No change is lost.
    pub(super) async fn changed(&self) {
        self.0.added.notified().await;
    }

    /// Takes the next status to write, which is in flight from then on.
    pub(super) fn take(&self, now: Instant) -> Option<(Name, QueuedStatus)> {
        let mut state = self.lock();
        state.wake(now);
        // One write of an object at a time, so that a later one can't be overtaken.
        let free = state.waiting.keys().find(|name| !state.in_flight.contains_key(*name))?.clone();
        let status = state.waiting.remove(&free)?;
        state.in_flight.insert(free.clone(), status.clone());
        Some((free, status))
    }

    /// Returns when the next rest is over, or an earlier time.
    pub(super) fn due(&self) -> Option<Instant> {
        self.lock().due
    }

    /// Ends a write, because the index has its result, or the object is gone.
    pub(crate) fn done(&self, name: &Name) {
        let mut state = self.lock();
        state.in_flight.remove(name);
        state.rests.remove(name);
        // A newer one may have waited for this.
        if !state.waiting.is_empty() {
            self.0.added.notify_one();
        }
    }

    /// Ends a write that failed. It, or a newer status that waits, is written after a rest. Returns the rest,
    /// and whether it is the first since a status of this object was written.
    pub(super) fn failed(
        &self,
        name: &Name,
        status: QueuedStatus,
        problem: WriteProblem,
        now: Instant,
    ) -> (Duration, bool) {
        let mut state = self.lock();
        state.in_flight.remove(name);
        let status = state.waiting.remove(name).unwrap_or(status);
        let is_first = !state.rests.contains_key(name);
        let rests = state.rests.entry(name.clone()).or_default();
        let wait = match problem {
            WriteProblem::Unavailable => rests.unavailable.next_wait(),
            WriteProblem::Refused => rests.refused.next_wait(),
        };
        let until = now + wait;
        state.due = Some(state.due.map_or(until, |due| due.min(until)));
        state.resting.insert(name.clone(), (status, until));
        (wait, is_first)
    }

    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl QueueState {
    /// Queues those whose rest is over.
    fn wake(&mut self, now: Instant) {
        if self.due.is_none_or(|due| now < due) {
            return;
        }
        for (name, (status, _)) in self.resting.extract_if(.., |_, (_, until)| *until <= now) {
            self.waiting.entry(name).or_insert(status);
        }
        self.due = self.resting.values().map(|(_, until)| *until).min();
    }
}

fn same(one: &QueuedStatus, other: &QueuedStatus) -> bool {
    one.uid == other.uid && one.status == other.status
}

#[cfg(test)]
mod tests {
    use flutecast_crds::DeviceStatus;

    use super::*;

    const KIND: Kind = Kind::Device;

    fn key(namespace: &str, number: usize) -> Key {
        (namespace.to_owned(), format!("device-{number}"))
    }

    fn status(generation: i64) -> QueuedStatus {
        let status = DeviceStatus { observed_generation: Some(generation), ..DeviceStatus::default() };
        QueuedStatus { uid: "u".to_owned(), status: status.into(), notice: None }
    }

    fn generation(status: &QueuedStatus) -> Option<i64> {
        match &status.status {
            AnyStatus::Device(status) => status.observed_generation,
            AnyStatus::Tenant(_) | AnyStatus::PushFormat(_) => None,
        }
    }

    #[test]
    fn failures_delay_no_other_object() {
        let (queue, now) = (StatusQueue::default(), Instant::now());
        for number in 0..100 {
            queue.put(KIND, &key("a", number), status(1));
        }
        queue.put(KIND, &key("b", 0), status(1));
        let mut taken = Vec::new();
        while let Some((name, status)) = queue.take(now) {
            taken.push(name.1.0.clone());
            if name.1.0 == "a" {
                assert!(queue.failed(&name, status, WriteProblem::Refused, now).1, "its first rest");
            } else {
                queue.done(&name);
            }
        }
        assert_eq!((taken.len(), taken.last().unwrap().as_str()), (101, "b"));
        assert_eq!(queue.len(), 100);
        let later = now + REFUSED.0;
        assert!(queue.due().is_some_and(|due| due > now && due <= later));
        let (name, status) = queue.take(later).unwrap();
        assert!(!queue.failed(&name, status, WriteProblem::Refused, later).1);
    }

    #[test]
    fn rests_grow_to_a_cap_and_end_with_a_success() {
        let (queue, mut now) = (StatusQueue::default(), Instant::now());
        queue.put(KIND, &key("a", 0), status(1));
        for attempt in 0..20 {
            let (name, status) = queue.take(now).unwrap();
            let (rest, _) = queue.failed(&name, status, WriteProblem::Unavailable, now);
            assert!(rest <= UNAVAILABLE.1 && (attempt < 7 || rest >= UNAVAILABLE.1 / 2), "{rest:?}");
            assert_eq!(queue.due(), Some(now + rest));
            assert!(queue.take(now).is_none(), "it rests");
            now += rest;
        }
        let (name, _) = queue.take(now).unwrap();
        queue.done(&name);
        assert!(queue.len() == 0 && queue.due().is_none());
        queue.put(KIND, &name.1, status(2));
        let (name, two) = queue.take(now).unwrap();
        assert!(queue.failed(&name, two, WriteProblem::Unavailable, now).0 <= UNAVAILABLE.0);
    }

    #[test]
    fn after_a_rest_the_newest_is_written_unless_it_was_removed() {
        let (queue, now) = (StatusQueue::default(), Instant::now());
        let device = key("a", 0);
        queue.put(KIND, &device, status(1));
        let (name, one) = queue.take(now).unwrap();
        // Newer while it is under way, and newer again while it rests.
        queue.put(KIND, &device, status(2));
        queue.failed(&name, one, WriteProblem::Unavailable, now);
        queue.put(KIND, &device, status(3));
        assert!(queue.take(now).is_none() && queue.pending(KIND, &device).is_some());
        let (_, newest) = queue.take(now + UNAVAILABLE.0).unwrap();
        assert_eq!(generation(&newest), Some(3));
        queue.failed(&name, newest, WriteProblem::Unavailable, now);
        queue.remove(KIND, &device);
        assert!(queue.len() == 0 && queue.pending(KIND, &device).is_none());
        assert!(queue.take(now + UNAVAILABLE.1).is_none());
    }
}
