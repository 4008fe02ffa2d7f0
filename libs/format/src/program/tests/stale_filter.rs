use super::*;

fn channel(policy: &str) -> Channel {
    Channel::new(&format!(
        "codec: JSON
timestamp: {{pointer: /ts, unit: Milliseconds, maxAgeMs: 30000, maxAheadMs: 5000}}
delivery: {{policy: {policy}}}
fields: [{{name: x, pointer: /x, type: Number}}]"
    ))
}

fn message(offset_ms: i64, x: i32) -> String {
    format!(r#"{{"ts":{},"x":{x}}}"#, NOW_MS + offset_ms)
}

#[test]
fn older_messages_are_dropped() {
    for policy in ["Latest", "Every"] {
        let mut channel = channel(policy);
        assert!(channel.apply(message(-20, 1)).is_ok());
        assert_eq!(channel.apply(message(-21, 2)), Err(DropReason::OutOfOrder), "{policy}");
        assert_eq!(channel.apply(message(-20, 1)), Err(DropReason::Duplicate), "{policy}");
        assert!(channel.apply(message(-19, 3)).is_ok());
        assert_eq!(channel.state.newest(), Some(Timestamp::from_millis(NOW_MS - 19)));
    }
}

#[test]
fn events_of_one_millisecond_are_distinguished_by_their_payload() {
    let mut every = channel("Every");
    for x in 0..10 {
        assert!(every.apply(message(0, x)).is_ok());
    }
    assert_eq!(every.apply(message(0, 3)), Err(DropReason::Duplicate));
    assert!(every.apply(message(1, 3)).is_ok());
    assert_eq!(every.apply(message(0, 11)), Err(DropReason::OutOfOrder));

    let mut latest = channel("Latest");
    assert!(latest.apply(message(0, 1)).is_ok());
    assert_eq!(latest.apply(message(0, 2)), Err(DropReason::Duplicate));
}

#[test]
fn messages_with_unaccepted_times_do_not_change_the_state() {
    let mut channel = channel("Latest");
    assert_eq!(channel.apply(message(-30_001, 1)), Err(DropReason::TooOld));
    assert_eq!(channel.apply(message(5_001, 1)), Err(DropReason::TooFarAhead));
    assert_eq!(channel.state.newest(), None);
    assert!(channel.apply(message(-30_000, 1)).is_ok());
    assert!(channel.apply(message(5_000, 1)).is_ok());
    assert_eq!(channel.apply(message(4_999, 1)), Err(DropReason::OutOfOrder));
}

#[test]
fn an_invalid_time_is_a_bad_timestamp() {
    let mut channel = channel("Latest");
    for ts in ["true", "null", "\"soon\"", "[1]", "{}", "1e40", "-1e15", "\"2026-11-22T10:00:00Z\""] {
        let payload = format!(r#"{{"ts":{ts},"x":1}}"#);
        assert_eq!(channel.apply(&payload), Err(DropReason::BadTimestamp), "{ts}");
    }
    assert_eq!(channel.apply(r#"{"x":1}"#), Err(DropReason::BadTimestamp));
    assert_eq!(channel.state.newest(), None);
}

#[test]
fn without_a_timestamp_the_time_of_storage_counts() {
    for policy in ["Latest", "Every"] {
        let mut channel = Channel::new(&format!(
            "{{codec: JSON, delivery: {{policy: {policy}}}, \
             fields: [{{name: x, pointer: /x, type: Number}}]}}"
        ));
        let mut time_of = |stored_at, payload: &str| {
            channel.stored_at = Timestamp(stored_at);
            channel.apply_in_full(payload).unwrap().1.time
        };
        assert_eq!(time_of(1_000, r#"{"x":1}"#), Timestamp(1_000));
        // Two messages, even with the same payload and stored in the same microsecond.
        assert_eq!(time_of(1_000, r#"{"x":1}"#), Timestamp(1_000));
        assert_eq!(time_of(1_001, r#"{"x":2}"#), Timestamp(1_001));
        // The broker's clock was set back: the message is pushed with the newest time.
        assert_eq!(time_of(999, r#"{"x":3}"#), Timestamp(1_001));
        assert_eq!(time_of(1_002, r#"{"x":4}"#), Timestamp(1_002));
    }
}

#[test]
fn a_message_without_usable_fields_does_not_change_the_state() {
    let mut channel = channel("Latest");
    assert_eq!(channel.apply(format!(r#"{{"ts":{NOW_MS},"x":"?"}}"#)), Err(DropReason::NoFields));
    assert_eq!(channel.state.newest(), None);
    assert!(channel.apply(message(-1, 1)).is_ok());
}

#[test]
fn payloads_with_the_newest_time_are_remembered_up_to_a_bound() {
    let mut every = channel("Every");
    for x in 0..1000 {
        assert!(every.apply(message(0, x)).is_ok(), "{x}");
    }
    assert_eq!(every.apply(message(0, 999)), Err(DropReason::Duplicate));
    assert_eq!(every.apply(message(0, 936)), Err(DropReason::Duplicate));
    // Beyond 64 the oldest are forgotten, so that duplicates of them are pushed again.
    assert!(every.apply(message(0, 935)).is_ok());
}
