//! Reads from the stream: the newest values when a channel is first watched, and the missed messages when
//! some may have been missed.
//!
//! Live messages wait meanwhile and follow in order.

use std::collections::HashSet;
use std::sync::Arc;

use flutecast_contract::stream_position::Sequence;
use flutecast_nats::stream::StreamState;
use flutecast_nats::{LiveMessage, StoredMessage};
use tokio::time::Instant;

use super::HubState;
use super::attach::refusal;
use super::phase::READ_TIMEOUT;
use super::progress::{ProgressSnapshot, StreamCheck};
use super::resume::Replay;
use super::timers::{Timer, Timers};
use crate::fanout::Unavailable;
use crate::fanout::keys::{ChannelKey, ClientKey};
use crate::fanout::tail::Folded;
use crate::ingest::ordered_merge::SlotKey;
use crate::pipeline::{ChannelPipeline, Frame, GapReason, Now, Verdict};

#[derive(Debug, Default)]
pub(crate) struct ReadRequest {
    pub(crate) channels: Vec<ChannelRead>,
    pub(crate) requested: ProgressSnapshot,
}

impl ReadRequest {
    pub(crate) fn channel_keys(&self) -> Vec<ChannelKey> {
        self.channels.iter().map(|read| read.channel).collect()
    }
}

#[derive(Debug, Clone)]
pub(crate) struct ChannelRead {
    pub(crate) channel: ChannelKey,
    pub(crate) stored: String,
    /// The subject to subscribe to before the channel is read; `None` if there is a subscription.
    pub(crate) open: Option<String>,
    pub(crate) kind: ReadKind,
}

/// What is read of a channel.
#[derive(Debug, Clone)]
pub(crate) enum ReadKind {
    /// Which message is the newest one.
    Look,
    /// What the channel shows. With `whole` the tail is needed although the newest message may be enough.
    Tail { pipeline: ChannelPipeline, whole: bool },
    /// Every message after a place, to which the pipeline has come. With `renew` the pipeline has seen
    /// nothing, and what the channel shows at that place is needed too.
    Missed { after: Sequence, pipeline: ChannelPipeline, renew: bool },
}

/// The answer to a [`ReadRequest`].
#[derive(Debug)]
pub(crate) struct ReadResult {
    pub(crate) requested: ProgressSnapshot,
    pub(crate) info: StreamState,
    pub(crate) up_to: Sequence,
    pub(crate) channels: Vec<ChannelReadResult>,
}

#[derive(Debug)]
pub(crate) struct ChannelReadResult {
    pub(crate) channel: ChannelKey,
    /// The newest message that is stored on the subject; `None` if there is none.
    pub(crate) last: Option<Sequence>,
    /// `true` if the events are all that were stored.
    pub(crate) complete: bool,
    /// What the messages have led to; `None` if there is nothing that the channel doesn't know.
    pub(crate) folded: Option<Folded>,
    /// The messages of an `Every` channel that were missed, behind the value that `folded` has, if any.
    pub(crate) missed: Vec<StoredMessage>,
    /// The verdicts of messages that are new to this pod: of all that were missed, or of the newest one.
    pub(crate) verdicts: Vec<Verdict>,
}

impl ChannelReadResult {
    pub(crate) fn of(channel: ChannelKey, last: Option<Sequence>) -> Self {
        Self { channel, last, complete: true, folded: None, missed: Vec::new(), verdicts: Vec::new() }
    }
}

/// What a frame that was read is.
#[derive(Debug, Clone, Copy)]
enum ReadPart {
    /// What the channel shows; `kept` if the tenant's stream no longer holds it.
    Value {
        kept: bool,
    },
    Event,
}

/// The reads that wait to be started, and whether reading works.
#[derive(Debug, Default)]
pub(super) struct ReadQueue {
    unread: Vec<ChannelKey>,
    /// `true` if the stream's epoch has to be asked for although no channel has to be read.
    pub(super) ask_epoch: bool,
    /// Why the last read failed. New clients get it as a `refused`.
    pub(super) failure: Option<Unavailable>,
    timeout_armed: bool,
    /// `Latest` channels that went on without a read: no hole shows what they have missed. An audit that
    /// works is a sign that they can be read.
    given_up: Vec<ChannelKey>,
}

impl ReadQueue {
    /// Adds a channel, and sets the timer for reads that take too long.
    pub(super) fn request(&mut self, key: ChannelKey, now: Instant, timers: &mut Timers) {
        self.unread.push(key);
        if !std::mem::replace(&mut self.timeout_armed, true) {
            timers.add(now + READ_TIMEOUT, Timer::ReadTimeout);
        }
    }
}

