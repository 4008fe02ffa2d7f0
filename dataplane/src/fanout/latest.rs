//! The newest values of channels that nobody watches, read from the stream for the JSON API.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use flutecast_contract::stream_position::Epoch;
use flutecast_contract::subject;
use flutecast_format::program::Problem;
use flutecast_nats::{RequestError, StoredMessage, StreamReader};
use futures_util::{StreamExt, stream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout, timeout_at};

use super::hub::HubContext;
use super::keys::channel_id;
use super::stored::TenantStreams;
use super::tail::{Folded, StoredMessages, fold_newest};
use super::values::LiveValues;
use super::{ChannelValues, Unavailable};
use crate::catalog::{Channel, Device, TenantCatalog};
use crate::pipeline::{ChannelPipeline, Now, problem_json};

/// The most channels with a bad last message whose tails are read for one request, and the time from its
/// start after which no other one is: with the kept values it has to end before the request does.
const LOOK_BACKS: usize = 256;
const LOOK_BACK_TIME: Duration = Duration::from_secs(3);
/// The longest that kept last values may take, with the incarnation of the stream that they belong to.
const KEPT_TIME: Duration = Duration::from_secs(1);
/// The most tails that are read at once for one request.
const CONCURRENT: usize = 8;

/// What one request may read of tails. Beyond it the newest messages have to do.
pub(super) struct LookBackBudget {
    left: AtomicUsize,
    end: Instant,
}

impl LookBackBudget {
    pub(super) fn new() -> Self {
        Self { left: AtomicUsize::new(LOOK_BACKS), end: Instant::now() + LOOK_BACK_TIME }
    }

    /// Of good messages that need their tail, as those of records and of slow clocks, only the time bounds
    /// how many are read.
    fn take(&self, is_bad: bool) -> bool {
        let less = |left: usize| left.checked_sub(1);
        Instant::now() < self.end
            && (!is_bad || self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok())
    }
}

/// A channel as a request names it.
pub(super) type NamedChannel<'a> = (&'a Device, &'a Channel);

