//! What is known of a tenant's channels from earlier looks. Pure.

use std::collections::{BTreeMap, HashSet};

use flutecast_contract::name::{ChannelName, IotId};
use flutecast_contract::stream_position::{Epoch, Sequence};
use k8s_openapi::jiff::Timestamp;

use super::declared::TenantChannels;

/// What is known of a tenant's channels. Channels that send all the time are not in it.
#[derive(Debug)]
pub(super) struct TenantMemory {
    /// The incarnation of the stream of last values.
    pub(super) stream: Epoch,
    pub(super) channels: BTreeMap<IotId, BTreeMap<ChannelName, ChannelMemory>>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct ChannelMemory {
    /// The newest message that is kept.
    pub(super) kept: Option<Kept>,
    /// The last time that more than the last message was read.
    pub(super) looked: Option<Looked>,
}

/// A message of the tenant's stream of which there is a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) epoch: Epoch,
    pub(super) sequence: Sequence,
}

/// The result of reading more than the last message of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Looked {
    /// The last message at that time.
    pub(super) last: Sequence,
    /// When it is to be read again at the earliest.
    pub(super) due: Timestamp,
    /// `true` if a message was found that is to be kept when it is due.
    pub(super) is_pending: bool,
}

/// The subjects of a stream of last values that are purged.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Purge {
    All,
    Device(IotId),
    Channel(IotId, ChannelName),
}

impl Kept {
    /// What no stream has.
    pub(super) const NOTHING: Self = Self { epoch: Epoch(0), sequence: Sequence::MAX };
}

impl TenantMemory {
    pub(super) fn of(stream: Epoch) -> Self {
        Self { stream, channels: BTreeMap::new() }
    }

    pub(super) fn get(&self, iot_id: &IotId, channel: &ChannelName) -> Option<&ChannelMemory> {
        self.channels.get(iot_id)?.get(channel)
    }

    pub(super) fn entry(&mut self, iot_id: &IotId, channel: &ChannelName) -> &mut ChannelMemory {
        self.channels.entry(iot_id.clone()).or_default().entry(channel.clone()).or_default()
    }

    /// Returns what is to be purged: kept values of channels that went, and of those that aren't declared and
    /// are not `waiting`.
    pub(super) fn undeclared(
        &self,
        declared: &TenantChannels,
        gone: &[(IotId, ChannelName)],
        waiting: &[(IotId, ChannelName)],
    ) -> Vec<Purge> {
        let set = |list: &[(IotId, ChannelName)]| list.iter().cloned().collect::<HashSet<_>>();
        let (gone, waiting) = (set(gone), set(waiting));
        let is_gone = |iot_id: &IotId, channel: &ChannelName| {
            let channel = (iot_id.clone(), channel.clone());
            gone.contains(&channel) || !declared.declares(iot_id, &channel.1) && !waiting.contains(&channel)
        };
        let mut purges = Vec::new();
        for (iot_id, channels) in &self.channels {
            let kept = channels.iter().filter(|(_, memory)| memory.kept.is_some());
            let kept: Vec<_> = kept.map(|(channel, _)| channel).collect();
            let leaving: Vec<_> = kept.iter().filter(|channel| is_gone(iot_id, channel)).collect();
            if !leaving.is_empty() && leaving.len() == kept.len() {
                purges.push(Purge::Device(iot_id.clone()));
            } else {
                purges
                    .extend(leaving.into_iter().map(|name| Purge::Channel(iot_id.clone(), (*name).clone())));
            }
        }
        purges
    }

    /// Returns what is to be purged because the tenant's stream, of this incarnation and up to `last`, never
    /// had it.
    pub(super) fn of_other_stream(&self, epoch: Epoch, last: Sequence) -> Vec<Purge> {
        let all = self.channels.iter().flat_map(|(iot_id, channels)| {
            channels.iter().filter_map(move |(name, memory)| Some((iot_id, name, memory.kept?)))
        });
        let (mut others, mut own) = (Vec::new(), 0_usize);
        for (iot_id, name, kept) in all {
            if kept.epoch == epoch && kept.sequence <= last {
                own += 1;
            } else {
                others.push(Purge::Channel(iot_id.clone(), name.clone()));
            }
        }
        if own == 0 && others.len() > 1 { vec![Purge::All] } else { others }
    }

    /// Notes that this was purged.
    pub(super) fn purged(&mut self, purge: &Purge) {
        match purge {
            Purge::All => self.channels.clear(),
            Purge::Device(iot_id) => drop(self.channels.remove(iot_id)),
            Purge::Channel(iot_id, channel) => {
                if let Some(channels) = self.channels.get_mut(iot_id) {
                    channels.remove(channel);
                }
            }
        }
    }

    /// Forgets channels that are not declared, once nothing of them is kept.
    pub(super) fn forget_undeclared(&mut self, declared: &TenantChannels) {
        self.channels.retain(|iot_id, channels| {
            channels.retain(|name, memory| memory.kept.is_some() || declared.declares(iot_id, name));
            !channels.is_empty()
        });
    }
}
