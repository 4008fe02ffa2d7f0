use super::*;

#[test]
fn the_snapshot_has_no_ids_and_the_place_follows_it() {
    let mut bench = Bench::new(&["A"]);
    bench.publish("A", "every", 1);
    bench.publish("A", "latest", 2);
    let (_, outbox) = bench.attach(&["A"], None);
    bench.read_all();
    let got = take(&outbox);
    assert!(named("hello")(&got[0]));
    let data = |channel: &str, n, id| Got::Data("A".to_owned(), channel.to_owned(), n, id);
    assert_eq!(got[1..], [data("every", 1, false), data("latest", 2, false), Got::Id(2)]);
    bench.publish("A", "every", 3);
    assert_eq!(take(&outbox), [data("every", 3, true), Got::Id(3)]);
}

#[test]
fn a_gap_is_read_back_and_nobody_gets_an_id_meanwhile() {
    let mut bench = Bench::new(&["A", "B"]);
    let (_, a) = bench.attach(&["A", "B"], None);
    let (_, b) = bench.attach(&["B"], None);
    bench.read_all();
    take(&a);
    take(&b);
    bench.store("A", "every", 1);
    bench.publish("A", "every", 2);
    bench.publish("B", "every", 3);
    let got = take(&a);
    assert_eq!(
        (values(&got, "A", "every"), values(&got, "B", "every"), ids(&got)),
        (vec![], vec![3], vec![])
    );
    assert_eq!(ids(&take(&b)), [3], "who doesn't watch the channel is not concerned");
    bench.read_all();
    let got = take(&a);
    assert_eq!((values(&got, "A", "every"), ids(&got)), (vec![1, 2], vec![3]));
    assert!(!got.iter().any(named("gap")));
}

#[test]
fn a_missed_latest_message_is_not_read_back() {
    let mut bench = Bench::new(&["A"]);
    let (_, outbox) = bench.attach(&["A"], None);
    bench.read_all();
    bench.store("A", "latest", 1);
    bench.publish("A", "latest", 2);
    assert!(bench.start_read().is_none());
    assert_eq!(values(&take(&outbox), "A", "latest"), [2]);
}

#[test]
fn latest_values_go_on_while_the_broker_is_suspected_and_every_events_wait() {
    let mut bench = Bench::new(&["A"]);
    let (_, outbox) = bench.attach(&["A"], None);
    bench.read_all();
    take(&outbox);
    bench.state.suspect_all(bench.now);
    bench.store("A", "every", 1);
    bench.publish("A", "every", 2);
    bench.publish("A", "latest", 3);
    let got = take(&outbox);
    assert_eq!(
        (values(&got, "A", "latest"), values(&got, "A", "every"), ids(&got)),
        (vec![3], vec![], vec![])
    );
    bench.read_all();
    let got = take(&outbox);
    assert_eq!((values(&got, "A", "every"), ids(&got)), (vec![1, 2], vec![3]));
}

#[test]
fn a_suspicion_during_a_read_makes_it_be_read_again() {
    let mut bench = Bench::new(&["A"]);
    let (_, outbox) = bench.attach(&["A"], None);
    let request = bench.start_read().unwrap();
    let result = bench.answer(&request);
    bench.store("A", "every", 1);
    bench.state.suspect_all(bench.now);
    bench.state.apply_read(result, bench.now);
    assert!(ids(&take(&outbox)).is_empty());
    bench.read_all();
    let got = take(&outbox);
    assert_eq!((values(&got, "A", "every"), ids(&got)), (vec![1], vec![1]));
}

#[test]
fn more_than_the_buffer_holds_is_read_from_the_stream() {
    let mut bench = Bench::new(&["A"]);
    let (_, outbox) = bench.attach(&["A"], None);
    bench.read_all();
    bench.state.suspect_all(bench.now);
    let request = bench.start_read().unwrap();
    let result = bench.answer(&request);
    for n in 1..=3_000 {
        bench.publish("A", "every", n);
    }
    bench.state.apply_read(result, bench.now);
    bench.read_all();
    assert_eq!(values(&take(&outbox), "A", "every"), (1..=3_000).collect::<Vec<_>>());
}