impl HubState {
    /// Returns the next read, of at most `max` channels; `None` if there is nothing to read.
    pub(crate) fn next_read(&mut self, max: usize) -> Option<ReadRequest> {
        let mut channels = Vec::new();
        while channels.len() < max {
            let Some(key) = self.reads.unread.pop() else { break };
            let Some(watched) = self.watched.get_mut(key) else { continue };
            if watched.phase.start_read() {
                let open = watched.subscription.is_none().then(|| watched.live.clone());
                let kind = watched.read_kind();
                channels.push(ChannelRead { open, kind, ..watched.look(key) });
            }
        }
        let ask_epoch = std::mem::take(&mut self.reads.ask_epoch);
        let requested = self.progress.snapshot();
        (ask_epoch || !channels.is_empty()).then_some(ReadRequest { channels, requested })
    }

    /// Records the subscription of a channel. Returns it if it is no longer wanted.
    pub(crate) fn opened(&mut self, key: ChannelKey, subscription: SlotKey) -> Option<SlotKey> {
        let watched = self.watched.get_mut(key).filter(|watched| watched.subscription.is_none());
        let Some(watched) = watched else { return Some(subscription) };
        watched.subscription = Some(subscription);
        None
    }

    /// Reads a channel again, as some of its messages may have been missed.
    pub(crate) fn read_again(&mut self, key: ChannelKey, now: Now) {
        let Some(watched) = self.watched.get_mut(key) else { return };
        if watched.phase.request_read(now.instant) {
            for &viewer in &watched.viewers {
                if let Some(client) = self.clients.get_mut(viewer) {
                    client.delivery.owe();
                }
            }
            self.reads.request(key, now.instant, &mut self.timers);
        }
    }

    /// Reads all channels again, as messages of any of them may have been missed.
    pub(crate) fn read_all_again(&mut self, now: Now) {
        for key in self.watched.all_keys() {
            self.read_again(key, now);
        }
    }

    /// Records that these channels can't be read now. Returns whether the reason is a new one.
    pub(crate) fn read_failed(&mut self, watched: &[ChannelKey], failure: Unavailable, now: Now) -> bool {
        self.requeue(watched);
        let new = self.reads.failure != Some(failure);
        self.reads.failure = Some(failure);
        if new && self.catalog.is_some() {
            for key in self.clients.all_keys() {
                // A client that has got the snapshot only sees that nothing comes.
                if self.clients.get(key).is_some_and(|client| client.delivery.is_unplaced()) {
                    self.tell(key, refusal(failure), now);
                }
            }
        }
        if !self.waiting.is_empty() {
            self.admit_waiting(now);
        }
        new
    }

    fn requeue(&mut self, keys: &[ChannelKey]) {
        for &key in keys {
            if self.watched.get_mut(key).is_some_and(|watched| watched.phase.requeue()) {
                self.reads.unread.push(key);
            }
        }
    }

    pub(crate) fn apply_read(&mut self, result: ReadResult, now: Now) {
        let ReadResult { requested, info, up_to, channels } = result;
        self.reads.failure = None;
        let keys: Vec<ChannelKey> = channels.iter().map(|read| read.channel).collect();
        if !self.is_same_stream(requested, &info, now) {
            return self.requeue(&keys);
        }
        self.progress.report(up_to);
        self.admit_waiting(now);
        let (mut read, mut frames) = (Vec::with_capacity(keys.len()), Vec::new());
        for result in channels {
            let key = result.channel;
            if self.adopt(result, &info, &mut frames, now) {
                read.push(key);
            }
        }
        frames.sort_by_key(|(_, frame, _)| frame.sequence);
        for (key, frame, part) in frames {
            match part {
                ReadPart::Value { kept } => self.show_value(key, frame, kept, now),
                ReadPart::Event => self.show_event(key, frame, now),
            }
        }
        for &key in &read {
            self.problems_changed(key, now);
        }
        self.go_live(&read, up_to, now);
        if std::mem::take(&mut self.progress.unplaced) {
            for key in self.clients.all_keys() {
                self.send_place_if_settled(key, now);
            }
        }
    }

