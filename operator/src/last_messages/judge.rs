//! Judges the newest messages of devices, for the condition `MessagesUnderstood`.
//!
//! The last message of each channel says most: the engine names what is wrong with it. Two questions need the
//! messages before it, and reading those has a budget: whether it is out of order, and whether a field that
//! it lacks is in none of the messages before it. So what was read is remembered, and used until it is the
//! channel's turn again.

mod log;
mod memory;
#[cfg(test)]
mod tests;
mod verdict;

use std::sync::{Mutex, MutexGuard, PoisonError};

use flutecast_contract::name::{ChannelName, IotId};
use flutecast_contract::tail;
use flutecast_nats::StoredMessage;

pub(crate) use self::log::JudgementLog;
use self::memory::JudgeMemory;
use self::verdict::{Alone, ChannelProblem, Question, TailJudgement, understanding};
use super::{ChannelLook, DeviceLook, Judge, TailReader};
use crate::presence::{PresenceTable, Understanding, Understood};

/// The messages among which a field is looked for: the engine wants 20 that have other fields.
const FIELD_MESSAGES: usize = 40;

/// Is told of each judgement.
pub(crate) trait Told: Send + Sync + 'static {
    /// `is_certain` is `false` if there may be a hint that was not looked for.
    fn tell(&self, device: &DeviceLook<'_>, understanding: Understanding, is_certain: bool);
}

impl Told for PresenceTable {
    fn tell(&self, device: &DeviceLook<'_>, understanding: Understanding, is_certain: bool) {
        self.judged(&device.key, device.iot_id, understanding, is_certain);
    }
}

/// Reads more than the last message of a channel.
trait Tails: Sync {
    /// Returns `None` if nothing more can be read in this look.
    fn newest(
        &self,
        iot_id: &IotId,
        channel: &ChannelName,
        count: usize,
    ) -> impl Future<Output = Option<Vec<StoredMessage>>> + Send;
}

impl Tails for TailReader {
    async fn newest(
        &self,
        iot_id: &IotId,
        channel: &ChannelName,
        count: usize,
    ) -> Option<Vec<StoredMessage>> {
        Self::newest(self, iot_id, channel, count).await
    }
}

/// A [`Judge`] that asks the formats' programs.
#[derive(Debug)]
pub(crate) struct MessageJudge<T> {
    told: T,
    memory: Mutex<JudgeMemory>,
}

/// What is said of a channel.
enum ChannelJudgement<'a> {
    Fine,
    Problem(ChannelProblem<'a>),
    /// It is understood; whether it ever has all fields is not known.
    HintUnknown,
    /// Whether it is understood is not known.
    Unknown,
}

impl<T: Told> MessageJudge<T> {
    pub(crate) fn new(told: T) -> Self {
        Self { told, memory: Mutex::default() }
    }

    async fn channel<'a>(
        &self,
        device: &DeviceLook<'a>,
        channel: &ChannelLook<'a>,
        tails: &impl Tails,
    ) -> ChannelJudgement<'a> {
        let Some(last) = channel.last else { return ChannelJudgement::Fine };
        let said = |problem| match problem {
            Some(problem) => ChannelJudgement::Problem(ChannelProblem { channel: channel.name, problem }),
            None => ChannelJudgement::Fine,
        };
        let question = match verdict::alone(channel.program, last) {
            Alone::Settled(problem) => {
                if problem.is_none() {
                    self.lock().has_all(device, channel.name);
                }
                return said(problem);
            }
            Alone::Asks(question) => question,
        };
        let known = self.lock().take_turn(device, channel.name, &question, last.sequence);
        if let Some(known) = known {
            return said(known.answer(&question).cloned());
        }
        let count = match &question {
            Question::IsInOrder => tail::MESSAGES,
            Question::HasEver(_) => FIELD_MESSAGES,
        };
        let Some(messages) = tails.newest(device.iot_id, channel.name, count).await else {
            return match (self.lock().refused(device, channel.name), &question) {
                (Some(known), _) => said(known.answer(&question).cloned()),
                (None, Question::HasEver(_)) => ChannelJudgement::HintUnknown,
                (None, Question::IsInOrder) => ChannelJudgement::Unknown,
            };
        };
        let read = TailJudgement::of(channel.program, &messages);
        let answer = read.answer(&question).cloned();
        self.lock().put(device, channel.name, last.sequence, read);
        said(answer)
    }

    async fn device(&self, device: &DeviceLook<'_>, tails: &impl Tails) {
        let (mut is_certain, mut is_known) = (true, true);
        let mut problems = Vec::new();
        self.lock().look(device);
        for channel in &device.channels {
            match self.channel(device, channel, tails).await {
                ChannelJudgement::Fine => {}
                ChannelJudgement::Problem(problem) => problems.push(problem),
                ChannelJudgement::HintUnknown => is_certain = false,
                ChannelJudgement::Unknown => is_known = false,
            }
        }
        let has_message = device.channels.iter().any(|channel| channel.last.is_some());
        let judged = if has_message { understanding(problems) } else { Understanding::NO_MESSAGES };
        // Else what was said before stays: a channel that is not known may have a problem, too.
        if is_known || judged.status == Understood::False {
            self.told.tell(device, judged, is_certain);
        }
    }

    fn lock(&self) -> MutexGuard<'_, JudgeMemory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Told> Judge for MessageJudge<T> {
    async fn judge(&self, device: &DeviceLook<'_>, tails: &TailReader) {
        self.device(device, tails).await;
    }
}