#[test]
fn what_cannot_be_read_for_long_is_passed_on_with_a_gap() {
    let mut bench = Bench::new(&["A"]);
    let (_, outbox) = bench.attach(&["A"], None);
    bench.read_all();
    take(&outbox);
    bench.state.suspect_all(bench.now);
    bench.publish("A", "every", 1);
    bench.pass(Duration::from_secs(14));
    assert!(values(&take(&outbox), "A", "every").is_empty());
    bench.pass(Duration::from_secs(2));
    let got = take(&outbox);
    let gap = got.iter().position(named("gap")).unwrap();
    assert!(matches!(&got[gap], Got::Named(_, data) if data.contains("BrokerAway")));
    assert_eq!(values(&got[gap..], "A", "every"), [1]);
}

#[test]
fn a_resuming_client_gets_what_it_missed_before_what_comes() {
    let mut bench = Bench::new(&["A"]);
    let (_, other) = bench.attach(&["A"], None);
    bench.read_all();
    for n in 1..=5 {
        bench.publish("A", "every", n);
    }
    let (_, outbox) = bench.attach(&["A"], Some(2));
    bench.publish("A", "every", 6);
    assert!(values(&take(&outbox), "A", "every").is_empty(), "what comes waits for what was missed");
    bench.replay_all();
    let got = take(&outbox);
    assert_eq!((values(&got, "A", "every"), ids(&got)), (vec![3, 4, 5, 6], vec![6]));
    assert_eq!(values(&take(&other), "A", "every"), [1, 2, 3, 4, 5, 6]);
    let (_, outbox) = bench.attach(&["A"], Some(6));
    assert!(bench.state.take_work().replays.is_empty(), "nothing was missed");
    assert!(values(&take(&outbox), "A", "every").is_empty());
}

#[test]
fn an_id_that_this_hub_has_not_seen_yet_is_looked_up() {
    let mut bench = Bench::new(&["A", "B"]);
    let (_, _other) = bench.attach(&["A"], None);
    bench.read_all();
    bench.store("B", "latest", 1);
    bench.store("B", "latest", 2);
    let (_, outbox) = bench.attach(&["A"], Some(2));
    bench.read_all();
    bench.replay_all();
    let got = take(&outbox);
    assert!(!got.iter().any(named("gap")), "another pod has seen more: {got:?}");
    bench.publish("A", "every", 3);
    assert_eq!(ids(&take(&outbox)), [3]);
    let (_, outbox) = bench.attach(&["A"], Some(99));
    bench.read_all();
    bench.replay_all();
    assert!(take(&outbox).iter().any(named("gap")), "the stream was set back");
    bench.publish("A", "every", 4);
    let got = take(&outbox);
    assert_eq!(
        (values(&got, "A", "every"), ids(&got)),
        (vec![4], vec![4]),
        "the client's id says nothing any more"
    );
}

#[test]
fn a_stream_that_was_made_anew_starts_everything_again() {
    let mut bench = Bench::new(&["A"]);
    let (_, outbox) = bench.attach(&["A"], None);
    bench.read_all();
    for n in 1..=5 {
        bench.publish("A", "every", n);
    }
    take(&outbox);
    bench.epoch = Epoch(7);
    bench.stored.clear();
    bench.last_sequence = 0;
    bench.publish("A", "every", 11);
    assert!(bench.state.take_doubt());
    let request = bench.state.audit().unwrap();
    let result = bench.answer(&request);
    bench.state.audited(&result, bench.now);
    bench.read_all();
    let got = take(&outbox);
    assert!(matches!(&got[0], Got::Named(name, data) if name == "gap" && data.contains("Epoch")), "{got:?}");
    assert_eq!((values(&got, "A", "every"), ids(&got)), (vec![11], vec![1]));
    // An answer that was asked for in the old epoch says nothing.
    bench
        .state
        .audited(&ReadResult { info: StreamInfo { epoch: EPOCH, ..result.info }, ..result }, bench.now);
    assert!(take(&outbox).is_empty());
}

