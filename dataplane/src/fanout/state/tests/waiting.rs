//! Messages wait for reads, and what a channel is heard by.

use flutecast_contract::document::{TimestampDocument, TimestampUnit};

use super::*;

fn timed(policy: DeliveryPolicy) -> FormatDocument {
    let timestamp = TimestampDocument {
        pointer: "/ts".to_owned(),
        unit: TimestampUnit::Milliseconds,
        max_age_ms: None,
        max_ahead_ms: None,
    };
    FormatDocument { timestamp: Some(timestamp), ..format(policy) }
}

/// Returns a message with the time of `offset` milliseconds from now.
fn at(harness: &Harness, offset: i64, n: u64) -> String {
    format!("{{\"ts\":{},\"n\":{n}}}", harness.now.wall.as_millis() + offset)
}

#[test]
fn latest_messages_that_wait_too_long_pass_without_a_gap_and_are_read_when_that_works() {
    let mut harness = Harness::new(&["A"]);
    let (_, backlog) = harness.attach(&["A"], None);
    harness.read_all();
    take(&backlog);
    harness.state.read_all_again(harness.now);
    let request = harness.start_read().unwrap();
    let late = harness.answer(&request);
    harness.publish("A", "latest", 1);
    assert!(values(&take(&backlog), "A", "latest").is_empty());
    harness.pass(Duration::from_secs(16));
    let got = take(&backlog);
    assert_eq!(values(&got, "A", "latest"), [1]);
    assert!(!got.iter().any(named("gap")), "{got:?}");
    harness.publish("A", "latest", 2);
    assert_eq!(values(&take(&backlog), "A", "latest"), [2]);

    // The answer comes after all. It is older than what was shown, so the channel is read again.
    harness.state.apply_read(late, harness.now);
    harness.store("A", "latest", 3);
    harness.read_all();
    assert_eq!(values(&take(&backlog), "A", "latest"), [3]);
    harness.publish("A", "latest", 4);
    assert_eq!(ids(&take(&backlog)), [4], "its client is settled again");
}

#[test]
fn a_live_message_that_older_ones_decide_waits_for_them() {
    for (policy, shown) in [(DeliveryPolicy::Latest, vec![]), (DeliveryPolicy::Every, vec![3])] {
        let mut harness = Harness::with(catalog_of(&["A"], &[("c", timed(policy), None)]));
        for n in [1, 2] {
            harness.publish_text("A", "c", &at(&harness, 0, n));
        }
        let (_, backlog) = harness.attach(&["A"], None);
        harness.read_all();
        assert_eq!(values(&take(&backlog), "A", "c"), [2]);
        // Only the newest message was read: it says nothing of a message from before it.
        let late = at(&harness, -30_001, 3);
        harness.publish_text("A", "c", &late);
        assert!(values(&take(&backlog), "A", "c").is_empty(), "{policy:?}");
        harness.read_all();
        assert_eq!(values(&take(&backlog), "A", "c"), shown, "{policy:?}");
        // From then on the tail is known.
        harness.publish_text("A", "c", &at(&harness, -20_001, 4));
        assert!(harness.start_read().is_none(), "{policy:?}");
    }
}

#[test]
fn a_channel_is_heard_by_messages_that_are_understood() {
    let when = Some("values.n >= 0".to_owned());
    let document = FormatDocument { when, ..format(DeliveryPolicy::Latest) };
    let mut harness = Harness::with(catalog_of(&["A"], &[("c", document, Some(10_000))]));
    let (_, old) = harness.attach(&["A"], None);
    harness.read_all();
    harness.publish_text("A", "c", "{\"n\":1}");
    harness.pass(Duration::from_secs(6));
    harness.publish_text("A", "c", "{\"n\":-1}");
    let heard = crate::pipeline::json_time(Some(harness.now.wall));
    harness.pass(Duration::from_secs(6));
    assert!(!take(&old).iter().any(named("stale")), "a filtered message is one");
    harness.publish_text("A", "c", "{\"n\":");
    harness.pass(Duration::from_secs(6));
    let mut other = Harness::with(harness.state.catalog.clone().unwrap());
    (other.stored, other.last_sequence) = (harness.stored.clone(), harness.last_sequence);
    other.now = harness.now;
    let (_, new) = other.attach(&["A"], None);
    other.read_all();
    for got in [take(&old), take(&new)] {
        let stale = got.iter().rfind(|got| named("stale")(got)).unwrap();
        assert!(matches!(stale, Got::Named(_, data) if data.contains(&heard)), "{stale:?}, not {heard}");
    }
}

