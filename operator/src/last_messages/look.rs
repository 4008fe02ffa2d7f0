//! One look at a tenant: sweep what is gone, read the last messages, judge them, keep those that expire.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use flutecast_contract::document::{DeviceDocument, FormatDocument, ShardDocument};
use flutecast_contract::name::{ChannelName, FormatName, IotId, TenantName};
use flutecast_contract::stream_position::Epoch;
use flutecast_contract::subject;
use flutecast_format::program::Program;
use flutecast_nats::stream::MAX_SUBJECTS;
use flutecast_nats::{RequestError, StoredMessage, StreamReader};
use futures_util::{StreamExt, stream};
use tokio::time::Instant;

use super::declared::TenantChannels;
use super::keep::{self, LookTimes, Step};
use super::memory::{ChannelMemory, Kept, Looked, Purge, TenantMemory};
use super::metrics::LookMetrics;
use super::store::KeptStore;
use super::tail::TailReader;
use super::{ChannelLook, DeviceLook, Judge};
use crate::metrics::CallResult;

/// The most channels that are kept at once.
const CONCURRENT: usize = 16;
/// The longest time of one look. The next one begins with the first devices again.
const LONGEST: Duration = Duration::from_secs(60);
/// The most bytes of last messages that are in memory at once for one tenant.
const MOST_BYTES: usize = 32 << 20;

/// The compiled formats of a tenant.
pub(super) type Programs = BTreeMap<FormatName, (FormatDocument, Arc<Program>)>;

/// Returns the programs of a tenant's formats; those of `before` that are the same are taken over.
pub(super) fn compile(channels: &TenantChannels, before: &Programs) -> Programs {
    let formats = channels.shards.iter().flat_map(|shard| &shard.formats);
    let known = |name: &FormatName, document: &FormatDocument| {
        before.get(name).filter(|(known, _)| known == document).map(|(_, program)| program.clone())
    };
    formats
        .filter_map(|(name, document)| {
            let compiled = || Program::compile(document).ok().map(Arc::new);
            let program = known(name, document).or_else(compiled)?;
            Some((name.clone(), (document.clone(), program)))
        })
        .collect()
}

/// Channels that went.
#[derive(Debug, Clone, Default)]
pub(super) struct Gone {
    /// Their last values go now, also if they are declared again meanwhile.
    pub(super) now: Vec<(IotId, ChannelName)>,
    /// They may come back yet.
    pub(super) waiting: Vec<(IotId, ChannelName)>,
}

/// The devices that a look reaches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum LookedAt {
    All,
    /// None of them if it is only about channels that went.
    These(BTreeSet<IotId>),
}

impl LookedAt {
    fn has(&self, iot_id: &IotId) -> bool {
        match self {
            Self::All => true,
            Self::These(devices) => devices.contains(iot_id),
        }
    }
}

/// What a look is about.
pub(super) struct Look<J> {
    pub(super) client: async_nats::Client,
    pub(super) tenant: TenantName,
    pub(super) channels: TenantChannels,
    pub(super) programs: Arc<Programs>,
    pub(super) gone: Gone,
    pub(super) looked_at: LookedAt,
    /// `None` while the tenant has no stream of last values.
    pub(super) store: Option<KeptStore>,
    pub(super) judge: Arc<J>,
    pub(super) metrics: Arc<LookMetrics>,
}

/// A channel of which something is kept.
struct Keep<'a> {
    iot_id: &'a IotId,
    channel: &'a ChannelName,
    program: &'a Program,
    last: &'a StoredMessage,
    step: Step,
}

/// What the messages of one look are kept with.
#[derive(Clone, Copy)]
struct KeepLook<'a> {
    tails: &'a TailReader,
    epoch: Epoch,
    times: LookTimes,
}

impl<J: Judge> Look<J> {
    /// Returns what is known after it, and how it ended. The inner result is that of keeping last values.
    pub(super) async fn run(
        self,
        memory: Option<TenantMemory>,
    ) -> (Option<TenantMemory>, Result<Result<(), RequestError>, RequestError>) {
        let mut memory = match &self.store {
            None => None,
            Some(store) => match store.load(memory).await {
                Ok(memory) => Some(memory),
                Err(error) => return (None, Err(error)),
            },
        };
        let result = self.work(&mut memory).await;
        (memory, result)
    }