/// Reads the newest values of channels from the tenant's stream. `permits` bounds how many requests read the
/// newest messages at once; tails have a bound of their own, so that they keep no other request waiting.
pub(super) async fn read_values(
    context: &HubContext,
    permits: &Semaphore,
    catalog: &TenantCatalog,
    wanted: &[NamedChannel<'_>],
) -> Result<LiveValues, Unavailable> {
    let reader = StreamReader::new(context.broker.client.clone(), catalog.settings.stream.clone());
    let streams = TenantStreams::new(reader, &catalog.name, context);
    let read = read(context, permits, &streams, catalog, wanted).await;
    read.map_err(|error| Unavailable::from(&error))
}

async fn read(
    context: &HubContext,
    permits: &Semaphore,
    streams: &TenantStreams,
    catalog: &TenantCatalog,
    wanted: &[NamedChannel<'_>],
) -> Result<LiveValues, RequestError> {
    let budget = LookBackBudget::new();
    let has_records = wanted.iter().any(|(_, channel)| channel.program.is_record());
    let mut streams = streams.clone();
    if has_records || !context.clock.is_recent() {
        streams = streams.at(context.clock.state(&streams.reader).await?);
    }
    let streams = &streams;
    let stored =
        |device: &Device, channel: &Channel| subject::stored(&catalog.name, &device.iot_id, &channel.name);
    let subjects: Vec<String> = wanted.iter().map(|(device, channel)| stored(device, channel)).collect();
    // The semaphore is never closed.
    let permit = permits.acquire().await;
    let mut lasts: HashMap<String, StoredMessage> = streams
        .lasts(&subjects)
        .await?
        .messages
        .into_iter()
        .map(|message| (message.subject.clone(), message))
        .collect();
    drop(permit);
    let reads: Vec<_> = wanted
        .iter()
        .zip(&subjects)
        .map(|(item, subject)| fold_within(streams, *item, lasts.remove(subject), &budget))
        .collect();
    let mut folded: Vec<_> = stream::iter(reads).buffer_unordered(CONCURRENT).collect().await;
    // What takes longer than the whole request may take is not shown.
    let _ = timeout(KEPT_TIME, add_kept_values(context, streams, catalog, &mut folded)).await;
    let now = context.clock.now();
    let named = |((device, channel), fold): (NamedChannel<'_>, ChannelFold)| {
        (channel_id(device, channel), fold.values(channel, now))
    };
    Ok(folded.into_iter().map(named).collect())
}

/// What the stream holds of a channel.
pub(super) enum ChannelFold {
    Read(Box<Folded>),
    /// Finding a message that can be shown would have taken too long.
    NotRead(StoredMessage),
}

/// Folds the tail of a channel. One that can't be read in time is not read: the other channels are shown.
async fn fold_within<'a>(
    streams: &TenantStreams,
    named: NamedChannel<'a>,
    last: Option<StoredMessage>,
    budget: &LookBackBudget,
) -> (NamedChannel<'a>, ChannelFold) {
    let folded = timeout_at(budget.end, fold_channel(streams, named, last.clone(), budget)).await;
    match (folded, last) {
        (Ok(Ok(folded)), _) => folded,
        (Err(_) | Ok(Err(_)), Some(last)) => (named, ChannelFold::NotRead(last)),
        (Err(_) | Ok(Err(_)), None) => (named, ChannelFold::Read(Folded::new(pipeline(named)).into())),
    }
}

fn pipeline((device, channel): NamedChannel<'_>) -> ChannelPipeline {
    ChannelPipeline::new(&device.code, &channel.name, Arc::clone(&channel.program))
}

/// Folds the tail of a channel behind its newest message, as far as `budget` allows.
pub(super) async fn fold_channel<'a>(
    stored: &impl StoredMessages,
    named: NamedChannel<'a>,
    last: Option<StoredMessage>,
    budget: &LookBackBudget,
) -> Result<(NamedChannel<'a>, ChannelFold), RequestError> {
    let pipeline = pipeline(named);
    let Some(last) = last else { return Ok((named, ChannelFold::Read(Folded::new(pipeline).into()))) };
    // These frames are never sent as events, so the epoch, which only ids have, doesn't matter.
    let folded = fold_newest(stored, &pipeline, Epoch(0), last.clone(), |is_bad| budget.take(is_bad)).await?;
    let fold = folded.map_or(ChannelFold::NotRead(last), |folded| ChannelFold::Read(folded.into()));
    Ok((named, fold))
}

/// Gives the channels of which the tenant's stream shows nothing the values that were kept.
async fn add_kept_values(
    context: &HubContext,
    streams: &TenantStreams,
    catalog: &TenantCatalog,
    folded: &mut [(NamedChannel<'_>, ChannelFold)],
) {
    let mut wanted = HashMap::new();
    for ((device, channel), fold) in folded {
        if let ChannelFold::Read(folded) = fold
            && folded.value.is_none()
        {
            wanted.insert(subject::kept(&catalog.name, &device.iot_id, &channel.name), &mut **folded);
        }
    }
    if wanted.is_empty() {
        return;
    }
    // The request goes on without kept values if the incarnation of the stream can't be learned.
    if let Ok(state) = context.clock.state(&streams.reader).await {
        streams.add_kept(wanted, state.epoch).await;
    }
}

impl ChannelFold {
    pub(super) fn values(self, channel: &Channel, now: Now) -> ChannelValues {
        let (frame, heard, problem) = match self {
            Self::Read(folded) => (folded.value, folded.heard, folded.pipeline.problems.json(now.wall)),
            Self::NotRead(last) => {
                (None, Some(last.stored_at.into()), Some(problem_json(&Problem::not_read())))
            }
        };
        let silent = heard.map(|heard| now.since(heard));
        let stale = channel.stale_after.is_some_and(|after| silent.is_none_or(|silent| silent >= after));
        ChannelValues { name: channel.name.clone(), stale, frame, problem }
    }
}
