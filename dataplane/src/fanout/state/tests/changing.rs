//! What changes under clients that are here or come back: the stream, the mapping, the pod; and what is
//! stale.

use super::*;
use crate::fanout::state::watch::Phase;

fn is_stale(got: &Got, channel: &str) -> bool {
    matches!(got, Got::Named(name, data) if name == "stale" && data.contains(channel))
}

fn is_gap(got: &[Got], reason: &str) -> bool {
    got.iter().any(|got| matches!(got, Got::Named(name, data) if name == "gap" && data.contains(reason)))
}

#[test]
fn an_old_value_is_told_to_be_stale_with_the_snapshot() {
    let mut bench = Bench::new(&["A"]);
    bench.publish("A", "latest", 1);
    bench.pass(Duration::from_secs(3_600));
    let (_, outbox) = bench.attach(&["A"], None);
    bench.read_all();
    bench.pass(Duration::from_millis(10));
    let got = take(&outbox);
    assert!(got.iter().any(named("stale")), "{got:?}");
}

#[test]
fn who_resumes_a_stale_channel_is_told_so_behind_what_was_missed() {
    let mut bench = Bench::new(&["A"]);
    for n in 1..=3 {
        bench.publish("A", "every", n);
    }
    bench.pass(Duration::from_secs(7_200));
    for resume in [1, 99] {
        let (_, outbox) = bench.attach(&["A"], Some(resume));
        bench.read_all();
        bench.replay_all();
        let got = take(&outbox);
        let value = got.iter().rposition(|got| matches!(got, Got::Data(..))).unwrap();
        let stale = got.iter().rposition(|got| is_stale(got, "every")).unwrap();
        assert!(value < stale, "{got:?}");
    }
}

#[test]
fn an_empty_subject_whose_past_is_gone_is_a_gap() {
    let mut bench = Bench::new(&["A", "B"]);
    for n in 1..=5 {
        bench.publish("A", "every", n);
    }
    bench.store("B", "latest", 6);
    bench.stored.retain(|(sequence, ..)| *sequence > 5);
    let (_, outbox) = bench.attach(&["A"], Some(2));
    bench.read_all();
    bench.replay_all();
    let got = take(&outbox);
    assert!(is_gap(&got, "Retention"), "{got:?}");

    let (_, outbox) = bench.attach(&["A"], Some(5));
    bench.read_all();
    let got = take(&outbox);
    assert!(!got.iter().any(named("gap")), "all that is gone it had: {got:?}");
}

#[test]
fn who_resumes_just_before_a_new_stream_is_noticed_is_told() {
    let mut bench = Bench::new(&["A", "B"]);
    let (_, _other) = bench.attach(&["B"], None);
    bench.read_all();
    for n in 1..=5 {
        bench.publish("A", "every", n);
        bench.publish("B", "every", n);
    }
    let (_, outbox) = bench.attach(&["A"], Some(4));
    bench.epoch = Epoch(7);
    bench.stored.clear();
    bench.last_sequence = 0;
    bench.store("A", "every", 11);
    bench.read_all();
    bench.replay_all();
    let got = take(&outbox);
    assert!(is_gap(&got, "Epoch"), "{got:?}");
    assert_eq!(values(&got, "A", "every"), [11]);
}

#[test]
fn who_comes_later_is_told_of_staleness_behind_the_value() {
    let mut bench = Bench::new(&["A"]);
    bench.publish("A", "latest", 1);
    let (_, first) = bench.attach(&["A"], None);
    bench.read_all();
    bench.pass(Duration::from_secs(11));
    let (_, second) = bench.attach(&["A"], None);
    for outbox in [first, second] {
        let got = take(&outbox);
        let value = got.iter().position(|got| matches!(got, Got::Data(..))).unwrap();
        let stale = got.iter().position(|got| is_stale(got, "latest")).unwrap();
        assert!(value < stale, "{got:?}");
    }
    // A deadline that has moved to and fro is told once.
    bench.publish("A", "latest", 2);
    bench.pass(Duration::from_secs(9));
    let (_, third) = bench.attach(&["A"], None);
    take(&third);
    bench.pass(Duration::from_secs(2));
    bench.pass(Duration::from_secs(14));
    assert_eq!(take(&third).iter().filter(|got| is_stale(got, "latest")).count(), 1);
}

