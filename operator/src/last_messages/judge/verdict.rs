//! What messages say about their channel, and channels about their device. Pure.

use flutecast_contract::document::DeliveryPolicy;
use flutecast_contract::name::ChannelName;
use flutecast_format::program::{ChannelState, Message, Output, Problem, ProblemReason, Program};
use flutecast_nats::StoredMessage;

use crate::presence::{Understanding, Understood};

/// What the last message of a channel says.
#[derive(Debug, PartialEq)]
pub(super) enum Alone {
    /// What is wrong with it, if anything. The messages before it don't matter.
    Settled(Option<Problem>),
    /// The messages before it have to answer this.
    Asks(Question),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Question {
    IsInOrder,
    /// Whether the messages before it had these fields, which it lacks.
    HasEver(Vec<String>),
}

/// What a tail says about its last message.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct TailJudgement {
    /// What is wrong with it.
    problem: Option<Problem>,
    /// The fields that none of the messages had.
    hints: Vec<Problem>,
}

/// A channel with a problem.
#[derive(Debug)]
pub(super) struct ChannelProblem<'a> {
    pub(super) channel: &'a ChannelName,
    pub(super) problem: Problem,
}

/// Judges the last message of a channel.
pub(super) fn alone(program: &Program, last: &StoredMessage) -> Alone {
    // With other policies, what was stored before decides what is shown, not whether it is understood.
    let mut state = if program.policy() == DeliveryPolicy::Latest && !program.is_record() {
        ChannelState::default()
    } else {
        ChannelState::complete()
    };
    let message = message(last);
    let Ok(applied) = program.apply(message, &mut state, &mut Output::default()) else {
        return Alone::Asks(Question::IsInOrder);
    };
    if applied.problem.is_some() {
        let problems = program.explain(message, applied.verdict.err(), &state);
        return Alone::Settled(problems.into_iter().next());
    }
    let missing = program.missing_fields(&last.payload);
    if missing.is_empty() {
        return Alone::Settled(None);
    }
    let name = |field: usize| Some(program.fields().get(field)?.name.clone());
    Alone::Asks(Question::HasEver(missing.into_iter().filter_map(name).collect()))
}

fn message(stored: &StoredMessage) -> Message<'_> {
    Message {
        payload: &stored.payload,
        stored_at: stored.stored_at.into(),
        captured_at: stored.captured_at.map(Into::into),
    }
}

impl TailJudgement {
    /// Judges the last of these messages, which are in stream order.
    pub(super) fn of(program: &Program, messages: &[StoredMessage]) -> Self {
        let (mut state, mut output) = (ChannelState::complete(), Output::default());
        let mut problems = Vec::new();
        for (number, stored) in messages.iter().enumerate() {
            let applied = program.apply(message(stored), &mut state, &mut output);
            if let Ok(applied) = applied
                && applied.problem.is_some()
                && number + 1 == messages.len()
            {
                problems = program.explain(message(stored), applied.verdict.err(), &state);
            }
        }
        let is_hint = |problem: &Problem| problem.reason == ProblemReason::FieldNotFound;
        let (hints, problems): (Vec<_>, Vec<_>) = problems.into_iter().partition(is_hint);
        Self { problem: problems.into_iter().next(), hints }
    }

    /// Returns what is wrong with the channel.
    pub(super) fn answer(&self, question: &Question) -> Option<&Problem> {
        match question {
            Question::IsInOrder => self.problem.as_ref().or(self.hints.first()),
            Question::HasEver(lacking) => {
                let is_lacking =
                    |hint: &&Problem| hint.field.as_ref().is_some_and(|field| lacking.contains(field));
                self.hints.iter().find(is_lacking)
            }
        }
    }

    /// Notes that these are the only fields that a message lacks.
    pub(super) fn only_lacking(&mut self, lacking: &[String]) {
        self.hints.retain(|hint| hint.field.as_ref().is_some_and(|field| lacking.contains(field)));
    }
}

/// Returns what the problems of channels say about their device.
pub(super) fn understanding(mut problems: Vec<ChannelProblem<'_>>) -> Understanding {
    problems.sort_by(|one, other| {
        let key = |of: &ChannelProblem<'_>| (of.problem.reason, of.channel.clone());
        key(one).cmp(&key(other))
    });
    let Some(ChannelProblem { channel, problem }) = problems.first() else {
        return Understanding::UNDERSTOOD;
    };
    let is_bad = |problem: &Problem| problem.reason < ProblemReason::ClockAhead;
    let alike = problems.iter().filter(|other| is_bad(&other.problem) == is_bad(problem)).count();
    let mut concerned = format!("channel {channel}");
    if let Some(field) = &problem.field {
        concerned = format!("{concerned}, field {field}");
    }
    // A place in the payload may be another one each time.
    let (place, at) = match problem.place.as_str() {
        "" => (String::new(), String::new()),
        pointer if pointer.starts_with('/') => (format!(" at {pointer}"), String::new()),
        place => (String::new(), format!("at {place}: ")),
    };
    concerned.push_str(&place);
    match alike - 1 {
        0 => {}
        1 => concerned.push_str(", and 1 more channel"),
        more => concerned.push_str(&format!(", and {more} more channels")),
    }
    let found = problem.found.as_ref().map(|found| format!("; found {found}")).unwrap_or_default();
    let sentence = problem.sentence();
    // The field is named already.
    let named = problem.field.as_ref().map(|field| format!("field {field} ")).unwrap_or_default();
    let why = format!("{at}{}{found}", sentence.strip_prefix(&named).unwrap_or(&sentence));
    let status = if is_bad(problem) { Understood::False } else { Understood::True };
    Understanding::new(status, problem.reason.as_str(), &concerned, &why)
}
