//! Clients that come back with the id of the last event that they got.
//!
//! For each `Every` channel of such a client: what comes live waits, while a task reads what was stored since
//! that id and gives it to the client; then what waited follows. A channel whose newest message is not newer
//! than the id needs no reading. Of one without any message only the stream's oldest sequence tells whether
//! it had one.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::HubState;
use crate::fanout::arena::Key;
use crate::fanout::outbox::{Outbox, Push};
use crate::pipeline::{ChannelPipeline, Frame, GapReason, Moment};
use flutecast_contract::stream_position::{Epoch, EventId};

/// Where a client resumes.
pub(super) type Resume = EventId;

/// What waits for a client until older events of the same channel were replayed.
#[derive(Debug)]
pub(super) struct Replay {
    started: bool,
    /// Whether the read that it waits for began after the client came, so that it tells of everything that
    /// the client may have seen.
    looked_up: bool,
    held: VecDeque<Frame>,
    lost: u64,
    /// Cancelled when nobody waits for it any more: the client left the channel, or the channel is gone.
    stop: CancellationToken,
}

/// A replay that is to be started.
#[derive(Debug)]
pub(in crate::fanout) struct ReplayRequest {
    /// For whom.
    pub(in crate::fanout) client: Key,
    /// Of which channel.
    pub(in crate::fanout) watch: Key,
    /// Where its messages are stored.
    pub(in crate::fanout) stored: String,
    /// After which sequence.
    pub(in crate::fanout) after: u64,
    /// Up to which sequence; what is newer the client gets from the hub.
    pub(in crate::fanout) until: u64,
    /// The stream's incarnation.
    pub(in crate::fanout) epoch: Epoch,
    /// Formats as the channel does, but has seen nothing.
    pub(in crate::fanout) pipeline: ChannelPipeline,
    /// The client's backlog.
    pub(in crate::fanout) outbox: Arc<Outbox>,
    /// The client doesn't want it any more.
    pub(in crate::fanout) stop: CancellationToken,
}

/// How a replay ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::fanout) enum ReplayEnd {
    /// The client has got everything since its id.
    Complete,
    /// It can't be shown that it has.
    Gap(GapReason),
}

impl Drop for Replay {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Replay {
    /// One that waits for a read, which began after the client came or didn't.
    pub(super) fn waiting(looked_up: bool) -> Self {
        Self { started: false, looked_up, held: VecDeque::new(), lost: 0, stop: CancellationToken::new() }
    }

    fn started_with(stop: CancellationToken) -> Self {
        Self { started: true, looked_up: true, held: VecDeque::new(), lost: 0, stop }
    }

    /// Whether a task is at it, so that the client is owed it.
    pub(super) fn started(&self) -> bool {
        self.started
    }

    /// Whether it has to wait for another read than the one that has ended. The next one will do.
    pub(super) fn needs_another_read(&mut self) -> bool {
        !std::mem::replace(&mut self.looked_up, true)
    }

    /// Keeps what came live.
    pub(super) fn keep(&mut self, frame: Frame, bound: usize) {
        if self.held.len() >= bound {
            self.held.pop_front();
            self.lost += 1;
        }
        self.held.push_back(frame);
    }
}

impl HubState {
    /// A client watches an `Every` channel that can be passed on: what does it get first?
    pub(super) fn begin(&mut self, client_key: Key, key: Key, now: Moment) {
        let (Some(epoch), Some(watch), Some(client)) =
            (self.epoch, self.watches.get(key), self.clients.get_mut(client_key))
        else {
            return;
        };
        let Some(resume) = client.resume else { return };
        let last = watch.last_sequence.max(watch.proven_to);
        if resume.epoch != epoch || resume.sequence > last.max(self.position).max(self.newest_known) {
            // The second: the stream has fewer messages than the client has seen. It was set back.
            let reason = if resume.epoch == epoch { GapReason::Retention } else { GapReason::Epoch };
            self.begin_after_gap(client_key, key, reason, now);
        } else if watch.last_sequence == 0 && resume.sequence < watch.gone_to {
            // What was stored after the id may have been taken with everything else.
            self.begin_after_gap(client_key, key, GapReason::Retention, now);
        } else if watch.last_sequence <= resume.sequence {
            // Nothing newer than the id is stored. (The newest message of a subject goes last.)
            client.replaying.remove(&key);
        } else {
            // What waits is older than `last_sequence`, and so part of the replay.
            let stop = CancellationToken::new();
            client.replaying.insert(key, Replay::started_with(stop.clone()));
            client.unsettled += 1;
            let mut pipeline = watch.pipeline.clone();
            pipeline.reset();
            self.work.replays.push(ReplayRequest {
                client: client_key,
                watch: key,
                stored: watch.stored.clone(),
                after: resume.sequence,
                until: watch.last_sequence,
                epoch,
                pipeline,
                outbox: Arc::clone(&client.outbox),
                stop,
            });
        }
    }

    /// Nothing of what was missed can be read: the client is told, and gets the current value.
    fn begin_after_gap(&mut self, client_key: Key, key: Key, reason: GapReason, now: Moment) {
        let (Some(watch), Some(client)) = (self.watches.get(key), self.clients.get_mut(client_key)) else {
            return;
        };
        self.metrics.gaps(reason, 1);
        client.replaying.remove(&key);
        if self.epoch == client.resume.map(|resume| resume.epoch) {
            // Where the stream was set back, the sequences up to its id come once more, with other messages.
            // It is told its place anew.
            client.had = 0;
            client.last_id = None;
        }
        client.push(Push::Control, watch.pipeline.frames.gap(reason, None), now, &self.metrics);
        if let Some(frame) = watch.latest.clone() {
            client.push(Push::Snapshot(key), frame.without_id(), now, &self.metrics);
        }
        self.stale_behind_values(client_key, key, now);
    }

    /// Of a stale channel a client has just got old events. It may have taken them for fresh ones.
    fn stale_behind_values(&mut self, client_key: Key, key: Key, now: Moment) {
        if let (Some(watch), Some(client)) = (self.watches.get(key), self.clients.get_mut(client_key))
            && watch.freshness.stale
        {
            client.push(Push::Freshness(key), watch.stale_frame(), now, &self.metrics);
        }
    }

    /// A replay ended: what waited follows.
    pub(in crate::fanout) fn replayed(&mut self, client_key: Key, key: Key, end: ReplayEnd, now: Moment) {
        let (Some(watch), Some(client)) = (self.watches.get(key), self.clients.get_mut(client_key)) else {
            return;
        };
        if !client.replaying.get(&key).is_some_and(Replay::started) {
            return;
        }
        let Some(mut replay) = client.replaying.remove(&key) else { return };
        if let ReplayEnd::Gap(reason) = end {
            self.metrics.gaps(reason, 1);
            client.push(Push::Control, watch.pipeline.frames.gap(reason, None), now, &self.metrics);
        }
        if replay.lost > 0 {
            self.metrics.gaps(GapReason::SlowClient, 1);
            let gap = watch.pipeline.frames.gap(GapReason::SlowClient, Some(replay.lost));
            client.push(Push::Control, gap, now, &self.metrics);
        }
        for frame in std::mem::take(&mut replay.held) {
            client.push_frame(Push::Every(key), &frame, now, &self.metrics);
        }
        self.stale_behind_values(client_key, key, now);
        self.client_settles(client_key, now);
    }
}
