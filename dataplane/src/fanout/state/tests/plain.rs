use super::*;

#[test]
fn the_snapshot_has_no_ids_and_the_place_follows_it() {
    let mut harness = Harness::new(&["A"]);
    harness.publish("A", "every", 1);
    harness.publish("A", "latest", 2);
    let (_, backlog) = harness.attach(&["A"], None);
    harness.read_all();
    let got = take(&backlog);
    assert!(named("hello")(&got[0]));
    let data = |channel: &str, n, id| Got::Data("A".to_owned(), channel.to_owned(), n, id);
    assert_eq!(got[1..], [data("every", 1, false), data("latest", 2, false), Got::Id(2)]);
    harness.publish("A", "every", 3);
    assert_eq!(take(&backlog), [data("every", 3, true), Got::Id(3)]);
}

#[test]
fn a_hole_is_read_back_and_no_viewer_gets_an_id_meanwhile() {
    let mut harness = Harness::new(&["A", "B"]);
    let (_, a) = harness.attach(&["A", "B"], None);
    let (_, b) = harness.attach(&["B"], None);
    harness.read_all();
    take(&a);
    take(&b);
    harness.store("A", "every", 1);
    harness.publish("A", "every", 2);
    harness.publish("B", "every", 3);
    let got = take(&a);
    assert_eq!(
        (values(&got, "A", "every"), values(&got, "B", "every"), ids(&got)),
        (vec![], vec![3], vec![])
    );
    assert_eq!(ids(&take(&b)), [3], "who doesn't watch the channel is not concerned");
    harness.read_all();
    let got = take(&a);
    assert_eq!((values(&got, "A", "every"), ids(&got)), (vec![1, 2], vec![3]));
    assert!(!got.iter().any(named("gap")));
}

#[test]
fn a_latest_channel_that_has_missed_a_message_is_read_once() {
    let mut harness = Harness::new(&["A"]);
    let (_, backlog) = harness.attach(&["A"], None);
    harness.read_all();
    harness.store("A", "latest", 1);
    harness.publish("A", "latest", 2);
    assert!(values(&take(&backlog), "A", "latest").is_empty());
    harness.read_all();
    assert_eq!(values(&take(&backlog), "A", "latest"), [2]);
}

#[test]
fn after_a_lost_connection_messages_wait_until_their_channel_was_read() {
    let mut harness = Harness::new(&["A"]);
    let (_, backlog) = harness.attach(&["A"], None);
    harness.read_all();
    take(&backlog);
    harness.state.read_all_again(harness.now);
    harness.store("A", "every", 1);
    harness.publish("A", "every", 2);
    harness.publish("A", "latest", 3);
    let got = take(&backlog);
    assert!(got.is_empty(), "{got:?}");
    harness.read_all();
    let got = take(&backlog);
    assert_eq!(
        (values(&got, "A", "latest"), values(&got, "A", "every"), ids(&got)),
        (vec![3], vec![1, 2], vec![3])
    );
}

#[test]
fn a_connection_lost_during_a_read_leads_to_another_read() {
    let mut harness = Harness::new(&["A"]);
    let (_, backlog) = harness.attach(&["A"], None);
    let request = harness.start_read().unwrap();
    let result = harness.answer(&request);
    harness.store("A", "every", 1);
    harness.state.read_all_again(harness.now);
    harness.state.apply_read(result, harness.now);
    assert!(ids(&take(&backlog)).is_empty());
    harness.read_all();
    let got = take(&backlog);
    assert_eq!((values(&got, "A", "every"), ids(&got)), (vec![1], vec![1]));
}

#[test]
fn more_than_the_buffer_holds_is_read_from_the_stream() {
    let mut harness = Harness::new(&["A"]);
    let (_, backlog) = harness.attach(&["A"], None);
    harness.read_all();
    harness.state.read_all_again(harness.now);
    let request = harness.start_read().unwrap();
    let result = harness.answer(&request);
    for n in 1..=3_000 {
        harness.publish("A", "every", n);
    }
    harness.state.apply_read(result, harness.now);
    harness.read_all();
    assert_eq!(values(&take(&backlog), "A", "every"), (1..=3_000).collect::<Vec<_>>());
}

