//! The phases of a channel: its live messages are passed on, or wait for a read.

use std::time::Duration;

use flutecast_nats::LiveMessage;
use tokio::time::Instant;

/// The longest that live messages wait for a read that doesn't succeed.
pub(super) const READ_TIMEOUT: Duration = Duration::from_secs(15);
/// The most live messages of a channel that wait while it is read. If there are more they are
/// discarded and read from the stream too.
const BUFFER: usize = 1_024;
/// The most bytes of them that wait: a device may send 1 MiB at a time.
const BUFFER_BYTES: usize = 8 * 1_024 * 1_024;

#[derive(Debug)]
pub(super) enum Phase {
    /// The channel is being read from the stream, or waits for a read.
    Reading(PendingRead),
    /// Live messages continue what was seen.
    Live,
}

#[derive(Debug)]
pub(super) struct PendingRead {
    since: Instant,
    in_flight: bool,
    /// `true` if another read has to follow.
    again: bool,
    /// Live messages that came meanwhile.
    pub(super) buffer: Vec<LiveMessage>,
}

impl Phase {
    pub(super) fn reading(now: Instant) -> Self {
        Self::Reading(PendingRead::new(now))
    }

    pub(super) fn is_live(&self) -> bool {
        matches!(self, Self::Live)
    }

    pub(super) fn is_in_flight(&self) -> bool {
        matches!(self, Self::Reading(read) if read.in_flight)
    }

    /// Requests a read, as messages may have been missed: another one if a task reads the channel now.
    /// Returns whether the channel was live until now.
    pub(super) fn request_read(&mut self, now: Instant) -> bool {
        if let Self::Reading(read) = self {
            read.again = read.in_flight;
            return false;
        }
        *self = Self::reading(now);
        true
    }

    /// Marks the read as under way. Returns whether it was waiting to be started.
    pub(super) fn start_read(&mut self) -> bool {
        let Self::Reading(read) = self else { return false };
        if read.in_flight {
            return false;
        }
        // What was discarded until now is stored, so that this read finds it.
        (read.in_flight, read.again) = (true, false);
        true
    }

    /// Puts a read that failed back. Returns whether it has to be started again.
    pub(super) fn requeue(&mut self) -> bool {
        let Self::Reading(read) = self else { return false };
        (read.in_flight, read.again) = (false, false);
        true
    }

    /// Ends the read that was under way. Returns the messages that waited for it, as the channel is live now;
    /// `None` if another read has to follow.
    pub(super) fn end_read(&mut self, now: Instant) -> Option<Vec<LiveMessage>> {
        if let Self::Reading(read) = self
            && read.again
        {
            *read = PendingRead::new(now);
            return None;
        }
        Some(self.give_up())
    }

    /// Makes the channel live although no read has ended. Returns the messages that waited for one.
    pub(super) fn give_up(&mut self) -> Vec<LiveMessage> {
        match std::mem::replace(self, Self::Live) {
            Self::Reading(read) => read.buffer,
            Self::Live => Vec::new(),
        }
    }

    /// Returns when to look whether waiting for a read has to be given up, or a time that is not after `now`
    /// if so; `None` if the channel is live.
    pub(super) fn read_deadline(&self, now: Instant) -> Option<Instant> {
        let Self::Reading(read) = self else { return None };
        let end = read.since + READ_TIMEOUT;
        let late = end <= now && (read.again || !read.buffer.is_empty());
        // Otherwise a little later, so that reads for which no message waits are not looked at too often.
        Some(if late { end } else { end.max(now + READ_TIMEOUT / 3) })
    }

    /// Returns the messages that wait.
    pub(super) fn waiting(&self) -> impl Iterator<Item = &LiveMessage> {
        let read = if let Self::Reading(read) = self { Some(read) } else { None };
        read.into_iter().flat_map(|read| &read.buffer)
    }

    /// Discards the messages that wait, as they take too much memory.
    pub(super) fn discard_waiting(&mut self) {
        if let Self::Reading(read) = self
            && !read.buffer.is_empty()
        {
            read.discard();
        }
    }

