//! From a message to the backlogs of those who watch its channel.

use std::time::Duration;

use flutecast_format::program::{Dropped, Message, Timestamp};

use super::HubState;
use super::client::Thinned;
use super::timers::Due;
use super::watch::Phase;
use crate::fanout::arena::Key;
use crate::fanout::outbox::Push;
use crate::pipeline::{ChannelPipeline, Frame, GapReason, Moment};
use crate::sources::message::{LiveMessage, StoredMessage};

/// How a message came to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// It was republished just now: its age is judged by our clock.
    Live,
    /// It was read back: its age is judged by when it was stored.
    Stored,
}

impl HubState {
    /// Messages that came live, in stream order. Everything older that came live on any watched channel has
    /// been applied before.
    pub(in crate::fanout) fn apply_live(
        &mut self,
        messages: impl Iterator<Item = (Key, LiveMessage)>,
        now: Moment,
    ) {
        for (key, message) in messages {
            let sequence = message.sequence;
            self.live_message(key, message, now);
            self.advance(sequence);
        }
    }

    fn live_message(&mut self, key: Key, message: LiveMessage, now: Moment) {
        // Without the epoch, which the first read tells, no frame can be made.
        let too_early = self.epoch.is_none();
        let Some(watch) = self.watches.get_mut(key) else { return };
        if let Phase::Reading(reading) = &mut watch.phase
            && (watch.every || too_early)
        {
            reading.keep(message);
            return;
        }
        if message.sequence <= watch.last_sequence {
            // It was read from the stream before it came live; or the stream was made anew, which an audit
            // tells.
            self.doubt = true;
            return;
        }
        let seen = watch.last_sequence.max(watch.proven_to);
        let missed = watch.known && message.previous > seen;
        if missed && watch.every {
            self.metrics.missed_every.inc();
            self.read_again(key, now);
            self.live_message(key, message, now);
            return;
        }
        if missed {
            self.metrics.missed_latest.inc();
        }
        self.follow(key, message, now);
    }

    /// A message that came live, and before which nothing is missing.
    pub(super) fn follow(&mut self, key: Key, message: LiveMessage, now: Moment) {
        if self.watches.get(key).is_none_or(|watch| message.sequence <= watch.last_sequence) {
            return;
        }
        let LiveMessage { sequence, stored_at, payload, .. } = message;
        self.feed(key, sequence, stored_at, &payload, Origin::Live, now);
    }

    /// A message that was read back.
    pub(super) fn stored_message(&mut self, key: Key, message: &StoredMessage, now: Moment) {
        let StoredMessage { sequence, stored_at, payload, .. } = message;
        let Some(watch) = self.watches.get(key) else { return };
        if *sequence > watch.last_sequence {
            self.feed(key, *sequence, *stored_at, payload, Origin::Stored, now);
        } else if *sequence == watch.last_sequence && watch.latest.is_none() {
            let message = ChannelPipeline::as_it_arrived(payload, *stored_at);
            let age = now.since(*stored_at);
            if let Some(frame) = self.format(key, *sequence, message, now, age)
                && let Some(watch) = self.watches.get_mut(key)
            {
                watch.latest = Some(frame.clone());
                if std::mem::take(&mut watch.renewed) {
                    self.show_again(key, &frame, now);
                }
            }
        }
    }

    /// Gives the current value of an `Every` channel, in its new form, to those who had it in the old one.
    /// Who still waits for older events gets it with them.
    fn show_again(&mut self, key: Key, frame: &Frame, now: Moment) {
        let Some(watch) = self.watches.get(key) else { return };
        for &viewer in &watch.viewers {
            if let Some(client) =
                self.clients.get_mut(viewer).filter(|client| !client.replaying.contains_key(&key))
            {
                client.push(Push::Snapshot(key), frame.without_id(), now, &self.metrics);
            }
        }
    }

    /// A message that is newer than all of its channel before.
    fn feed(
        &mut self,
        key: Key,
        sequence: u64,
        stored_at: Timestamp,
        payload: &[u8],
        origin: Origin,
        now: Moment,
    ) {
        let Some(watch) = self.watches.get_mut(key) else { return };
        watch.last_sequence = sequence;
        let (message, age) = match origin {
            Origin::Live => (Message { payload, stored_at, now: now.wall }, Duration::ZERO),
            Origin::Stored => (ChannelPipeline::as_it_arrived(payload, stored_at), now.since(stored_at)),
        };
        let push = match watch.every {
            false => Push::Latest(key),
            true if origin == Origin::Stored && !watch.known => Push::Snapshot(key),
            true => Push::Every(key),
        };
        if let Some(frame) = self.format(key, sequence, message, now, age) {
            self.publish(key, push, frame, now);
        }
    }

