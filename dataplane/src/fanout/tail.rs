//! What a channel shows, from its tail: the newest messages of its subject.
//!
//! A screen that comes late, another pod and the JSON API fold the same messages, so they show the same. In
//! the usual case the newest message is enough.

use std::future::Future;

use flutecast_contract::stream_position::{Epoch, Sequence};
use flutecast_contract::tail::MESSAGES;
use flutecast_format::program::{NeedsTail, Timestamp};
use flutecast_nats::{RequestError, StoredMessage};

use crate::pipeline::{ChannelMessage, ChannelPipeline, Frame, Scratch, Verdict};

/// The most reads of one tail; the last one begins with the subject.
const LOOK_BACKS: usize = 4;

/// What is stored on subjects, as far as folding needs it.
pub(super) trait StoredMessages: Sync {
    /// Returns the newest messages of a subject up to a sequence, at most [`MESSAGES`], in stream order; only
    /// those that were stored at `since` or later.
    fn tail(
        &self,
        subject: &str,
        since: Option<jiff::Timestamp>,
        up_to: Sequence,
    ) -> impl Future<Output = Result<Vec<StoredMessage>, RequestError>> + Send;

    /// Returns the newest message of a subject up to a sequence.
    fn last_up_to(
        &self,
        subject: &str,
        up_to: Sequence,
    ) -> impl Future<Output = Result<Option<StoredMessage>, RequestError>> + Send;

    /// Returns everything that is stored on a subject after a sequence, and whether that is everything that
    /// was ever stored. `None` if it is too much to be read.
    fn missed(
        &self,
        subject: &str,
        after: Sequence,
    ) -> impl Future<Output = Result<Option<(Vec<StoredMessage>, bool)>, RequestError>> + Send;

    /// Returns what was kept of a record's subject, if messages that were stored at `since` or later may have
    /// been removed for their age.
    fn kept_since(
        &self,
        _subject: &str,
        _since: Option<jiff::Timestamp>,
    ) -> impl Future<Output = Vec<StoredMessage>> + Send {
        std::future::ready(Vec::new())
    }
}

/// What the messages of a channel have led to.
#[derive(Debug, Clone)]
pub(crate) struct Folded {
    /// The pipeline behind the newest message.
    pub(crate) pipeline: ChannelPipeline,
    /// The newest frame that is shown.
    pub(crate) value: Option<Frame>,
    /// The time at which the message of that frame was stored.
    value_stored_at: Option<Timestamp>,
    /// The time at which the newest message that was understood was stored.
    pub(crate) heard: Option<Timestamp>,
    /// The newest message; [`Sequence::START`] if there was none.
    pub(crate) seen: Sequence,
    /// `true` if the value is a kept one, which the tenant's stream no longer holds.
    pub(crate) kept: bool,
    /// The verdict of the newest message.
    pub(crate) newest: Option<Verdict>,
}

impl Folded {
    pub(super) fn new(pipeline: ChannelPipeline) -> Self {
        Self {
            pipeline,
            value: None,
            value_stored_at: None,
            heard: None,
            seen: Sequence::START,
            kept: false,
            newest: None,
        }
    }

    /// Folds the newest message of a channel; `None` if it can't be shown.
    pub(super) fn of_newest(
        pipeline: &ChannelPipeline,
        epoch: Epoch,
        last: &StoredMessage,
    ) -> Result<Option<Self>, NeedsTail> {
        let mut alone = Self::new(pipeline.renewed());
        let decided = alone.add(epoch, last, &mut Scratch::default());
        if decided { Ok(Some(alone).filter(|alone| alone.value.is_some())) } else { Err(NeedsTail) }
    }

    /// Folds one message more. Returns `false` if it can't be decided without those before the first one.
    pub(super) fn add(&mut self, epoch: Epoch, message: &StoredMessage, scratch: &mut Scratch) -> bool {
        let verdict = self.pipeline.apply(epoch, message.into(), scratch);
        if matches!(verdict, Verdict::NeedsTail) {
            return false;
        }
        self.seen = message.sequence;
        if verdict.is_understood() {
            self.heard = Some(ChannelMessage::from(message).stored_at);
        }
        if let Verdict::Shown(formatted) = &verdict {
            self.value = Some(formatted.frame.clone());
            self.value_stored_at = self.heard;
        }
        self.newest = Some(verdict);
        true
    }

    /// Returns the same with another value to show.
    pub(super) fn with_value(self, value: Option<Frame>) -> Self {
        Self { value, ..self }
    }

