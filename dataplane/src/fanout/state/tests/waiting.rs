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