#[test]
fn messages_that_wait_too_long_for_a_read_pass_with_a_gap() {
    let mut harness = Harness::new(&["A"]);
    let (_, backlog) = harness.attach(&["A"], None);
    harness.read_all();
    take(&backlog);
    harness.state.read_all_again(harness.now);
    harness.publish("A", "every", 1);
    harness.pass(Duration::from_secs(14));
    assert!(values(&take(&backlog), "A", "every").is_empty());
    harness.pass(Duration::from_secs(2));
    let got = take(&backlog);
    let gap = got.iter().position(named("gap")).unwrap();
    assert!(matches!(&got[gap], Got::Named(_, data) if data.contains("BrokerAway")));
    assert_eq!(values(&got[gap..], "A", "every"), [1]);
}

#[test]
fn a_resuming_client_gets_missed_events_before_live_ones() {
    let mut harness = Harness::new(&["A"]);
    let (_, other) = harness.attach(&["A"], None);
    harness.read_all();
    for n in 1..=5 {
        harness.publish("A", "every", n);
    }
    let (_, backlog) = harness.attach(&["A"], Some(2));
    harness.publish("A", "every", 6);
    assert!(values(&take(&backlog), "A", "every").is_empty(), "what comes waits for what was missed");
    harness.replay_all();
    let got = take(&backlog);
    assert_eq!((values(&got, "A", "every"), ids(&got)), (vec![3, 4, 5, 6], vec![6]));
    assert_eq!(values(&take(&other), "A", "every"), [1, 2, 3, 4, 5, 6]);
    let (_, backlog) = harness.attach(&["A"], Some(6));
    assert!(harness.state.take_io().replays.is_empty(), "nothing was missed");
    assert!(values(&take(&backlog), "A", "every").is_empty());
}

#[test]
fn an_id_that_this_hub_has_not_seen_yet_is_looked_up() {
    let mut harness = Harness::new(&["A", "B"]);
    let (_, _other) = harness.attach(&["A"], None);
    harness.read_all();
    harness.store("B", "latest", 1);
    harness.store("B", "latest", 2);
    let (_, backlog) = harness.attach(&["A"], Some(2));
    harness.read_all();
    harness.replay_all();
    let got = take(&backlog);
    assert!(!got.iter().any(named("gap")), "another pod has seen more: {got:?}");
    harness.publish("A", "every", 3);
    assert_eq!(ids(&take(&backlog)), [3]);
    let (_, backlog) = harness.attach(&["A"], Some(99));
    harness.read_all();
    harness.replay_all();
    assert!(take(&backlog).iter().any(named("gap")), "the stream was set back");
    harness.publish("A", "every", 4);
    let got = take(&backlog);
    assert_eq!(
        (values(&got, "A", "every"), ids(&got)),
        (vec![4], vec![4]),
        "the client's id says nothing any more"
    );
}

#[test]
fn a_stream_that_was_created_again_starts_everything_again() {
    let mut harness = Harness::new(&["A"]);
    let (_, backlog) = harness.attach(&["A"], None);
    harness.read_all();
    for n in 1..=5 {
        harness.publish("A", "every", n);
    }
    take(&backlog);
    harness.epoch = Epoch(7);
    harness.stored.clear();
    harness.last_sequence = 0;
    harness.publish("A", "every", 11);
    assert!(harness.state.take_io().audit);
    let request = harness.state.audit().unwrap();
    let result = harness.answer(&request);
    harness.state.audited(&result, harness.now);
    harness.read_all();
    let got = take(&backlog);
    let hello =
        |got: &Got| matches!(got, Got::Named(name, data) if name == "hello" && data.contains("00000007"));
    assert!(hello(&got[0]), "order starts again: {got:?}");
    assert!(matches!(&got[1], Got::Named(name, data) if name == "gap" && data.contains("Epoch")), "{got:?}");
    assert_eq!((values(&got, "A", "every"), ids(&got)), (vec![11], vec![1]));
    // An answer to a request of the old epoch means nothing.
    harness
        .state
        .audited(&ReadResult { info: StreamState { epoch: EPOCH, ..result.info }, ..result }, harness.now);
    assert!(take(&backlog).is_empty());
}