    /// Returns the time of storing of the oldest message that decides what is shown and since when the
    /// channel is silent; `None` if nothing is shown.
    fn decided_by(&self) -> Option<Timestamp> {
        self.value_stored_at.min(self.heard)
    }

    /// Shows a kept value, as the tenant's stream has none.
    pub(super) fn add_kept(&mut self, kept: Self) {
        self.kept = kept.value.is_some();
        self.value = kept.value;
        self.heard = self.heard.or(kept.heard);
    }

    /// Folds the messages after those so far, and returns the verdict of each; `None` if they can't be
    /// decided without those before the first one.
    pub(super) fn add_all(&mut self, epoch: Epoch, messages: &[StoredMessage]) -> Option<Vec<Verdict>> {
        let mut scratch = Scratch::default();
        let verdict = |message| {
            self.add(epoch, message, &mut scratch).then_some(())?;
            self.newest.clone()
        };
        messages.iter().map(verdict).collect()
    }

    /// Folds all of a tail.
    pub(super) fn of_tail(pipeline: &ChannelPipeline, epoch: Epoch, tail: &[StoredMessage]) -> Self {
        let mut folded = Self::new(pipeline.complete());
        // Nothing before matters, so each can be decided.
        let _ = folded.add_all(epoch, tail);
        folded
    }
}

/// Folds the tail that ends with `last`, which needs no read if that message is enough. Returns `None` if a
/// read is needed and `may_look_back` says no, which is told whether the message can't be shown at all.
pub(super) async fn fold_newest(
    stored: &impl StoredMessages,
    pipeline: &ChannelPipeline,
    epoch: Epoch,
    last: StoredMessage,
    may_look_back: impl FnOnce(bool) -> bool,
) -> Result<Option<Folded>, RequestError> {
    let alone = Folded::of_newest(pipeline, epoch, &last);
    if let Ok(Some(alone)) = alone {
        return Ok(Some(alone));
    }
    if !may_look_back(alone.is_ok()) {
        return Ok(None);
    }
    fold_tail(stored, pipeline, epoch, last).await.map(Some)
}

/// Folds the tail that ends with `last`: the part in which lateness is looked for and records are gathered,
/// and more of it as long as that part shows nothing, or shows a message whose own part begins earlier.
pub(super) async fn fold_tail(
    stored: &impl StoredMessages,
    pipeline: &ChannelPipeline,
    epoch: Epoch,
    last: StoredMessage,
) -> Result<Folded, RequestError> {
    let look_back = pipeline.program().look_back();
    let before = |time: Timestamp| {
        let back = look_back.and_then(|back| i64::try_from(back.as_micros()).ok())?;
        Some(Timestamp(time.0.saturating_sub(back)))
    };
    let mut since = before(last.stored_at.into());
    if !pipeline.program().is_record() {
        // What is shown is often a message before the last one. A minute more is read at once for it.
        since = since.and_then(before);
    }
    for reads_left in (0..LOOK_BACKS).rev() {
        let mut tail = stored.tail(&last.subject, since.map(broker_time), last.sequence).await?;
        if tail.last().is_none_or(|newest| newest.sequence < last.sequence) {
            // It was removed meanwhile.
            tail.push(last.clone());
        }
        if pipeline.program().is_record() {
            let mut kept = stored.kept_since(&last.subject, since.map(broker_time)).await;
            let first = tail.first().map(|first| first.sequence);
            kept.retain(|message| message.origin.map(|origin| origin.sequence) < first);
            tail.splice(..0, kept);
        }
        let folded = Folded::of_tail(pipeline, epoch, &tail);
        let needed = folded.decided_by().and_then(before);
        let enough = needed.zip(since).is_some_and(|(needed, since)| needed >= since);
        if enough || since.is_none() || tail.len() >= MESSAGES {
            return Ok(folded);
        }
        since = needed.filter(|_| reads_left > 1);
    }
    Ok(Folded::new(pipeline.complete()))
}

/// Folds the tail that ends at a place, where nothing is shown of it: for the messages behind that place.
pub(super) async fn fold_up_to(
    stored: &impl StoredMessages,
    pipeline: &ChannelPipeline,
    epoch: Epoch,
    subject: &str,
    up_to: Sequence,
) -> Result<Folded, RequestError> {
    match stored.last_up_to(subject, up_to).await? {
        Some(last) => fold_tail(stored, pipeline, epoch, last).await,
        None => Ok(Folded::new(pipeline.complete())),
    }
}

/// Returns a time as the broker knows it.
fn broker_time(time: Timestamp) -> jiff::Timestamp {
    jiff::Timestamp::from_microsecond(time.0).unwrap_or(jiff::Timestamp::MIN)
}
