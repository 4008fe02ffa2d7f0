//! What was found by reading more than the last message of a channel, and whose turn it is to be read. Pure.

use std::collections::BTreeMap;

use flutecast_contract::name::{ChannelName, IotId, TenantName};
use flutecast_contract::stream_position::Sequence;
use k8s_openapi::jiff::Timestamp;

use super::verdict::{Question, TailJudgement};
use crate::last_messages::DeviceLook;

/// For how many looks an answer holds, though more could be read.
const HOLDS: u64 = 10;

#[derive(Debug, Default)]
pub(super) struct JudgeMemory {
    tenants: BTreeMap<TenantName, TenantTurns>,
}

/// The channels of a tenant that were read. Looks are numbered, from 1 on.
#[derive(Debug, Default)]
struct TenantTurns {
    now: Option<Timestamp>,
    look: u64,
    /// Of the channels that should have been read in this look and in the one before, the one that waits for
    /// longest: the look in which it was read, 0 if never.
    refused: Option<u64>,
    refused_before: Option<u64>,
    channels: BTreeMap<(IotId, ChannelName), Remembered>,
}

#[derive(Debug)]
struct Remembered {
    /// The last message then.
    last: Sequence,
    /// The look in which it was read.
    read: u64,
    /// The last look that asked for it.
    asked: u64,
    judgement: TailJudgement,
}

impl JudgeMemory {
    /// Notes which look a device belongs to. One out of turn counts to the look before.
    pub(super) fn look(&mut self, device: &DeviceLook<'_>) {
        let turns = self.tenants.entry(device.tenant.clone()).or_default();
        if !device.is_in_turn || turns.now == Some(device.now) {
            return;
        }
        turns.now = Some(device.now);
        turns.look += 1;
        turns.refused_before = turns.refused.take();
        let look = turns.look;
        turns.channels.retain(|_, known| known.asked + HOLDS >= look);
    }

    /// Returns what is known of a channel; `None` if it is its turn to be read.
    pub(super) fn take_turn(
        &mut self,
        device: &DeviceLook<'_>,
        channel: &ChannelName,
        question: &Question,
        last: Sequence,
    ) -> Option<TailJudgement> {
        let turns = self.tenants.get_mut(device.tenant)?;
        let known = turns.channels.get_mut(&(device.iot_id.clone(), channel.clone()))?;
        known.asked = turns.look;
        if let Question::HasEver(lacking) = question {
            known.judgement.only_lacking(lacking);
        }
        let others_first = turns.refused_before.is_some_and(|waits| waits < known.read);
        let is_same = *question != Question::IsInOrder || known.last == last;
        let holds = is_same && known.read + HOLDS > turns.look;
        (others_first || holds).then(|| known.judgement.clone())
    }

    /// Notes that a channel could not be read. Returns what is known of it.
    pub(super) fn refused(
        &mut self,
        device: &DeviceLook<'_>,
        channel: &ChannelName,
    ) -> Option<TailJudgement> {
        let turns = self.tenants.get_mut(device.tenant)?;
        let known = turns.channels.get(&(device.iot_id.clone(), channel.clone()));
        let read = known.map_or(0, |known| known.read);
        turns.refused = Some(turns.refused.map_or(read, |waits| waits.min(read)));
        known.map(|known| known.judgement.clone())
    }

    /// Notes what was read.
    pub(super) fn put(
        &mut self,
        device: &DeviceLook<'_>,
        channel: &ChannelName,
        last: Sequence,
        judgement: TailJudgement,
    ) {
        let turns = self.tenants.entry(device.tenant.clone()).or_default();
        let known = Remembered { last, read: turns.look, asked: turns.look, judgement };
        turns.channels.insert((device.iot_id.clone(), channel.clone()), known);
    }

    /// Notes that the last message of a channel is understood and lacks no field.
    pub(super) fn has_all(&mut self, device: &DeviceLook<'_>, channel: &ChannelName) {
        if let Some(turns) = self.tenants.get_mut(device.tenant)
            && !turns.channels.is_empty()
            && let Some(known) = turns.channels.get_mut(&(device.iot_id.clone(), channel.clone()))
        {
            known.judgement.only_lacking(&[]);
        }
    }
}