    async fn work(
        &self,
        memory: &mut Option<TenantMemory>,
    ) -> Result<Result<(), RequestError>, RequestError> {
        if let (Some(store), Some(memory)) = (&self.store, memory.as_mut()) {
            let purges = memory.undeclared(&self.channels, &self.gone.now, &self.gone.waiting);
            self.purge(store, memory, purges).await?;
            memory.forget_undeclared(&self.channels);
        }
        if matches!(&self.looked_at, LookedAt::These(devices) if devices.is_empty()) {
            return Ok(Ok(()));
        }
        let reader = StreamReader::new(self.client.clone(), subject::stream(&self.tenant));
        let state = reader.state().await?;
        if let (Some(store), Some(memory)) = (&self.store, memory.as_mut()) {
            let purges = memory.of_other_stream(state.epoch, state.last_sequence);
            self.purge(store, memory, purges).await?;
        }
        let times = LookTimes::new(state.time, self.channels.max_age);
        self.look(&reader, state.epoch, times, memory).await
    }

    async fn purge(
        &self,
        store: &KeptStore,
        memory: &mut TenantMemory,
        purges: Vec<Purge>,
    ) -> Result<(), RequestError> {
        let work = purges.into_iter().map(|purge| async move { (store.purge(&purge).await, purge) });
        let mut done = stream::iter(work).buffer_unordered(CONCURRENT);
        while let Some((result, purge)) = done.next().await {
            let label = if result.is_ok() { CallResult::Done } else { CallResult::Failed };
            self.metrics.count_purge(label);
            result?;
            memory.purged(&purge);
        }
        Ok(())
    }

    /// Looks at the devices, as many at once as one request can ask for. While last values can't be kept, the
    /// rest goes on.
    async fn look(
        &self,
        reader: &StreamReader,
        epoch: Epoch,
        times: LookTimes,
        memory: &mut Option<TenantMemory>,
    ) -> Result<Result<(), RequestError>, RequestError> {
        let mut kept = Ok(());
        let tails = TailReader::new(reader.clone(), self.tenant.clone());
        let end = Instant::now() + LONGEST;
        let devices: Vec<_> =
            self.channels.devices().filter(|(iot_id, ..)| self.looked_at.has(iot_id)).collect();
        let (mut start, mut most) = (0, MAX_SUBJECTS);
        while start < devices.len() && Instant::now() < end {
            let count = fitting(&devices[start..], most);
            let batch = &devices[start..start + count];
            let subjects: Vec<String> = batch
                .iter()
                .flat_map(|(iot_id, device, _)| {
                    device.channels.keys().map(|channel| subject::stored(&self.tenant, iot_id, channel))
                })
                .collect();
            let Some(last) = reader.last_of_within(&subjects, MOST_BYTES).await? else {
                if count > 1 {
                    most = subjects.len() / 2;
                } else {
                    tracing::debug!(tenant = %self.tenant, device = %batch[0].0, "too long to be looked at");
                    start += 1;
                }
                continue;
            };
            let last: HashMap<&str, &StoredMessage> =
                last.messages.iter().map(|message| (message.subject.as_str(), message)).collect();
            let mut keeps = Vec::new();
            for (iot_id, device, _) in batch {
                let look = self.device(iot_id, device, &last, times);
                self.judge.judge(&look, &tails).await;
                if let (Some(memory), Ok(())) = (&memory, &kept) {
                    keeps.extend(steps(&look, memory, times));
                }
            }
            if let (Some(store), Some(memory)) = (&self.store, memory.as_mut()) {
                kept =
                    kept.and(self.keep(store, memory, keeps, KeepLook { tails: &tails, epoch, times }).await);
            }
            start += count;
        }
        Ok(kept)
    }