    /// Discards the messages that wait, as the stream starts again.
    pub(super) fn clear_buffer(&mut self) {
        if let Self::Reading(read) = self {
            read.buffer.clear();
        }
    }
}

impl PendingRead {
    fn new(since: Instant) -> Self {
        Self { since, in_flight: false, again: false, buffer: Vec::new() }
    }

    /// The messages that wait are read from the stream.
    fn discard(&mut self) {
        self.buffer = Vec::new();
        self.again = true;
    }

    /// Keeps a live message until the read has ended.
    pub(super) fn keep(&mut self, message: LiveMessage) {
        let bytes = || self.buffer.iter().map(|message| message.payload.len()).sum::<usize>();
        // Added up only for large messages, of which few wait.
        let large = message.payload.len() > BUFFER_BYTES / BUFFER;
        if self.buffer.len() >= BUFFER || large && bytes() + message.payload.len() > BUFFER_BYTES {
            self.discard();
        }
        // The messages behind a discarded one will be read from the stream with it.
        if !self.again {
            self.buffer.push(message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flutecast_contract::stream_position::Sequence;

    fn message(sequence: u64, bytes: usize) -> LiveMessage {
        LiveMessage {
            sequence: Sequence(sequence),
            previous: Sequence::START,
            stored_at: jiff::Timestamp::UNIX_EPOCH,
            captured_at: None,
            payload: vec![b'x'; bytes].into(),
        }
    }

    fn keep(phase: &mut Phase, message: LiveMessage) {
        let Phase::Reading(read) = phase else { panic!("it is live") };
        read.keep(message);
    }

    #[test]
    fn waiting_messages_follow_a_read_unless_another_one_is_needed() {
        let now = Instant::now();
        let mut phase = Phase::reading(now);
        assert!(phase.start_read() && !phase.start_read());
        keep(&mut phase, message(1, 1));
        assert!(!phase.request_read(now), "it is being read");
        keep(&mut phase, message(2, 1));
        assert_eq!(phase.end_read(Instant::now()), None);
        assert!(phase.start_read());
        keep(&mut phase, message(3, 1));
        assert_eq!(phase.end_read(Instant::now()), Some(vec![message(3, 1)]));
        assert!(phase.is_live() && phase.request_read(now) && !phase.is_live());
    }

    #[test]
    fn a_failed_read_keeps_waiting_messages() {
        let mut phase = Phase::reading(Instant::now());
        phase.start_read();
        keep(&mut phase, message(1, 1));
        assert!(phase.requeue() && !phase.is_in_flight());
        assert_eq!(phase.give_up(), [message(1, 1)]);
        assert!(!phase.requeue());
    }

    #[test]
    fn more_than_the_buffer_holds_is_read_again() {
        for (count, bytes) in [(BUFFER + 1, 1), (9, BUFFER_BYTES / 8)] {
            let mut phase = Phase::reading(Instant::now());
            phase.start_read();
            for sequence in 1..=count {
                keep(&mut phase, message(sequence as u64, bytes));
            }
            assert_eq!(phase.end_read(Instant::now()), None);
        }
    }

    #[test]
    fn what_was_discarded_before_a_read_is_found_by_it() {
        let mut phase = Phase::reading(Instant::now());
        for sequence in 1..=2_000 {
            keep(&mut phase, message(sequence, 1));
        }
        phase.start_read();
        keep(&mut phase, message(2_001, 1));
        assert_eq!(phase.end_read(Instant::now()), Some(vec![message(2_001, 1)]));
    }

    #[test]
    fn a_read_is_late_only_if_messages_wait_for_it() {
        let now = Instant::now();
        let end = now + READ_TIMEOUT;
        let mut phase = Phase::reading(now);
        assert_eq!(phase.read_deadline(now), Some(end));
        assert_eq!(phase.read_deadline(end), Some(end + READ_TIMEOUT / 3));
        keep(&mut phase, message(1, 1));
        assert_eq!(phase.read_deadline(end), Some(end));
        assert_eq!(Phase::Live.read_deadline(end), None);
    }
}
