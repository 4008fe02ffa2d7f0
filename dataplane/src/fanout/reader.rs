//! Reads from the stream. The hub runs each of them in a task, which folds what it reads: the hub takes over
//! the result.

use std::collections::HashMap;
use std::time::Duration;

use async_nats::Subscriber;
use flutecast_contract::stream_position::{Epoch, Sequence};
use flutecast_contract::subject;
use flutecast_nats::stream::StreamState;
use flutecast_nats::{RequestError, StoredMessage, StreamReader};
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::timeout;

use super::hub::HubReport;
use super::state::{ChannelRead, ChannelReadResult, ReadKind, ReadRequest, ReadResult};
use super::stored::TenantStreams;
use super::tail::{Folded, StoredMessages, fold_newest, fold_tail, fold_up_to};
use crate::ingest::broker_clock::BrokerClock;
use crate::pipeline::ChannelPipeline;

/// The longest that a whole read may take.
const READ: Duration = Duration::from_secs(60);
/// The longest that subscribing may take: it waits only for room in the NATS client's queue.
const SUBSCRIBE: Duration = Duration::from_secs(5);
/// The most channels whose tail or history is read at once.
const CONCURRENT: usize = 8;

/// Opens the subscriptions that are missing, and reads. The server handles the requests of one connection in
/// order: the subscriptions exist before the stream is read, so messages stored after the read come live.
pub(super) async fn read(
    streams: &TenantStreams,
    clock: &BrokerClock,
    request: &ReadRequest,
    reports: &UnboundedSender<HubReport>,
) -> Result<ReadResult, RequestError> {
    for item in &request.channels {
        if let Some(subject) = &item.open {
            let subscriber = subscribe(&streams.reader, subject).await?;
            // Nothing receives this if the hub is gone; then the rest isn't needed either.
            let _ = reports.send(HubReport::Opened(item.channel, subscriber));
        }
    }
    timeout(READ, read_all(streams, clock, request)).await.map_err(|_| RequestError::no_answer())?
}

async fn subscribe(reader: &StreamReader, subject: &str) -> Result<Subscriber, RequestError> {
    let subscribed = timeout(SUBSCRIBE, reader.client().subscribe(subject.to_owned())).await;
    subscribed
        .map_err(|_| RequestError::no_answer())?
        .map_err(|error| RequestError::BadAnswer(error.to_string()))
}

async fn read_all(
    streams: &TenantStreams,
    clock: &BrokerClock,
    request: &ReadRequest,
) -> Result<ReadResult, RequestError> {
    let info = clock.state(&streams.reader).await?;
    let subjects: Vec<String> = request.channels.iter().map(|item| item.stored.clone()).collect();
    let lasts = streams.lasts(&subjects).await?;
    // No subject has a message: that holds for the last sequence of the stream.
    let up_to = lasts.up_to.unwrap_or(info.last_sequence);
    if up_to < info.last_sequence {
        return Err(RequestError::BadAnswer(
            "a replica that lags behind the stream's leader has answered".to_owned(),
        ));
    }
    let info = if lasts.messages.len() < subjects.len() {
        // For a subject without a message it matters what retention has removed up to now.
        let later = clock.state(&streams.reader).await?;
        if later.epoch != info.epoch {
            return Err(RequestError::BadAnswer("the stream was created again meanwhile".to_owned()));
        }
        StreamState { first_sequence: later.first_sequence, ..info }
    } else {
        info
    };
    let mut lasts: HashMap<String, StoredMessage> =
        lasts.messages.into_iter().map(|message| (message.subject.clone(), message)).collect();
    let at = streams.at(info);
    let reads: Vec<_> = request
        .channels
        .iter()
        .map(|item| read_channel(&at, item, lasts.remove(&item.stored), info))
        .collect();
    let mut channels: Vec<_> = stream::iter(reads).buffer_unordered(CONCURRENT).try_collect().await?;
    add_kept_values(streams, &request.channels, &mut channels, info.epoch).await;
    Ok(ReadResult { requested: request.requested, info, up_to, channels })
}