    fn device<'a>(
        &'a self,
        iot_id: &'a IotId,
        device: &'a DeviceDocument,
        last: &HashMap<&str, &'a StoredMessage>,
        times: LookTimes,
    ) -> DeviceLook<'a> {
        let channels = device.channels.iter().filter_map(|(name, channel)| {
            let (_, program) = self.programs.get(&channel.format)?;
            let last = last.get(subject::stored(&self.tenant, iot_id, name).as_str()).copied();
            Some(ChannelLook { name, program, last })
        });
        DeviceLook {
            tenant: &self.tenant,
            iot_id,
            key: (self.channels.namespace.clone(), device.name.clone()),
            channels: channels.collect(),
            now: times.now,
            is_in_turn: self.looked_at == LookedAt::All,
        }
    }

    /// Keeps what expires. A message that can't be copied keeps no other one from it.
    async fn keep(
        &self,
        store: &KeptStore,
        memory: &mut TenantMemory,
        keeps: Vec<Keep<'_>>,
        look: KeepLook<'_>,
    ) -> Result<(), RequestError> {
        let work: Vec<_> = keeps
            .into_iter()
            .map(|keep| {
                let before = memory.get(keep.iot_id, keep.channel).copied();
                self.keep_one(store, keep, before, look)
            })
            .collect();
        let mut done = stream::iter(work).buffer_unordered(CONCURRENT);
        while let Some((keep, result)) = done.next().await {
            match result {
                Ok((kept, looked)) => note(memory, &keep, kept, looked),
                Err(away @ RequestError::Unavailable(_)) => return Err(away),
                Err(error) => tracing::debug!(tenant = %self.tenant, %error, "a last value is not kept"),
            }
        }
        Ok(())
    }

    /// Returns what is remembered of a channel.
    async fn keep_one<'a>(
        &self,
        store: &KeptStore,
        keep: Keep<'a>,
        before: Option<ChannelMemory>,
        look: KeepLook<'_>,
    ) -> (Keep<'a>, Result<(Option<Kept>, Option<Looked>), RequestError>) {
        let KeepLook { tails, epoch, times } = look;
        let (messages, looked) = if keep.step == Step::ReadTail {
            match tails.tail(keep.iot_id, keep.channel).await {
                Ok(tail) => {
                    let (makers, looked) = keep::look_at_tail(keep.program, &tail, before.as_ref(), times);
                    (makers.into_iter().cloned().collect(), looked)
                }
                Err(error) => return (keep, Err(error)),
            }
        } else {
            (vec![keep.last.clone()], None)
        };
        let Some(newest) = messages.last().map(|message| message.sequence) else {
            return (keep, Ok((None, looked)));
        };
        let kept = store.keep(keep.iot_id, keep.channel, epoch, &messages).await;
        self.metrics.count_kept(if kept.is_ok() { CallResult::Done } else { CallResult::Failed });
        (keep, kept.map(|()| (Some(Kept { epoch, sequence: newest }), looked)))
    }
}

fn note(memory: &mut TenantMemory, keep: &Keep<'_>, kept: Option<Kept>, looked: Option<Looked>) {
    if kept.is_some() || looked.is_some() {
        let channel = memory.entry(keep.iot_id, keep.channel);
        channel.kept = kept.or(channel.kept);
        channel.looked = looked.or(channel.looked);
    }
}

/// Returns what is to be kept of a device.
fn steps<'a>(look: &DeviceLook<'a>, memory: &TenantMemory, times: LookTimes) -> Vec<Keep<'a>> {
    let iot_id = look.iot_id;
    let keeps = look.channels.iter().filter_map(|channel| {
        let last = channel.last?;
        let step = keep::step(channel.program, last, memory.get(iot_id, channel.name), times);
        let keep = Keep { iot_id, channel: channel.name, program: channel.program, last, step };
        (step != Step::Nothing).then_some(keep)
    });
    keeps.collect()
}

/// Returns the number of devices whose channels are no more than `most` together; at least one.
fn fitting(devices: &[(&IotId, &DeviceDocument, &ShardDocument)], most: usize) -> usize {
    let mut channels = 0;
    let fits = devices.iter().take_while(|(_, device, _)| {
        channels += device.channels.len();
        channels <= most
    });
    fits.count().max(1)
}
