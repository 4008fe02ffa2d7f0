//! When something is due. One heap per hub; an entry that is no longer true is found out when it comes up.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use tokio::time::Instant;

use super::HubState;
use crate::fanout::arena::Key;
use crate::pipeline::Moment;

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Due {
    /// A channel may have been silent for too long.
    Stale(Key),
    /// The value that the format's `minInterval` holds back.
    Hold(Key),
    /// A channel that nobody watches any more.
    Linger(Key),
    /// The value that a client's `interval` holds back: client, watch.
    Thin(Key, Key),
    /// A client may need a `ping`, or take nothing.
    Client(Key),
    /// Clients that wait for the epoch.
    Arrivals,
    /// Channels whose reading takes too long.
    Overdue,
}

/// What is due when.
#[derive(Debug, Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<(Instant, Due)>>,
}

impl Timers {
    pub(super) fn add(&mut self, at: Instant, due: Due) {
        self.heap.push(Reverse((at, due)));
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    fn pop(&mut self, now: Instant) -> Option<Due> {
        let Reverse((at, due)) = *self.heap.peek()?;
        if at > now {
            return None;
        }
        self.heap.pop();
        Some(due)
    }
}

impl HubState {
    /// Does what is due.
    pub(in crate::fanout) fn tick(&mut self, now: Moment) {
        while let Some(due) = self.timers.pop(now.instant) {
            match due {
                Due::Stale(watch) => self.stale_due(watch, now),
                Due::Hold(watch) => self.hold_due(watch, now),
                Due::Linger(watch) => self.linger_due(watch, now),
                Due::Thin(client, watch) => self.thin_due(client, watch, now),
                Due::Client(client) => self.client_due(client, now),
                Due::Arrivals => self.arrivals_due(now),
                Due::Overdue => self.overdue(now),
            }
        }
    }
}
