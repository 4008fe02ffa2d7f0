//! The corners of times: what is shown, and with which time.

use super::*;

fn channel(policy: &str, limits: &str) -> Channel {
    Channel::new(&format!(
        "codec: JSON
timestamp: {{pointer: /ts, unit: Milliseconds{limits}}}
delivery: {{policy: {policy}}}
fields: [{{name: x, pointer: /x, type: Number}}]"
    ))
}

fn payload(offset_ms: i64, x: i32) -> String {
    format!(r#"{{"ts":{},"x":{x}}}"#, NOW_MS + offset_ms)
}

/// Applies a message of the time `time_ms` that is stored at `stored_ms`. Returns the milliseconds of the
/// event's time.
fn step(channel: &mut Channel, stored_ms: i64, time_ms: i64) -> Result<i64, DropReason> {
    channel.stored_at = at(stored_ms);
    let applied = channel.apply_in_full(payload(time_ms, 1));
    applied.verdict.map(|event| event.time.as_millis() - NOW_MS)
}

/// Corner: clock ahead. Case P6: one hour ahead, then right ones.
#[test]
fn a_clock_that_is_ahead_shows_the_time_of_storing_and_is_named() {
    let mut channel = channel("Latest", "");
    let hour = 3_600_000;
    assert_eq!(step(&mut channel, 0, hour), Ok(0));
    for (stored, time, problem) in [
        (1_000, 1_000, None),
        (2_000, 3_000, None),
        (3_000, 4_001, Some(ProblemReason::ClockAhead)),
        (4_000, hour * 1_000_000, Some(ProblemReason::ClockAhead)),
        (5_000, 4_500, None),
    ] {
        channel.stored_at = at(stored);
        let applied = channel.apply_in_full(payload(time, 1));
        assert_eq!(applied.verdict, Ok(Event { time: at(time.min(stored)), late: false }));
        assert_eq!(applied.problem, problem, "{time}");
    }
}

#[test]
fn explicit_limits_drop_by_the_broker_s_clock() {
    for policy in ["Latest", "Every"] {
        let mut channel = channel(policy, ", maxAgeMs: 30000, maxAheadMs: 5000");
        assert_eq!(step(&mut channel, 0, -30_001), Err(DropReason::TooOld));
        assert_eq!(step(&mut channel, 0, 5_001), Err(DropReason::TooFarAhead));
        assert_eq!(step(&mut channel, 1, -30_000 + 1), Ok(-30_000 + 1));
        assert_eq!(step(&mut channel, 2, 5_002), Ok(2));
    }
}

/// Corner: `Latest`, out of order; a clock that is set back by an hour.
#[test]
fn a_message_is_out_of_order_while_a_newer_one_was_stored_in_the_last_minute() {
    let mut channel = channel("Latest", "");
    assert_eq!(step(&mut channel, 0, 0), Ok(0));
    let hour = 3_600_000;
    for stored in [1_000, 30_000, 60_000] {
        assert_eq!(step(&mut channel, stored, stored - hour), Err(DropReason::OutOfOrder), "{stored}");
    }
    assert_eq!(step(&mut channel, 60_001, 60_001 - hour), Ok(60_001 - hour));
    // Those that were dropped count too, for those after them.
    assert_eq!(step(&mut channel, 60_002, 59_001 - hour), Ok(59_001 - hour));
    assert_eq!(step(&mut channel, 60_003, 59_000 - hour), Err(DropReason::OutOfOrder));
}

/// Corner: equal times, or two clocks 300 ms apart. Case P1: unit Seconds.
#[test]
fn within_a_second_the_message_that_is_stored_later_wins() {
    let mut channel = channel("Latest", "");
    for (stored, time) in [(0, 0), (10, 0), (20, -300), (30, 30), (40, -970), (50, 50), (60, -950)] {
        assert_eq!(step(&mut channel, stored, time), Ok(time));
    }
    assert_eq!(step(&mut channel, 70, -951), Err(DropReason::OutOfOrder));

    let mut seconds = Channel::new(
        "codec: JSON
timestamp: {pointer: /ts, unit: Seconds}
fields: [{name: st, pointer: /st, type: Enum, values: {'0': stopped, '1': running}}]",
    );
    assert_eq!(seconds.apply(r#"{"ts":1795341600,"st":1}"#).unwrap(), r#"{"st":"running"}"#);
    assert_eq!(seconds.apply(r#"{"ts":1795341600,"st":0}"#).unwrap(), r#"{"st":"stopped"}"#);
}

/// Corner: the broker's clock steps, its leader changes.
#[test]
fn nothing_is_newer_than_the_broker_s_clock_after_it_stepped_back() {
    let mut latest = channel("Latest", "");
    assert_eq!(step(&mut latest, 0, 0), Ok(0));
    let hour = 3_600_000;
    assert_eq!(step(&mut latest, -hour, -hour), Ok(-hour));
    assert_eq!(step(&mut latest, 1 - hour, -999 - hour), Ok(-999 - hour));
    assert_eq!(step(&mut latest, 2 - hour, -1_001 - hour), Err(DropReason::OutOfOrder));
    // The message of the old clock counts as stored at the step: a minute later it is forgotten.
    assert_eq!(step(&mut latest, 60_001 - hour, -1_999 - hour), Ok(-1_999 - hour));

    // Without a time of its own, a message is never dropped for its time.
    for policy in ["Latest", "Every"] {
        let mut plain = Channel::new(&format!(
            "codec: JSON
delivery: {{policy: {policy}}}
fields: [{{name: x, pointer: /x, type: Number}}]"
        ));
        for stored in [0, 0, 1, -hour, 2] {
            assert_eq!(step(&mut plain, stored, 0), Ok(stored), "{policy}");
        }
    }
}

/// Corner: which messages count for lateness: with a readable, accepted time, whatever their fields.
#[test]
fn messages_without_an_accepted_time_do_not_count() {
    let mut channel = channel("Latest", ", maxAheadMs: 5000");
    assert_eq!(channel.apply_at(0, payload(6_000, 1)), Err(DropReason::TooFarAhead));
    assert_eq!(channel.apply_at(0, r#"{"ts":"soon","x":1}"#), Err(DropReason::BadTimestamp));
    assert_eq!(step(&mut channel, 10, -9_000), Ok(-9_000));
    assert_eq!(channel.apply_at(20, format!(r#"{{"ts":{NOW_MS},"y":1}}"#)), Err(DropReason::NoFields));
    assert_eq!(step(&mut channel, 30, -9_000), Err(DropReason::OutOfOrder));
}

#[test]
fn an_invalid_time_is_a_bad_timestamp() {
    let mut channel = channel("Latest", "");
    for ts in ["true", "null", "\"soon\"", "[1]", "{}", "1e40", "-1e15", "\"2026-11-22T10:00:00Z\""] {
        let payload = format!(r#"{{"ts":{ts},"x":1}}"#);
        assert_eq!(channel.apply(&payload), Err(DropReason::BadTimestamp), "{ts}");
    }
    assert_eq!(channel.apply(r#"{"x":1}"#), Err(DropReason::BadTimestamp));
}

/// Corner: a payload source that was behind.
#[test]
fn a_message_of_a_source_is_judged_by_when_it_was_captured() {
    let mut latest = channel("Latest", ", maxAgeMs: 30000");
    latest.captured_at = Some(at(-600_000));
    assert_eq!(step(&mut latest, 0, -600_000), Ok(-600_000));
    assert_eq!(step(&mut latest, 1, -630_001), Err(DropReason::TooOld));
    // Its own clock was ahead when it was captured.
    assert_eq!(step(&mut latest, 2, -590_000), Ok(-600_000));
    // The source's stream and the tenant's may be on servers of which the clocks differ.
    latest.captured_at = Some(at(10_000));
    assert_eq!(step(&mut latest, 3, 9_000), Ok(3));

    let mut plain = Channel::with_fields("{name: x, pointer: /x, type: Number}");
    plain.captured_at = Some(at(-600_000));
    assert_eq!(step(&mut plain, 0, 0), Ok(-600_000));
}

/// Corner: `Every`, late. Case P2.
#[test]
fn events_are_never_skipped_for_their_time_and_say_when_they_are_late() {
    let mut every = channel("Every", ", maxAheadMs: 5000");
    for (stored, time, late) in
        [(0, 0, false), (10, -1_000, false), (5_000, 0, false), (5_001, 0, true), (5_002, -3_600_000, true)]
    {
        every.stored_at = at(stored);
        let applied = every.apply_in_full(payload(time, i32::try_from(stored).unwrap()));
        assert_eq!(applied.verdict, Ok(Event { time: at(time), late }), "{stored}");
        assert_eq!(applied.problem, None);
    }
    let applied = every.apply_in_full(payload(5_002 + 6_000, 3));
    assert_eq!(applied.verdict, Err(DropReason::TooFarAhead));
    assert_eq!(applied.problem, Some(ProblemReason::TooFarAhead));
    // With `Latest` no event is marked.
    let mut latest = channel("Latest", "");
    let applied = latest.apply_in_full(payload(-60_000, 1));
    assert_eq!(applied.verdict, Ok(Event { time: at(-60_000), late: false }));
}

/// No time that the broker, a source or a device can write stops a channel, or is written in another form.
#[test]
fn times_at_the_ends_of_the_calendar_are_no_special_case() {
    let ends = [jiff::Timestamp::MIN, jiff::Timestamp::MAX].map(Timestamp::from);
    let times = [ends[0], Timestamp::MIN, Timestamp(-1), Timestamp(0), at(0), Timestamp::MAX, ends[1]];
    for rest in ["", "delivery: {policy: Every}\n", "record: {expireFieldsMs: 1000}\n", "record: {}\n"] {
        let mut channel = Channel::new(&format!(
            "codec: JSON
timestamp: {{pointer: /ts, unit: Microseconds, maxAgeMs: 86400000}}
{rest}fields: [{{name: x, pointer: /x, type: Number}}, {{name: y, pointer: /y, type: Number}}]"
        ));
        for (stored_at, captured_at, own) in times
            .iter()
            .flat_map(|stored| times.iter().map(move |captured| (*stored, *captured)))
            .flat_map(|(stored, captured)| times.iter().map(move |own| (stored, captured, *own)))
        {
            for (state, field) in [(ChannelState::default(), 'x'), (channel.state.clone(), 'y')] {
                (channel.stored_at, channel.captured_at, channel.state) =
                    (stored_at, Some(captured_at), state);
                let payload = format!("{{\"ts\":{},\"{field}\":\"bad\"}}", own.0);
                let Ok(applied) = channel.try_apply(&payload) else { continue };
                let message = channel.message(payload.as_bytes());
                let problems = channel.program.explain(message, applied.verdict.err(), &channel.state);
                assert_eq!(problems.is_empty(), applied.problem.is_none(), "{problems:?}");
                let mut written = Vec::new();
                applied.verdict.map_or(stored_at, |event| event.time).to_rfc3339(&mut written);
                assert!(matches!(written.len(), 24 | 27), "{}", String::from_utf8_lossy(&written));
                let at: std::collections::HashMap<String, String> = if channel.at().is_empty() {
                    Default::default()
                } else {
                    serde_json::from_str(channel.at()).unwrap()
                };
                assert!(at.values().all(|time| time.len() == 24), "{at:?}");
            }
        }
    }
}
