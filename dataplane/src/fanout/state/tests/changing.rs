//! Clients stay or come back while the stream, the mapping or the pod changes; and staleness.

use super::*;
use crate::fanout::state::phase::Phase;
use crate::pipeline::Frame;

fn is_stale(got: &Got, channel: &str) -> bool {
    matches!(got, Got::Named(name, data) if name == "stale" && data.contains(channel))
}

fn is_gap(got: &[Got], reason: &str) -> bool {
    got.iter().any(|got| matches!(got, Got::Named(name, data) if name == "gap" && data.contains(reason)))
}

#[test]
fn the_snapshot_marks_an_old_value_as_stale() {
    let mut harness = Harness::new(&["A"]);
    harness.publish("A", "latest", 1);
    harness.pass(Duration::from_secs(3_600));
    let (_, backlog) = harness.attach(&["A"], None);
    harness.read_all();
    harness.pass(Duration::from_millis(10));
    let got = take(&backlog);
    assert!(got.iter().any(named("stale")), "{got:?}");
}

#[test]
fn a_resumed_client_learns_of_staleness_behind_the_missed_events() {
    let mut harness = Harness::new(&["A"]);
    for n in 1..=3 {
        harness.publish("A", "every", n);
    }
    harness.pass(Duration::from_secs(7_200));
    for resume in [1, 99] {
        let (_, backlog) = harness.attach(&["A"], Some(resume));
        harness.read_all();
        harness.replay_all();
        let got = take(&backlog);
        let value = got.iter().rposition(|got| matches!(got, Got::Data(..))).unwrap();
        let stale = got.iter().rposition(|got| is_stale(got, "every")).unwrap();
        assert!(value < stale, "{got:?}");
    }
}

#[test]
fn an_empty_subject_whose_messages_were_removed_is_a_gap() {
    let mut harness = Harness::new(&["A", "B"]);
    for n in 1..=5 {
        harness.publish("A", "every", n);
    }
    harness.store("B", "latest", 6);
    harness.stored.retain(|message| message.sequence.0 > 5);
    let (_, backlog) = harness.attach(&["A"], Some(2));
    harness.read_all();
    harness.replay_all();
    let got = take(&backlog);
    assert!(is_gap(&got, "Retention"), "{got:?}");

    let (_, backlog) = harness.attach(&["A"], Some(5));
    harness.read_all();
    let got = take(&backlog);
    assert!(!got.iter().any(named("gap")), "all that is gone it had: {got:?}");
}

#[test]
fn a_client_that_resumes_just_before_a_new_stream_is_noticed_gets_a_gap() {
    let mut harness = Harness::new(&["A", "B"]);
    let (_, _other) = harness.attach(&["B"], None);
    harness.read_all();
    for n in 1..=5 {
        harness.publish("A", "every", n);
        harness.publish("B", "every", n);
    }
    let (_, backlog) = harness.attach(&["A"], Some(4));
    harness.epoch = Epoch(7);
    harness.stored.clear();
    harness.last_sequence = 0;
    harness.store("A", "every", 11);
    harness.read_all();
    harness.replay_all();
    let got = take(&backlog);
    assert!(is_gap(&got, "Epoch"), "{got:?}");
    assert_eq!(values(&got, "A", "every"), [11]);
}

#[test]
fn a_later_client_learns_of_staleness_behind_the_value() {
    let mut harness = Harness::new(&["A"]);
    harness.publish("A", "latest", 1);
    let (_, first) = harness.attach(&["A"], None);
    harness.read_all();
    harness.pass(Duration::from_secs(11));
    let (_, second) = harness.attach(&["A"], None);
    for backlog in [first, second] {
        let got = take(&backlog);
        let value = got.iter().position(|got| matches!(got, Got::Data(..))).unwrap();
        let stale = got.iter().position(|got| is_stale(got, "latest")).unwrap();
        assert!(value < stale, "{got:?}");
    }
    // A deadline that has moved to and fro leads to one `stale`.
    harness.publish("A", "latest", 2);
    harness.pass(Duration::from_secs(9));
    let (_, third) = harness.attach(&["A"], None);
    take(&third);
    harness.pass(Duration::from_secs(2));
    harness.pass(Duration::from_secs(14));
    assert_eq!(take(&third).iter().filter(|got| is_stale(got, "latest")).count(), 1);
}

