//! What is read from the stream: the newest values when a channel is first watched, and what was missed when
//! something may have been.
//!
//! What comes live of an `Every` channel waits meanwhile and follows in order. What comes live of a `Latest`
//! channel is passed on: it is newer than what is read.

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::Instant;

use super::resume::Replay;
use super::timers::Due;
use super::watch::{Phase, Reading};
use super::{HubState, Trouble};
use crate::fanout::arena::Key;
use crate::pipeline::{GapReason, Moment};
use crate::sources::message::{LiveMessage, StoredMessage};
use crate::sources::ordered::SlotKey;
use crate::sources::stored::StreamInfo;
use flutecast_contract::stream_position::Epoch;

/// How long what comes live of an `Every` channel waits for a read that doesn't succeed.
pub(super) const OVERDUE: Duration = Duration::from_secs(15);

/// Reads to be done together.
#[derive(Debug, Default)]
pub(in crate::fanout) struct ReadRequest {
    pub(in crate::fanout) items: Vec<ReadItem>,
    /// Where the state stood when the read was asked for.
    pub(in crate::fanout) asked_at: AskedAt,
}

/// Where the state stood when something was asked.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::fanout) struct AskedAt {
    epoch: Option<Epoch>,
    /// The stream's newest place that was known of, by what came live or by a read.
    reached: u64,
}

/// One channel to be read.
#[derive(Debug, Clone)]
pub(in crate::fanout) struct ReadItem {
    pub(in crate::fanout) watch: Key,
    /// Where its messages are stored.
    pub(in crate::fanout) stored: String,
    /// What has to be subscribed to before it is read; none: that is so already.
    pub(in crate::fanout) open: Option<String>,
    /// After which sequence everything is needed; none: only the newest message.
    pub(in crate::fanout) after: Option<u64>,
}

/// What was read.
#[derive(Debug)]
pub(in crate::fanout) struct ReadResult {
    pub(in crate::fanout) asked_at: AskedAt,
    pub(in crate::fanout) info: StreamInfo,
    /// The place in the stream for which it holds.
    pub(in crate::fanout) up_to: u64,
    pub(in crate::fanout) watches: Vec<ReadWatch>,
}

/// What was read of one channel.
#[derive(Debug)]
pub(in crate::fanout) struct ReadWatch {
    pub(in crate::fanout) watch: Key,
    /// What is newer than asked for, and in any case the newest message, in stream order.
    pub(in crate::fanout) messages: Vec<StoredMessage>,
    /// Whether that is everything.
    pub(in crate::fanout) complete: bool,
}

impl HubState {
    /// The next reads, at most `max` channels; none: there is nothing to read.
    pub(in crate::fanout) fn next_read(&mut self, max: usize) -> Option<ReadRequest> {
        let mut items = Vec::new();
        while items.len() < max {
            let Some(key) = self.unread.pop() else { break };
            let Some(watch) = self.watches.get_mut(key) else { continue };
            let after = watch.read_after();
            let Phase::Reading(reading) = &mut watch.phase else { continue };
            if reading.in_flight {
                continue;
            }
            reading.in_flight = true;
            let open = watch.slot.is_none().then(|| watch.live.clone());
            items.push(ReadItem { watch: key, stored: watch.stored.clone(), open, after });
        }
        let ask_epoch = std::mem::take(&mut self.ask_epoch);
        (ask_epoch || !items.is_empty()).then(|| ReadRequest { items, asked_at: self.asked_at() })
    }

    fn asked_at(&self) -> AskedAt {
        AskedAt { epoch: self.epoch, reached: self.position.max(self.newest_known) }
    }

    /// A channel is subscribed to. Gives the subscription back if nobody wants it any more.
    pub(in crate::fanout) fn opened(&mut self, key: Key, slot: SlotKey) -> Option<SlotKey> {
        match self.watches.get_mut(key) {
            Some(watch) if watch.slot.is_none() => {
                watch.slot = Some(slot);
                None
            }
            _ => Some(slot),
        }
    }

    /// Something of this channel may have been missed.
    pub(in crate::fanout) fn read_again(&mut self, key: Key, now: Moment) {
        let Some(watch) = self.watches.get_mut(key) else { return };
        match &mut watch.phase {
            Phase::Reading(reading) => reading.again = reading.in_flight,
            Phase::Live => {
                watch.phase = Phase::Reading(Reading::new(now));
                self.unread.push(key);
                self.arm_overdue(now);
                let Some(watch) = self.watches.get(key) else { return };
                for &viewer in &watch.viewers {
                    if let Some(client) = self.clients.get_mut(viewer) {
                        client.unsettled += 1;
                    }
                }
            }
        }
    }

    /// The connection to the broker was lost, or dropped something: anything may have been missed.
    pub(in crate::fanout) fn suspect_all(&mut self, now: Moment) {
        for key in self.watches.keys() {
            self.read_again(key, now);
        }
    }

    /// A read failed; it is to be tried again. Returns whether that is news.
    pub(in crate::fanout) fn read_failed(&mut self, watches: &[Key], trouble: Trouble, now: Moment) -> bool {
        for &key in watches {
            self.requeue(key);
        }
        self.in_trouble(trouble, now)
    }