#[test]
fn an_audit_finds_what_was_lost_and_moves_the_place_on() {
    let mut bench = Bench::new(&["A", "B"]);
    let (_, outbox) = bench.attach(&["A"], None);
    bench.read_all();
    take(&outbox);
    bench.store("A", "every", 1);
    let request = bench.state.audit().unwrap();
    let result = bench.answer(&request);
    bench.state.audited(&result, bench.now);
    bench.read_all();
    let got = take(&outbox);
    assert_eq!((values(&got, "A", "every"), ids(&got)), (vec![1], vec![1]));
    for n in 2..=9 {
        bench.store("B", "every", n);
    }
    let request = bench.state.audit().unwrap();
    let result = bench.answer(&request);
    bench.state.audited(&result, bench.now);
    bench.pass(Duration::from_secs(16));
    let got = take(&outbox);
    assert!(got.iter().any(named("ping")));
    assert_eq!(ids(&got), [9], "others' messages don't make its id old");
}

#[test]
fn silence_is_told_once_and_messages_that_are_no_news_end_it() {
    let mut bench = Bench::new(&["A"]);
    bench.publish("A", "latest", 1);
    let (_, outbox) = bench.attach(&["A"], None);
    bench.read_all();
    take(&outbox);
    bench.pass(Duration::from_secs(9));
    assert!(take(&outbox).is_empty());
    bench.pass(Duration::from_secs(2));
    assert!(named("stale")(&take(&outbox)[0]));
    bench.pass(Duration::from_secs(3));
    assert!(take(&outbox).is_empty());
    bench.publish("A", "latest", 2);
    let got = take(&outbox);
    assert!(named("fresh")(&got[0]), "{got:?}");
    assert_eq!(values(&got, "A", "latest"), [2]);
}

#[test]
fn a_ping_comes_only_when_nothing_else_does() {
    let mut bench = Bench::new(&["A"]);
    let (_, outbox) = bench.attach(&["A"], None);
    bench.read_all();
    for n in 1..=8 {
        bench.pass(Duration::from_secs(5));
        bench.publish("A", "latest", n);
        assert!(!take(&outbox).iter().any(named("ping")));
    }
    // `stale` after 10 s is something too.
    bench.pass(Duration::from_secs(11));
    assert!(named("stale")(&take(&outbox)[0]));
    bench.pass(Duration::from_secs(14));
    assert!(!take(&outbox).iter().any(named("ping")));
    bench.pass(Duration::from_secs(2));
    assert!(take(&outbox).iter().any(named("ping")));
}

#[test]
fn a_channel_is_left_only_after_a_while_and_then_for_good() {
    let mut bench = Bench::new(&["A"]);
    let (connection, _outbox) = bench.attach(&["A"], None);
    bench.read_all();
    bench.state.detach(connection, bench.now);
    bench.pass(Duration::from_secs(1));
    let (connection, outbox) = bench.attach(&["A"], None);
    assert_eq!(ids(&take(&outbox)), [0], "it is still subscribed, so nothing has to be read");
    bench.pass(Duration::from_secs(60));
    assert!(bench.state.take_work().close.is_empty());
    bench.state.detach(connection, bench.now);
    bench.pass(Duration::from_secs(3));
    assert_eq!(bench.state.take_work().close.len(), 2);
    assert!(bench.state.is_idle());
}

#[test]
fn who_resumes_while_the_epoch_is_unknown_waits_for_it_but_not_for_long() {
    let mut bench = Bench::new(&["A"]);
    let (_, outbox) = bench.attach(&["A"], Some(0));
    assert!(take(&outbox).is_empty());
    bench.read_all();
    let got = take(&outbox);
    assert!(
        matches!(&got[0], Got::Named(name, data) if name == "hello" && data.contains("\"resumed\":true")),
        "{got:?}"
    );

    let mut bench = Bench::new(&["A"]);
    let (_, outbox) = bench.attach(&["A"], Some(0));
    bench.pass(Duration::from_secs(3));
    assert!(named("hello")(&take(&outbox)[0]));
}
