use super::*;
use ProblemReason::{BadField, ClockAhead, Malformed, OutOfOrder, TooOld};

fn seconds(time: f64) -> Timestamp {
    Timestamp((1_795_341_600.0 * 1e6 + time * 1e6) as i64)
}

fn problem(reason: ProblemReason, found: &str) -> Problem {
    Problem {
        reason,
        field: None,
        place: "/ts".to_owned(),
        found: Some(found.to_owned()),
        detail: None,
        remedy: format!("{} is wrong", reason.as_str()),
    }
}

/// The problems of a channel, and how often they were explained.
#[derive(Default)]
struct Channel {
    problems: Problems,
    sequence: u64,
    explained: usize,
}

impl Channel {
    /// Records a message with these problems, the worst first.
    fn message(&mut self, at: f64, reasons: &[ProblemReason]) {
        self.sequence += 1;
        let found = self.sequence.to_string();
        let message = Message { payload: found.as_bytes(), stored_at: seconds(at), captured_at: None };
        let explained = &mut self.explained;
        self.problems.record(reasons.first().copied(), Sequence(self.sequence), message, || {
            *explained += 1;
            reasons.iter().map(|&reason| problem(reason, &found)).collect()
        });
    }

    fn json(&self, now: f64) -> Option<serde_json::Value> {
        let json = self.problems.json(seconds(now))?;
        Some(serde_json::from_str(&json).unwrap())
    }

    /// Returns the reason and the count of what is shown.
    fn shown(&self, now: f64) -> Option<(String, u64)> {
        let json = self.json(now)?;
        Some((json["reason"].as_str().unwrap().to_owned(), json["count"].as_u64().unwrap()))
    }

    fn is(&self, now: f64, reason: ProblemReason, count: u64) -> bool {
        self.shown(now) == Some((reason.as_str().to_owned(), count))
    }
}

#[test]
fn the_json_is_as_documented() {
    let mut channel = Channel::default();
    channel.message(0.0, &[TooOld]);
    channel.message(2.0, &[TooOld]);
    let expected = serde_json::json!({
        "reason": "TooOld", "field": null, "place": "/ts", "found": "2", "message": "TooOld is wrong",
        "count": 2, "since": "2026-11-22T10:00:00.000Z", "last": "2026-11-22T10:00:02.000Z",
    });
    assert_eq!(channel.json(2.0).unwrap(), expected);
    let not_read: serde_json::Value = serde_json::from_str(&problem_json(&problem(TooOld, "x"))).unwrap();
    assert_eq!(not_read.get("count"), None);
}

#[test]
fn good_messages_take_no_memory() {
    let mut channel = Channel::default();
    channel.message(0.0, &[]);
    assert!(channel.problems.is_empty() && channel.problems.lasting.capacity() == 0);
    assert_eq!((channel.shown(0.0), channel.explained), (None, 0));
}

#[test]
fn a_problem_stays_while_the_newest_message_has_it() {
    let mut channel = Channel::default();
    channel.message(0.0, &[Malformed]);
    assert!(channel.is(0.0, Malformed, 1) && channel.is(1e6, Malformed, 1));
    assert_eq!(channel.problems.changes_in(seconds(5.0)), None);
}

#[test]
fn a_problem_lingers_behind_its_last_message() {
    let mut channel = Channel::default();
    channel.message(0.0, &[Malformed]);
    channel.message(4.0, &[]);
    assert!(channel.is(9.999, Malformed, 1));
    assert_eq!(channel.problems.changes_in(seconds(4.0)), Some(Duration::from_secs(6)));
    assert_eq!(channel.shown(10.0), None);
    assert_eq!(channel.problems.changes_in(seconds(10.0)), None);
    channel.message(11.0, &[]);
    assert!(channel.problems.is_empty());
}

#[test]
fn alternation_is_one_problem_and_silence_ends_it() {
    let mut channel = Channel::default();
    for n in 0..20 {
        channel.message(f64::from(n), if n % 2 == 0 { &[BadField] } else { &[] });
    }
    assert!(channel.is(19.0, BadField, 10));
    assert_eq!(channel.json(19.0).unwrap()["since"], "2026-11-22T10:00:00.000Z");
    channel.message(40.0, &[]);
    channel.message(41.0, &[BadField]);
    assert!(channel.is(41.0, BadField, 1), "a new one begins");
    assert_eq!(channel.json(41.0).unwrap()["since"], "2026-11-22T10:00:41.000Z");
}

