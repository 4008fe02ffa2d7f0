//! Clients that come back with the id of the last event that they got.
//!
//! For each `Every` channel of such a client, live messages wait while a task reads what was stored since
//! that id and gives it to the client; then the waiting messages follow. A channel whose newest message is
//! not newer than the id needs no reading. For a channel without any message only the stream's oldest
//! sequence tells whether it had one.

use std::collections::VecDeque;
use std::sync::Arc;

use flutecast_contract::stream_position::{Epoch, Sequence};
use tokio_util::sync::CancellationToken;

use super::HubState;
use super::progress::ResumePlan;
use crate::fanout::backlog::{Backlog, FrameKind};
use crate::fanout::keys::{ClientKey, WatchKey};
use crate::pipeline::{ChannelPipeline, Frame, GapReason, Now};

/// One channel of one client whose live messages wait until older events were replayed.
#[derive(Debug)]
pub(super) struct Replay {
    started: bool,
    /// Whether the read that it waits for began after the client came, so that the read covers everything
    /// that the client may have seen.
    awaits_covering_read: bool,
    held: VecDeque<Frame>,
    lost: u64,
    /// Cancelled when the replay is no longer needed: the client left the channel, or the channel is gone.
    stop: CancellationToken,
}

/// A replay that is to be started.
#[derive(Debug)]
pub(in crate::fanout) struct ReplayRequest {
    pub(in crate::fanout) client: ClientKey,
    pub(in crate::fanout) watch: WatchKey,
    /// The subject under which the channel's messages are stored.
    pub(in crate::fanout) stored: String,
    pub(in crate::fanout) after: Sequence,
    /// The last message to replay; the client gets newer ones from the hub.
    pub(in crate::fanout) until: Sequence,
    pub(in crate::fanout) epoch: Epoch,
    /// Formats as the channel does, but has seen nothing.
    pub(in crate::fanout) pipeline: ChannelPipeline,
    pub(in crate::fanout) backlog: Arc<Backlog>,
    /// Cancelled when the client no longer needs the replay.
    pub(in crate::fanout) stop: CancellationToken,
}

/// How a replay ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::fanout) enum ReplayOutcome {
    /// The client has got everything since its id.
    Complete,
    /// It can't be proven that it has.
    Gap(GapReason),
}

impl Drop for Replay {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Replay {
    /// Creates a replay that waits for a read; `covering` tells whether that read began after the client
    /// came.
    pub(super) fn waiting(covering: bool) -> Self {
        Self {
            started: false,
            awaits_covering_read: covering,
            held: VecDeque::new(),
            lost: 0,
            stop: CancellationToken::new(),
        }
    }

    fn started_with(stop: CancellationToken) -> Self {
        let mut replay = Self::waiting(true);
        (replay.started, replay.stop) = (true, stop);
        replay
    }

    /// Returns whether a task is replaying, so that the client is owed it.
    pub(super) fn started(&self) -> bool {
        self.started
    }

    /// Returns whether the read that has ended began too early. The next one will do.
    pub(super) fn needs_another_read(&mut self) -> bool {
        !std::mem::replace(&mut self.awaits_covering_read, true)
    }

    /// Holds a live event back. Beyond `bound` the oldest ones are dropped.
    pub(super) fn hold(&mut self, frame: Frame, bound: usize) {
        if self.held.len() >= bound {
            self.held.pop_front();
            self.lost += 1;
        }
        self.held.push_back(frame);
    }
}

impl HubState {
    /// Starts to resume a client on an `Every` channel that has been read.
    pub(super) fn begin_resume(&mut self, client_key: ClientKey, key: WatchKey, now: Now) {
        let (Some(epoch), Some(watch), Some(client)) =
            (self.progress.epoch(), self.watches.items.get(key), self.clients.items.get_mut(client_key))
        else {
            return;
        };
        let Some(resume) = client.resume else { return };
        match watch.progress.plan_resume(&self.progress, resume) {
            ResumePlan::Gap(reason) => self.resume_after_gap(client_key, key, reason, now),
            ResumePlan::Nothing => {
                client.replaying.remove(&key);
            }
            ResumePlan::Replay => {
                // The events held back so far are not newer than `until`, so they are part of the replay.
                let stop = CancellationToken::new();
                client.replaying.insert(key, Replay::started_with(stop.clone()));
                client.delivery.owe();
                let mut pipeline = watch.pipeline.clone();
                pipeline.reset();
                self.io.replays.push(ReplayRequest {
                    client: client_key,
                    watch: key,
                    stored: watch.stored.clone(),
                    after: resume.sequence,
                    until: watch.progress.seen(),
                    epoch,
                    pipeline,
                    backlog: Arc::clone(&client.backlog),
                    stop,
                });
            }
        }
    }

    /// Tells a client that the events that it missed can't be read, and gives it the current value.
    fn resume_after_gap(&mut self, client_key: ClientKey, key: WatchKey, reason: GapReason, now: Now) {
        let (Some(watch), Some(client)) =
            (self.watches.items.get(key), self.clients.items.get_mut(client_key))
        else {
            return;
        };
        self.metrics.gaps(reason, 1);
        client.replaying.remove(&key);
        if self.progress.epoch() == client.resume.map(|resume| resume.epoch) {
            // The stream was set back: it uses the sequences up to the client's id again, for other messages.
            client.delivery.restart();
        }
        client.enqueue(FrameKind::Control, watch.pipeline.writer.gap(reason, None), now, &self.metrics);
        if let Some(frame) = &watch.latest {
            client.enqueue(FrameKind::snapshot(key), frame.without_id(), now, &self.metrics);
        }
        self.repeat_staleness(client_key, key, now);
    }

    /// Tells a client again that a channel is stale, as it may have taken the old events that it has just got
    /// for fresh ones.
    fn repeat_staleness(&mut self, client_key: ClientKey, key: WatchKey, now: Now) {
        if let (Some(watch), Some(client)) =
            (self.watches.items.get(key), self.clients.items.get_mut(client_key))
            && watch.freshness.is_stale()
        {
            client.enqueue(FrameKind::freshness(key), watch.stale_frame(), now, &self.metrics);
        }
    }

    /// Ends a replay: the events that were held back follow.
    pub(in crate::fanout) fn replayed(
        &mut self,
        client_key: ClientKey,
        key: WatchKey,
        outcome: ReplayOutcome,
        now: Now,
    ) {
        let (Some(watch), Some(client)) =
            (self.watches.items.get(key), self.clients.items.get_mut(client_key))
        else {
            return;
        };
        if !client.replaying.get(&key).is_some_and(Replay::started) {
            return;
        }
        let Some(mut replay) = client.replaying.remove(&key) else { return };
        let gap = |client: &mut super::Client, reason, lost| {
            self.metrics.gaps(reason, 1);
            client.enqueue(FrameKind::Control, watch.pipeline.writer.gap(reason, lost), now, &self.metrics);
        };
        if let ReplayOutcome::Gap(reason) = outcome {
            gap(client, reason, None);
        }
        if replay.lost > 0 {
            gap(client, GapReason::SlowClient, Some(replay.lost));
        }
        for frame in std::mem::take(&mut replay.held) {
            client.enqueue_data(watch.every_kind(key), &frame, now, &self.metrics);
        }
        self.repeat_staleness(client_key, key, now);
        self.pay(client_key, now);
    }
}