/// The same devices, but each value is ten times as large.
fn scaled(devices: &[&str]) -> Arc<TenantCatalog> {
    catalog_with(devices, Some(10.0), 3_600_000)
}

#[test]
fn a_new_format_loses_no_event() {
    let mut bench = Bench::new(&["A"]);
    let (_, outbox) = bench.attach(&["A"], None);
    bench.read_all();
    bench.publish("A", "every", 1);
    take(&outbox);
    // On its way when the mapping changes.
    bench.store("A", "every", 2);
    bench.store("A", "every", 3);
    bench.state.change_catalog(Some(scaled(&["A"])), bench.now);
    assert!(ids(&take(&outbox)).is_empty(), "something is owed");
    bench.read_all();
    let got = take(&outbox);
    assert_eq!((values(&got, "A", "every"), ids(&got)), (vec![20, 30], vec![3]));
}

#[test]
fn a_new_format_shows_the_current_value_again_and_what_was_owed_stays_owed() {
    let mut bench = Bench::new(&["A"]);
    let (_, outbox) = bench.attach(&["A"], None);
    bench.read_all();
    bench.publish("A", "every", 1);
    take(&outbox);
    bench.state.change_catalog(Some(scaled(&["A"])), bench.now);
    bench.read_all();
    let got = take(&outbox);
    assert!(named("devices")(&got[0]), "{got:?}");
    assert_eq!((values(&got, "A", "every"), ids(&got)), (vec![10], vec![]));

    // While it is suspected that something was missed the format changes back.
    bench.state.suspect_all(bench.now);
    bench.store("A", "every", 2);
    bench.publish("A", "every", 3);
    let request = bench.start_read().unwrap();
    bench.state.change_catalog(Some(catalog(&["A"])), bench.now);
    assert!(ids(&take(&outbox)).is_empty(), "something is owed");
    let result = bench.answer(&request);
    bench.state.apply_read(result, bench.now);
    bench.read_all();
    let got = take(&outbox);
    assert_eq!((values(&got, "A", "every"), ids(&got)), (vec![2, 3], vec![3]));

    // While a client gets what it missed.
    let (_, back) = bench.attach(&["A"], Some(1));
    bench.state.change_catalog(Some(scaled(&["A"])), bench.now);
    assert!(ids(&take(&back)).is_empty(), "something is owed");
    bench.read_all();
    bench.replay_all();
    let got = take(&back);
    assert_eq!((values(&got, "A", "every"), ids(&got)), (vec![2, 3], vec![3]));
}

#[test]
fn values_are_given_of_what_is_asked_for_and_of_nothing_else() {
    let mut bench = Bench::new(&["A", "B"]);
    bench.publish("A", "latest", 1);
    bench.publish("B", "latest", 2);
    let (_, _outbox) = bench.attach(&["A", "B"], None);
    bench.read_all();
    let name =
        |device: &str, channel: &str| (IotId::new(device).unwrap(), ChannelName::new(channel).unwrap());
    let known = bench.state.cached(vec![name("A", "latest"), name("B", "every"), name("C", "latest")]);
    let values = known[&name("A", "latest")].values.as_deref().map(String::from_utf8_lossy);
    assert_eq!(values.as_deref(), Some("{\"n\":1}"));
    assert!(known[&name("B", "every")].values.is_none());
    assert_eq!(known.len(), 2, "{known:?}");
}

