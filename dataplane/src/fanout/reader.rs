//! Reads from the stream. The hub runs each of them in a task, which folds what it reads: the hub takes over
//! the result.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use async_nats::Subscriber;
use flutecast_contract::stream_position::{Epoch, Sequence};
use flutecast_contract::subject;
use flutecast_nats::stream::StreamState;
use flutecast_nats::{RequestError, StoredMessage, StreamReader};
use futures_util::{StreamExt, stream};
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::timeout;

use super::hub::HubReport;
use super::keys::ChannelKey;
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
///
/// Where some channels take more than their newest messages, the others are reported before, and taken from
/// `unread`.
pub(super) async fn read(
    streams: &TenantStreams,
    clock: &BrokerClock,
    request: &ReadRequest,
    unread: &mut Vec<ChannelKey>,
    reports: &UnboundedSender<HubReport>,
) -> Result<ReadResult, RequestError> {
    for item in &request.channels {
        if let Some(subject) = &item.open {
            let subscriber = subscribe(&streams.reader, subject).await?;
            // Nothing receives this if the hub is gone; then the rest isn't needed either.
            let _ = reports.send(HubReport::Opened(item.channel, subscriber));
        }
    }
    timeout(READ, read_all(streams, clock, request, unread, reports))
        .await
        .map_err(|_| RequestError::no_answer())?
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
    unread: &mut Vec<ChannelKey>,
    reports: &UnboundedSender<HubReport>,
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
    let lasts = lasts.messages.into_iter().map(|message| (message.subject.clone(), message)).collect();
    let part = |channels| ReadResult { requested: request.requested, info, up_to, channels };
    let mut report = |channels: Vec<ChannelReadResult>| {
        let reported: HashSet<_> = channels.iter().map(|result| result.channel).collect();
        unread.retain(|channel| !reported.contains(channel));
        let _ = reports.send(HubReport::ReadPart(part(channels)));
    };
    let (mut channels, failure) =
        read_channels(&streams.at(info), &request.channels, lasts, info, &mut report).await;
    add_kept_values(streams, &request.channels, &mut channels, info.epoch).await;
    match failure {
        None => Ok(part(channels)),
        Some(error) => {
            if !channels.is_empty() {
                report(channels);
            }
            Err(error)
        }
    }
}

/// Reads what is needed of channels behind their newest messages. A channel that takes long, or that can't be
/// read, keeps no other one waiting: where there may be one, `report` gets those that have a value. Returns
/// the others, and why some are not among them.
pub(super) async fn read_channels(
    stored: &impl StoredMessages,
    items: &[ChannelRead],
    mut lasts: HashMap<String, StoredMessage>,
    info: StreamState,
    report: &mut impl FnMut(Vec<ChannelReadResult>),
) -> (Vec<ChannelReadResult>, Option<RequestError>) {
    let (mut at_once, mut others) = (Vec::new(), Vec::new());
    for item in items {
        let last = lasts.remove(&item.stored);
        match read_at_once(item, last.as_ref(), info) {
            Some(result) => at_once.push(result),
            None => others.push(read_channel(stored, item, last, info)),
        }
    }
    if others.is_empty() {
        return (at_once, None);
    }
    // A part says that the stream can be read.
    if !at_once.is_empty() {
        report(at_once);
    }
    let (mut valueless, mut failure) = (Vec::new(), None);
    let mut reads = stream::iter(others).buffer_unordered(CONCURRENT);
    while let Some(read) = reads.next().await {
        match read {
            Ok(result) if result.folded.as_ref().is_some_and(|folded| folded.value.is_none()) => {
                valueless.push(result);
            }
            Ok(result) => report(vec![result]),
            Err(error) => failure = Some(error),
        }
    }
    (valueless, failure)
}

/// Returns what is known of a channel by its newest message; `None` if that isn't enough.
fn read_at_once(
    item: &ChannelRead,
    last: Option<&StoredMessage>,
    info: StreamState,
) -> Option<ChannelReadResult> {
    let mut result = ChannelReadResult::of(item.channel, last.map(|last| last.sequence));
    match (&item.kind, last) {
        (ReadKind::Look, _) => {}
        (ReadKind::Tail { pipeline, whole: false }, Some(last)) => {
            let folded = Folded::of_newest(pipeline, info.epoch, last).ok()??;
            result.verdicts.extend(folded.newest.clone());
            result.folded = Some(folded);
        }
        (ReadKind::Missed { after, .. }, None) => result.complete = info.first_sequence <= after.next(),
        // A subject's newest message is removed last: if it is an old one, there was no newer one.
        (ReadKind::Missed { after, renew: false, .. }, Some(last)) if last.sequence <= *after => {}
        _ => return None,
    }
    Some(result)
}

/// Reads what is needed of one channel behind its newest message, which was read before and isn't enough.
async fn read_channel(
    stored: &impl StoredMessages,
    item: &ChannelRead,
    last: Option<StoredMessage>,
    info: StreamState,
) -> Result<ChannelReadResult, RequestError> {
    let mut result = ChannelReadResult::of(item.channel, last.as_ref().map(|last| last.sequence));
    match &item.kind {
        ReadKind::Look => {}
        ReadKind::Tail { pipeline, .. } => {
            let folded = match last {
                Some(last) => fold_tail(stored, pipeline, info.epoch, last).await?,
                None => Folded::new(pipeline.complete()),
            };
            result.verdicts.extend(folded.newest.clone());
            result.folded = Some(folded);
        }
        ReadKind::Missed { after, pipeline, renew } => {
            let missed = Missed { stored, subject: &item.stored, epoch: info.epoch, after: *after, pipeline };
            if let Some(last) = last {
                missed.read(last, *renew, &mut result).await?;
            }
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
        last: StoredMessage,
        renew: bool,
        result: &mut ChannelReadResult,
    ) -> Result<(), RequestError> {
        if last.sequence <= self.after {
            // Only the format is new.
            result.folded = fold_newest(self.stored, self.pipeline, self.epoch, last, |_| true).await?;
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
            && matches!(item.kind, ReadKind::Tail { .. })
            && folded.value.is_none()
        {
            wanted.insert(subject::kept_of(&item.stored), folded);
        }
    }
    streams.add_kept(wanted, epoch).await;
}