#[test]
fn an_audit_finds_lost_events_and_advances_the_place() {
    let mut harness = Harness::new(&["A", "B"]);
    let (_, backlog) = harness.attach(&["A"], None);
    harness.read_all();
    take(&backlog);
    harness.store("A", "every", 1);
    harness.audit();
    harness.read_all();
    let got = take(&backlog);
    assert_eq!((values(&got, "A", "every"), ids(&got)), (vec![1], vec![1]));
    for n in 2..=9 {
        harness.store("B", "every", n);
    }
    harness.audit();
    harness.pass(Duration::from_secs(16));
    let got = take(&backlog);
    assert!(got.iter().any(named("ping")));
    assert_eq!(ids(&got), [9], "others' messages don't make its id old");
}

#[test]
fn stale_is_sent_once_and_messages_without_changes_end_it() {
    let mut harness = Harness::new(&["A"]);
    harness.publish("A", "latest", 1);
    let (_, backlog) = harness.attach(&["A"], None);
    harness.read_all();
    take(&backlog);
    harness.pass(Duration::from_secs(9));
    assert!(take(&backlog).is_empty());
    harness.pass(Duration::from_secs(2));
    assert!(named("stale")(&take(&backlog)[0]));
    harness.pass(Duration::from_secs(3));
    assert!(take(&backlog).is_empty());
    harness.publish("A", "latest", 2);
    let got = take(&backlog);
    assert!(named("fresh")(&got[0]), "{got:?}");
    assert_eq!(values(&got, "A", "latest"), [2]);
}

#[test]
fn a_ping_comes_only_when_nothing_else_does() {
    let mut harness = Harness::new(&["A"]);
    let (_, backlog) = harness.attach(&["A"], None);
    harness.read_all();
    for n in 1..=8 {
        harness.pass(Duration::from_secs(5));
        harness.publish("A", "latest", n);
        assert!(!take(&backlog).iter().any(named("ping")));
    }
    // `stale` after 10 s is something too.
    harness.pass(Duration::from_secs(11));
    assert!(named("stale")(&take(&backlog)[0]));
    harness.pass(Duration::from_secs(14));
    assert!(!take(&backlog).iter().any(named("ping")));
    harness.pass(Duration::from_secs(2));
    assert!(take(&backlog).iter().any(named("ping")));
}

#[test]
fn a_channel_without_viewers_is_closed_after_the_linger_time() {
    let mut harness = Harness::new(&["A"]);
    let (connection, _outbox) = harness.attach(&["A"], None);
    harness.read_all();
    harness.state.detach(connection, harness.now);
    harness.pass(Duration::from_secs(1));
    let (connection, backlog) = harness.attach(&["A"], None);
    assert_eq!(ids(&take(&backlog)), [0], "it is still subscribed, so nothing has to be read");
    harness.pass(Duration::from_secs(60));
    assert!(harness.state.take_io().close.is_empty());
    harness.state.detach(connection, harness.now);
    harness.pass(Duration::from_secs(3));
    assert_eq!(harness.state.take_io().close.len(), 2);
    assert!(harness.state.is_idle());
}

#[test]
fn a_resuming_client_waits_a_little_for_an_unknown_epoch() {
    let mut harness = Harness::new(&["A"]);
    let (_, backlog) = harness.attach(&["A"], Some(0));
    assert!(take(&backlog).is_empty());
    harness.read_all();
    let got = take(&backlog);
    assert!(
        matches!(&got[0], Got::Named(name, data) if name == "hello" && data.contains("\"resumed\":true")),
        "{got:?}"
    );

    let mut harness = Harness::new(&["A"]);
    let (_, backlog) = harness.attach(&["A"], Some(0));
    harness.pass(Duration::from_secs(3));
    assert!(named("hello")(&take(&backlog)[0]));
}
