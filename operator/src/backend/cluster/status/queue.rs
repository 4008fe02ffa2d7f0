//! The statuses that are to be written: at most one for each object, and when. Synchronous; the time is
//! handed in.
//!
//! A status that could not be written rests for a while, longer each time, and all others go on meanwhile:
//! one object, or a whole namespace, whose statuses the API server doesn't take holds up no other.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use flutecast_crds::condition::Condition;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::backend::cluster::events::Notice;
use crate::index::kind::AnyStatus;
use crate::object::Key;
use crate::object::Kind;
use flutecast_process::backoff::Backoff;

/// The first and the longest rest of a status that the API server didn't take for reasons of its own. When it
/// is well again, all are written within this.
const AWAY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));
/// The same where the API server says no to this one: somebody has to change something, and thousands may be
/// concerned.
const DENIED: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(60));

/// One status to be written.
#[derive(Debug, Clone)]
pub(crate) struct Status {
    /// Which life of the object it is about.
    pub(crate) uid: String,
    /// What is to be said.
    pub(crate) status: AnyStatus,
    /// What `kubectl describe` is to show once it is written.
    pub(crate) notice: Option<Notice>,
}

/// Why a status was not written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// The API server is away, or in trouble of its own.
    Away,
    /// It says no.
    Denied,
}

pub(super) type Name = (Kind, Key);

/// The statuses that are to be written. It holds at most one for each object.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outbox(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    some: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    queue: BTreeMap<Name, Status>,
    under_way: BTreeMap<Name, Status>,
    /// Those that rest, and until when.
    resting: BTreeMap<Name, (Status, Instant)>,
    /// Not later than the first of those that rest is due.
    due: Option<Instant>,
    /// How long objects whose status could not be written rest the next time.
    troubles: BTreeMap<Name, Trouble>,
}

#[derive(Debug)]
struct Trouble {
    away: Backoff,
    denied: Backoff,
}

impl Default for Trouble {
    fn default() -> Self {
        Self { away: Backoff::new(AWAY.0, AWAY.1), denied: Backoff::new(DENIED.0, DENIED.1) }
    }
}

impl Outbox {
    /// Has a status written, in place of any other of the object. What is under way already isn't written
    /// again.
    pub(crate) fn put(&self, kind: Kind, key: &Key, status: Status) {
        let name = (kind, key.clone());
        let mut waiting = self.lock();
        if waiting.under_way.get(&name).is_some_and(|under_way| same(under_way, &status)) {
            waiting.queue.remove(&name);
        } else if let Some((resting, _)) = waiting.resting.get_mut(&name) {
            if !same(resting, &status) {
                *resting = status;
            }
        } else if !waiting.queue.get(&name).is_some_and(|queued| same(queued, &status)) {
            waiting.queue.insert(name, status);
            self.0.some.notify_one();
        }
    }

    /// The object's status is as wanted.
    pub(crate) fn withdraw(&self, kind: Kind, key: &Key) {
        let name = (kind, key.clone());
        let mut waiting = self.lock();
        waiting.queue.remove(&name);
        waiting.resting.remove(&name);
        waiting.troubles.remove(&name);
    }

    /// The conditions of an object that are on their way.
    #[must_use]
    pub(crate) fn pending(&self, kind: Kind, key: &Key) -> Option<Vec<Condition>> {
        let name = (kind, key.clone());
        let waiting = self.lock();
        let resting = || waiting.resting.get(&name).map(|(status, _)| status);
        let status = waiting.queue.get(&name).or_else(resting).or_else(|| waiting.under_way.get(&name));
        status.map(|status| status.status.conditions().to_vec())
    }

    /// The answer to a write was taken in: from here on the object is known as it was written.
    pub(crate) fn taken_in(&self, kind: Kind, key: &Key) {
        self.done(&(kind, key.clone()));
    }

    /// Forgets all that wait. What is under way goes on.
    pub(crate) fn clear(&self) {
        let mut waiting = self.lock();
        waiting.queue.clear();
        waiting.resting.clear();
        waiting.troubles.clear();
    }

