//! Replays the messages of an `Every` channel that a client missed while it was away.

use std::time::Duration;

use flutecast_nats::{RequestError, StoredMessage};
use flutecast_process::backoff::Backoff;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};

use super::backlog::FrameKind;
use super::state::ReplayRequest;
use super::stored::TenantStreams;
use super::tail::fold_up_to;
use crate::ingest::history::HistoryReader;
use crate::pipeline::{GapReason, Scratch, Verdict};

/// The longest that a replay retries a read that fails.
const RETRY_TIME: Duration = Duration::from_secs(15);
/// The first pause after an error, and the pause before the client's backlog is looked at again.
const PAUSE: Duration = Duration::from_millis(50);
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// Reads the messages that were stored since the client's id and appends them to its backlog, as fast as the
/// client takes them. `permits` bounds how many replays read at once; a client that takes slowly holds none.
///
/// # Errors
/// Returns why it can't be proven that the client has got everything.
pub(super) async fn replay(
    streams: &TenantStreams,
    mut request: ReplayRequest,
    permits: &Semaphore,
) -> Result<(), GapReason> {
    let stored = request.stored.clone();
    let mut retries = Retries::new();
    // What comes after the client's id may repeat what came before, or be no change.
    if request.pipeline.program().remembers() {
        request.pipeline = loop {
            let permit = permits.acquire().await;
            let primed = fold_up_to(streams, &request.pipeline, request.epoch, &stored, request.after).await;
            drop(permit);
            match primed {
                Ok(primed) => break primed.pipeline,
                Err(error) if retries.wait(&error).await => {}
                Err(_) => return Err(GapReason::BrokerAway),
            }
        };
    } else {
        request.pipeline = request.pipeline.complete();
    }
    let mut history = HistoryReader::new(&streams.reader, &stored, request.after);
    retries = Retries::new();
    loop {
        // The semaphore is never closed.
        let permit = permits.acquire().await;
        let page = history.next_page().await;
        drop(permit);
        let page = match page {
            Ok(page) => page,
            Err(error) if retries.wait(&error).await => continue,
            Err(_) => return Err(GapReason::BrokerAway),
        };
        let Some(page) = page else { break };
        retries = Retries::new();
        let until = request.until;
        let beyond = page.last().is_some_and(|last| last.sequence >= until);
        for message in page.iter().filter(|message| message.sequence <= until) {
            if !push(&mut request, message).await {
                return Ok(());
            }
        }
        if beyond {
            break;
        }
    }
    loop {
        match history.completeness().await {
            Ok(found) if found.epoch != request.epoch => return Err(GapReason::Epoch),
            Ok(found) if found.complete => return Ok(()),
            Ok(_) => return Err(GapReason::Retention),
            Err(error) if retries.wait(&error).await => {}
            Err(_) => return Err(GapReason::BrokerAway),
        }
    }
}

/// Appends one event when there is room. Returns `false` if the client is gone or no longer needs the replay.
/// The event carries no id, as newer events of other channels may have been delivered before.
async fn push(request: &mut ReplayRequest, message: &StoredMessage) -> bool {
    let verdict = request.pipeline.apply(request.epoch, message.into(), &mut Scratch::default());
    // It was counted when it came: as it reached no client then, it reaches none now.
    let Verdict::Shown(formatted) = verdict else { return true };
    loop {
        if request.backlog.is_closed() || request.stop.is_cancelled() {
            return false;
        }
        if request.backlog.room() > 0 {
            let kind = FrameKind::Every(formatted.frame.names());
            request.backlog.push(kind, formatted.frame.without_id(), Instant::now());
            return true;
        }
        sleep(PAUSE).await;
    }
}

/// The retries of a read, until [`RETRY_TIME`] is over.
struct Retries {
    end: Instant,
    backoff: Backoff,
}

impl Retries {
    fn new() -> Self {
        Self { end: Instant::now() + RETRY_TIME, backoff: Backoff::new(PAUSE, MAX_PAUSE) }
    }

    /// Waits before the next attempt. Returns `false` if the time is over.
    async fn wait(&mut self, error: &RequestError) -> bool {
        if Instant::now() >= self.end {
            tracing::debug!(reason = error.label(), "a replay was given up");
            return false;
        }
        sleep(self.backoff.next_wait()).await;
        true
    }
}
