//! What clients are told of messages that can't be shown.

use super::*;

const BAD: &str = "{\"n\":";
const SECOND: Duration = Duration::from_secs(1);

/// A state with a client of `A` that has got its snapshot and asked for problems.
fn watched() -> (Harness, Arc<Backlog>) {
    let mut harness = Harness::new(&["A"]);
    harness.problems = true;
    let (_, backlog) = harness.attach(&["A"], None);
    harness.read_all();
    take(&backlog);
    (harness, backlog)
}

/// Returns the problems of a channel that a client got, in order; `Null` where one has ended.
fn problems(got: &[Got], channel: &str) -> Vec<serde_json::Value> {
    let data = got.iter().filter_map(|got| match got {
        Got::Named(name, data) if name == "problem" => serde_json::from_str::<serde_json::Value>(data).ok(),
        _ => None,
    });
    let of_channel = data.filter(|data| data["device"] == "A" && data["channel"] == channel);
    of_channel.map(|data| data["problem"].clone()).collect()
}

/// Returns reason and count of the only problem that a client got.
fn problem(backlog: &Backlog, channel: &str) -> Option<(String, u64)> {
    let got = take(backlog);
    match &problems(&got, channel)[..] {
        [] => None,
        [one] => Some((one["reason"].as_str()?.to_owned(), one["count"].as_u64()?)),
        several => panic!("{several:#?}"),
    }
}

fn malformed(count: u64) -> Option<(String, u64)> {
    Some(("Malformed".to_owned(), count))
}

#[test]
fn a_problem_is_told_at_once_and_its_end_too() {
    let (mut harness, backlog) = watched();
    harness.problems = false;
    let (_, other) = harness.attach(&["A"], None);
    harness.publish("A", "latest", 1);
    take(&other);
    take(&backlog);
    harness.publish_text("A", "latest", BAD);
    let got = take(&backlog);
    let [told] = &problems(&got, "latest")[..] else { panic!("{got:?}") };
    assert_eq!(told["reason"], "Malformed");
    assert!(told["message"].as_str().is_some_and(|message| message.len() > 20), "{told}");
    assert!(matches!(got.last(), Some(Got::Named(..))), "it has no id: {got:?}");

    harness.pass(5 * SECOND);
    harness.publish("A", "latest", 2);
    assert_eq!(values(&take(&backlog), "A", "latest"), [2]);
    harness.pass(4 * SECOND);
    assert_eq!(problems(&take(&backlog), "latest"), Vec::<serde_json::Value>::new());
    harness.pass(SECOND);
    assert_eq!(problems(&take(&backlog), "latest"), [serde_json::Value::Null]);
    harness.pass(60 * SECOND);
    assert!(!take(&backlog).iter().any(named("problem")), "the end is told once");
    assert!(!take(&other).iter().any(named("problem")), "who didn't ask is told nothing");
}

#[test]
fn while_the_newest_message_is_bad_the_problem_stays() {
    let (mut harness, backlog) = watched();
    harness.publish_text("A", "every", BAD);
    assert_eq!(problem(&backlog, "every"), malformed(1));
    harness.pass(600 * SECOND);
    assert!(!take(&backlog).iter().any(named("problem")));
    let (_, late) = harness.attach(&["A"], None);
    assert_eq!(problem(&late, "every"), malformed(1));
}

#[test]
fn many_bad_messages_are_few_events() {
    let (mut harness, backlog) = watched();
    let bad = |harness: &mut Harness| {
        for _ in 0..100 {
            harness.publish_text("A", "latest", BAD);
            harness.pass(Duration::from_millis(100));
        }
    };
    bad(&mut harness);
    bad(&mut harness);
    // Nothing was taken meanwhile: a newer one replaces the one that waits.
    let (reason, count) = problem(&backlog, "latest").unwrap();
    assert!(reason == "Malformed" && (100..=200).contains(&count), "{count}");
    let mut told = 0;
    for _ in 0..10 {
        harness.publish_text("A", "latest", BAD);
        harness.pass(SECOND);
        told += problems(&take(&backlog), "latest").len();
    }
    assert_eq!(told, 1, "counts alone are told each ten seconds");
    harness.publish_text("A", "latest", BAD);
    harness.pass(10 * SECOND);
    assert_eq!(problem(&backlog, "latest"), malformed(211), "the last one too");
    harness.pass(60 * SECOND);
    assert_eq!(problem(&backlog, "latest"), None);
}

