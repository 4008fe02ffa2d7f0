//! What waits for one client: a bounded backlog in stream order.
//!
//! The hub pushes, the connection takes; neither waits for the other. A newer value of a `Latest` channel
//! replaces the older one and goes to the back; events of `Every` channels queue up to a bound, beyond which
//! the oldest go and their loss is told first thing.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use tokio::time::Instant;

use super::arena::Key;
use crate::pipeline::{GapReason, NamedFrames};

/// How many named events may wait for one client: a client that lets more of them wait isn't reading.
const MAX_CONTROL: usize = 8_192;
/// An emptied queue that once held more than this gives its memory back.
const KEEP_CAPACITY: usize = 32;

/// What is pushed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Push {
    /// The newest value of a `Latest` channel.
    Latest(Key),
    /// An event of an `Every` channel.
    Every(Key),
    /// The value of an `Every` channel with which a client begins. There is one of each channel, so that it
    /// needs no bound.
    Snapshot(Key),
    /// `stale` or `fresh` of a channel: only the newest of them matters.
    Freshness(Key),
    /// Anything else; never dropped.
    Control,
}

/// The backlog of one client.
#[derive(Debug)]
pub(crate) struct Outbox {
    inner: Mutex<Inner>,
    bounds: Bounds,
}

/// How many `Every` events may wait.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) count: usize,
    pub(crate) bytes: usize,
}

#[derive(Debug, Default)]
struct Inner {
    /// What waits; `None` where a newer value has taken over.
    queue: VecDeque<Option<Entry>>,
    /// The position of the queue's front, counted from the connection's start.
    front: u64,
    /// How many places of the queue are empty.
    vacant: usize,
    /// Where the waiting value of each conflated thing stands, by its position.
    places: HashMap<Place, u64>,
    every_count: usize,
    every_bytes: usize,
    control_count: usize,
    /// Losses that the client must hear of before anything newer.
    losses: BTreeMap<Key, Loss>,
    waker: Option<Waker>,
    /// Since when something waits and nothing was taken.
    waiting_since: Option<Instant>,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Place {
    Latest(Key),
    Snapshot(Key),
    Freshness(Key),
}

#[derive(Debug)]
struct Entry {
    bytes: Bytes,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Conflated(Place),
    Every(Key),
    Control,
}

#[derive(Debug)]
struct Loss {
    frames: Option<NamedFrames>,
    count: u64,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Open,
    /// The server has ended the connection: what waits is still delivered.
    Finished,
    /// The client is gone: nothing is kept.
    Detached,
}

impl Outbox {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self { inner: Mutex::default(), bounds }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // No code that can panic runs under the lock while the backlog is half changed.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends. Returns how many older `Every` events had to go.
    pub(crate) fn push(&self, push: Push, bytes: Bytes, now: Instant) -> u64 {
        let mut inner = self.lock();
        if inner.state != State::Open {
            return 0;
        }
        let lost = inner.push(push, bytes, self.bounds);
        inner.waiting_since.get_or_insert(now);
        let waker = inner.waker.take();
        drop(inner);
        if let Some(waker) = waker {
            waker.wake();
        }
        lost
    }

    /// Ends the connection after what waits. With `last`, that comes at the end.
    pub(crate) fn finish(&self, last: Option<Bytes>) {
        let mut inner = self.lock();
        if inner.state != State::Open {
            return;
        }
        if let Some(bytes) = last {
            inner.queue.push_back(Some(Entry { bytes, kind: Kind::Control }));
            inner.control_count += 1;
        }
        inner.state = State::Finished;
        let waker = inner.waker.take();
        drop(inner);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Ends the connection of a client that doesn't take anything: what waits is thrown away, so that `last`
    /// comes next if it takes something after all.
    pub(crate) fn abandon(&self, last: Bytes) {
        self.lock().clear();
        self.finish(Some(last));
    }

    /// The client is gone.
    pub(crate) fn detach(&self) {
        let mut inner = self.lock();
        inner.clear();
        inner.state = State::Detached;
    }

    /// Whether nothing can be pushed any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.lock().state != State::Open
    }

    /// Since when something waits and nothing was taken.
    pub(crate) fn waiting_since(&self) -> Option<Instant> {
        self.lock().waiting_since
    }

    /// How many more `Every` events fit before half of the bound is used: what a replay may push at once.
    pub(crate) fn room(&self) -> usize {
        let inner = self.lock();
        if inner.every_bytes > self.bounds.bytes / 2 {
            return 0;
        }
        (self.bounds.count / 2).saturating_sub(inner.every_count)
    }