#[test]
fn the_worst_of_the_active_ones_is_shown() {
    let mut channel = Channel::default();
    channel.message(0.0, &[BadField, ClockAhead]);
    assert!(channel.is(0.0, BadField, 1));
    channel.message(2.0, &[Malformed]);
    assert!(channel.is(2.0, Malformed, 1));
    channel.message(3.0, &[BadField, ClockAhead]);
    assert!(channel.is(11.9, Malformed, 1), "it lingers");
    assert!(channel.is(12.0, BadField, 2), "and then the next one shows");
    channel.message(12.5, &[ClockAhead]);
    assert!(channel.is(12.5, BadField, 2));
    assert!(channel.is(13.0, ClockAhead, 3));
}

#[test]
fn many_messages_are_counted_and_explained_once_a_second() {
    let mut channel = Channel::default();
    for n in 0..3_000 {
        channel.message(f64::from(n) / 1_000.0, &[TooOld]);
    }
    assert!(channel.is(3.0, TooOld, 3_000));
    assert_eq!(channel.explained, 3);
    assert_eq!(channel.json(3.0).unwrap()["found"], "2001");
    channel.message(3.0, &[OutOfOrder]);
    assert_eq!(channel.explained, 4, "a new reason at once");
}

#[test]
fn memory_is_bounded_by_the_reasons() {
    let mut channel = Channel::default();
    for round in 0..50 {
        for (n, reason) in (0_u32..).zip(ProblemReason::ALL) {
            channel.message(f64::from(round) + f64::from(n) / 100.0, &[reason, reason]);
        }
    }
    assert_eq!(channel.problems.lasting.len(), ProblemReason::ALL.len());
    assert!(channel.is(50.0, Malformed, 50), "several fields of a message count as one");
}

#[test]
fn a_clock_of_the_broker_that_is_set_back_keeps_no_problem() {
    let mut channel = Channel::default();
    channel.message(3_600.0, &[TooOld]);
    channel.message(0.0, &[]);
    assert!(channel.is(1.0, TooOld, 1));
    assert_eq!(channel.shown(10.0), None);
}

#[test]
fn each_explanation_is_reported_once() {
    let mut channel = Channel::default();
    channel.message(0.0, &[TooOld]);
    channel.message(0.5, &[TooOld]);
    let reports = channel.problems.take_unlogged(seconds(0.5));
    let [report] = &reports[..] else { panic!("{reports:?}") };
    assert_eq!((report.sequence, report.excerpt.as_str()), (Sequence(1), "1"));
    assert_eq!(channel.problems.take_unlogged(seconds(0.5)), []);
    channel.message(1.0, &[TooOld]);
    assert_eq!(channel.problems.take_unlogged(seconds(1.0)).len(), 1);
    channel.message(2.0, &[Malformed]);
    channel.message(3.0, &[]);
    assert_eq!(channel.problems.take_unlogged(seconds(60.0)), [], "what is over when it is read isn't news");
}

proptest::proptest! {
    /// What is shown follows from the messages of the last seconds alone, whatever was before.
    #[test]
    fn what_is_shown_is_that_of_a_pod_that_came_later(
        messages in proptest::collection::vec((0.0..4.0_f64, 0..4_usize), 1..40),
        skipped in 0..40_usize,
    ) {
        let reasons = [&[][..], &[TooOld], &[BadField], &[ClockAhead]];
        let (mut at, mut times) = (0.0, Vec::new());
        for (pause, which) in messages {
            at += pause;
            times.push((at, which));
        }
        let first = skipped.min(times.len() - 1);
        let (mut old, mut new) = (Channel::default(), Channel::default());
        for (n, &(at, which)) in times.iter().enumerate() {
            old.message(at, reasons[which]);
            if n >= first {
                new.message(at, reasons[which]);
            }
        }
        let reason = |channel: &Channel, now| channel.shown(now).map(|(reason, _)| reason);
        // Everything before `first` is over by then, unless it is still the newest message's.
        let now = times[first].0 + 10.0;
        if now >= at {
            proptest::prop_assert_eq!(reason(&old, now), reason(&new, now));
        }
    }
}
