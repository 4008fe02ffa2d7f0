//! The frames that wait for one client: a bounded backlog in stream order.
//!
//! The hub appends and the connection takes; neither waits for the other. A newer value of a `Latest` channel
//! replaces the older one and moves to the back. Events of `Every` channels queue up to a bound; beyond it
//! the oldest are dropped, and the client gets a `gap` for each channel concerned before anything else.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use tokio::time::Instant;

use super::keys::ChannelKey;
use crate::pipeline::{GapReason, NamesPlace, gap};

/// The most control frames that may wait: a client that leaves more of them isn't reading.
const MAX_CONTROL: usize = 8_192;
/// An emptied queue that once held more entries than this gives its memory back.
const KEEP_CAPACITY: usize = 32;

/// The kind of a frame, which decides what happens to it while it waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum FrameKind {
    /// The value of a `Latest` channel. Of this kind and the next three only the newest frame matters.
    Latest(ChannelKey),
    /// The value of an `Every` channel with which a client begins. One for each channel: it needs no bound.
    Snapshot(ChannelKey),
    /// `stale` or `fresh` of a channel.
    Freshness(ChannelKey),
    /// `problem` of a channel.
    Problem(ChannelKey),
    /// An event of an `Every` channel, with the place of the names that its `gap` needs if it is dropped.
    Every(NamesPlace),
    /// Any other frame; never dropped.
    Control,
}

/// Limits on the `Every` events that wait.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BacklogBounds {
    pub(crate) count: usize,
    pub(crate) bytes: usize,
}

#[derive(Debug)]
pub(crate) struct Backlog {
    entries: Mutex<Entries>,
    bounds: BacklogBounds,
}

#[derive(Debug, Default)]
struct Entries {
    /// The waiting frames; `None` where a newer one has replaced the frame.
    queue: VecDeque<Option<WaitingFrame>>,
    /// The number of the queue's front, counted from the start of the connection.
    front: u64,
    /// Number of places of the queue that hold `None`.
    vacant: usize,
    /// The number at which the waiting frame of each kind stands of which only the newest matters.
    conflated: HashMap<FrameKind, u64>,
    every_count: usize,
    every_bytes: usize,
    control_count: usize,
    /// Number of dropped events of each channel, by its names. The client learns of them first.
    losses: BTreeMap<Box<[u8]>, u64>,
    waker: Option<Waker>,
    /// The time since which frames wait and none was taken.
    waiting_since: Option<Instant>,
    lifecycle: Lifecycle,
}

#[derive(Debug)]
struct WaitingFrame {
    bytes: Bytes,
    kind: FrameKind,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Lifecycle {
    #[default]
    Open,
    /// The server has ended the connection: waiting frames are still delivered.
    Finished,
    /// The client is gone: nothing is kept.
    Detached,
}

impl Backlog {
    pub(crate) fn new(bounds: BacklogBounds) -> Self {
        Self { entries: Mutex::default(), bounds }
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        // No code that can panic runs under the lock while the backlog is half changed.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends a frame. Returns how many older `Every` events were dropped for it.
    pub(crate) fn push(&self, kind: FrameKind, bytes: Bytes, now: Instant) -> u64 {
        let mut entries = self.lock();
        if entries.lifecycle != Lifecycle::Open {
            return 0;
        }
        let lost = entries.push(kind, bytes, self.bounds);
        entries.waiting_since.get_or_insert(now);
        wake(entries);
        lost
    }

    /// Ends the connection behind the waiting frames and `last`.
    pub(crate) fn finish(&self, last: Option<Bytes>) {
        let mut entries = self.lock();
        if entries.lifecycle != Lifecycle::Open {
            return;
        }
        if let Some(bytes) = last {
            entries.queue.push_back(Some(WaitingFrame { bytes, kind: FrameKind::Control }));
            entries.control_count += 1;
        }
        entries.lifecycle = Lifecycle::Finished;
        wake(entries);
    }

    /// Ends the connection of a client that takes nothing: waiting frames are discarded, so that `last` comes
    /// next if the client takes something after all.
    pub(crate) fn abandon(&self, last: Bytes) {
        self.lock().clear();
        self.finish(Some(last));
    }

    pub(crate) fn detach(&self) {
        let mut entries = self.lock();
        entries.clear();
        entries.lifecycle = Lifecycle::Detached;
    }

    /// Returns whether nothing can be appended any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.lock().lifecycle != Lifecycle::Open
    }

    /// Returns the time since which frames wait and none was taken; `None` if nothing waits.
    pub(crate) fn waiting_since(&self) -> Option<Instant> {
        self.lock().waiting_since
    }

    /// Returns how many `Every` events a replay may append now: as many as fit into half of the bound.
    pub(crate) fn room(&self) -> usize {
        let entries = self.lock();
        if entries.every_bytes > self.bounds.bytes / 2 {
            return 0;
        }
        (self.bounds.count / 2).saturating_sub(entries.every_count)
    }

