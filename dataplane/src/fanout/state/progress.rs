//! The known extent of a tenant's stream and of each of its channels.

use flutecast_contract::stream_position::{Epoch, EventId, Sequence};
use flutecast_nats::stream::StreamState;

use crate::pipeline::GapReason;

#[derive(Debug, Default)]
pub(super) struct StreamProgress {
    /// The stream's incarnation; `None` before the first read.
    pub(super) epoch: Option<Epoch>,
    /// Up to here everything on all live `Every` channels was processed.
    pub(super) processed: Sequence,
    /// The newest place that a read has reported.
    reported: Sequence,
    /// The place up to which reads have proven all `Every` channels, if computed since the last read.
    floor: Option<Sequence>,
    /// `true` if settled clients have no place yet, as the epoch wasn't known.
    pub(super) unplaced: bool,
}

/// The known extent of the stream when a read was requested.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ProgressSnapshot {
    epoch: Option<Epoch>,
    reached: Sequence,
}

/// The relation of the answer to a read to the stream that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StreamCheck {
    /// It is about the same stream.
    Same,
    /// It may be about an earlier stream, as it was requested in another epoch. It means nothing.
    Outdated,
    /// The stream was created again, or set back to an earlier state.
    Restarted(GapReason),
}

/// The messages of one channel that a resuming client needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ResumePlan {
    /// Nothing newer than the id is stored.
    Nothing,
    /// The messages after the id.
    Replay,
    /// The missed messages can't be read.
    Gap(GapReason),
}

impl StreamProgress {
    /// Returns the newest place that is known of, by a live message or by a read.
    pub(super) fn reached(&self) -> Sequence {
        self.processed.max(self.reported)
    }

    pub(super) fn snapshot(&self) -> ProgressSnapshot {
        ProgressSnapshot { epoch: self.epoch, reached: self.reached() }
    }

    /// Returns whether this hub has seen the place of `id`, or can tell that it belongs to another epoch. An
    /// id that is not covered may come from a pod that has seen more.
    pub(super) fn covers(&self, id: EventId) -> bool {
        id.sequence <= self.reached() || Some(id.epoch) != self.epoch
    }

    pub(super) fn advance(&mut self, sequence: Sequence) {
        self.processed = self.processed.max(sequence);
    }

    pub(super) fn report(&mut self, up_to: Sequence) {
        self.reported = self.reported.max(up_to);
    }

    /// Compares an answer with what is known. The first answer sets the epoch.
    pub(super) fn check(&mut self, requested: ProgressSnapshot, info: &StreamState) -> StreamCheck {
        let Some(epoch) = self.epoch else {
            self.epoch = Some(info.epoch);
            return StreamCheck::Same;
        };
        if requested.epoch.is_some_and(|requested| requested != epoch) {
            StreamCheck::Outdated
        } else if info.epoch != epoch {
            StreamCheck::Restarted(GapReason::Epoch)
        } else if info.last_sequence < requested.reached {
            StreamCheck::Restarted(GapReason::Retention)
        } else {
            StreamCheck::Same
        }
    }

    /// Forgets everything but the epoch, as the stream starts again.
    pub(super) fn restart(&mut self, epoch: Epoch) {
        *self = Self { epoch: Some(epoch), unplaced: true, ..Self::default() };
    }

    /// Returns the place up to which everything of some channels was delivered: up to `processed` by live
    /// messages, or up to the minimum of `covered`, as far as a read has reported it.
    pub(super) fn safe_place(&self, covered: impl Iterator<Item = Sequence>) -> Sequence {
        self.processed.max(covered.min().unwrap_or(Sequence::MAX).min(self.reported))
    }

    /// Returns the same for all channels together. It is computed once after each read.
    pub(super) fn safe_place_of_all(&mut self, covered: impl Iterator<Item = Sequence>) -> Sequence {
        let floor = *self.floor.get_or_insert_with(|| covered.min().unwrap_or(Sequence::MAX));
        self.processed.max(floor.min(self.reported))
    }

    /// Discards the place of all channels, as one of them has changed.
    pub(super) fn forget_floor(&mut self) {
        self.floor = None;
    }
}

#[derive(Debug, Default)]
pub(super) struct ChannelProgress {
    /// `true` if everything up to `covered` is known: the channel was read, or waiting for it was given up.
    pub(super) read: bool,
    /// The newest message that was seen on the channel's subject.
    pub(super) seen: Sequence,
    /// The place up to which reads have shown what is stored on the subject.
    pub(super) proven: Sequence,
    /// The place up to which retention had removed everything when a read found the subject empty. Until a
    /// message is seen it is unknown what was stored before this place.
    removed: Sequence,
}

impl ChannelProgress {
    pub(super) fn covered(&self) -> Sequence {
        self.seen.max(self.proven)
    }

    /// Returns whether a message after `previous`, the message before it on the same subject, leaves a hole.
    pub(super) fn misses(&self, previous: Sequence) -> bool {
        self.read && previous > self.covered()
    }

    /// Returns the place after which a read must bring everything; `None` if only the newest message matters.
    pub(super) fn read_after(&self) -> Option<Sequence> {
        self.read.then(|| self.covered())
    }

    /// Decides how a client resumes at `id` on this `Every` channel.
    pub(super) fn plan_resume(&self, stream: &StreamProgress, id: EventId) -> ResumePlan {
        let EventId { epoch, sequence } = id;
        if Some(epoch) != stream.epoch {
            ResumePlan::Gap(GapReason::Epoch)
        } else if sequence > self.covered().max(stream.reached()) {
            // The stream has fewer messages than the client has seen: it was set back.
            ResumePlan::Gap(GapReason::Retention)
        } else if self.seen == Sequence::START && sequence < self.removed {
            // A message after the id may have been stored and removed.
            ResumePlan::Gap(GapReason::Retention)
        } else if self.seen <= sequence {
            // The newest message of a subject is removed last.
            ResumePlan::Nothing
        } else {
            ResumePlan::Replay
        }
    }

