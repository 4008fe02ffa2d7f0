//! Conditions as kstatus reads them, from an object's [`Readiness`]. Pure.

use flutecast_crds::condition::{Condition, MESSAGES_UNDERSTOOD, READY, RECONCILING, STALLED, Time};
use k8s_openapi::jiff::Timestamp;

use crate::finding::{ConditionLabel, Finding, Reason};

/// The reason of `Ready` when nothing is wrong.
pub(crate) const ACCEPTED: &str = "Accepted";
/// The longest message, in bytes. Kubernetes takes 32 KiB; people read less.
const MAX_MESSAGE: usize = 2048;
/// The conditions that the operator writes.
const OURS: [&str; 4] = [READY, RECONCILING, STALLED, MESSAGES_UNDERSTOOD];

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Readiness {
    /// The object does what its spec says. With the message of its condition.
    Ready(&'static str),
    /// The object does what its spec says; something is about to change that.
    ReadyUntil { reason: Reason, message: String },
    /// Something is wrong; the message names all of it.
    NotReady { reason: Reason, message: String },
}

impl Readiness {
    /// Returns `Ready` with `message` if there are no findings.
    pub(crate) fn of(findings: &[Finding], message: &'static str) -> Self {
        Self::not_ready(findings).unwrap_or(Self::Ready(message))
    }

    /// Returns `None` if there are no findings.
    pub(crate) fn not_ready(findings: &[Finding]) -> Option<Self> {
        // What somebody has to change is more urgent than what may come by itself.
        let first = findings.iter().find(|finding| !finding.reason.waits()).or(findings.first())?;
        let message = |finding: &Finding| match finding.field.as_str() {
            "" => finding.message.clone(),
            field => format!("{field}: {}", finding.message),
        };
        let others = findings.iter().filter(|finding| *finding != first);
        let all: Vec<String> = std::iter::once(first).chain(others).map(message).collect();
        Some(Self::NotReady { reason: first.reason, message: shortened(&all.join("; ")) })
    }
}

/// What a condition says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Said<'a> {
    pub(crate) type_: &'a str,
    pub(crate) status: &'a str,
    pub(crate) reason: &'a str,
    pub(crate) message: &'a str,
}

/// Returns a condition. `before` are those that the object has: as long as a status stays, so does its time.
pub(crate) fn condition(said: Said<'_>, generation: i64, before: &[Condition], now: Timestamp) -> Condition {
    let Said { type_, status, reason, message } = said;
    let same = before.iter().find(|condition| condition.type_ == type_ && condition.status == status);
    Condition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        observed_generation: Some(generation),
        last_transition_time: same
            .map_or(Time(seconds(now)), |condition| condition.last_transition_time.clone()),
    }
}

/// Returns the time in full seconds, as Kubernetes has times.
pub(crate) fn seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

/// Returns the conditions for a readiness, as [`condition`] does.
pub(crate) fn conditions(
    readiness: &Readiness,
    generation: i64,
    before: &[Condition],
    now: Timestamp,
) -> Vec<Condition> {
    let condition = |type_: &str, is_true: bool, reason: &str, message: &str| {
        let status = if is_true { "True" } else { "False" };
        condition(Said { type_, status, reason, message }, generation, before, now)
    };
    match readiness {
        Readiness::Ready(message) => vec![condition(READY, true, ACCEPTED, message)],
        Readiness::ReadyUntil { reason, message } => {
            vec![condition(READY, true, &reason.to_string(), &shortened(message))]
        }
        Readiness::NotReady { reason, message } => {
            let why = if reason.waits() { RECONCILING } else { STALLED };
            let reason = reason.to_string();
            vec![condition(READY, false, &reason, message), condition(why, true, &reason, message)]
        }
    }
}

/// Returns the conditions among `all` that the operator writes.
pub(crate) fn ours(all: &[Condition]) -> Vec<Condition> {
    all.iter().filter(|condition| OURS.contains(&condition.type_.as_str())).cloned().collect()
}