    /// Takes up to `max` frames in order. Ready with how many were taken; `None` if the connection has ended.
    pub(crate) fn poll_take(
        &self,
        cx: &mut Context<'_>,
        max: usize,
        out: &mut Vec<Bytes>,
    ) -> Poll<Option<usize>> {
        let mut entries = self.lock();
        let before = out.len();
        entries.take(max.max(1), out);
        let taken = out.len() - before;
        if taken > 0 {
            entries.waiting_since = if entries.is_empty() { None } else { Some(Instant::now()) };
            return Poll::Ready(Some(taken));
        }
        if entries.lifecycle != Lifecycle::Open {
            return Poll::Ready(None);
        }
        match &mut entries.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

/// Wakes the connection, after the lock is released.
fn wake(mut entries: MutexGuard<'_, Entries>) {
    let waker = entries.waker.take();
    drop(entries);
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl Entries {
    fn push(&mut self, kind: FrameKind, bytes: Bytes, bounds: BacklogBounds) -> u64 {
        let mut lost = 0;
        match kind {
            FrameKind::Latest(_)
            | FrameKind::Snapshot(_)
            | FrameKind::Freshness(_)
            | FrameKind::Problem(_) => self.conflate(kind),
            FrameKind::Every(_) => {
                self.every_count += 1;
                self.every_bytes += bytes.len();
                if self.every_count > bounds.count || self.every_bytes > bounds.bytes {
                    lost = self.drop_oldest(bounds);
                }
            }
            FrameKind::Control => {
                self.control_count += 1;
                if self.control_count > MAX_CONTROL {
                    self.lifecycle = Lifecycle::Finished;
                }
            }
        }
        self.queue.push_back(Some(WaitingFrame { bytes, kind }));
        lost
    }

    /// Removes the waiting frame of this kind, as a newer one is about to be appended.
    fn conflate(&mut self, kind: FrameKind) {
        let number = self.front + self.queue.len() as u64;
        if let Some(old) = self.conflated.insert(kind, number) {
            let index = usize::try_from(old - self.front).unwrap_or(usize::MAX);
            if let Some(place) = self.queue.get_mut(index) {
                *place = None;
                self.vacant += 1;
            }
            if self.vacant > KEEP_CAPACITY && self.vacant > self.queue.len() / 2 {
                self.compact();
                self.conflated.insert(kind, self.front + self.queue.len() as u64);
            }
        }
    }

    /// Closes the holes that replaced and dropped frames have left.
    fn compact(&mut self) {
        self.queue.retain(Option::is_some);
        self.vacant = 0;
        for (number, frame) in (self.front..).zip(&self.queue) {
            let Some(WaitingFrame { kind, .. }) = frame else { continue };
            if !matches!(kind, FrameKind::Every(_) | FrameKind::Control) {
                self.conflated.insert(*kind, number);
            }
        }
    }

    /// Drops the oldest eighth of the waiting `Every` events, so that a client that stays slow doesn't cost a
    /// pass over the queue for each event.
    fn drop_oldest(&mut self, bounds: BacklogBounds) -> u64 {
        let (target_count, target_bytes) = (bounds.count - bounds.count / 8, bounds.bytes - bounds.bytes / 8);
        let mut lost = 0;
        for place in &mut self.queue {
            if self.every_count <= target_count && self.every_bytes <= target_bytes {
                break;
            }
            if let Some(WaitingFrame { bytes, kind: FrameKind::Every(names) }) = place {
                self.every_count -= 1;
                self.every_bytes -= bytes.len();
                lost += 1;
                let names = names.of(bytes);
                match self.losses.get_mut(names) {
                    Some(count) => *count += 1,
                    None => drop(self.losses.insert(names.into(), 1)),
                }
                *place = None;
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
            let Some((names, count)) = self.losses.pop_first() else { break };
            out.push(gap(&names, GapReason::SlowClient, Some(count)));
            left -= 1;
        }
        while left > 0 {
            let Some(place) = self.queue.pop_front() else { break };
            self.front += 1;
            let Some(WaitingFrame { bytes, kind }) = place else {
                self.vacant -= 1;
                continue;
            };
            match kind {
                FrameKind::Latest(_)
                | FrameKind::Snapshot(_)
                | FrameKind::Freshness(_)
                | FrameKind::Problem(_) => {
                    self.conflated.remove(&kind);
                }
                FrameKind::Every(_) => {
                    self.every_count -= 1;
                    self.every_bytes -= bytes.len();
                }
                FrameKind::Control => self.control_count -= 1,
            }
            out.push(bytes);
            left -= 1;
        }
        if self.queue.is_empty() && self.queue.capacity() > KEEP_CAPACITY {
            self.queue = VecDeque::new();
            self.conflated = HashMap::new();
        }
    }

    fn clear(&mut self) {
        let front = self.front + self.queue.len() as u64;
        let (waker, lifecycle) = (self.waker.take(), std::mem::take(&mut self.lifecycle));
        *self = Self { front, waker, lifecycle, ..Self::default() };
    }
}

#[cfg(test)]
mod tests;