/// Reads what is needed of one channel behind its newest message, which was read before.
pub(super) async fn read_channel(
    stored: &impl StoredMessages,
    item: &ChannelRead,
    last: Option<StoredMessage>,
    info: StreamState,
) -> Result<ChannelReadResult, RequestError> {
    let mut result = ChannelReadResult::of(item.channel, last.as_ref().map(|last| last.sequence));
    match &item.kind {
        ReadKind::Look => {}
        ReadKind::Tail(pipeline) => {
            let folded = match last {
                Some(last) => fold_newest(stored, pipeline, info.epoch, last, || true).await?,
                None => None,
            };
            let folded = folded.unwrap_or_else(|| Folded::new(pipeline.complete()));
            result.verdicts.extend(folded.newest.clone());
            result.folded = Some(folded);
        }
        ReadKind::Missed { after, pipeline, renew } => {
            let missed = Missed { stored, subject: &item.stored, epoch: info.epoch, after: *after, pipeline };
            missed.read(last, *renew, info, &mut result).await?;
        }
    }
    Ok(result)
}

/// The messages of an `Every` channel after a place.
struct Missed<'a, S> {
    stored: &'a S,
    subject: &'a str,
    epoch: Epoch,
    after: Sequence,
    pipeline: &'a ChannelPipeline,
}

impl<S: StoredMessages> Missed<'_, S> {
    async fn read(
        &self,
        last: Option<StoredMessage>,
        renew: bool,
        info: StreamState,
        result: &mut ChannelReadResult,
    ) -> Result<(), RequestError> {
        let Some(last) = last else {
            result.complete = info.first_sequence <= self.after.next();
            return Ok(());
        };
        // A subject's newest message is removed last: if it is an old one, there was no newer one.
        if last.sequence <= self.after {
            if renew {
                let folded = fold_newest(self.stored, self.pipeline, self.epoch, last, || true).await?;
                result.folded = folded;
            }
            return Ok(());
        }
        let Some((missed, complete)) = self.stored.missed(self.subject, self.after).await? else {
            // The newest message matters more than the oldest ones, which were read.
            result.complete = false;
            let folded = fold_tail(self.stored, self.pipeline, self.epoch, last.clone()).await?;
            (result.missed, result.verdicts) = (vec![last], Vec::from_iter(folded.newest.clone()));
            result.folded = Some(folded.with_value(None));
            return Ok(());
        };
        result.complete = complete;
        let folded = match renew {
            false => Some(Folded::new(self.pipeline.clone())),
            // What is shown at the end is enough, if the messages before have no part in it.
            true if !self.pipeline.program().remembers() => Some(Folded::new(self.pipeline.complete())),
            true => None,
        };
        if let Some(mut folded) = folded
            && let Some(verdicts) = folded.add_all(self.epoch, &missed)
            && (!renew || folded.value.is_some())
        {
            (result.missed, result.verdicts) = (missed, verdicts);
            result.folded = Some(folded.with_value(None));
            return Ok(());
        }
        let mut folded = fold_up_to(self.stored, self.pipeline, self.epoch, self.subject, self.after).await?;
        let before = folded.value.take();
        let verdicts = folded.add_all(self.epoch, &missed);
        let verdicts =
            verdicts.ok_or_else(|| RequestError::BadAnswer("a tail that decides nothing".to_owned()))?;
        // Events that follow show what the channel shows.
        let value = before.filter(|_| folded.value.is_none());
        (result.missed, result.verdicts) = (missed, verdicts);
        result.folded = Some(folded.with_value(value));
        Ok(())
    }
}

/// Gives the channels of which the tenant's stream shows nothing the values that were kept.
async fn add_kept_values(
    streams: &TenantStreams,
    items: &[ChannelRead],
    channels: &mut [ChannelReadResult],
    epoch: Epoch,
) {
    let items: HashMap<_, _> = items.iter().map(|item| (item.channel, item)).collect();
    let mut wanted = HashMap::new();
    for result in channels {
        if let (Some(item), Some(folded)) = (items.get(&result.channel), &mut result.folded)
            && matches!(item.kind, ReadKind::Tail(_))
            && folded.value.is_none()
        {
            wanted.insert(subject::kept_of(&item.stored), folded);
        }
    }
    streams.add_kept(wanted, epoch).await;
}