pub(crate) fn ready(conditions: &[Condition]) -> Option<&Condition> {
    conditions.iter().find(|condition| condition.type_ == READY)
}

pub(crate) fn understood(conditions: &[Condition]) -> Option<&Condition> {
    conditions.iter().find(|condition| condition.type_ == MESSAGES_UNDERSTOOD)
}

/// Returns whether an object with these conditions is Ready for this generation.
pub(crate) fn is_ready(conditions: &[Condition], generation: i64) -> bool {
    ready(conditions)
        .is_some_and(|ready| ready.status == "True" && ready.observed_generation == Some(generation))
}

pub(crate) fn label(conditions: &[Condition]) -> ConditionLabel {
    let is_true = |type_: &str| conditions.iter().any(|one| one.type_ == type_ && one.status == "True");
    if is_true(READY) {
        ConditionLabel::Ready
    } else if is_true(STALLED) {
        ConditionLabel::Stalled
    } else if is_true(RECONCILING) {
        ConditionLabel::Reconciling
    } else {
        ConditionLabel::Unsettled
    }
}

/// Shortens a message that is longer than `limit` bytes.
pub(crate) fn truncate(message: &mut String, limit: usize) {
    if message.len() > limit {
        message.truncate(message.floor_char_boundary(limit));
        message.push('…');
    }
}

fn shortened(message: &str) -> String {
    // A message has to fit in one line of a table.
    let mut message: String = message.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    truncate(&mut message, MAX_MESSAGE);
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn summary(conditions: &[Condition]) -> Vec<(String, i64)> {
        conditions
            .iter()
            .map(|condition| {
                let Condition { type_, status, reason, .. } = condition;
                (format!("{type_}={status} {reason}"), condition.last_transition_time.0.as_second())
            })
            .collect()
    }

    #[test]
    fn the_time_moves_with_the_status_only() {
        let missing = Readiness::not_ready(&[Finding::new(Reason::FormatMissing, "spec", "a")]).unwrap();
        let first = conditions(&missing, 1, &[], at(10));
        assert_eq!(
            summary(&first),
            [("Ready=False FormatMissing".to_owned(), 10), ("Reconciling=True FormatMissing".to_owned(), 10)]
        );
        let taken = Readiness::not_ready(&[Finding::new(Reason::DuplicateDeviceCode, "", "b")]).unwrap();
        let second = conditions(&taken, 2, &first, at(20));
        assert_eq!(
            summary(&second),
            [
                ("Ready=False DuplicateDeviceCode".to_owned(), 10),
                ("Stalled=True DuplicateDeviceCode".to_owned(), 20)
            ]
        );
        let third = conditions(&Readiness::Ready("it works"), 2, &second, at(30));
        assert_eq!(summary(&third), [("Ready=True Accepted".to_owned(), 30)]);
        assert_eq!(conditions(&Readiness::Ready("it works"), 2, &third, at(40)), third);
    }

    #[test]
    fn findings_that_need_a_change_come_first() {
        let findings = [
            Finding::new(Reason::FormatMissing, "spec.channels[0].format", "there is none"),
            Finding::new(Reason::FormatInvalid, "", "it\ndoes not compile"),
        ];
        let Some(Readiness::NotReady { reason, message }) = Readiness::not_ready(&findings) else { panic!() };
        assert_eq!(reason, Reason::FormatInvalid);
        assert_eq!(message, "it does not compile; spec.channels[0].format: there is none");
        assert_eq!(Readiness::not_ready(&[]), None);
    }

    #[test]
    fn long_messages_are_cut() {
        let long = Finding::new(Reason::FormatInvalid, "", "é".repeat(3000));
        let Some(Readiness::NotReady { message, .. }) = Readiness::not_ready(&[long]) else { panic!() };
        assert_eq!(message.len(), MAX_MESSAGE + '…'.len_utf8());
    }
}
