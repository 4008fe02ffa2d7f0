//! Reads from the stream. The hub runs each of them in a task.

use std::collections::HashMap;
use std::time::Duration;

use async_nats::Subscriber;
use flutecast_contract::stream_position::Sequence;
use flutecast_nats::stream::StreamState;
use flutecast_nats::{RequestError, StoredMessage, StreamReader};
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::timeout;

use super::hub::HubReport;
use super::state::{ChannelRead, ChannelReadResult, ReadRequest, ReadResult};
use crate::ingest::broker_clock::BrokerClock;
use crate::ingest::history::HistoryReader;

/// The longest that a whole read may take.
const READ: Duration = Duration::from_secs(60);
/// The longest that subscribing may take: it waits only for room in the NATS client's queue.
const SUBSCRIBE: Duration = Duration::from_secs(5);
/// The most histories that are read at once.
const CONCURRENT: usize = 8;
/// A longer history is not read to its end: the clients get a gap instead.
const MAX_HISTORY: usize = 16_384;

/// Opens the subscriptions that are missing, and reads. The server handles the requests of one connection in
/// order: the subscriptions exist before the stream is read, so messages stored after the read come live.
pub(super) async fn read(
    reader: &StreamReader,
    clock: &BrokerClock,
    request: &ReadRequest,
    reports: &UnboundedSender<HubReport>,
) -> Result<ReadResult, RequestError> {
    for item in &request.channels {
        if let Some(subject) = &item.open {
            let subscriber = subscribe(reader, subject).await?;
            // Nothing receives this if the hub is gone; then the rest isn't needed either.
            let _ = reports.send(HubReport::Opened(item.channel, subscriber));
        }
    }
    timeout(READ, read_all(reader, clock, request)).await.map_err(|_| RequestError::no_answer())?
}

async fn subscribe(reader: &StreamReader, subject: &str) -> Result<Subscriber, RequestError> {
    let subscribed = timeout(SUBSCRIBE, reader.client().subscribe(subject.to_owned())).await;
    subscribed
        .map_err(|_| RequestError::no_answer())?
        .map_err(|error| RequestError::BadAnswer(error.to_string()))
}

async fn read_all(
    reader: &StreamReader,
    clock: &BrokerClock,
    request: &ReadRequest,
) -> Result<ReadResult, RequestError> {
    let info = clock.state(reader).await?;
    let subjects: Vec<String> = request.channels.iter().map(|item| item.stored.clone()).collect();
    let lasts = reader.last_of(&subjects).await?;
    // No subject has a message: that holds for the last sequence of the stream.
    let up_to = lasts.up_to.unwrap_or(info.last_sequence);
    if up_to < info.last_sequence {
        return Err(RequestError::BadAnswer(
            "a replica that lags behind the stream's leader has answered".to_owned(),
        ));
    }
    let info = if lasts.messages.len() < subjects.len() {
        // For a subject without a message it matters what retention has removed up to now.
        let later = clock.state(reader).await?;
        if later.epoch != info.epoch {
            return Err(RequestError::BadAnswer("the stream was created again meanwhile".to_owned()));
        }
        StreamState { first_sequence: later.first_sequence, ..info }
    } else {
        info
    };
    let mut lasts: HashMap<String, StoredMessage> =
        lasts.messages.into_iter().map(|message| (message.subject.clone(), message)).collect();
    let items: Vec<(ChannelRead, Option<StoredMessage>)> =
        request.channels.iter().map(|item| (item.clone(), lasts.remove(&item.stored))).collect();
    let channels = stream::iter(items)
        .map(|(item, last)| read_watch(reader, item, last, info))
        .buffer_unordered(CONCURRENT)
        .try_collect()
        .await?;
    Ok(ReadResult { requested: request.requested, info, up_to, channels })
}

async fn read_watch(
    reader: &StreamReader,
    item: ChannelRead,
    last: Option<StoredMessage>,
    info: StreamState,
) -> Result<ChannelReadResult, RequestError> {
    let (messages, complete) = match (item.after, last) {
        (None, last) => (Vec::from_iter(last), true),
        // A subject's newest message is removed last: if it is an old one, there was no newer one.
        (Some(after), Some(last)) if last.sequence <= after => (vec![last], true),
        (Some(after), Some(_)) => read_history(reader, &item.stored, after).await?,
        (Some(after), None) => (Vec::new(), info.first_sequence <= after.next()),
    };
    Ok(ChannelReadResult { channel: item.channel, messages, complete })
}

async fn read_history(
    reader: &StreamReader,
    stored: &str,
    after: Sequence,
) -> Result<(Vec<StoredMessage>, bool), RequestError> {
    let mut history = HistoryReader::new(reader, stored, after);
    let mut messages = Vec::new();
    while let Some(page) = history.next_page().await? {
        messages.extend(page);
        if messages.len() > MAX_HISTORY {
            // The newest message matters more than the oldest ones, which were read.
            let newest = reader.last_of(&[stored.to_owned()]).await?;
            return Ok((newest.messages, false));
        }
    }
    let complete = history.completeness().await?.complete;
    Ok((messages, complete))
}