#[test]
fn a_message_that_came_late_to_this_pod_is_as_old_as_the_broker_says() {
    let mut harness = Harness::new(&["A"]);
    let (_, backlog) = harness.attach(&["A"], None);
    harness.read_all();
    harness.publish("A", "latest", 0);
    take(&backlog);
    let message = harness.store("A", "latest", 1);
    harness.pass(Duration::from_secs(6));
    harness.state.apply_live(message.into_iter(), harness.now);
    assert!(!take(&backlog).iter().any(named("stale")));
    harness.pass(Duration::from_secs(5));
    assert!(take(&backlog).iter().any(named("stale")), "it was stored 11 s ago");
}

#[test]
fn a_channel_whose_messages_need_the_tail_is_read_once() {
    let mut harness = Harness::with(catalog_of(&["A"], &[("c", timed(DeliveryPolicy::Latest), None)]));
    harness.publish_text("A", "c", &at(&harness, -900, 0));
    harness.attach(&["A"], None);
    harness.read_all();
    let mut reads = 0;
    for n in 1..20 {
        harness.pass(Duration::from_millis(100));
        // Of two publishers one is slower. What the slow one sends depends on what isn't known.
        harness.publish_text("A", "c", &at(&harness, -1_500, 2 * n));
        let live = harness.store_message("A", "c", at(&harness, -900, 2 * n + 1), harness.now.wall, None);
        harness.state.apply_live(live.into_iter(), harness.now);
        while let Some(request) = harness.start_read() {
            let answer = harness.answer(&request);
            harness.state.apply_read(answer, harness.now);
            reads += 1;
        }
    }
    assert_eq!(reads, 1, "the first one reads the tail");
}

#[test]
fn messages_that_wait_are_bounded_over_all_channels() {
    const MIB: usize = 1_024 * 1_024;
    let devices: Vec<String> = (0..20).map(|n| format!("D-{n}")).collect();
    let devices: Vec<&str> = devices.iter().map(String::as_str).collect();
    let mut harness = Harness::new(&devices);
    let (_, backlog) = harness.attach(&devices, None);
    let request = harness.start_read().unwrap();
    let answer = harness.answer(&request);
    for n in 0..7 {
        for device in &devices {
            harness.publish_text(device, "latest", &format!("{{\"n\":{n},\"s\":\"{}\"}}", "x".repeat(MIB)));
            let waiting = harness.state.watched.values().flat_map(|watched| watched.phase.waiting());
            let bytes: usize = waiting.map(|message| message.payload.len()).sum();
            assert!(bytes <= 64 * MIB, "{bytes}");
        }
    }
    harness.state.apply_read(answer, harness.now);
    harness.read_all();
    let got = take(&backlog);
    for device in &devices {
        assert_eq!(values(&got, device, "latest").last(), Some(&6), "{device}");
    }
}

/// A stream of which the tails of device A can't be read: never, or not now.
struct Poor<'a>(&'a Vec<StoredMessage>, bool);

impl StoredMessages for Poor<'_> {
    async fn tail(
        &self,
        subject: &str,
        since: Option<jiff::Timestamp>,
        up_to: Sequence,
    ) -> Result<Vec<StoredMessage>, RequestError> {
        match (subject.contains(".A."), self.1) {
            (false, _) => self.0.tail(subject, since, up_to).await,
            (true, false) => std::future::pending().await,
            (true, true) => Err(RequestError::no_answer()),
        }
    }

    async fn last_up_to(
        &self,
        subject: &str,
        up_to: Sequence,
    ) -> Result<Option<StoredMessage>, RequestError> {
        self.0.last_up_to(subject, up_to).await
    }

    async fn missed(
        &self,
        subject: &str,
        after: Sequence,
    ) -> Result<Option<(Vec<StoredMessage>, bool)>, RequestError> {
        self.0.missed(subject, after).await
    }
}