    /// Records that a read or an audit found nothing newer than `seen` up to this place.
    pub(super) fn prove(&mut self, up_to: Sequence) {
        self.proven = self.proven.max(up_to);
    }

    /// Records that a read found the subject empty in a stream that begins with `first`. If nothing was
    /// missed since an earlier read, that one knew more.
    pub(super) fn found_empty(&mut self, first: Sequence, complete: bool) {
        if !self.read || !complete {
            self.removed = first.previous();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(epoch: u32, last_sequence: u64) -> StreamState {
        StreamState {
            epoch: Epoch(epoch),
            first_sequence: Sequence(1),
            last_sequence: Sequence(last_sequence),
            max_per_subject: None,
            max_age: None,
            time: jiff::Timestamp::UNIX_EPOCH,
        }
    }

    fn id(epoch: u32, sequence: u64) -> EventId {
        EventId { epoch: Epoch(epoch), sequence: Sequence(sequence) }
    }

    #[test]
    fn ids_are_covered_up_to_the_newest_known_place() {
        let mut progress = StreamProgress::default();
        progress.check(progress.snapshot(), &info(7, 5));
        assert!(progress.covers(id(7, 0)) && !progress.covers(id(7, 1)));
        progress.advance(Sequence(3));
        progress.report(Sequence(5));
        assert!(progress.covers(id(7, 5)) && !progress.covers(id(7, 6)));
        assert!(progress.covers(id(8, 99)), "an id of another epoch is known to be one");
        progress.restart(Epoch(8));
        assert!(!progress.covers(id(8, 1)));
    }

    #[test]
    fn answers_tell_a_new_stream_from_one_that_was_set_back() {
        let mut progress = StreamProgress::default();
        let first = progress.snapshot();
        assert_eq!(progress.check(first, &info(7, 5)), StreamCheck::Same);
        progress.report(Sequence(5));
        let requested = progress.snapshot();
        assert_eq!(progress.check(requested, &info(7, 5)), StreamCheck::Same);
        assert_eq!(progress.check(requested, &info(7, 4)), StreamCheck::Restarted(GapReason::Retention));
        assert_eq!(progress.check(requested, &info(8, 4)), StreamCheck::Restarted(GapReason::Epoch));
        progress.restart(Epoch(8));
        assert_eq!(progress.check(requested, &info(7, 9)), StreamCheck::Outdated);
    }

    #[test]
    fn a_place_is_safe_as_far_as_all_channels_are_covered() {
        let mut progress = StreamProgress::default();
        progress.report(Sequence(9));
        let places = |places: &[u64]| places.iter().copied().map(Sequence).collect::<Vec<_>>().into_iter();
        assert_eq!(progress.safe_place(places(&[])), Sequence(9));
        assert_eq!(progress.safe_place(places(&[12, 4])), Sequence(4));
        progress.advance(Sequence(6));
        assert_eq!(progress.safe_place(places(&[4])), Sequence(6));
        assert_eq!(progress.safe_place_of_all(places(&[8])), Sequence(8));
        assert_eq!(progress.safe_place_of_all(places(&[9])), Sequence(8), "it was computed before");
        progress.forget_floor();
        assert_eq!(progress.safe_place_of_all(places(&[9])), Sequence(9));
    }

    #[test]
    fn a_hole_shows_only_after_a_read() {
        let mut channel = ChannelProgress::default();
        assert!(!channel.misses(Sequence(5)));
        assert_eq!(channel.read_after(), None);
        channel.read = true;
        channel.prove(Sequence(4));
        assert!(channel.misses(Sequence(5)) && !channel.misses(Sequence(4)));
        channel.seen = Sequence(6);
        assert_eq!((channel.covered(), channel.read_after()), (Sequence(6), Some(Sequence(6))));
    }

    #[test]
    fn a_client_resumes_as_far_as_messages_after_its_id_are_stored() {
        let mut stream = StreamProgress::default();
        stream.check(stream.snapshot(), &info(7, 9));
        stream.report(Sequence(9));
        let channel = ChannelProgress { seen: Sequence(5), read: true, ..ChannelProgress::default() };
        for (resume, plan) in [
            (id(7, 4), ResumePlan::Replay),
            (id(7, 5), ResumePlan::Nothing),
            (id(7, 9), ResumePlan::Nothing),
            (id(7, 10), ResumePlan::Gap(GapReason::Retention)),
            (id(8, 4), ResumePlan::Gap(GapReason::Epoch)),
        ] {
            assert_eq!(channel.plan_resume(&stream, resume), plan, "{resume}");
        }
    }

    #[test]
    fn an_empty_subject_may_have_lost_what_retention_removed() {
        let mut stream = StreamProgress::default();
        stream.check(stream.snapshot(), &info(7, 9));
        stream.report(Sequence(9));
        let plan = |channel: &ChannelProgress, sequence| channel.plan_resume(&stream, id(7, sequence));
        let gap = ResumePlan::Gap(GapReason::Retention);
        let mut channel = ChannelProgress::default();
        channel.found_empty(Sequence(6), true);
        assert_eq!((plan(&channel, 4), plan(&channel, 5)), (gap, ResumePlan::Nothing));
        channel.read = true;
        channel.found_empty(Sequence(9), true);
        assert_eq!(plan(&channel, 5), ResumePlan::Nothing, "the earlier read knew more");
        channel.seen = Sequence(7);
        assert_eq!(plan(&channel, 4), ResumePlan::Replay);
    }
}
