//! The timers of a hub, in one heap. A timer that no longer applies is ignored when it is due.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use tokio::time::Instant;

use super::HubState;
use crate::fanout::keys::{ChannelKey, ClientKey};
use crate::pipeline::Now;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// A channel may have been silent for too long.
    Stale(ChannelKey),
    MinInterval(ChannelKey),
    /// A problem of a channel may be over, or may have changed since clients were told.
    Problem(ChannelKey),
    /// A channel may have been without viewers for long enough.
    Linger(ChannelKey),
    Interval(ClientKey, ChannelKey),
    /// A client may need a `ping`, or takes nothing.
    Client(ClientKey),
    /// New clients have waited for the epoch for long enough.
    EpochWait,
    /// Reads may take too long.
    ReadTimeout,
}

#[derive(Debug, Default)]
pub(crate) struct Timers {
    heap: BinaryHeap<Reverse<(Instant, Timer)>>,
}

impl Timers {
    pub(super) fn add(&mut self, at: Instant, timer: Timer) {
        self.heap.push(Reverse((at, timer)));
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    fn pop(&mut self, now: Instant) -> Option<Timer> {
        self.next().filter(|at| *at <= now)?;
        self.heap.pop().map(|Reverse((_, timer))| timer)
    }
}

impl HubState {
    pub(crate) fn tick(&mut self, now: Now) {
        while let Some(timer) = self.timers.pop(now.instant) {
            match timer {
                Timer::Stale(channel) => {
                    self.change_freshness(channel, now, |watched| watched.timer_due(now.instant))
                }
                Timer::Problem(channel) => self.problem_due(channel, now),
                Timer::MinInterval(channel) => self.min_interval_due(channel, now),
                Timer::Linger(channel) => self.linger_due(channel, now),
                Timer::Interval(client, channel) => self.interval_due(client, channel, now),
                Timer::Client(client) => self.client_due(client, now),
                Timer::EpochWait => self.epoch_wait_due(now),
                Timer::ReadTimeout => self.read_timeout_due(now),
            }
        }
    }
}