#[test]
fn a_channel_that_can_not_be_read_keeps_no_other_one_waiting() {
    for fails in [false, true] {
        let catalog = catalog_of(&["A", "B", "C"], &[("c", format(DeliveryPolicy::Latest), None)]);
        let mut harness = Harness::with(catalog);
        for (device, n) in [("A", 1), ("B", 2), ("C", 3)] {
            harness.store(device, "c", n);
        }
        for device in ["A", "C"] {
            harness.publish_text(device, "c", "online");
        }
        let (_, backlog) = harness.attach(&["A", "B", "C"], None);
        let request = harness.start_read().unwrap();
        let ReadResult { requested, info, up_to, .. } = harness.answer(&request);
        let messages = harness.stored.clone();
        let last = |item: &ChannelRead| on_subject(&messages, &item.stored).next_back().cloned();
        let lasts =
            request.channels.iter().filter_map(last).map(|last| (last.subject.clone(), last)).collect();
        let mut parts = Vec::new();
        let mut report = |part| parts.push(part);
        let stored = Poor(&harness.stored, fails);
        let end = read_channels(&stored, &request.channels, lasts, info, &mut report).now_or_never();
        let failure = end.map(|(others, failure)| (others.len(), failure));
        assert_eq!(failure, fails.then(|| (0, Some(RequestError::no_answer()))));
        for channels in parts {
            harness.state.apply_read(ReadResult { requested, info, up_to, channels }, harness.now);
        }
        let got = take(&backlog);
        assert_eq!(["A", "B", "C"].map(|device| values(&got, device, "c")), [vec![], vec![2], vec![3]]);
        harness.publish("B", "c", 4);
        assert_eq!(values(&take(&backlog), "B", "c"), [4], "it is live");

        // Alone it is no sign that the stream can be read.
        let stored = Poor(&messages, fails);
        let mut alone = request.channels;
        alone.retain(|item| item.stored.contains(".A."));
        let lasts = alone.iter().filter_map(last).map(|last| (last.subject.clone(), last)).collect();
        let mut report = |_| panic!("nothing was read");
        let end = read_channels(&stored, &alone, lasts, info, &mut report).now_or_never();
        assert_eq!(end.is_some_and(|(_, failure)| failure.is_some()), fails);
    }
}

#[test]
fn a_record_that_went_on_without_a_read_is_whole_once_reading_works() {
    let mut document = format(DeliveryPolicy::Latest);
    document.record = Some(flutecast_contract::document::RecordDocument { expire_fields_ms: None });
    document.fields.push(field("m"));
    let mut harness = Harness::with(catalog_of(&["A"], &[("c", document, None)]));
    harness.publish_text("A", "c", "{\"n\":1}");
    let (_, backlog) = harness.attach(&["A"], None);
    harness.read_all();
    harness.state.read_all_again(harness.now);
    let request = harness.start_read().unwrap();
    // It is stored while the connection is lost.
    harness.store("A", "c", 5);
    let live = harness.store_message("A", "c", "{\"m\":2}", harness.now.wall, None);
    harness.state.apply_live(live.into_iter(), harness.now);
    take(&backlog);
    let keys = request.channel_keys();
    assert!(harness.state.read_failed(&keys, crate::fanout::Unavailable::BrokerAway, harness.now));
    harness.pass(Duration::from_secs(16));
    assert_eq!(values(&take(&backlog), "A", "c"), [1], "it goes on with what it knows");
    harness.read_all();
    let audit = harness.state.audit().unwrap();
    let answer = harness.answer(&audit);
    harness.state.audited(&answer, harness.now);
    harness.read_all();
    assert_eq!(values(&take(&backlog), "A", "c"), [5]);
}