    /// Takes over what was read of a channel. Returns `false` if the channel has to be read again.
    fn adopt(
        &mut self,
        result: ChannelReadResult,
        info: &StreamState,
        frames: &mut Vec<(ChannelKey, Frame, ReadPart)>,
        now: Now,
    ) -> bool {
        let ChannelReadResult { channel: key, last, complete, folded, missed, mut verdicts } = result;
        let Some(watched) = self.watched.get_mut(key) else { return false };
        if !watched.phase.is_in_flight() {
            // Waiting for this read was given up. Now that reading works, the channel is read again.
            self.read_again(key, now);
            return false;
        }
        let seen = folded.as_ref().map_or(Sequence::START, |folded| folded.seen);
        watched.progress.seen = watched.progress.seen.max(seen).max(last.unwrap_or_default());
        if last.is_none() {
            watched.progress.found_empty(info.first_sequence, complete);
        }
        verdicts.iter().for_each(|verdict| self.metrics.verdict(verdict));
        let same = |folded: &Folded| Arc::ptr_eq(folded.pipeline.program(), watched.pipeline.program());
        if folded.as_ref().is_some_and(|folded| !same(folded)) {
            // The format has changed meanwhile. The channel is read again for the value in its new form; the
            // events, which are here, don't wait for that, as it could last as long as formats change.
            let events = Folded::new(watched.pipeline.complete()).add_all(info.epoch, &missed);
            verdicts = events.unwrap_or_default();
        } else if let Some(Folded { pipeline, value, heard, kept, .. }) = folded {
            watched.needs_tail = false;
            let before = std::mem::replace(&mut watched.pipeline, pipeline).problems;
            watched.pipeline.problems.follow(before);
            frames.extend(value.map(|frame| (key, frame, ReadPart::Value { kept })));
            if let Some(heard) = heard {
                self.hear(key, heard, now);
            }
        }
        if !missed.is_empty() {
            let events = verdicts.into_iter().filter_map(Verdict::into_frame);
            frames.extend(events.map(|frame| (key, frame, ReadPart::Event)));
        }
        if !complete {
            self.tell_gap(key, GapReason::Retention, now);
        }
        true
    }

    /// Makes channels live that were read: the messages that waited follow.
    fn go_live(&mut self, keys: &[ChannelKey], up_to: Sequence, now: Now) {
        let mut waiting: Vec<(ChannelKey, LiveMessage)> = Vec::new();
        let mut live = Vec::with_capacity(keys.len());
        for &key in keys {
            let Some(watched) = self.watched.get_mut(key).filter(|watched| !watched.phase.is_live()) else {
                continue;
            };
            watched.progress.read = true;
            watched.progress.prove(up_to);
            let Some(buffer) = watched.phase.end_read(now.instant) else {
                self.reads.unread.push(key);
                continue;
            };
            waiting.extend(buffer.into_iter().map(|message| (key, message)));
            watched.renewed = false;
            self.change_freshness(key, now, |freshness| freshness.judge(now.instant));
            live.push(key);
        }
        waiting.sort_by_key(|(_, message)| message.sequence);
        // The viewers are still owed their channels, so that none of these messages gets an id.
        for (key, message) in waiting {
            if self.watched.get(key).is_some_and(|watched| message.sequence > watched.progress.seen) {
                self.accept(key, message, now);
            }
        }
        self.progress.forget_floor();
        for key in live {
            let newcomers = self.newcomers(key);
            if !newcomers.is_empty() {
                self.read_again(key, now);
            }
            self.settle_viewers(key, &newcomers, now);
        }
    }

    /// Records that the viewers of a channel have got it, and starts the replays that waited for the read.
    /// `newcomers` wait for another read.
    fn settle_viewers(&mut self, key: ChannelKey, newcomers: &[ClientKey], now: Now) {
        let Some(watched) = self.watched.get(key) else { return };
        for viewer in watched.viewers.clone() {
            let replay = self.clients.get(viewer).and_then(|client| client.replaying.get(&key));
            if replay.is_some_and(|replay| !replay.started()) && !newcomers.contains(&viewer) {
                self.begin_resume(viewer, key, now);
            }
            self.owe_one_less(viewer, now);
        }
    }

    /// Returns the viewers that resume from a place which the read that has just ended can't cover: they came
    /// after it had begun, from a pod that has seen more. The next read will do.
    fn newcomers(&mut self, key: ChannelKey) -> Vec<ClientKey> {
        let Some(watched) = self.watched.get(key) else { return Vec::new() };
        let mut newcomers = watched.viewers.clone();
        newcomers.retain(|&viewer| {
            let Some(client) = self.clients.get_mut(viewer) else { return false };
            if client.resume.is_none_or(|id| self.progress.covers(id)) {
                return false;
            }
            let replay = client.replaying.get_mut(&key).filter(|replay| !replay.started());
            replay.is_some_and(|replay| !std::mem::replace(&mut replay.awaits_covering_read, true))
        });
        newcomers
    }

