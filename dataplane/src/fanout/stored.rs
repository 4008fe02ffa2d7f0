//! Reads from the streams of a tenant, bounded and counted.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use flutecast_contract::name::TenantName;
use flutecast_contract::stream_position::{Epoch, Sequence};
use flutecast_contract::subject;
use flutecast_contract::tail::MESSAGES;
use flutecast_nats::stream::{BoundedTail, LastMessages, Page, StreamState};
use flutecast_nats::{RequestError, StoredMessage, StreamReader};
use futures_util::{StreamExt, stream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::hub::HubContext;
use super::metrics::{FanoutMetrics, StreamRead};
use super::tail::{Folded, StoredMessages};
use crate::ingest::history::HistoryReader;

/// A longer history is not read to its end: the clients get a gap instead.
const MAX_HISTORY: usize = 16_384;
/// The most pages of one tail: as many as hold [`MESSAGES`] of the largest messages.
const TAIL_PAGES: usize = 128;
/// The most sets of kept values that are read at once.
const CONCURRENT_KEPT: usize = 8;
/// The longest that the kept last values may take: nothing else may wait for them.
const KEPT: Duration = Duration::from_millis(900);

/// The tenant's stream, and the one of its kept last values. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct TenantStreams {
    pub(super) reader: StreamReader,
    kept: StreamReader,
    metrics: FanoutMetrics,
    tails: Arc<Semaphore>,
    /// The state of the tenant's stream, if it was read.
    state: Option<StreamState>,
}

impl TenantStreams {
    pub(super) fn new(reader: StreamReader, tenant: &TenantName, context: &HubContext) -> Self {
        let kept = StreamReader::new(reader.client().clone(), subject::kept_stream(tenant));
        let (metrics, tails) = (context.metrics.clone(), Arc::clone(&context.tails));
        Self { reader, kept, metrics, tails, state: None }
    }

    /// Returns the same, for reads of the stream in this state.
    pub(super) fn at(&self, state: StreamState) -> Self {
        Self { state: Some(state), ..self.clone() }
    }

    /// Returns the newest message of each of these subjects.
    pub(super) async fn lasts(&self, subjects: &[String]) -> Result<LastMessages, RequestError> {
        self.metrics.stream_read(StreamRead::Last);
        self.reader.last_of(subjects).await
    }

    async fn page(&self, subject: &str, from: Sequence) -> Result<Page, RequestError> {
        self.metrics.stream_read(StreamRead::Tail);
        self.reader.page(subject, from).await
    }

    /// Returns the place where the newest messages up to a place begin, if they begin far behind `page`.
    async fn skip(
        &self,
        subject: &str,
        page: &Page,
        up_to: Sequence,
    ) -> Result<Option<Sequence>, RequestError> {
        let Some(last) = page.messages.last() else { return Ok(None) };
        // Of messages that are so large that few fill a page, a tail has few.
        let wanted = MESSAGES.min(4 * page.messages.len()) as u64;
        let skip_beyond = 4 * wanted;
        if page.pending < skip_beyond || last.sequence >= up_to {
            return Ok(None);
        }
        let behind = self.page(subject, up_to.next()).await?;
        let behind = behind.pending.saturating_add(behind.messages.len() as u64);
        if page.pending.saturating_sub(behind) < skip_beyond {
            return Ok(None);
        }
        self.metrics.stream_read(StreamRead::Tail);
        let start = self.reader.start_of_newest(subject, behind.saturating_add(wanted)).await?;
        Ok(start.filter(|start| *start > last.sequence))
    }

