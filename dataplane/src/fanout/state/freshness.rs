//! Detects channels that have been silent for longer than their `staleAfter`.

use std::time::Duration;

use flutecast_format::program::Timestamp;
use tokio::time::Instant;

/// The freshness of one channel.
///
/// Deadlines move with each message, but a timer is set only when none is set that is due earlier: a timer
/// that is due before the deadline sets the next one.
#[derive(Debug)]
pub(super) struct Freshness {
    /// `None` if the channel never becomes stale.
    pub(super) stale_after: Option<Duration>,
    stale: bool,
    pub(super) since: Option<Timestamp>,
    deadline: Option<Instant>,
    /// The time at which the current timer is due. Timers of earlier deadlines are ignored.
    timer: Option<Instant>,
}

/// The effects of a message, a read, or a timer that is due.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct FreshnessChange {
    pub(super) timer: Option<Instant>,
    pub(super) event: Option<FreshnessEvent>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FreshnessEvent {
    Stale,
    Fresh,
}

impl Freshness {
    pub(super) fn new(stale_after: Option<Duration>) -> Self {
        Self { stale_after, stale: false, since: None, deadline: None, timer: None }
    }

    pub(super) fn is_stale(&self) -> bool {
        self.stale
    }

    /// Changes `staleAfter`. The time of the newest message stays.
    pub(super) fn change(&mut self, stale_after: Option<Duration>) {
        self.stale_after = stale_after;
        self.stale &= stale_after.is_some();
        self.deadline = None;
        self.timer = None;
    }

    /// Records a message of the time `since` that came `age` ago.
    pub(super) fn hear(&mut self, since: Timestamp, age: Duration, now: Instant) -> FreshnessChange {
        self.since = Some(since);
        self.touch(age, now)
    }

    /// Starts the time of silence `age` ago.
    pub(super) fn touch(&mut self, age: Duration, now: Instant) -> FreshnessChange {
        let Some(stale_after) = self.stale_after else { return FreshnessChange::default() };
        let deadline = now + stale_after.saturating_sub(age);
        self.deadline = Some(deadline);
        // A later deadline is noticed when the timer is due, an earlier one needs a timer of its own.
        let timer = self.timer.is_none_or(|timer| deadline < timer).then_some(deadline);
        self.timer = timer.or(self.timer);
        let became_fresh = self.stale && age < stale_after;
        self.stale &= !became_fresh;
        FreshnessChange { timer, event: became_fresh.then_some(FreshnessEvent::Fresh) }
    }

    pub(super) fn timer_due(&mut self, now: Instant) -> FreshnessChange {
        if self.timer.is_some_and(|timer| timer > now) {
            return FreshnessChange::default();
        }
        self.timer = self.deadline.filter(|deadline| *deadline > now);
        if self.timer.is_none() && self.deadline.is_some() {
            return self.become_stale();
        }
        FreshnessChange { timer: self.timer, event: None }
    }

    /// Judges a channel that was just read: one without a message, or with only an old one, becomes stale at
    /// once, although this pod has not waited for a message long enough.
    pub(super) fn judge(&mut self, now: Instant) -> FreshnessChange {
        if self.since.is_none() && self.stale_after.is_some() {
            self.deadline = Some(now);
        }
        if self.stale_after.is_none() || self.deadline.is_none_or(|deadline| deadline > now) {
            return FreshnessChange::default();
        }
        self.become_stale()
    }

    fn become_stale(&mut self) -> FreshnessChange {
        self.timer = None;
        let became_stale = !std::mem::replace(&mut self.stale, true);
        FreshnessChange { timer: None, event: became_stale.then_some(FreshnessEvent::Stale) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEN: Duration = Duration::from_secs(10);

    fn after(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    fn wait(until: Instant) -> FreshnessChange {
        FreshnessChange { timer: Some(until), event: None }
    }

    fn became_stale() -> FreshnessChange {
        FreshnessChange { timer: None, event: Some(FreshnessEvent::Stale) }
    }

    #[test]
    fn silence_is_noticed_once_and_ends_with_a_message() {
        let (start, mut freshness) = (Instant::now(), Freshness::new(Some(TEN)));
        let heard = freshness.hear(Timestamp(1), Duration::ZERO, start);
        assert_eq!(heard, wait(after(start, 10)));
        assert_eq!(freshness.timer_due(after(start, 10)), became_stale());
        assert_eq!(freshness.timer_due(after(start, 11)), FreshnessChange::default());
        let heard = freshness.hear(Timestamp(2), Duration::ZERO, after(start, 12));
        assert_eq!(heard, FreshnessChange { event: Some(FreshnessEvent::Fresh), ..wait(after(start, 22)) });
        assert!(!freshness.is_stale());
    }

    #[test]
    fn a_later_deadline_is_noticed_when_the_earlier_timer_is_due() {
        let (start, mut freshness) = (Instant::now(), Freshness::new(Some(TEN)));
        freshness.touch(Duration::ZERO, start);
        assert_eq!(freshness.touch(Duration::ZERO, after(start, 4)).timer, None);
        assert_eq!(freshness.timer_due(after(start, 10)), wait(after(start, 14)));
        // An earlier deadline has a timer of its own; the one of the later deadline then says nothing.
        let earlier = freshness.touch(Duration::from_secs(9), after(start, 11));
        assert_eq!(earlier.timer, Some(after(start, 12)));
        freshness.touch(Duration::ZERO, after(start, 11));
        assert_eq!(freshness.timer_due(after(start, 12)), wait(after(start, 21)));
        assert_eq!(freshness.timer_due(after(start, 14)), FreshnessChange::default());
    }

    #[test]
    fn a_read_shows_at_once_that_a_channel_is_silent() {
        let (start, mut freshness) = (Instant::now(), Freshness::new(Some(TEN)));
        freshness.touch(Duration::ZERO, start);
        assert_eq!(freshness.judge(start), became_stale(), "there is no message");
        assert_eq!(freshness.judge(start), FreshnessChange::default());
        let mut freshness = Freshness::new(Some(TEN));
        let heard = freshness.hear(Timestamp(1), Duration::from_secs(60), start);
        assert_eq!((heard.event, freshness.judge(start)), (None, became_stale()), "its only message is old");
        let mut freshness = Freshness::new(Some(TEN));
        freshness.hear(Timestamp(1), Duration::from_secs(9), start);
        assert_eq!(freshness.judge(start), FreshnessChange::default());
        assert_eq!(Freshness::new(None).judge(start), FreshnessChange::default());
    }

    #[test]
    fn a_channel_without_a_time_limit_is_no_longer_stale() {
        let (start, mut freshness) = (Instant::now(), Freshness::new(Some(TEN)));
        freshness.touch(Duration::ZERO, start);
        freshness.judge(start);
        freshness.change(Some(TEN * 2));
        assert!(freshness.is_stale());
        freshness.change(None);
        assert!(!freshness.is_stale());
        assert_eq!(freshness.touch(Duration::ZERO, start), FreshnessChange::default());
    }
}