    /// Returns whether an answer is about the stream that this state knows. If the stream was created again,
    /// or set back, everything starts again.
    fn is_same_stream(&mut self, requested: ProgressSnapshot, info: &StreamState, now: Now) -> bool {
        let reason = match self.progress.check(requested, info) {
            StreamCheck::Same => return true,
            StreamCheck::Outdated => return false,
            StreamCheck::Restarted(reason) => reason,
        };
        self.progress.restart(info.epoch);
        self.reads.ask_epoch = true;
        for key in self.clients.all_keys() {
            self.say_hello(key, false, now);
        }
        let mut told_of = HashSet::new();
        for key in self.watched.all_keys() {
            let Some(watched) = self.watched.get_mut(key) else { continue };
            let told = watched.progress.read && watched.every;
            watched.restart();
            self.read_again(key, now);
            if told {
                self.tell_gap(key, reason, now);
                told_of.insert(key);
            }
        }
        for client in self.clients.values_mut() {
            client.delivery.restart();
            // A replay that waits for the first read is kept: it finds the new stream then and tells the
            // client, which nothing else would do.
            let ended = client.replaying.extract_if(|key, replay| replay.started() || told_of.contains(key));
            let replays = ended.filter(|(_, replay)| Replay::started(replay)).count();
            client.delivery.owe_less(replays);
        }
        false
    }

    /// Returns a read that compares the live `Every` channels with the stream; `None` if none is watched.
    pub(crate) fn audit(&self) -> Option<ReadRequest> {
        let live = self.watched.iter().filter(|(_, watched)| watched.every && watched.phase.is_live());
        let channels = live.map(|(key, watched)| watched.look(key)).collect();
        // Also without any `Every` channel: the answer has the epoch.
        let requested = self.progress.snapshot();
        (!self.watched.is_empty()).then_some(ReadRequest { channels, requested })
    }

    /// Applies the answer to an audit. A channel of which the stream holds more has missed something; if
    /// there is none, everything up to that place was processed.
    pub(crate) fn audited(&mut self, result: &ReadResult, now: Now) {
        for key in std::mem::take(&mut self.reads.given_up) {
            self.read_again(key, now);
        }
        if !self.is_same_stream(result.requested, &result.info, now) {
            return;
        }
        self.progress.report(result.up_to);
        for read in &result.channels {
            let watched = self.watched.get_mut(read.channel);
            let Some(watched) = watched.filter(|watched| watched.phase.is_live()) else { continue };
            match read.last {
                Some(last) if last > watched.progress.seen => self.read_again(read.channel, now),
                _ => watched.progress.prove(result.up_to),
            }
        }
        self.progress.forget_floor();
        let live = self.watched.values().filter(|watched| watched.every && watched.phase.is_live());
        let proven = live.map(|watched| watched.progress.proven).min().unwrap_or(result.up_to);
        self.progress.advance(proven.min(result.up_to));
    }

    /// Passes on live messages that have waited for too long for a read that doesn't succeed, behind a gap.
    pub(super) fn read_timeout_due(&mut self, now: Now) {
        self.reads.timeout_armed = false;
        let (mut late, mut next) = (Vec::new(), None);
        for (key, watched) in self.watched.iter() {
            match watched.phase.read_deadline(now.instant) {
                Some(deadline) if deadline <= now.instant => late.push(key),
                Some(deadline) => next = Some(next.map_or(deadline, |next| deadline.min(next))),
                None => {}
            }
        }
        for key in late {
            let Some(watched) = self.watched.get_mut(key) else { continue };
            watched.progress.read = true;
            watched.pipeline.assume_complete();
            let (waiting, seen) = (watched.phase.give_up(), watched.progress.seen);
            if watched.every {
                self.tell_gap(key, GapReason::BrokerAway, now);
            } else {
                self.reads.given_up.push(key);
            }
            for message in waiting.into_iter().filter(|message| message.sequence > seen) {
                self.pass(key, message, now);
            }
            self.settle_viewers(key, &[], now);
        }
        if let Some(next) = next {
            self.reads.timeout_armed = true;
            self.timers.add(next, Timer::ReadTimeout);
        }
    }
}