/// The same devices, but each value is ten times as large.
fn scaled(devices: &[&str]) -> Arc<TenantCatalog> {
    catalog_with(devices, Some(10.0), 3_600_000)
}

#[test]
fn a_new_format_loses_no_event() {
    let mut harness = Harness::new(&["A"]);
    let (_, backlog) = harness.attach(&["A"], None);
    harness.read_all();
    harness.publish("A", "every", 1);
    take(&backlog);
    // On its way when the mapping changes.
    harness.store("A", "every", 2);
    harness.store("A", "every", 3);
    harness.state.change_catalog(Some(scaled(&["A"])), harness.now);
    assert!(ids(&take(&backlog)).is_empty(), "something is owed");
    harness.read_all();
    let got = take(&backlog);
    assert_eq!((values(&got, "A", "every"), ids(&got)), (vec![20, 30], vec![3]));
}

#[test]
fn a_new_format_sends_the_current_value_again_and_keeps_owed_events() {
    let mut harness = Harness::new(&["A"]);
    let (_, backlog) = harness.attach(&["A"], None);
    harness.read_all();
    harness.publish("A", "every", 1);
    take(&backlog);
    harness.state.change_catalog(Some(scaled(&["A"])), harness.now);
    harness.read_all();
    let got = take(&backlog);
    assert!(named("devices")(&got[0]), "{got:?}");
    assert_eq!((values(&got, "A", "every"), ids(&got)), (vec![10], vec![]));

    // The format changes back while messages may be missing.
    harness.state.read_all_again(harness.now);
    harness.store("A", "every", 2);
    harness.publish("A", "every", 3);
    let request = harness.start_read().unwrap();
    harness.state.change_catalog(Some(catalog(&["A"])), harness.now);
    assert!(ids(&take(&backlog)).is_empty(), "something is owed");
    harness.finish_read(&request);
    harness.read_all();
    let got = take(&backlog);
    assert_eq!((values(&got, "A", "every"), ids(&got)), (vec![2, 3], vec![3]));

    // The format changes while a client gets missed events.
    let (_, back) = harness.attach(&["A"], Some(1));
    harness.state.change_catalog(Some(scaled(&["A"])), harness.now);
    assert!(ids(&take(&back)).is_empty(), "something is owed");
    harness.read_all();
    harness.replay_all();
    let got = take(&back);
    assert_eq!((values(&got, "A", "every"), ids(&got)), (vec![2, 3], vec![3]));
}

#[test]
fn only_the_values_of_requested_channels_are_returned() {
    let mut harness = Harness::new(&["A", "B"]);
    harness.publish("A", "latest", 1);
    harness.publish("B", "latest", 2);
    let (_, _outbox) = harness.attach(&["A", "B"], None);
    harness.read_all();
    let name =
        |device: &str, channel: &str| (IotId::new(device).unwrap(), ChannelName::new(channel).unwrap());
    let known = harness
        .state
        .live_values(vec![name("A", "latest"), name("B", "every"), name("C", "latest")], harness.now);
    let values = known[&name("A", "latest")].frame.as_ref().map(Frame::values);
    assert_eq!(values.as_deref(), Some(&b"{\"n\":1}"[..]));
    assert!(known[&name("B", "every")].frame.is_none());
    assert_eq!(known.len(), 2, "{known:?}");
}

