//! Merges the messages of many subscriptions in the order in which they were received.
//!
//! The NATS client has a queue for each subscription, and one task that fills them all in the order of the
//! wire. Reading the queues in turn would lose the order between subjects. [`OrderedMerge::poll_batch`]
//! restores it: it takes messages until *no* queue holds one. Let `m` be the last message taken. Everything
//! dispatched before `m` is in the batch as well: its queue was filled, and its waker called, before `m` was
//! put into its own queue, so its subscription was in the ready list when `m` was taken, and a batch ends
//! only with an empty ready list. Sorted by stream sequence, the batch has the order of the stream.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::Stream;
use futures_util::task::AtomicWaker;
use slotmap::SlotMap;

slotmap::new_key_type! {
    pub(crate) struct SlotKey;
}

/// A set of streams that are read together.
#[derive(Debug)]
pub(crate) struct OrderedMerge<S, K> {
    slots: SlotMap<SlotKey, StreamSlot<S, K>>,
    ready: Arc<ReadyList>,
    round: Vec<SlotKey>,
    /// `true` if the last batch left messages that only another batch can prove complete.
    unproven: bool,
}

/// The extent to which a batch is proven complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BatchEnd {
    /// The batch contains everything up to its last message.
    Complete,
    /// Messages come faster than they are taken. The batch is complete only up to the newest of the first
    /// `proven_count` messages that this call appended. Newer ones have to wait for the next batch, which is
    /// ready even without new messages.
    Partial { proven_count: usize },
}

#[derive(Debug)]
struct StreamSlot<S, K> {
    wake: Arc<StreamWake>,
    waker: Waker,
    key: K,
    stream: S,
}

/// The streams that may hold messages. A stream that was removed may still be among them.
#[derive(Debug, Default)]
struct ReadyList {
    list: Mutex<Vec<SlotKey>>,
    reader: AtomicWaker,
}

#[derive(Debug)]
struct StreamWake {
    slot: SlotKey,
    queued: AtomicBool,
    ready: Arc<ReadyList>,
}

impl ReadyList {
    fn list(&self) -> MutexGuard<'_, Vec<SlotKey>> {
        // No code that holds the lock can leave the list inconsistent.
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for StreamWake {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::AcqRel) {
            self.ready.list().push(self.slot);
            self.ready.reader.wake();
        }
    }
}

impl<S, K> Default for OrderedMerge<S, K> {
    fn default() -> Self {
        Self { slots: SlotMap::default(), ready: Arc::default(), round: Vec::new(), unproven: false }
    }
}

impl<S: Stream + Unpin, K: Copy> OrderedMerge<S, K> {
    /// Adds a stream; its items are returned with `key`.
    pub(crate) fn insert(&mut self, key: K, stream: S) -> SlotKey {
        let ready = Arc::clone(&self.ready);
        self.slots.insert_with_key(|slot| {
            let wake = Arc::new(StreamWake { slot, queued: AtomicBool::new(false), ready });
            wake.wake_by_ref();
            StreamSlot { waker: Waker::from(Arc::clone(&wake)), wake, key, stream }
        })
    }

    /// Removes a stream with its remaining items.
    pub(crate) fn remove(&mut self, slot: SlotKey) -> Option<S> {
        self.slots.remove(slot).map(|slot| slot.stream)
    }

    /// Takes the items of all streams and appends them to `out`.
    ///
    /// Must run without a cooperative budget (`tokio::task::unconstrained`): a queue that is pending only
    /// because the budget is used up would break the order.
    ///
    /// After more than `bound` items, one more pass over the ready list proves those taken so far, and the
    /// batch ends, so that a fast publisher doesn't block the caller.
    ///
    /// `capacity` is the size of a queue. At most as many items are taken from one queue in one pass: they
    /// include what the queue held when the pass began; later items wait. A queue that gave as many may have
    /// been full, so that the NATS client dropped messages; its key is appended to `overrun`.
    pub(crate) fn poll_batch(
        &mut self,
        cx: &mut Context<'_>,
        bound: usize,
        capacity: usize,
        out: &mut Vec<(K, S::Item)>,
        overrun: &mut Vec<K>,
    ) -> Poll<BatchEnd> {
        let start = out.len();
        loop {
            self.ready.reader.register(cx.waker());
            std::mem::swap(&mut self.round, &mut *self.ready.list());
            if self.round.is_empty() {
                let unproven = std::mem::take(&mut self.unproven);
                return if unproven || out.len() > start {
                    Poll::Ready(BatchEnd::Complete)
                } else {
                    Poll::Pending
                };
            }
            let proven_count = out.len() - start;
            while let Some(slot) = self.round.pop() {
                self.take_all(slot, capacity, out, overrun);
            }
            if proven_count > bound {
                self.unproven = true;
                return Poll::Ready(BatchEnd::Partial { proven_count });
            }
        }
    }

    /// Takes from one stream until it is empty, or `capacity` items.
    fn take_all(
        &mut self,
        slot: SlotKey,
        capacity: usize,
        out: &mut Vec<(K, S::Item)>,
        overrun: &mut Vec<K>,
    ) {
        let Some(StreamSlot { wake, waker, key, stream }) = self.slots.get_mut(slot) else { return };
        // From here on a new item puts the stream into the ready list again.
        wake.queued.store(false, Ordering::Release);
        let (start, mut cx) = (out.len(), Context::from_waker(waker));
        // An ended stream is removed by the caller that added it.
        while let Poll::Ready(Some(item)) = Pin::new(&mut *stream).poll_next(&mut cx) {
            out.push((*key, item));
            if out.len() - start == capacity {
                overrun.push(*key);
                // It may hold more, for the next pass.
                wake.wake_by_ref();
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests;