    /// The stream can't be read now. Returns whether that is news.
    pub(in crate::fanout) fn in_trouble(&mut self, trouble: Trouble, now: Moment) -> bool {
        let news = self.trouble != Some(trouble);
        self.trouble = Some(trouble);
        if news && self.catalog.is_some() {
            for key in self.clients.keys() {
                // Who has got the snapshot already only sees that nothing comes.
                if self.clients.get(key).is_some_and(|client| client.last_id.is_none()) {
                    self.tell(key, trouble.refusal(), now);
                }
            }
        }
        if !self.arrivals.is_empty() {
            self.admit_arrivals(now);
        }
        news
    }

    fn requeue(&mut self, key: Key) {
        let Some(watch) = self.watches.get_mut(key) else { return };
        if let Phase::Reading(reading) = &mut watch.phase {
            reading.in_flight = false;
            reading.again = false;
            self.unread.push(key);
        }
    }

    /// What was read.
    pub(in crate::fanout) fn apply_read(&mut self, result: ReadResult, now: Moment) {
        let ReadResult { asked_at, info, up_to, watches } = result;
        self.trouble = None;
        if !self.belongs(asked_at, &info, now) {
            watches.iter().for_each(|read| self.requeue(read.watch));
            return;
        }
        self.newest_known = self.newest_known.max(up_to);
        self.admit_arrivals(now);
        for read in watches.iter().filter(|read| !read.complete) {
            self.tell_gap(read.watch, GapReason::Retention, now);
        }
        for read in watches.iter().filter(|read| read.messages.is_empty()) {
            // Where nothing was missed since an earlier read, that one knew more.
            if let Some(watch) =
                self.watches.get_mut(read.watch).filter(|watch| !watch.known || !read.complete)
            {
                watch.gone_to = info.first_sequence.saturating_sub(1);
            }
        }
        let keys: Vec<Key> = watches.iter().map(|read| read.watch).collect();
        let mut messages: Vec<(Key, StoredMessage)> = Vec::new();
        for read in watches {
            messages.extend(read.messages.into_iter().map(|message| (read.watch, message)));
        }
        messages.sort_by_key(|(_, message)| message.sequence);
        for (key, message) in &messages {
            self.stored_message(*key, message, now);
        }
        self.go_live(&keys, up_to, now);
        self.place_clients(now);
    }

    /// These channels were read: what waited follows, and then what comes live.
    fn go_live(&mut self, keys: &[Key], up_to: u64, now: Moment) {
        let mut waiting: Vec<(Key, LiveMessage)> = Vec::new();
        let mut read = Vec::with_capacity(keys.len());
        for &key in keys {
            let Some(watch) = self.watches.get_mut(key) else { continue };
            let Phase::Reading(reading) = &mut watch.phase else { continue };
            watch.known = true;
            watch.proven_to = watch.proven_to.max(up_to);
            if reading.again {
                reading.buffer.clear();
                self.requeue(key);
                continue;
            }
            waiting.extend(std::mem::take(&mut reading.buffer).into_iter().map(|message| (key, message)));
            watch.phase = Phase::Live;
            watch.renewed = false;
            self.judge_freshness(key, now);
            read.push(key);
        }
        waiting.sort_by_key(|(_, message)| message.sequence);
        // The viewers are still owed their channels, so that nothing of this gets an id.
        for (key, message) in waiting {
            self.follow(key, message, now);
        }
        self.floor = None;
        for key in read {
            let newcomers = self.newcomers(key);
            if !newcomers.is_empty() {
                self.read_again(key, now);
            }
            self.settle_viewers(key, &newcomers, now);
        }
    }

    /// `newcomers` wait for another read.
    fn settle_viewers(&mut self, key: Key, newcomers: &[Key], now: Moment) {
        let Some(watch) = self.watches.get(key) else { return };
        for viewer in watch.viewers.clone() {
            let waits =
                |client: &super::Client| client.replaying.get(&key).is_some_and(|replay| !replay.started());
            if !newcomers.contains(&viewer) && self.clients.get(viewer).is_some_and(waits) {
                self.begin(viewer, key, now);
            }
            self.client_settles(viewer, now);
        }
    }

    /// Those who resume from a place that the read which has just ended can't have told of: they came after
    /// it had begun, from a pod that has seen more.
    fn newcomers(&mut self, key: Key) -> Vec<Key> {
        let Some(watch) = self.watches.get(key) else { return Vec::new() };
        let mut newcomers = Vec::new();
        for viewer in watch.viewers.clone() {
            let knows = self.knows_place(viewer);
            let replay = self.clients.get_mut(viewer).and_then(|client| client.replaying.get_mut(&key));
            if replay.is_some_and(|replay| !replay.started() && !knows && replay.needs_another_read()) {
                newcomers.push(viewer);
            }
        }
        newcomers
    }

