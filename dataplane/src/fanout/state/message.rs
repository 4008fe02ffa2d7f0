//! From a message to the backlogs of the clients that watch its channel.
//!
//! Each step decides one thing:
//!
//! | step | decides |
//! | --- | --- |
//! | `accept` | whether a live message is the next one of its channel, waits for a read, or comes too late |
//! | `pass` | whether the message becomes a frame, and whether it keeps its channel fresh |
//! | `throttle` | whether the frame goes out now or when the format's `minInterval` is over |
//! | `offer` | whether a viewer has the event, must get older ones first, or is limited by its `interval` |
//! | `enqueue_data` | whether the frame carries its id |
//! | `Backlog::push` | which frame of the backlog it replaces, and what is dropped if there is no room |

use flutecast_format::program::Timestamp;
use flutecast_nats::LiveMessage;

use super::HubState;
use super::phase::Phase;
use super::timers::Timer;
use crate::fanout::backlog::FrameKind;
use crate::fanout::keys::ChannelKey;
use crate::pipeline::{Formatted, Frame, GapReason, Now, Verdict};

/// The most bytes of live messages that wait for reads, of all channels of a tenant together.
const MAX_WAITING: usize = 64 * 1_024 * 1_024;

/// Returns the bytes that a message takes while it waits.
fn size(message: &LiveMessage) -> usize {
    size_of::<LiveMessage>() + message.payload.len()
}

impl HubState {
    /// Applies live messages, in stream order. Everything older that came live on any watched channel has
    /// been applied before.
    pub(crate) fn apply_live(&mut self, messages: impl Iterator<Item = (ChannelKey, LiveMessage)>, now: Now) {
        for (key, message) in messages {
            let sequence = message.sequence;
            self.accept(key, message, now);
            self.progress.advance(sequence);
        }
    }

    /// Passes on a message, or keeps it if its channel is being read.
    pub(super) fn accept(&mut self, key: ChannelKey, message: LiveMessage, now: Now) {
        let Some(watched) = self.watched.get_mut(key) else { return };
        if let Phase::Reading(read) = &mut watched.phase {
            self.waiting_bytes += size(&message);
            read.keep(message);
            return self.bound_waiting();
        }
        if message.sequence <= watched.progress.seen {
            // The message was read from the stream before it came live; or the stream was created again,
            // which an audit finds out.
            self.io.audit = true;
            return;
        }
        if watched.progress.misses(message.previous) {
            if watched.every { &self.metrics.missed_every } else { &self.metrics.missed_latest }.inc();
            return self.wait_for_read(key, message, now);
        }
        self.pass(key, message, now);
    }

    /// Discards the messages that wait for reads if they are too many together: they are read from the stream
    /// with those before them.
    fn bound_waiting(&mut self) {
        if self.waiting_bytes <= MAX_WAITING {
            return;
        }
        self.waiting_bytes =
            self.watched.values().map(|watched| watched.phase.waiting().map(size).sum::<usize>()).sum();
        if self.waiting_bytes > MAX_WAITING / 2 {
            self.watched.values_mut().for_each(|watched| watched.phase.discard_waiting());
            self.waiting_bytes = 0;
        }
    }

    fn wait_for_read(&mut self, key: ChannelKey, message: LiveMessage, now: Now) {
        self.read_again(key, now);
        self.accept(key, message, now);
    }

    /// Passes on a live message before which nothing is missing, unless it can't be decided without older
    /// ones.
    pub(super) fn pass(&mut self, key: ChannelKey, message: LiveMessage, now: Now) {
        let (Some(watched), Some(epoch)) = (self.watched.get_mut(key), self.progress.epoch) else { return };
        let verdict = watched.pipeline.apply(epoch, (&message).into(), &mut self.scratch);
        if matches!(verdict, Verdict::NeedsTail) {
            watched.needs_tail = true;
            return self.wait_for_read(key, message, now);
        }
        watched.progress.seen = message.sequence;
        self.metrics.verdict(&verdict);
        if verdict.is_understood() {
            self.hear(key, message.stored_at.into(), now);
        }
        if let Verdict::Shown(Formatted { frame, .. }) = verdict {
            self.show_event(key, frame, now);
        }
        self.problems_changed(key, now);
    }

