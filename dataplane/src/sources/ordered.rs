//! Messages of many subscriptions in the order in which they came over the wire.
//!
//! The client gives each subscription a queue of its own, and one task fills all of them in wire order.
//! Whoever just reads the queues in turn loses the order between subjects. This restores it:
//! [`Ordered::poll_batch`] takes messages until *no* queue holds one. Then, if `m` is the last message that
//! was taken, everything that was dispatched before `m` is in the batch too: its queue was filled, and its
//! waker called, before `m` was put into its own queue, so its subscription was in the ready list when `m`
//! was taken, and the batch ends only with an empty ready list. Sorted by stream sequence, the batch is the
//! stream's order.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::Stream;
use futures_util::task::AtomicWaker;

/// A set of streams, read together.
#[derive(Debug)]
pub(crate) struct Ordered<S, K> {
    slots: Vec<Slot<S, K>>,
    free: Vec<usize>,
    ready: Arc<Ready>,
    /// Those that are taken from in this round.
    round: Vec<usize>,
    /// Whether the last batch left messages that only another batch can prove.
    unproven: bool,
}

/// Which stream of the set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SlotKey {
    index: usize,
    generation: u64,
}

/// What a batch proves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BatchEnd {
    /// Nothing was left: the batch holds everything up to its last message.
    Complete,
    /// Messages come faster than they are taken. Only up to the newest of the first `settled` messages that
    /// this call appended is the batch complete; what is newer has to wait for the next batch, which comes
    /// even if nothing new does.
    Partial {
        /// How many.
        settled: usize,
    },
}

#[derive(Debug)]
struct Slot<S, K> {
    generation: u64,
    wake: Arc<SlotWake>,
    waker: Waker,
    stream: Option<(K, S)>,
}

/// The indexes of streams that may hold something.
#[derive(Debug, Default)]
struct Ready {
    list: Mutex<Vec<usize>>,
    reader: AtomicWaker,
}

#[derive(Debug)]
struct SlotWake {
    index: usize,
    queued: AtomicBool,
    ready: Arc<Ready>,
}

impl Ready {
    fn list(&self) -> MutexGuard<'_, Vec<usize>> {
        // A list of numbers is never left half changed.
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for SlotWake {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::AcqRel) {
            self.ready.list().push(self.index);
            self.ready.reader.wake();
        }
    }
}

impl<S, K> Default for Ordered<S, K> {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            ready: Arc::default(),
            round: Vec::new(),
            unproven: false,
        }
    }
}

impl<S: Stream + Unpin, K: Copy> Ordered<S, K> {
    /// Adds a stream, whose items come with `key`.
    pub(crate) fn insert(&mut self, key: K, stream: S) -> SlotKey {
        let index = self.free.pop().unwrap_or_else(|| {
            let index = self.slots.len();
            let wake =
                Arc::new(SlotWake { index, queued: AtomicBool::new(false), ready: Arc::clone(&self.ready) });
            let waker = Waker::from(Arc::clone(&wake));
            self.slots.push(Slot { generation: 0, wake, waker, stream: None });
            index
        });
        let slot = &mut self.slots[index];
        slot.generation += 1;
        slot.stream = Some((key, stream));
        slot.wake.wake_by_ref();
        SlotKey { index, generation: slot.generation }
    }

    /// Removes a stream with what it still holds.
    pub(crate) fn remove(&mut self, key: SlotKey) -> Option<S> {
        let slot = self.slots.get_mut(key.index).filter(|slot| slot.generation == key.generation)?;
        let (_, stream) = slot.stream.take()?;
        self.free.push(key.index);
        Some(stream)
    }

    /// Takes what the streams hold and appends it to `out`. Must run without a cooperative budget
    /// (`tokio::task::unconstrained`): a queue that says "pending" only because the budget is used up would
    /// break the order.
    ///
    /// When more than `bound` messages were taken, one more pass over the ready list proves those taken so
    /// far, and the batch ends. So a fast publisher holds nobody up.
    ///
    /// `capacity`: how many messages a queue can hold. No more are taken from one queue in one pass: what was
    /// in it when the pass began is then taken, and what still comes has to wait. A queue that gave so many
    /// may have been full, so that the client dropped some; its key is appended to `overrun`.
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
            let settled = out.len() - start;
            while let Some(index) = self.round.pop() {
                self.take_all(index, capacity, out, overrun);
            }
            if settled > bound {
                self.unproven = true;
                return Poll::Ready(BatchEnd::Partial { settled });
            }
        }
    }

    /// Takes from one stream until it is empty, or as much as its queue could have held.
    fn take_all(&mut self, index: usize, capacity: usize, out: &mut Vec<(K, S::Item)>, overrun: &mut Vec<K>) {
        let slot = &mut self.slots[index];
        // From here on a new item queues the index again.
        slot.wake.queued.store(false, Ordering::Release);
        let Some((key, stream)) = &mut slot.stream else { return };
        let start = out.len();
        // An ended stream is removed by whoever put it in.
        while let Poll::Ready(Some(item)) =
            Pin::new(&mut *stream).poll_next(&mut Context::from_waker(&slot.waker))
        {
            out.push((*key, item));
            if out.len() - start == capacity {
                overrun.push(*key);
                // It may hold more, which the next pass takes.
                slot.wake.wake_by_ref();
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests;
