//! Clients that come back with the id of the last event that they got.
//!
//! For each `Every` channel of such a client, live messages wait while a task reads what was stored since
//! that id and gives it to the client; then the waiting messages follow. A channel whose newest message is
//! not newer than the id needs no reading. For a channel without any message only the stream's oldest
//! sequence tells whether it had one.

use std::collections::VecDeque;
use std::sync::Arc;

use flutecast_contract::stream_position::{Epoch, Sequence};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::HubState;
use super::progress::ResumePlan;
use crate::fanout::backlog::{Backlog, FrameKind};
use crate::fanout::keys::{ChannelKey, ClientKey};
use crate::pipeline::{ChannelPipeline, Frame, GapReason, Now};

/// One channel of one client whose live messages wait until older events were replayed.
#[derive(Debug, Default)]
pub(super) struct Replay {
    /// Cancels the task that replays when the client leaves the channel; `None` while it waits for a read.
    task: Option<DropGuard>,
    /// `true` if the read that it waits for began after the client came, so that the read covers everything
    /// that the client may have seen.
    pub(super) awaits_covering_read: bool,
    held: VecDeque<Frame>,
    lost: u64,
}

#[derive(Debug)]
pub(crate) struct ReplayRequest {
    pub(crate) client: ClientKey,
    pub(crate) channel: ChannelKey,
    pub(crate) stored: String,
    pub(crate) after: Sequence,
    /// The last message to replay; the client gets newer ones from the hub.
    pub(crate) until: Sequence,
    pub(crate) epoch: Epoch,
    /// Formats as the channel does, but has seen nothing.
    pub(crate) pipeline: ChannelPipeline,
    pub(crate) backlog: Arc<Backlog>,
    pub(crate) stop: CancellationToken,
}

impl Replay {
    pub(super) fn waiting(awaits_covering_read: bool) -> Self {
        Self { awaits_covering_read, ..Self::default() }
    }

    /// Returns whether a task is replaying, so that the client is owed it.
    pub(super) fn started(&self) -> bool {
        self.task.is_some()
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
    pub(super) fn begin_resume(&mut self, viewer: ClientKey, key: ChannelKey, now: Now) {
        let (Some(epoch), Some(watched), Some(client)) =
            (self.progress.epoch, self.watched.get(key), self.clients.get_mut(viewer))
        else {
            return;
        };
        let Some(resume) = client.resume else { return };
        // The events held back so far are not newer than the newest one that was seen: the client has them,
        // or gets them by what follows.
        client.replaying.remove(&key);
        match watched.progress.plan_resume(&self.progress, resume) {
            ResumePlan::Nothing => {}
            ResumePlan::Gap(reason) => {
                self.metrics.gaps(reason, 1);
                if epoch == resume.epoch {
                    // The stream was set back: it uses the sequences up to the client's id again, for other
                    // messages.
                    client.delivery.restart();
                }
                let gap = watched.pipeline.writer.gap(reason, None);
                client.enqueue(FrameKind::Control, gap, now, &self.metrics);
                client.show_value(key, watched, now, &self.metrics);
            }
            ResumePlan::Replay => {
                let stop = CancellationToken::new();
                let task = Some(stop.clone().drop_guard());
                client.replaying.insert(key, Replay { task, ..Replay::default() });
                client.delivery.owe();
                self.io.replays.push(ReplayRequest {
                    client: viewer,
                    channel: key,
                    stored: watched.stored.clone(),
                    after: resume.sequence,
                    until: watched.progress.seen,
                    epoch,
                    pipeline: watched.pipeline.renewed(),
                    backlog: Arc::clone(&client.backlog),
                    stop,
                });
            }
        }
    }

    /// Ends a replay: the events that were held back follow.
    pub(crate) fn replayed(
        &mut self,
        viewer: ClientKey,
        key: ChannelKey,
        end: Result<(), GapReason>,
        now: Now,
    ) {
        let (Some(watched), Some(client)) = (self.watched.get(key), self.clients.get_mut(viewer)) else {
            return;
        };
        if !client.replaying.get(&key).is_some_and(Replay::started) {
            return;
        }
        let Some(Replay { held, lost, .. }) = client.replaying.remove(&key) else { return };
        let gap = end.err().map(|reason| (reason, None));
        let overflow = (lost > 0).then_some((GapReason::SlowClient, Some(lost)));
        for (reason, lost) in gap.into_iter().chain(overflow) {
            self.metrics.gaps(reason, 1);
            client.enqueue(FrameKind::Control, watched.pipeline.writer.gap(reason, lost), now, &self.metrics);
        }
        for frame in held {
            client.enqueue_data(FrameKind::Every(frame.names()), &frame, now, &self.metrics);
        }
        client.show_staleness(key, watched, now, &self.metrics);
        self.owe_one_less(viewer, now);
    }
}