#[test]
fn what_a_client_got_from_a_quicker_pod_it_does_not_get_again() {
    let mut bench = Bench::new(&["A", "B"]);
    let (_, other) = bench.attach(&["A"], None);
    bench.read_all();
    let late = bench.store("A", "every", 1);
    // A read of another channel tells how far the stream is.
    let (_, _reader) = bench.attach(&["B"], None);
    bench.read_all();
    let (_, outbox) = bench.attach(&["A"], Some(1));
    bench.state.apply_live(late.into_iter(), bench.now);
    bench.publish("A", "every", 2);
    let got = take(&outbox);
    assert_eq!((values(&got, "A", "every"), ids(&got)), (vec![2], vec![2]));
    assert_eq!(values(&take(&other), "A", "every"), [1, 2]);
}

#[test]
fn who_comes_from_a_pod_that_has_seen_more_while_a_read_is_under_way_is_told_no_gap() {
    let mut bench = Bench::new(&["A"]);
    let (_, _other) = bench.attach(&["A"], None);
    let request = bench.start_read().unwrap();
    let early = bench.answer(&request);
    for n in 1..=3 {
        bench.store("A", "every", n);
    }
    let (_, outbox) = bench.attach(&["A"], Some(2));
    bench.state.apply_read(early, bench.now);
    bench.read_all();
    bench.replay_all();
    let got = take(&outbox);
    assert!(!got.iter().any(named("gap")), "{got:?}");
    assert_eq!((values(&got, "A", "every"), ids(&got)), (vec![3], vec![3]));

    // One that was set back is still found out.
    bench.state.suspect_all(bench.now);
    let request = bench.start_read().unwrap();
    let early = bench.answer(&request);
    let (_, outbox) = bench.attach(&["A"], Some(99));
    bench.state.apply_read(early, bench.now);
    assert!(!take(&outbox).iter().any(named("gap")), "this read may have been too early");
    bench.read_all();
    assert!(is_gap(&take(&outbox), "Retention"));
}

#[test]
fn a_stream_that_was_set_back_is_found_out_whatever_told_how_far_it_was() {
    for live in [true, false] {
        let mut bench = Bench::new(&["A"]);
        let (_, outbox) = bench.attach(&["A"], None);
        bench.read_all();
        for n in 1..=5 {
            let message = bench.store("A", "every", n);
            bench.state.apply_live(message.into_iter().filter(|_| live), bench.now);
        }
        bench.state.suspect_all(bench.now);
        bench.read_all();
        assert_eq!(values(&take(&outbox), "A", "every"), [1, 2, 3, 4, 5]);
        bench.stored.truncate(2);
        bench.last_sequence = 2;
        bench.state.suspect_all(bench.now);
        bench.store("A", "every", 13);
        bench.read_all();
        let got = take(&outbox);
        assert!(is_gap(&got, "Retention"), "live {live}: {got:?}");
        assert_eq!((values(&got, "A", "every"), ids(&got)), (vec![13], vec![3]), "live {live}");
    }
}

#[test]
fn what_waits_for_a_read_is_bounded_in_bytes_too() {
    let mut bench = Bench::new(&["A"]);
    let (_, outbox) = bench.attach(&["A"], None);
    bench.read_all();
    bench.state.suspect_all(bench.now);
    let request = bench.start_read().unwrap();
    let result = bench.answer(&request);
    for n in 1..=20 {
        let (key, message) = bench.store("A", "every", n).unwrap();
        let payload = format!("{{\"n\":{n},\"x\":\"{}\"}}", "x".repeat(1_024 * 1_024)).into();
        bench.state.apply_live([(key, LiveMessage { payload, ..message })].into_iter(), bench.now);
        let Phase::Reading(reading) = &bench.state.watches.get(key).unwrap().phase else {
            panic!("it is read")
        };
        assert!(reading.buffer.len() <= 8, "{}", reading.buffer.len());
    }
    bench.state.apply_read(result, bench.now);
    bench.read_all();
    assert_eq!(values(&take(&outbox), "A", "every"), (1..=20).collect::<Vec<_>>());
}