    /// Formats a message and counts it. A message that came `age` ago and is right, but no reason to push,
    /// keeps its channel fresh too.
    fn format(
        &mut self,
        key: Key,
        sequence: u64,
        message: Message<'_>,
        now: Moment,
        age: Duration,
    ) -> Option<Frame> {
        let epoch = self.epoch?;
        let watch = self.watches.get_mut(key)?;
        let stored_at = message.stored_at;
        match watch.pipeline.apply(epoch, sequence, message, &mut self.scratch) {
            Ok(formatted) => {
                self.metrics.formatted.inc();
                if formatted.skipped_fields > 0 {
                    self.metrics.skipped_fields.inc_by(u64::from(formatted.skipped_fields));
                }
                watch.freshness.since = Some(formatted.frame.time);
                self.heard(key, now, age);
                Some(formatted.frame)
            }
            Err(dropped) => {
                self.metrics.dropped(dropped);
                if matches!(dropped, Dropped::Unchanged | Dropped::Filtered) {
                    watch.freshness.since = Some(stored_at);
                    self.heard(key, now, age);
                }
                None
            }
        }
    }

    /// Gives a frame to those who watch, now or when the format's `minInterval` has passed.
    fn publish(&mut self, key: Key, push: Push, frame: Frame, now: Moment) {
        let Some(watch) = self.watches.get_mut(key) else { return };
        watch.latest = Some(frame.clone());
        if let Some(interval) = watch.min_interval.filter(|_| !watch.every) {
            if watch.hold.not_before.is_some_and(|time| time > now.instant) {
                watch.hold.held = Some(frame);
                return;
            }
            watch.hold.not_before = Some(now.instant + interval);
            self.timers.add(now.instant + interval, Due::Hold(key));
        }
        self.deliver(key, push, &frame, now);
    }

    /// The value that the format's `minInterval` held back.
    pub(super) fn hold_due(&mut self, key: Key, now: Moment) {
        let Some(watch) = self.watches.get_mut(key) else { return };
        let Some(interval) = watch.min_interval else { return };
        if let Some(frame) = watch.hold.held.take() {
            watch.hold.not_before = Some(now.instant + interval);
            self.timers.add(now.instant + interval, Due::Hold(key));
            self.deliver(key, Push::Latest(key), &frame, now);
        }
    }

    fn deliver(&mut self, key: Key, push: Push, frame: &Frame, now: Moment) {
        let Some(watch) = self.watches.get_mut(key) else { return };
        let viewers = std::mem::take(&mut watch.viewers);
        for &viewer in &viewers {
            self.deliver_to(viewer, key, push, frame, now);
        }
        if let Some(watch) = self.watches.get_mut(key) {
            watch.viewers = viewers;
        }
    }

    /// Gives a frame to one client.
    fn deliver_to(&mut self, viewer: Key, key: Key, push: Push, frame: &Frame, now: Moment) {
        let Some(client) = self.clients.get_mut(viewer) else { return };
        if !matches!(push, Push::Latest(_)) {
            if matches!(push, Push::Every(_)) && frame.sequence <= client.had {
                // Another pod was quicker, and the client has come from there.
                return;
            }
            match client.replaying.get_mut(&key) {
                Some(replay) => replay.keep(frame.clone(), self.settings.every_max_count),
                None => client.push_frame(push, frame, now, &self.metrics),
            }
            return;
        }
        if let Some(interval) = client.request.interval {
            if let Some(thinned) = client.thinned.get_mut(&key) {
                thinned.held = Some(frame.clone());
                return;
            }
            let not_before = now.instant + interval;
            client.thinned.insert(key, Thinned { not_before, held: None });
            self.timers.add(not_before, Due::Thin(viewer, key));
        }
        client.push_frame(push, frame, now, &self.metrics);
    }

    /// Tells everybody who watches an `Every` channel that events of it are lost.
    pub(super) fn tell_gap(&mut self, key: Key, reason: GapReason, now: Moment) {
        let Some(watch) = self.watches.get(key) else { return };
        let frame = watch.pipeline.frames.gap(reason, None);
        self.metrics.gaps(reason, watch.viewers.len());
        for &viewer in &watch.viewers {
            if let Some(client) = self.clients.get_mut(viewer) {
                client.push(Push::Control, frame.clone(), now, &self.metrics);
            }
        }
    }
}
