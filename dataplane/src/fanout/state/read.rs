//! Reads from the stream: the newest values when a channel is first watched, and the missed messages when
//! some may have been missed.
//!
//! Live messages of an `Every` channel wait meanwhile and follow in order. Live messages of a `Latest`
//! channel are passed on: they are newer than what is read.

use std::collections::HashSet;

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
use super::watch::Watch;
use crate::fanout::Unavailable;
use crate::fanout::keys::{ClientKey, WatchKey};
use crate::pipeline::{GapReason, Now};
use crate::sources::ordered::SlotKey;

#[derive(Debug, Default)]
pub(crate) struct ReadRequest {
    pub(crate) channels: Vec<ChannelRead>,
    pub(crate) requested: ProgressSnapshot,
}

impl ReadRequest {
    pub(crate) fn watches(&self) -> Vec<WatchKey> {
        self.channels.iter().map(|channel| channel.watch).collect()
    }
}

#[derive(Debug, Clone)]
pub(crate) struct ChannelRead {
    pub(crate) watch: WatchKey,
    pub(crate) stored: String,
    /// The subject to subscribe to before the channel is read; `None` if there is a subscription.
    pub(crate) open: Option<String>,
    /// The place after which every message is needed; `None` if only the newest message is.
    pub(crate) after: Option<Sequence>,
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
    pub(crate) watch: WatchKey,
    /// The messages that were asked for, and in any case the newest one, in stream order.
    pub(crate) messages: Vec<StoredMessage>,
    /// Whether these are all that were stored.
    pub(crate) complete: bool,
}

/// The reads that wait to be started, and whether reading works.
#[derive(Debug, Default)]
pub(super) struct ReadQueue {
    unread: Vec<WatchKey>,
    /// Whether the stream's epoch has to be asked for although no channel has to be read.
    pub(super) ask_epoch: bool,
    /// Why the last read failed. New clients get it as a `refused`.
    pub(super) failure: Option<Unavailable>,
    timeout_armed: bool,
}