    /// Records that a message which was understood was stored at this time: it keeps its channel fresh, also
    /// if it is no reason to send a frame.
    pub(super) fn hear(&mut self, key: ChannelKey, stored_at: Timestamp, now: Now) {
        let age = now.since(stored_at);
        self.change_freshness(key, now, |freshness| freshness.hear(stored_at, age, now.instant));
    }

    /// Gives the viewers a new event.
    pub(super) fn show_event(&mut self, key: ChannelKey, frame: Frame, now: Now) {
        let Some(watched) = self.watched.get(key) else { return };
        let kind = if watched.every { FrameKind::Every(frame.names()) } else { FrameKind::Latest(key) };
        self.throttle(key, kind, frame, now);
    }

    /// Gives the viewers what a read has shown as the channel's value, if they don't have it.
    pub(super) fn show_value(&mut self, key: ChannelKey, frame: Frame, kept: bool, now: Now) {
        let Some(watched) = self.watched.get_mut(key) else { return };
        let renewed = std::mem::take(&mut watched.renewed);
        // Events of an `Every` channel come one by one: the newest one is here.
        let is_newest = watched.every && !renewed;
        if watched.latest.as_ref().is_some_and(|latest| is_newest || latest.is_same(&frame)) {
            return;
        }
        if !watched.every && !kept {
            return self.throttle(key, FrameKind::Latest(key), frame, now);
        }
        watched.latest = Some(frame.clone());
        let kind = if watched.every { FrameKind::Snapshot(key) } else { FrameKind::Latest(key) };
        // A viewer that waits for older events gets the value with them.
        for &viewer in &watched.viewers {
            let client = self.clients.get_mut(viewer).filter(|client| !client.replaying.contains_key(&key));
            if let Some(client) = client {
                client.enqueue(kind, frame.without_id(), now, &self.metrics);
            }
        }
    }

    /// Gives a frame to the viewers, now or when the format's `minInterval` is over.
    fn throttle(&mut self, key: ChannelKey, kind: FrameKind, frame: Frame, now: Now) {
        let Some(watched) = self.watched.get_mut(key) else { return };
        watched.latest = Some(frame.clone());
        if let Some(throttle) = &mut watched.throttle {
            let Some(next) = throttle.offer(&frame, now.instant) else { return };
            self.timers.add(next, Timer::MinInterval(key));
        }
        self.fan_out(key, kind, &frame, now);
    }

    pub(super) fn min_interval_due(&mut self, key: ChannelKey, now: Now) {
        let Some(watched) = self.watched.get_mut(key) else { return };
        let due = watched.throttle.as_mut().and_then(|throttle| throttle.timer_due(now.instant));
        if let Some((frame, next)) = due {
            self.timers.add(next, Timer::MinInterval(key));
            self.fan_out(key, FrameKind::Latest(key), &frame, now);
        }
    }

    fn fan_out(&mut self, key: ChannelKey, kind: FrameKind, frame: &Frame, now: Now) {
        let Some(watched) = self.watched.get(key) else { return };
        let bound = self.settings.every_max_count;
        for &viewer in &watched.viewers {
            let Some(client) = self.clients.get_mut(viewer) else { continue };
            if let Some(next) = client.offer(key, kind, frame, bound, now, &self.metrics) {
                self.timers.add(next, Timer::Interval(viewer, key));
            }
        }
    }

    /// Tells the viewers of an `Every` channel that events of it are lost.
    pub(super) fn tell_gap(&mut self, key: ChannelKey, reason: GapReason, now: Now) {
        let Some(watched) = self.watched.get(key) else { return };
        let frame = watched.pipeline.writer.gap(reason, None);
        self.metrics.gaps(reason, watched.viewers.len());
        self.tell_viewers(key, FrameKind::Control, &frame, now);
    }
}