    /// Takes up to `max` blocks in order. Ready with how many; `None`: the connection has ended.
    pub(crate) fn poll_take(
        &self,
        cx: &mut Context<'_>,
        max: usize,
        out: &mut Vec<Bytes>,
    ) -> Poll<Option<usize>> {
        let mut inner = self.lock();
        let before = out.len();
        inner.take(max.max(1), out);
        let taken = out.len() - before;
        if taken > 0 {
            inner.waiting_since = if inner.is_empty() { None } else { Some(Instant::now()) };
            return Poll::Ready(Some(taken));
        }
        if inner.state != State::Open {
            return Poll::Ready(None);
        }
        match &mut inner.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

impl Inner {
    fn push(&mut self, push: Push, bytes: Bytes, bounds: Bounds) -> u64 {
        let (kind, lost) = match push {
            Push::Latest(key) => (self.conflate(Place::Latest(key)), 0),
            Push::Snapshot(key) => (self.conflate(Place::Snapshot(key)), 0),
            Push::Freshness(key) => (self.conflate(Place::Freshness(key)), 0),
            Push::Every(key) => {
                self.every_count += 1;
                self.every_bytes += bytes.len();
                let over = self.every_count > bounds.count || self.every_bytes > bounds.bytes;
                let lost = if over { self.drop_oldest(bounds) } else { 0 };
                (Kind::Every(key), lost)
            }
            Push::Control => {
                self.control_count += 1;
                if self.control_count > MAX_CONTROL {
                    self.state = State::Finished;
                }
                (Kind::Control, 0)
            }
        };
        self.queue.push_back(Some(Entry { bytes, kind }));
        lost
    }

    /// Takes the waiting value of `place` out, as a newer one is about to go to the back.
    fn conflate(&mut self, place: Place) -> Kind {
        let position = self.front + self.queue.len() as u64;
        if let Some(old) = self.places.insert(place, position) {
            let index = usize::try_from(old - self.front).unwrap_or(usize::MAX);
            if let Some(slot) = self.queue.get_mut(index) {
                *slot = None;
                self.vacant += 1;
            }
            if self.vacant > KEEP_CAPACITY && self.vacant > self.queue.len() / 2 {
                self.compact();
                self.places.insert(place, self.front + self.queue.len() as u64);
            }
        }
        Kind::Conflated(place)
    }

    /// Closes the gaps that values left which newer ones have taken over.
    fn compact(&mut self) {
        self.queue.retain(Option::is_some);
        self.vacant = 0;
        for (position, entry) in (self.front..).zip(&self.queue) {
            if let Some(Entry { kind: Kind::Conflated(place), .. }) = entry {
                self.places.insert(*place, position);
            }
        }
    }

    /// Drops an eighth of the `Every` events that wait, the oldest ones, so that a client that stays slow
    /// doesn't cost a pass over the queue for each event.
    fn drop_oldest(&mut self, bounds: Bounds) -> u64 {
        let (target_count, target_bytes) = (bounds.count - bounds.count / 8, bounds.bytes - bounds.bytes / 8);
        let mut lost = 0;
        for slot in &mut self.queue {
            if self.every_count <= target_count && self.every_bytes <= target_bytes {
                break;
            }
            if let Some(Entry { bytes, kind: Kind::Every(key) }) = slot {
                self.every_count -= 1;
                self.every_bytes -= bytes.len();
                lost += 1;
                let loss = self
                    .losses
                    .entry(*key)
                    .or_insert_with(|| Loss { frames: NamedFrames::of(bytes), count: 0 });
                loss.count += 1;
                *slot = None;
                self.vacant += 1;
            }
        }
        self.compact();
        lost
    }

    fn is_empty(&self) -> bool {
        self.queue.len() == self.vacant && self.losses.is_empty()
    }

    fn take(&mut self, max: usize, out: &mut Vec<Bytes>) {
        let mut left = max;
        while left > 0 {
            let Some((_, Loss { frames, count })) = self.losses.pop_first() else { break };
            if let Some(frames) = frames {
                out.push(frames.gap(GapReason::SlowClient, Some(count)));
                left -= 1;
            }
        }
        while left > 0 {
            let Some(slot) = self.queue.pop_front() else { break };
            self.front += 1;
            let Some(Entry { bytes, kind }) = slot else {
                self.vacant -= 1;
                continue;
            };
            match kind {
                Kind::Conflated(place) => {
                    self.places.remove(&place);
                }
                Kind::Every(_) => {
                    self.every_count -= 1;
                    self.every_bytes -= bytes.len();
                }
                Kind::Control => self.control_count -= 1,
            }
            out.push(bytes);
            left -= 1;
        }
        if self.queue.is_empty() && self.queue.capacity() > KEEP_CAPACITY {
            self.queue = VecDeque::new();
            self.places = HashMap::new();
        }
    }

    fn clear(&mut self) {
        let front = self.front + self.queue.len() as u64;
        let (waker, state) = (self.waker.take(), std::mem::take(&mut self.state));
        *self = Self { front, waker, state, ..Self::default() };
    }
}

#[cfg(test)]
mod tests;