impl ReadQueue {
    /// Adds a channel, and sets the timer for reads that take too long.
    pub(super) fn request(&mut self, key: WatchKey, now: Instant, timers: &mut Timers) {
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
            let Some(watch) = self.watches.get_mut(key) else { continue };
            if watch.phase.start_read() {
                let open = watch.subscription.is_none().then(|| watch.live.clone());
                let after = watch.progress.read_after().filter(|_| watch.every);
                channels.push(ChannelRead { watch: key, stored: watch.stored.clone(), open, after });
            }
        }
        let ask_epoch = std::mem::take(&mut self.reads.ask_epoch);
        let requested = self.progress.snapshot();
        (ask_epoch || !channels.is_empty()).then_some(ReadRequest { channels, requested })
    }

    /// Records the subscription of a channel. Returns it if it is no longer wanted.
    pub(crate) fn opened(&mut self, key: WatchKey, subscription: SlotKey) -> Option<SlotKey> {
        let watch = self.watches.get_mut(key).filter(|watch| watch.subscription.is_none());
        let Some(watch) = watch else { return Some(subscription) };
        watch.subscription = Some(subscription);
        None
    }

    /// Reads a channel again, as some of its messages may have been missed.
    pub(crate) fn read_again(&mut self, key: WatchKey, now: Now) {
        let Some(watch) = self.watches.get_mut(key) else { return };
        if watch.phase.request_read(now.instant) {
            for &viewer in &watch.viewers {
                if let Some(client) = self.clients.get_mut(viewer) {
                    client.delivery.owe();
                }
            }
            self.reads.request(key, now.instant, &mut self.timers);
        }
    }

    /// Reads all channels again, as messages of any of them may have been missed.
    pub(crate) fn read_all_again(&mut self, now: Now) {
        for key in self.watches.all_keys() {
            self.read_again(key, now);
        }
    }

    /// Records that these channels can't be read now. Returns whether the reason is a new one.
    pub(crate) fn read_failed(&mut self, watches: &[WatchKey], failure: Unavailable, now: Now) -> bool {
        self.requeue(watches);
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

    fn requeue(&mut self, keys: &[WatchKey]) {
        for &key in keys {
            if self.watches.get_mut(key).is_some_and(|watch| watch.phase.requeue()) {
                self.reads.unread.push(key);
            }
        }
    }

    pub(crate) fn apply_read(&mut self, result: ReadResult, now: Now) {
        let ReadResult { requested, info, up_to, channels } = result;
        self.reads.failure = None;
        let keys: Vec<WatchKey> = channels.iter().map(|read| read.watch).collect();
        if !self.is_same_stream(requested, &info, now) {
            return self.requeue(&keys);
        }
        self.progress.report(up_to);
        self.admit_waiting(now);
        let mut messages: Vec<(WatchKey, StoredMessage)> = Vec::new();
        for ChannelReadResult { watch: key, messages: stored, complete } in channels {
            if !complete {
                self.tell_gap(key, GapReason::Retention, now);
            }
            if stored.is_empty()
                && let Some(watch) = self.watches.get_mut(key)
            {
                watch.progress.found_empty(info.first_sequence, complete);
            }
            messages.extend(stored.into_iter().map(|message| (key, message)));
        }
        messages.sort_by_key(|(_, message)| message.sequence);
        for (key, message) in &messages {
            self.accept_stored(*key, message, now);
        }
        self.go_live(&keys, up_to, now);
        if std::mem::take(&mut self.progress.unplaced) {
            for key in self.clients.all_keys() {
                self.settle(key, now);
            }
        }
    }

    /// Makes channels live that were read: the messages that waited follow.
    fn go_live(&mut self, keys: &[WatchKey], up_to: Sequence, now: Now) {
        let mut waiting: Vec<(WatchKey, LiveMessage)> = Vec::new();
        let mut live = Vec::with_capacity(keys.len());
        for &key in keys {
            let Some(watch) = self.watches.get_mut(key).filter(|watch| !watch.phase.is_live()) else {
                continue;
            };
            watch.progress.read = true;
            watch.progress.prove(up_to);
            let Some(buffer) = watch.phase.end_read() else {
                self.reads.unread.push(key);
                continue;
            };
            waiting.extend(buffer.into_iter().map(|message| (key, message)));
            watch.renewed = false;
            self.change_freshness(key, now, |freshness| freshness.judge(now.instant));
            live.push(key);
        }
        waiting.sort_by_key(|(_, message)| message.sequence);
        // The viewers are still owed their channels, so that none of these messages gets an id.
        for (key, message) in &waiting {
            self.accept_next(*key, message, now);
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
    fn settle_viewers(&mut self, key: WatchKey, newcomers: &[ClientKey], now: Now) {
        let Some(watch) = self.watches.get(key) else { return };
        for viewer in watch.viewers.clone() {
            let replay = self.clients.get(viewer).and_then(|client| client.replaying.get(&key));
            if replay.is_some_and(|replay| !replay.started()) && !newcomers.contains(&viewer) {
                self.begin_resume(viewer, key, now);
            }
            self.pay(viewer, now);
        }
    }

    /// Returns the viewers that resume from a place which the read that has just ended can't cover: they came
    /// after it had begun, from a pod that has seen more. The next read will do.
    fn newcomers(&mut self, key: WatchKey) -> Vec<ClientKey> {
        let Some(watch) = self.watches.get(key) else { return Vec::new() };
        let mut newcomers = watch.viewers.clone();
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
        let mut told_of = HashSet::new();
        for key in self.watches.all_keys() {
            let Some(watch) = self.watches.get_mut(key) else { continue };
            let told = watch.progress.read && watch.every;
            watch.restart();
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
        let live = self.watches.iter().filter(|(_, watch)| watch.every && watch.phase.is_live());
        let read = |(key, watch): (WatchKey, &Watch)| ChannelRead {
            watch: key,
            stored: watch.stored.clone(),
            open: None,
            after: None,
        };
        let channels = live.map(read).collect();
        // Also without any `Every` channel: the answer has the epoch.
        let requested = self.progress.snapshot();
        (!self.watches.is_empty()).then_some(ReadRequest { channels, requested })
    }

    /// Applies the answer to an audit. A channel of which the stream holds more has missed something; if
    /// there is none, everything up to that place was processed.
    pub(crate) fn audited(&mut self, result: &ReadResult, now: Now) {
        if !self.is_same_stream(result.requested, &result.info, now) {
            return;
        }
        self.progress.report(result.up_to);
        for read in &result.channels {
            let watch = self.watches.get_mut(read.watch);
            let Some(watch) = watch.filter(|watch| watch.phase.is_live()) else { continue };
            match read.messages.last() {
                Some(last) if last.sequence > watch.progress.seen => self.read_again(read.watch, now),
                _ => watch.progress.prove(result.up_to),
            }
        }
        self.progress.forget_floor();
        let live = self.watches.values().filter(|watch| watch.every && watch.phase.is_live());
        let proven = live.map(|watch| watch.progress.proven).min().unwrap_or(result.up_to);
        self.progress.advance(proven.min(result.up_to));
    }

    /// Passes on live messages that have waited for too long for a read that doesn't succeed, behind a gap.
    pub(super) fn read_timeout_due(&mut self, now: Now) {
        self.reads.timeout_armed = false;
        let (mut late, mut next) = (Vec::new(), None);
        for (key, watch) in self.watches.iter() {
            match watch.phase.read_deadline(now.instant) {
                Some(deadline) if deadline <= now.instant => late.push(key),
                Some(deadline) => next = Some(next.map_or(deadline, |next| deadline.min(next))),
                None => {}
            }
        }
        for key in late {
            self.tell_gap(key, GapReason::BrokerAway, now);
            let Some(watch) = self.watches.get_mut(key) else { continue };
            watch.progress.read = true;
            for message in watch.phase.give_up() {
                self.accept_next(key, &message, now);
            }
            self.settle_viewers(key, &[], now);
        }
        if let Some(next) = next {
            self.reads.timeout_armed = true;
            self.timers.add(next, Timer::ReadTimeout);
        }
    }
}
