//! Which messages are copied to the stream of last values, and when. Pure.

use std::time::Duration;

use flutecast_format::program::{ChannelState, Event, MAX_FIELDS, Message, Output, Program};
use flutecast_nats::StoredMessage;
use k8s_openapi::jiff::Timestamp;

use super::memory::{ChannelMemory, Kept, Looked};

/// The most messages that are copied of one channel, as many as a format may have fields.
const MOST: usize = MAX_FIELDS;

/// What is to be done about a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Nothing,
    /// The last message is copied.
    CopyLast,
    /// The messages before it are read, for the last message alone doesn't make what the channel shows.
    ReadTail,
}

/// The times of one look at a tenant.
#[derive(Debug, Clone, Copy)]
pub(super) struct LookTimes {
    /// The broker's time.
    pub(super) now: Timestamp,
    /// The age at which a message is copied.
    pub(super) keep_at: Duration,
}

impl LookTimes {
    pub(super) fn new(now: Timestamp, max_age: Duration) -> Self {
        // There are at least two looks before it expires.
        Self { now, keep_at: max_age / 2 }
    }

    fn is_due(&self, message: &StoredMessage) -> bool {
        self.due(message) <= self.now
    }

    /// Returns when a message is to be copied.
    fn due(&self, message: &StoredMessage) -> Timestamp {
        after(message.stored_at, self.keep_at)
    }
}

fn after(time: Timestamp, wait: Duration) -> Timestamp {
    time.checked_add(wait).unwrap_or(Timestamp::MAX)
}

/// Decides about a channel. A channel whose last message is young and is shown costs one pass through its
/// format.
pub(super) fn step(
    program: &Program,
    last: &StoredMessage,
    memory: Option<&ChannelMemory>,
    times: LookTimes,
) -> Step {
    let memory = memory.copied().unwrap_or_default();
    let is_kept = memory.kept.is_some_and(|kept| kept.sequence == last.sequence);
    if is_kept {
        return Step::Nothing;
    }
    if shows_alone(program, last) {
        if !times.is_due(last) {
            return Step::Nothing;
        }
        // A record also has the fields of the messages before.
        if !program.is_record() {
            return Step::CopyLast;
        }
    }
    match memory.looked {
        Some(looked) if looked.due > times.now => Step::Nothing,
        Some(looked) if looked.last == last.sequence && !looked.is_pending => Step::Nothing,
        Some(_) | None => Step::ReadTail,
    }
}

/// Returns what is copied of a tail that was read, and what is remembered of it. `memory` is what was known
/// before.
pub(super) fn look_at_tail<'a>(
    program: &Program,
    tail: &'a [StoredMessage],
    memory: Option<&ChannelMemory>,
    times: LookTimes,
) -> (Vec<&'a StoredMessage>, Option<Looked>) {
    let Some(last) = tail.last() else { return (Vec::new(), None) };
    let again = Looked { last: last.sequence, due: after(times.now, times.keep_at / 2), is_pending: false };
    let makers = makers(program, tail);
    let Some(newest) = makers.last() else { return (Vec::new(), Some(again)) };
    let kept = memory.and_then(|memory| memory.kept);
    if kept.is_some_and(|Kept { sequence, .. }| sequence == newest.sequence) {
        return (Vec::new(), Some(again));
    }
    if !times.is_due(newest) {
        return (Vec::new(), Some(Looked { due: times.due(newest), is_pending: true, ..again }));
    }
    (makers, Some(again))
}

/// Returns the messages of a tail that make what it shows, in stream order. Empty if it shows nothing.
fn makers<'a>(program: &Program, tail: &'a [StoredMessage]) -> Vec<&'a StoredMessage> {
    let Some(place) = newest_shown(program, tail) else { return Vec::new() };
    let (before, newest) = (&tail[..place], &tail[place]);
    if !program.is_record() {
        return vec![newest];
    }
    // From the newest to the oldest, each that changes the record. It is a handful of messages as a rule, and
    // most often the record is complete after some.
    let whole = shown(program, tail[..=place].iter());
    let mut chosen = vec![newest];
    let mut made = shown(program, chosen.iter().copied());
    for message in before.iter().rev() {
        if made == whole {
            return chosen;
        }
        chosen.insert(0, message);
        let with_it = shown(program, chosen.iter().copied());
        if with_it == made {
            chosen.remove(0);
        } else {
            made = with_it;
        }
    }
    if made == whole {
        return chosen;
    }
    // An expression that needs several fields at once.
    tail[(place + 1).saturating_sub(MOST)..=place].iter().collect()
}

/// What a message that is shown makes.
#[derive(Debug, PartialEq)]
struct Shown {
    event: Event,
    values: Vec<u8>,
    bad: Vec<u8>,
    at: Vec<u8>,
}

fn message(stored: &StoredMessage) -> Message<'_> {
    Message {
        payload: &stored.payload,
        stored_at: stored.stored_at.into(),
        captured_at: stored.captured_at.map(Into::into),
    }
}

/// Returns whether the message is shown, whatever was stored before it; of a record, as the only message.
fn shows_alone(program: &Program, stored: &StoredMessage) -> bool {
    let mut state = if program.is_record() { ChannelState::complete() } else { ChannelState::default() };
    let applied = program.apply(message(stored), &mut state, &mut Output::default());
    applied.is_ok_and(|applied| applied.verdict.is_ok())
}

/// Returns the place in the tail of the newest message that is shown.
fn newest_shown(program: &Program, tail: &[StoredMessage]) -> Option<usize> {
    let (mut state, mut output) = (ChannelState::complete(), Output::default());
    let mut newest = None;
    for (place, stored) in tail.iter().enumerate() {
        let applied = program.apply(message(stored), &mut state, &mut output);
        if applied.is_ok_and(|applied| applied.verdict.is_ok()) {
            newest = Some(place);
        }
    }
    newest
}

/// Returns what the last of these messages shows after the others.
fn shown<'a>(program: &Program, messages: impl Iterator<Item = &'a StoredMessage>) -> Option<Shown> {
    let (mut state, mut output) = (ChannelState::complete(), Output::default());
    let mut event = None;
    for stored in messages {
        let applied = program.apply(message(stored), &mut state, &mut output);
        event = applied.ok().and_then(|applied| applied.verdict.ok());
    }
    let Output { values, bad, at } = output;
    event.map(|event| Shown { event, values, bad, at })
}
