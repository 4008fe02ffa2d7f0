//! Gives a client that comes back what it missed of one `Every` channel.

use std::time::Duration;

use flutecast_contract::stream_position::{EventId, Sequence};
use flutecast_nats::{RequestError, StoredMessage, StreamReader};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};

use super::backlog::FrameKind;
use super::state::{ReplayOutcome, ReplayRequest};
use crate::pipeline::{ChannelPipeline, GapReason};
use crate::sources::history::HistoryReader;

/// How long a replay goes on trying to read.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long it waits before it reads again after an error, and before it looks again whether the client has
/// taken something.
const PAUSE: Duration = Duration::from_millis(50);
/// How long it waits at most.
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// Reads what was stored since the client's id and pushes it, as fast as the client takes it.
/// `permits` bounds how many read at once; a client that takes slowly holds none.
pub(super) async fn replay(
    reader: &StreamReader,
    mut request: ReplayRequest,
    permits: &Semaphore,
) -> ReplayOutcome {
    let stored = request.stored.clone();
    let mut history = HistoryReader::new(reader, &stored, request.after.0);
    let mut patience = Patience::new();
    loop {
        // The semaphore is never closed.
        let permit = permits.acquire().await;
        let page = history.next_page().await;
        drop(permit);
        let page = match page {
            Ok(page) => page,
            Err(error) if patience.lasts(&error).await => continue,
            Err(_) => return ReplayOutcome::Gap(GapReason::BrokerAway),
        };
        let Some(page) = page else { break };
        patience = Patience::new();
        let until = request.until;
        let beyond = page.last().is_some_and(|last| Sequence(last.sequence) >= until);
        for message in page.iter().filter(|message| Sequence(message.sequence) <= until) {
            if !push(&mut request, message).await {
                return ReplayOutcome::Complete;
            }
        }
        if beyond {
            break;
        }
    }
    loop {
        match history.completeness().await {
            Ok(found) if found.epoch != request.epoch => return ReplayOutcome::Gap(GapReason::Epoch),
            Ok(found) if found.complete => return ReplayOutcome::Complete,
            Ok(_) => return ReplayOutcome::Gap(GapReason::Retention),
            Err(error) if patience.lasts(&error).await => {}
            Err(_) => return ReplayOutcome::Gap(GapReason::BrokerAway),
        }
    }
}

/// Pushes one event when there is room; false if the client is gone, or wants it no more. Without an id:
/// newer events of other channels may have been delivered before.
async fn push(request: &mut ReplayRequest, message: &StoredMessage) -> bool {
    let mut scratch = Vec::new();
    let id = EventId { epoch: request.epoch, sequence: Sequence(message.sequence) };
    let arrived = ChannelPipeline::read_back(&message.payload, message.stored_at.into());
    // What reached no client then reaches none now, and was counted then.
    let Ok(formatted) = request.pipeline.apply(id, arrived, &mut scratch) else {
        return true;
    };
    loop {
        if request.backlog.is_closed() || request.stop.is_cancelled() {
            return false;
        }
        if request.backlog.room() > 0 {
            let kind = FrameKind::Every(request.watch, request.pipeline.writer.clone());
            request.backlog.push(kind, formatted.frame.without_id(), Instant::now());
            return true;
        }
        sleep(PAUSE).await;
    }
}

/// How long errors are borne.
struct Patience {
    end: Instant,
    pause: Duration,
}

impl Patience {
    fn new() -> Self {
        Self { end: Instant::now() + PATIENCE, pause: PAUSE }
    }

    /// Waits a little; false if it is over.
    async fn lasts(&mut self, error: &RequestError) -> bool {
        if Instant::now() >= self.end {
            tracing::debug!(reason = error.label(), "a replay was given up");
            return false;
        }
        sleep(self.pause.mul_f64(rand::random_range(0.5..1.5))).await;
        self.pause = (self.pause * 2).min(MAX_PAUSE);
        true
    }
}
