//! From a message to the backlogs of the clients that watch its channel.
//!
//! Each step decides one thing:
//!
//! | step | decides |
//! | --- | --- |
//! | `accept` | whether a live message is the next one of its channel, waits for a read, or comes too late |
//! | `format` | whether the message becomes a frame, and whether it keeps its channel fresh |
//! | `throttle` | whether the frame goes out now or when the format's `minInterval` is over |
//! | `offer` | whether a viewer has the event, must get older ones first, or is limited by its `interval` |
//! | `enqueue_data` | whether the frame carries its id |
//! | `Backlog::push` | which frame of the backlog it replaces, and what is dropped if there is no room |

use std::time::Duration;

use flutecast_contract::stream_position::{EventId, Sequence};
use flutecast_format::program::{DropReason, Message};
use flutecast_nats::{LiveMessage, StoredMessage};

use super::HubState;
use super::phase::Phase;
use super::timers::Timer;
use crate::fanout::backlog::FrameKind;
use crate::fanout::keys::ChannelKey;
use crate::pipeline::{ChannelPipeline, Frame, GapReason, Now};

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

    fn accept(&mut self, key: ChannelKey, message: LiveMessage, now: Now) {
        // No frame can be made without the epoch, which the first read brings.
        let too_early = self.progress.epoch.is_none();
        let Some(watched) = self.watched.get_mut(key) else { return };
        if let Phase::Reading(read) = &mut watched.phase
            && (watched.every || too_early)
        {
            return read.keep(message);
        }
        if message.sequence <= watched.progress.seen {
            // The message was read from the stream before it came live; or the stream was created again,
            // which an audit finds out.
            self.io.audit = true;
            return;
        }
        if watched.progress.misses(message.previous) {
            if watched.every {
                self.metrics.missed_every.inc();
                self.read_again(key, now);
                return self.accept(key, message, now);
            }
            self.metrics.missed_latest.inc();
        }
        self.accept_next(key, &message, now);
    }

    /// Passes on a live message before which nothing is missing.
    pub(super) fn accept_next(&mut self, key: ChannelKey, message: &LiveMessage, now: Now) {
        let &LiveMessage { sequence, stored_at, ref payload, .. } = message;
        let Some(watched) = self.watched.get_mut(key) else { return };
        if sequence <= watched.progress.seen {
            return;
        }
        watched.progress.seen = sequence;
        let every = watched.every;
        let message = Message { payload, stored_at: stored_at.into(), now: now.wall };
        // It was republished just now. Its age is taken as zero.
        if let Some(frame) = self.format(key, sequence, message, Duration::ZERO, now) {
            let kind = if every { FrameKind::Every(frame.names()) } else { FrameKind::Latest(key) };
            self.throttle(key, kind, frame, now);
        }
    }

    /// Passes on a message that was read back. Its age is judged by the time at which it was stored.
    pub(super) fn accept_stored(&mut self, key: ChannelKey, message: &StoredMessage, now: Now) {
        let &StoredMessage { sequence, stored_at, ref payload, .. } = message;
        let Some(watched) = self.watched.get_mut(key) else { return };
        let newer = sequence > watched.progress.seen;
        if !newer && (sequence != watched.progress.seen || watched.latest.is_some()) {
            return;
        }
        watched.progress.seen = sequence;
        let message = ChannelPipeline::read_back(payload, stored_at.into());
        let Some(frame) = self.format(key, sequence, message, now.since(stored_at.into()), now) else {
            return;
        };
        let Some(watched) = self.watched.get_mut(key) else { return };
        if newer {
            let kind = match watched.every {
                false => FrameKind::Latest(key),
                true if !watched.progress.read => FrameKind::Snapshot(key),
                true => FrameKind::Every(frame.names()),
            };
            return self.throttle(key, kind, frame, now);
        }
        watched.latest = Some(frame.clone());
        if !std::mem::take(&mut watched.renewed) {
            return;
        }
        // The viewers had the value in its old form. One that waits for older events gets it with them.
        for &viewer in &watched.viewers {
            let client = self.clients.get_mut(viewer).filter(|client| !client.replaying.contains_key(&key));
            if let Some(client) = client {
                client.enqueue(FrameKind::Snapshot(key), frame.without_id(), now, &self.metrics);
            }
        }
    }

    /// Formats a message and counts it. A message that came `age` ago and is valid keeps its channel fresh,
    /// also if it is no reason to send a frame.
    fn format(
        &mut self,
        key: ChannelKey,
        sequence: Sequence,
        message: Message<'_>,
        age: Duration,
        now: Now,
    ) -> Option<Frame> {
        let id = EventId { epoch: self.progress.epoch?, sequence };
        let stored_at = message.stored_at;
        let formatted = self.watched.get_mut(key)?.pipeline.apply(id, message, &mut self.scratch);
        self.metrics.formatted(&formatted);
        let since = match &formatted {
            Ok(formatted) => formatted.frame.time,
            Err(DropReason::Unchanged | DropReason::Filtered) => stored_at,
            Err(_) => return None,
        };
        self.change_freshness(key, now, |freshness| freshness.hear(since, age, now.instant));
        Some(formatted.ok()?.frame)
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