#[test]
fn events_that_a_quicker_pod_delivered_are_not_repeated() {
    let mut harness = Harness::new(&["A", "B"]);
    let (_, other) = harness.attach(&["A"], None);
    harness.read_all();
    let late = harness.store("A", "every", 1);
    // A read of another channel tells how far the stream is.
    let (_, _reader) = harness.attach(&["B"], None);
    harness.read_all();
    let (_, backlog) = harness.attach(&["A"], Some(1));
    harness.state.apply_live(late.into_iter(), harness.now);
    harness.publish("A", "every", 2);
    let got = take(&backlog);
    assert_eq!((values(&got, "A", "every"), ids(&got)), (vec![2], vec![2]));
    assert_eq!(values(&take(&other), "A", "every"), [1, 2]);
}

#[test]
fn a_client_from_a_pod_that_has_seen_more_gets_no_gap_during_a_read() {
    let mut harness = Harness::new(&["A"]);
    let (_, _other) = harness.attach(&["A"], None);
    let request = harness.start_read().unwrap();
    let early = harness.answer(&request);
    for n in 1..=3 {
        harness.store("A", "every", n);
    }
    let (_, backlog) = harness.attach(&["A"], Some(2));
    harness.state.apply_read(early, harness.now);
    harness.read_all();
    harness.replay_all();
    let got = take(&backlog);
    assert!(!got.iter().any(named("gap")), "{got:?}");
    assert_eq!((values(&got, "A", "every"), ids(&got)), (vec![3], vec![3]));

    // A stream that was set back is still noticed.
    harness.state.read_all_again(harness.now);
    let request = harness.start_read().unwrap();
    let early = harness.answer(&request);
    let (_, backlog) = harness.attach(&["A"], Some(99));
    harness.state.apply_read(early, harness.now);
    assert!(!take(&backlog).iter().any(named("gap")), "this read may have been too early");
    harness.read_all();
    assert!(is_gap(&take(&backlog), "Retention"));
}

#[test]
fn a_stream_that_was_set_back_is_noticed_after_live_messages_and_after_reads() {
    for live in [true, false] {
        let mut harness = Harness::new(&["A"]);
        let (_, backlog) = harness.attach(&["A"], None);
        harness.read_all();
        for n in 1..=5 {
            let message = harness.store("A", "every", n);
            harness.state.apply_live(message.into_iter().filter(|_| live), harness.now);
        }
        harness.state.read_all_again(harness.now);
        harness.read_all();
        assert_eq!(values(&take(&backlog), "A", "every"), [1, 2, 3, 4, 5]);
        harness.stored.truncate(2);
        harness.last_sequence = 2;
        harness.state.read_all_again(harness.now);
        harness.store("A", "every", 13);
        harness.read_all();
        let got = take(&backlog);
        assert!(is_gap(&got, "Retention"), "live {live}: {got:?}");
        assert_eq!((values(&got, "A", "every"), ids(&got)), (vec![13], vec![3]), "live {live}");
    }
}

#[test]
fn messages_waiting_for_a_read_are_bounded_in_bytes() {
    let mut harness = Harness::new(&["A"]);
    let (_, backlog) = harness.attach(&["A"], None);
    harness.read_all();
    harness.state.read_all_again(harness.now);
    let request = harness.start_read().unwrap();
    let result = harness.answer(&request);
    for n in 1..=20 {
        let (key, message) = harness.store("A", "every", n).unwrap();
        let payload = format!("{{\"n\":{n},\"x\":\"{}\"}}", "x".repeat(1_024 * 1_024)).into();
        harness.state.apply_live([(key, LiveMessage { payload, ..message })].into_iter(), harness.now);
        let Phase::Reading(reading) = &harness.state.watched.get(key).unwrap().phase else {
            panic!("it is read")
        };
        assert!(reading.buffer.len() <= 8, "{}", reading.buffer.len());
    }
    harness.state.apply_read(result, harness.now);
    harness.read_all();
    assert_eq!(values(&take(&backlog), "A", "every"), (1..=20).collect::<Vec<_>>());
}