    /// How many wait or are under way.
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        let Waiting { queue, under_way, resting, due: _, troubles: _ } = &*self.lock();
        queue.len() + under_way.len() + resting.len()
    }

    /// Something may be there to be written that wasn't before.
    pub(super) async fn changed(&self) {
        self.0.some.notified().await;
    }

    /// The next status to be written; it is under way from here on. Those whose rest is over are among them.
    pub(super) fn take(&self, now: Instant) -> Option<(Name, Status)> {
        let mut waiting = self.lock();
        waiting.wake(now);
        // One write of an object at a time, so that a later one can't be overtaken.
        let free = waiting.queue.keys().find(|name| !waiting.under_way.contains_key(*name))?.clone();
        let status = waiting.queue.remove(&free)?;
        waiting.under_way.insert(free.clone(), status.clone());
        Some((free, status))
    }

    /// When the next rest is over, at the earliest.
    pub(super) fn due(&self) -> Option<Instant> {
        self.lock().due
    }

    /// Something was written, or there is nothing to be written.
    pub(super) fn done(&self, name: &Name) {
        let mut waiting = self.lock();
        waiting.under_way.remove(name);
        waiting.troubles.remove(name);
        // Something newer may have waited for this.
        if !waiting.queue.is_empty() {
            self.0.some.notify_one();
        }
    }

    /// Something was not written, and is tried again after a rest, unless something newer waits; then that
    /// one is. Answers how long the rest is, and whether it is the first one since a status of this object
    /// was written.
    pub(super) fn failed(
        &self,
        name: &Name,
        status: Status,
        failure: Failure,
        now: Instant,
    ) -> (Duration, bool) {
        let mut waiting = self.lock();
        waiting.under_way.remove(name);
        let status = waiting.queue.remove(name).unwrap_or(status);
        let is_first = !waiting.troubles.contains_key(name);
        let trouble = waiting.troubles.entry(name.clone()).or_default();
        let wait = match failure {
            Failure::Away => trouble.away.next_wait(),
            Failure::Denied => trouble.denied.next_wait(),
        };
        let until = now + wait;
        waiting.due = Some(waiting.due.map_or(until, |due| due.min(until)));
        waiting.resting.insert(name.clone(), (status, until));
        (wait, is_first)
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    /// Those whose rest is over are to be written.
    fn wake(&mut self, now: Instant) {
        if self.due.is_none_or(|due| now < due) {
            return;
        }
        for (name, (status, _)) in self.resting.extract_if(.., |_, (_, until)| *until <= now) {
            self.queue.entry(name).or_insert(status);
        }
        self.due = self.resting.values().map(|(_, until)| *until).min();
    }
}

fn same(one: &Status, other: &Status) -> bool {
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

    fn status(generation: i64) -> Status {
        let status = DeviceStatus { observed_generation: Some(generation), ..DeviceStatus::default() };
        Status { uid: "u".to_owned(), status: status.into(), notice: None }
    }

    fn generation(status: &Status) -> Option<i64> {
        match &status.status {
            AnyStatus::Device(status) => status.observed_generation,
            AnyStatus::Tenant(_) | AnyStatus::PushFormat(_) => None,
        }
    }

    #[test]
    fn those_that_fail_hold_up_no_others() {
        let (outbox, now) = (Outbox::default(), Instant::now());
        for number in 0..100 {
            outbox.put(KIND, &key("a", number), status(1));
        }
        outbox.put(KIND, &key("b", 0), status(1));
        let mut taken = Vec::new();
        while let Some((name, status)) = outbox.take(now) {
            taken.push(name.1.0.clone());
            if name.1.0 == "a" {
                assert!(outbox.failed(&name, status, Failure::Denied, now).1, "its first rest");
            } else {
                outbox.done(&name);
            }
        }
        assert_eq!((taken.len(), taken.last().unwrap().as_str()), (101, "b"));
        assert_eq!(outbox.len(), 100);
        let later = now + DENIED.0;
        assert!(outbox.due().is_some_and(|due| due > now && due <= later));
        let (name, status) = outbox.take(later).unwrap();
        assert!(!outbox.failed(&name, status, Failure::Denied, later).1);
    }

    #[test]
    fn rests_grow_to_a_cap_and_end_with_a_success() {
        let (outbox, mut now) = (Outbox::default(), Instant::now());
        outbox.put(KIND, &key("a", 0), status(1));
        for attempt in 0..20 {
            let (name, status) = outbox.take(now).unwrap();
            let (rest, _) = outbox.failed(&name, status, Failure::Away, now);
            assert!(rest <= AWAY.1 && (attempt < 7 || rest >= AWAY.1 / 2), "{rest:?}");
            assert_eq!(outbox.due(), Some(now + rest));
            assert!(outbox.take(now).is_none(), "it rests");
            now += rest;
        }
        let (name, _) = outbox.take(now).unwrap();
        outbox.done(&name);
        assert!(outbox.len() == 0 && outbox.due().is_none());
        outbox.put(KIND, &name.1, status(2));
        let (name, two) = outbox.take(now).unwrap();
        assert!(outbox.failed(&name, two, Failure::Away, now).0 <= AWAY.0);
    }

    #[test]
    fn the_newest_is_written_when_the_rest_is_over_or_none_if_it_is_withdrawn() {
        let (outbox, now) = (Outbox::default(), Instant::now());
        let device = key("a", 0);
        outbox.put(KIND, &device, status(1));
        let (name, one) = outbox.take(now).unwrap();
        // Newer while it is under way, and newer again while it rests.
        outbox.put(KIND, &device, status(2));
        outbox.failed(&name, one, Failure::Away, now);
        outbox.put(KIND, &device, status(3));
        assert!(outbox.take(now).is_none() && outbox.pending(KIND, &device).is_some());
        let (_, newest) = outbox.take(now + AWAY.0).unwrap();
        assert_eq!(generation(&newest), Some(3));
        outbox.failed(&name, newest, Failure::Away, now);
        outbox.withdraw(KIND, &device);
        assert!(outbox.len() == 0 && outbox.pending(KIND, &device).is_none());
        assert!(outbox.take(now + AWAY.1).is_none());
    }
}