    /// Gives channels of which the tenant's stream shows nothing the values that were kept, by subject.
    /// They count if they are of this incarnation of the tenant's stream. A stream that is absent, that may
    /// not be read, or that doesn't answer soon has none.
    pub(super) async fn add_kept(&self, mut wanted: HashMap<String, &mut Folded>, epoch: Epoch) {
        if wanted.is_empty() {
            return;
        }
        let subjects: Vec<String> = wanted.keys().cloned().collect();
        let is_record = |(_, folded): &(&String, &&mut Folded)| folded.pipeline.program().is_record();
        let records: HashSet<String> =
            wanted.iter().filter(is_record).map(|(kept, _)| kept.clone()).collect();
        let mut add = |mut set: Vec<StoredMessage>| {
            retain_epoch(&mut set, epoch);
            let Some(folded) = set.first().and_then(|first| wanted.get_mut(&first.subject)) else { return };
            folded.add_kept(Folded::of_tail(&folded.pipeline, epoch, &set));
        };
        let read = async {
            self.metrics.stream_read(StreamRead::Kept);
            let lasts = self.kept.last_of(&subjects).await?.messages;
            let (of_records, others): (Vec<_>, Vec<_>) =
                lasts.into_iter().partition(|last| records.contains(&last.subject));
            others.into_iter().for_each(|last| add(vec![last]));
            let reads: Vec<_> = of_records.iter().map(|last| self.kept_set(&last.subject)).collect();
            let mut sets = stream::iter(reads).buffer_unordered(CONCURRENT_KEPT);
            while let Some(set) = sets.next().await {
                add(set?);
            }
            Ok::<(), RequestError>(())
        };
        // Those that were read until then count.
        if let Ok(Err(error)) = timeout(KEPT, read).await
            && error != RequestError::NoStream
        {
            tracing::debug!(%error, "kept last values can't be read");
        }
    }

    /// Returns the messages that were kept on a subject: one, or those that a record is gathered from.
    async fn kept_set(&self, kept: &str) -> Result<Vec<StoredMessage>, RequestError> {
        self.metrics.stream_read(StreamRead::Kept);
        Ok(self.kept.page(kept, Sequence::START.next()).await?.messages)
    }
}

impl StoredMessages for TenantStreams {
    async fn tail(
        &self,
        subject: &str,
        since: Option<jiff::Timestamp>,
        up_to: Sequence,
    ) -> Result<Vec<StoredMessage>, RequestError> {
        // The semaphore is never closed.
        let _permit = self.tails.acquire().await;
        let mut page = match since {
            Some(since) => {
                self.metrics.stream_read(StreamRead::Tail);
                self.reader.page_from(subject, since).await?
            }
            None => self.page(subject, Sequence::START.next()).await?,
        };
        if let Some(start) = self.skip(subject, &page, up_to).await? {
            page = self.page(subject, start).await?;
        }
        let mut newest = BoundedTail::default();
        for _ in 0..TAIL_PAGES {
            let (pending, count) = (page.pending, page.messages.len());
            let next = page.messages.last().map(|last| last.sequence.next());
            page.messages
                .into_iter()
                .filter(|message| message.sequence <= up_to)
                .for_each(|m| newest.push(m));
            let Some(next) = next.filter(|next| pending > 0 && count > 0 && *next <= up_to) else { break };
            page = self.page(subject, next).await?;
        }
        Ok(newest.into())
    }

    async fn last_up_to(
        &self,
        subject: &str,
        up_to: Sequence,
    ) -> Result<Option<StoredMessage>, RequestError> {
        if up_to == Sequence::START {
            return Ok(None);
        }
        self.metrics.stream_read(StreamRead::Tail);
        Ok(self.reader.last_up_to(&[subject], up_to).await?.messages.pop())
    }

    async fn kept_since(&self, subject: &str, since: Option<jiff::Timestamp>) -> Vec<StoredMessage> {
        let removed = |state: &StreamState| state.time.checked_sub(state.max_age?).ok();
        let state = self.state.filter(|state| removed(state).is_some_and(|removed| since < Some(removed)));
        let Some(state) = state else { return Vec::new() };
        let set = timeout(KEPT, self.kept_set(&subject::kept_of(subject))).await;
        let mut set = set.ok().and_then(Result::ok).unwrap_or_default();
        retain_epoch(&mut set, state.epoch);
        set
    }

    async fn missed(
        &self,
        subject: &str,
        after: Sequence,
    ) -> Result<Option<(Vec<StoredMessage>, bool)>, RequestError> {
        let mut history = HistoryReader::new(&self.reader, subject, after);
        let mut messages = Vec::new();
        loop {
            self.metrics.stream_read(StreamRead::Missed);
            let Some(page) = history.next_page().await? else { break };
            messages.extend(page);
            if messages.len() > MAX_HISTORY {
                return Ok(None);
            }
        }
        let complete = history.completeness().await?.complete;
        Ok(Some((messages, complete)))
    }
}

/// Leaves the kept messages of this incarnation of the tenant's stream.
fn retain_epoch(kept: &mut Vec<StoredMessage>, epoch: Epoch) {
    kept.retain(|message| message.origin.is_some_and(|origin| origin.epoch == epoch));
}
