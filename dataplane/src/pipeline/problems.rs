//! What is wrong with the newest messages of a channel, and for how long.
//!
//! It is a function of the messages that were applied: a pod that reads them back finds the same. Times are
//! those of storing, so the broker's clock decides when a problem is over.

use std::time::Duration;

use flutecast_contract::stream_position::Sequence;
use flutecast_contract::tail::PROBLEM_LINGER;
use flutecast_format::program::{Applied, ChannelState, Message, Problem, ProblemReason, Program, Timestamp};
use serde::Serialize;

use super::clock::rfc3339;
use super::excerpt::excerpt;

/// A reason that goes on is explained again after this time. In between its messages are only counted, as an
/// explanation costs more than the message.
const EXPLAIN_AGAIN: Duration = Duration::from_secs(1);

/// The problems of one channel, at most one for each reason. Takes no memory while all messages are good.
#[derive(Debug, Clone, Default)]
pub struct Problems {
    lasting: Vec<LastingProblem>,
}

/// A problem that messages had one after the other, with less than [`PROBLEM_LINGER`] between them.
#[derive(Debug, Clone)]
struct LastingProblem {
    /// As the message explained it of which `sequence` and `excerpt` are.
    problem: Problem,
    sequence: Sequence,
    excerpt: String,
    explained_at: Timestamp,
    count: u64,
    since: Timestamp,
    last: Timestamp,
    /// `true` while the newest message of the channel has it.
    in_newest: bool,
    /// `true` until it was taken for the log.
    unlogged: bool,
}

/// A problem as a log line tells it.
#[derive(Debug, Clone, PartialEq)]
pub struct ProblemReport {
    pub problem: Problem,
    pub sequence: Sequence,
    pub excerpt: String,
}

#[derive(Serialize)]
struct ProblemJson<'a> {
    reason: &'static str,
    field: Option<&'a str>,
    place: &'a str,
    found: Option<&'a str>,
    message: String,
    #[serde(flatten)]
    duration: Option<ProblemDuration>,
}

#[derive(Serialize)]
struct ProblemDuration {
    count: u64,
    since: String,
    last: String,
}

impl Problems {
    pub fn is_empty(&self) -> bool {
        self.lasting.is_empty()
    }

    /// Records what became of a message. `state` is the one after it.
    pub fn note(
        &mut self,
        program: &Program,
        state: &ChannelState,
        sequence: Sequence,
        message: Message<'_>,
        applied: &Applied,
    ) {
        if applied.problem.is_none() && self.lasting.is_empty() {
            return;
        }
        let explain = || program.explain(message, applied.verdict.err(), state);
        self.record(applied.problem, sequence, message, explain);
    }

    /// As [`Self::note`]: `worst` is the worst reason of the message, which `explain` tells in full.
    fn record(
        &mut self,
        worst: Option<ProblemReason>,
        sequence: Sequence,
        message: Message<'_>,
        explain: impl FnOnce() -> Vec<Problem>,
    ) {
        let at = message.stored_at;
        self.lasting.retain_mut(|lasting| {
            // The broker's clock may have been set back.
            lasting.last = lasting.last.min(at);
            lasting.is_active(at)
        });
        let Some(worst) = worst else {
            self.lasting.iter_mut().for_each(|lasting| lasting.in_newest = false);
            return;
        };
        let known = self.lasting.iter_mut().find(|lasting| lasting.problem.reason == worst);
        if let Some(known) = known.filter(|known| known.explained_lately(at)) {
            known.again(at);
            // Whether the message has the lesser ones too shows when it is explained again.
            let greater = self.lasting.iter_mut().filter(|lasting| lasting.problem.reason < worst);
            greater.for_each(|lasting| lasting.in_newest = false);
            return;
        }
        self.lasting.iter_mut().for_each(|lasting| lasting.in_newest = false);
        for problem in explain() {
            self.explained(problem, sequence, message);
        }
    }

    fn explained(&mut self, problem: Problem, sequence: Sequence, message: Message<'_>) {
        let at = message.stored_at;
        let known = self.lasting.iter_mut().find(|lasting| lasting.problem.reason == problem.reason);
        match known {
            // The first of several of a message stands for all of them.
            Some(known) if known.in_newest => {}
            Some(known) => {
                known.again(at);
                let excerpt = excerpt(message.payload);
                let (since, count) = (known.since, known.count);
                *known =
                    LastingProblem { since, count, ..LastingProblem::new(problem, sequence, excerpt, at) };
            }
            None => {
                let excerpt = excerpt(message.payload);
                self.lasting.push(LastingProblem::new(problem, sequence, excerpt, at));
            }
        }
    }