#[test]
fn another_reason_is_told_within_a_second() {
    let (mut harness, backlog) = watched();
    harness.publish_text("A", "latest", "{}");
    assert_eq!(problem(&backlog, "latest").unwrap().0, "NoFields");
    harness.publish_text("A", "latest", BAD);
    assert_eq!(problem(&backlog, "latest"), None);
    harness.pass(SECOND);
    assert_eq!(problem(&backlog, "latest"), malformed(1));
}

#[test]
fn a_client_that_comes_gets_the_problem_behind_the_value() {
    let (mut harness, _backlog) = watched();
    harness.publish("A", "latest", 7);
    harness.publish_text("A", "latest", BAD);
    let (_, late) = harness.attach(&["A"], None);
    let got = take(&late);
    let value = got.iter().position(|got| matches!(got, Got::Data(_, _, 7, _))).unwrap();
    assert!(got.iter().position(named("problem")).unwrap() > value, "{got:?}");
    // So does one on another pod.
    let mut other = Harness { stored: harness.stored.clone(), last_sequence: 2, ..Harness::new(&["A"]) };
    other.now.wall = harness.now.wall;
    other.problems = true;
    let (_, elsewhere) = other.attach(&["A"], None);
    other.read_all();
    let got = take(&elsewhere);
    assert_eq!(values(&got, "A", "latest"), [7]);
    assert_eq!(problems(&got, "latest")[0]["reason"], "Malformed");
}

#[test]
fn a_read_forgets_no_problem_that_is_not_over() {
    let (mut harness, backlog) = watched();
    harness.publish_text("A", "latest", BAD);
    harness.publish("A", "latest", 1);
    assert_eq!(problem(&backlog, "latest"), malformed(1));
    harness.state.read_all_again(harness.now);
    harness.read_all();
    harness.pass(9 * SECOND);
    assert!(!take(&backlog).iter().any(named("problem")));
    harness.pass(SECOND);
    assert_eq!(problems(&take(&backlog), "latest"), [serde_json::Value::Null]);
}

#[test]
fn a_channel_that_is_watched_anew_begins_without_a_problem() {
    let (mut harness, backlog) = watched();
    harness.publish_text("A", "latest", BAD);
    harness.publish("A", "latest", 1);
    take(&backlog);
    harness.state.change_catalog(Some(catalog_with(&["A"], Some(2.0), 3_600_000)), harness.now);
    harness.read_all();
    let got = take(&backlog);
    assert_eq!(problems(&got, "latest"), [serde_json::Value::Null], "{got:?}");
}

#[test]
fn the_log_gets_each_reason_with_the_message() {
    let (mut harness, _backlog) = watched();
    harness.publish_text("A", "latest", BAD);
    harness.publish_text("A", "latest", BAD);
    harness.publish_text("A", "latest", "{\"n\":\"x\"}");
    let lines = harness.state.take_io().problems;
    let seen: Vec<_> = lines
        .iter()
        .map(|line| {
            (line.report.problem.reason.as_str(), line.report.excerpt.as_str(), line.report.sequence.0)
        })
        .collect();
    assert_eq!(seen, [("Malformed", BAD, 1), ("BadField", "{\"n\":\"x\"}", 3)]);
    assert_eq!((lines[0].device.as_str(), lines[0].channel.as_str()), ("A", "latest"));
}

#[test]
fn the_json_of_a_watched_channel_has_its_problem() {
    let (mut harness, _backlog) = watched();
    harness.publish_text("A", "latest", BAD);
    let name = (IotId::new("A").unwrap(), ChannelName::new("latest").unwrap());
    let problem = || {
        let known = harness.state.live_values(vec![name.clone()], harness.now);
        known[&name].problem.clone()
    };
    assert!(problem().unwrap().contains("\"reason\":\"Malformed\""));
}