    /// Whether an answer is about the stream that this state knows. If the stream was made anew, or set back,
    /// everything starts again.
    fn belongs(&mut self, asked_at: AskedAt, info: &StreamInfo, now: Moment) -> bool {
        let Some(epoch) = self.epoch else {
            self.epoch = Some(info.epoch);
            return true;
        };
        if asked_at.epoch.is_some_and(|asked| asked != epoch) {
            // It was asked before the stream was found to be new, so it may tell of the old one.
            return false;
        }
        if info.epoch != epoch {
            self.start_again(info.epoch, GapReason::Epoch, now);
            return false;
        }
        if info.last_sequence < asked_at.reached {
            self.start_again(epoch, GapReason::Retention, now);
            return false;
        }
        true
    }

    /// The stream was made anew, or set back to an earlier state.
    fn start_again(&mut self, epoch: Epoch, reason: GapReason, now: Moment) {
        self.epoch = Some(epoch);
        self.position = 0;
        self.newest_known = 0;
        self.floor = None;
        self.unplaced = true;
        self.ask_epoch = true;
        let mut told_of = HashSet::new();
        for key in self.watches.keys() {
            let Some(watch) = self.watches.get_mut(key) else { continue };
            let told = watch.known && watch.every;
            watch.known = false;
            watch.last_sequence = 0;
            watch.proven_to = 0;
            watch.gone_to = 0;
            watch.latest = None;
            watch.hold.held = None;
            watch.pipeline.reset();
            if let Phase::Reading(reading) = &mut watch.phase {
                reading.buffer.clear();
            }
            self.read_again(key, now);
            if told {
                self.tell_gap(key, reason, now);
                told_of.insert(key);
            }
        }
        for (_, client) in self.clients.iter_mut() {
            client.last_id = None;
            client.had = 0;
            // A replay that waits for the first read finds the new stream then, and tells of it; nobody else
            // would.
            let ended = client.replaying.extract_if(|key, replay| replay.started() || told_of.contains(key));
            let replays = ended.filter(|(_, replay)| Replay::started(replay)).count();
            client.owe_less(replays);
        }
    }

    /// The `Every` channels that are live, to be compared with what the stream says.
    pub(in crate::fanout) fn audit(&self) -> Option<ReadRequest> {
        let items = self.watches.iter().filter(|(_, watch)| watch.every && watch.is_live());
        let items: Vec<_> = items
            .map(|(key, watch)| ReadItem {
                watch: key,
                stored: watch.stored.clone(),
                open: None,
                after: None,
            })
            .collect();
        // Without any `Every` channel the epoch is looked at still.
        (!self.watches.is_empty()).then(|| ReadRequest { items, asked_at: self.asked_at() })
    }

    /// What the stream says of the `Every` channels: those that it has more of were missed something; if
    /// there is none, everything up to there was processed.
    pub(in crate::fanout) fn audited(&mut self, result: &ReadResult, now: Moment) {
        if !self.belongs(result.asked_at, &result.info, now) {
            return;
        }
        self.newest_known = self.newest_known.max(result.up_to);
        let mut missed = Vec::new();
        for read in &result.watches {
            let Some(watch) = self.watches.get_mut(read.watch).filter(|watch| watch.is_live()) else {
                continue;
            };
            match read.messages.last() {
                Some(last) if last.sequence > watch.last_sequence => missed.push(read.watch),
                _ => watch.proven_to = watch.proven_to.max(result.up_to),
            }
        }
        for &key in &missed {
            self.read_again(key, now);
        }
        self.floor = None;
        let live = self.watches.iter().filter(|(_, watch)| watch.every && watch.is_live());
        let proven = live.map(|(_, watch)| watch.proven_to).min().unwrap_or(result.up_to);
        self.advance(proven.min(result.up_to));
    }

    /// What came live has waited too long for a read that doesn't succeed: it is passed on, and a gap is
    /// told.
    pub(super) fn overdue(&mut self, now: Moment) {
        self.overdue_armed = false;
        let mut late = Vec::new();
        let mut next = None::<Instant>;
        for (key, watch) in self.watches.iter() {
            if let Phase::Reading(read) = &watch.phase {
                let end = read.since + OVERDUE;
                if end <= now.instant && (read.again || !read.buffer.is_empty()) {
                    late.push(key);
                } else {
                    // One for which nothing waits is looked at again a little later.
                    let again = end.max(now.instant + OVERDUE / 3);
                    next = Some(next.map_or(again, |next| next.min(again)));
                }
            }
        }
        for key in late {
            self.tell_gap(key, GapReason::BrokerAway, now);
            let Some(watch) = self.watches.get_mut(key) else { continue };
            if let Phase::Reading(read) = &mut watch.phase {
                let buffer = std::mem::take(&mut read.buffer);
                watch.known = true;
                watch.phase = Phase::Live;
                for message in buffer {
                    self.follow(key, message, now);
                }
                self.settle_viewers(key, &[], now);
            }
        }
        if let Some(next) = next {
            self.overdue_armed = true;
            self.timers.add(next, Due::Overdue);
        }
    }

    /// Something is read from now on.
    pub(super) fn arm_overdue(&mut self, now: Moment) {
        if !self.overdue_armed {
            self.overdue_armed = true;
            self.timers.add(now.instant + OVERDUE, Due::Overdue);
        }
    }
}