    /// Goes on from what was known before the newest messages were read again. The read may have needed only
    /// the newest message, so that it doesn't know of a problem that is not over yet.
    pub fn follow(&mut self, before: Self) {
        for old in before.lasting {
            match self.lasting.iter_mut().find(|new| new.problem.reason == old.problem.reason) {
                Some(new) => {
                    new.since = new.since.min(old.since);
                    new.count = new.count.max(old.count);
                }
                None => self.lasting.push(LastingProblem { in_newest: false, ..old }),
            }
        }
    }

    /// Returns the worst problem that there is at `now`, as the JSON object of docs/protocol.md.
    pub fn json(&self, now: Timestamp) -> Option<String> {
        self.worst(now).map(LastingProblem::json)
    }

    /// Returns reason and field of the worst problem that there is at `now`, and how many messages had it.
    pub fn summary(&self, now: Timestamp) -> Option<(ProblemReason, Option<&str>, u64)> {
        let LastingProblem { problem, count, .. } = self.worst(now)?;
        Some((problem.reason, problem.field.as_deref(), *count))
    }

    fn worst(&self, now: Timestamp) -> Option<&LastingProblem> {
        let active = self.lasting.iter().filter(|lasting| lasting.is_active(now));
        active.min_by_key(|lasting| lasting.problem.reason)
    }

    /// Returns for how long what [`Self::json`] returns stays the same if no message comes; `None` for ever.
    pub fn changes_in(&self, now: Timestamp) -> Option<Duration> {
        let lingering = self.lasting.iter().filter(|lasting| !lasting.in_newest && lasting.is_active(now));
        lingering.map(|lasting| PROBLEM_LINGER.saturating_sub(lasting.age(now))).min()
    }

    /// Returns the problems at `now` that were explained since the last call.
    pub fn take_unlogged(&mut self, now: Timestamp) -> Vec<ProblemReport> {
        let mut reports = Vec::new();
        for lasting in &mut self.lasting {
            if std::mem::take(&mut lasting.unlogged) && lasting.is_active(now) {
                reports.push(lasting.report());
            }
        }
        reports
    }
}

impl LastingProblem {
    fn new(problem: Problem, sequence: Sequence, excerpt: String, at: Timestamp) -> Self {
        Self {
            problem,
            sequence,
            excerpt,
            explained_at: at,
            count: 1,
            since: at,
            last: at,
            in_newest: true,
            unlogged: true,
        }
    }

    fn again(&mut self, at: Timestamp) {
        self.count += 1;
        self.last = at;
        self.in_newest = true;
    }

    fn age(&self, now: Timestamp) -> Duration {
        Duration::from_micros(u64::try_from(now.0.saturating_sub(self.last.0)).unwrap_or(0))
    }

    fn is_active(&self, now: Timestamp) -> bool {
        self.in_newest || self.age(now) < PROBLEM_LINGER
    }

    fn explained_lately(&self, at: Timestamp) -> bool {
        let since = at.0.saturating_sub(self.explained_at.0);
        u64::try_from(since).is_ok_and(|since| Duration::from_micros(since) < EXPLAIN_AGAIN)
    }

    fn report(&self) -> ProblemReport {
        let Self { problem, sequence, excerpt, .. } = self;
        ProblemReport { problem: problem.clone(), sequence: *sequence, excerpt: excerpt.clone() }
    }

    fn json(&self) -> String {
        let (since, last) = (rfc3339(self.since), rfc3339(self.last));
        let duration = ProblemDuration { count: self.count, since, last };
        write_json(&self.problem, Some(duration))
    }
}

/// Returns the JSON object of a problem of which it isn't known how often it was there.
pub fn problem_json(problem: &Problem) -> String {
    write_json(problem, None)
}

fn write_json(problem: &Problem, duration: Option<ProblemDuration>) -> String {
    let Problem { reason, field, place, found, .. } = problem;
    let json = ProblemJson {
        reason: reason.as_str(),
        field: field.as_deref(),
        place,
        found: found.as_deref(),
        message: problem.sentence(),
        duration,
    };
    // Texts and numbers can always be written.
    serde_json::to_string(&json).unwrap_or_else(|_| "null".to_owned())
}

#[cfg(test)]
mod tests;
