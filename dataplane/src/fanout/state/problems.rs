//! Tells the clients that asked for it what is wrong with a channel's newest messages.

use std::time::Duration;

use flutecast_format::program::ProblemReason;
use tokio::time::Instant;

use super::HubState;
use super::client::Client;
use super::timers::Timer;
use super::watched_channel::WatchedChannel;
use crate::fanout::backlog::FrameKind;
use crate::fanout::keys::ChannelKey;
use crate::fanout::metrics::FanoutMetrics;
use crate::fanout::problem_log::ProblemLine;
use crate::pipeline::{Now, Problems};

/// The least time between two events about one channel.
const TELL_AGAIN: Duration = Duration::from_secs(1);
/// The time after which clients are told how often a problem was there meanwhile.
const COUNT_AGAIN: Duration = Duration::from_secs(10);

/// Decides when the viewers of a channel are told of its problem.
#[derive(Debug, Default)]
pub(super) struct ProblemNotifier {
    /// What they were told last; `None` if there is no problem for all they know.
    told: Option<ToldProblem>,
    told_at: Option<Instant>,
    /// The time at which the next timer is due.
    timer: Option<Instant>,
}

#[derive(Debug, PartialEq, Eq)]
struct ToldProblem {
    reason: ProblemReason,
    field: Option<String>,
    count: u64,
}

/// The effects of a message, a read, or a timer that is due.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ProblemNotice {
    /// `true` if the viewers have to be told.
    pub(super) tell: bool,
    pub(super) timer: Option<Instant>,
}

impl ProblemNotifier {
    pub(super) fn look(&mut self, problems: &Problems, now: Now) -> ProblemNotice {
        if problems.is_empty() && self.told.is_none() {
            return ProblemNotice::default();
        }
        let shown = problems.summary(now.wall);
        let again = self.pause(shown).map(|pause| self.told_at.map_or(now.instant, |told| told + pause));
        let tell = again.is_some_and(|again| again <= now.instant);
        if tell {
            self.told = shown.map(|(reason, field, count)| {
                let field = field.map(str::to_owned);
                ToldProblem { reason, field, count }
            });
            self.told_at = Some(now.instant);
        }
        let ends = problems.changes_in(now.wall).map(|time| now.instant + time);
        self.timer = self.timer.filter(|timer| *timer > now.instant);
        let next = again.filter(|_| !tell).into_iter().chain(ends).min();
        let timer = next.filter(|next| self.timer.is_none_or(|timer| *next < timer));
        self.timer = timer.or(self.timer);
        ProblemNotice { tell, timer }
    }

    /// Returns how long after the last event the viewers are told; `None` if they know.
    fn pause(&self, shown: Option<(ProblemReason, Option<&str>, u64)>) -> Option<Duration> {
        match (&self.told, shown) {
            (None, None) => None,
            (Some(told), Some((reason, field, count))) => {
                let same = told.reason == reason && told.field.as_deref() == field;
                let pause = if same { COUNT_AGAIN } else { TELL_AGAIN };
                (!same || told.count != count).then_some(pause)
            }
            _ => Some(TELL_AGAIN),
        }
    }
}

impl Client {
    /// Appends the problem of a channel, if there is one and the client asked for it.
    pub(super) fn show_problem(
        &mut self,
        key: ChannelKey,
        watched: &WatchedChannel,
        now: Now,
        metrics: &FanoutMetrics,
    ) {
        if self.request.problems
            && let Some(problem) = watched.pipeline.problems.json(now.wall)
        {
            let frame = watched.pipeline.writer.problem(Some(&problem));
            self.enqueue(FrameKind::Problem(key), frame, now, metrics);
        }
    }
}

impl HubState {
    /// Looks at the problems of a channel after messages were applied.
    pub(super) fn problems_changed(&mut self, key: ChannelKey, now: Now) {
        let Some(watched) = self.watched.get_mut(key) else { return };
        for report in watched.pipeline.problems.take_unlogged(now.wall) {
            let (device, channel) = (watched.device.code.clone(), watched.channel.clone());
            self.io.problems.push(ProblemLine { device, channel, report });
        }
        self.problem_due(key, now);
    }

    pub(super) fn problem_due(&mut self, key: ChannelKey, now: Now) {
        let Some(watched) = self.watched.get_mut(key) else { return };
        let ProblemNotice { tell, timer } = watched.notifier.look(&watched.pipeline.problems, now);
        if let Some(at) = timer {
            self.timers.add(at, Timer::Problem(key));
        }
        if tell {
            let problem = watched.pipeline.problems.json(now.wall);
            self.tell_problem(key, problem.as_deref(), now);
        }
    }

    /// Takes the problem of a channel back that won't be watched any more.
    pub(super) fn end_problem(&mut self, key: ChannelKey, now: Now) {
        let told = self.watched.get_mut(key).and_then(|watched| watched.notifier.told.take());
        if told.is_some() {
            self.tell_problem(key, None, now);
        }
    }

    fn tell_problem(&mut self, key: ChannelKey, problem: Option<&str>, now: Now) {
        let Some(watched) = self.watched.get(key) else { return };
        let frame = watched.pipeline.writer.problem(problem);
        for &viewer in &watched.viewers {
            if let Some(client) = self.clients.get_mut(viewer).filter(|client| client.request.problems) {
                client.enqueue(FrameKind::Problem(key), frame.clone(), now, &self.metrics);
            }
        }
    }
}
