//! Events that come twice.

use super::*;

fn channel() -> Channel {
    Channel::new(
        "codec: JSON
timestamp: {pointer: /ts, unit: Milliseconds}
delivery: {policy: Every}
fields: [{name: x, pointer: /x, type: Number}]",
    )
}

fn payload(offset_ms: i64, x: i32) -> String {
    format!(r#"{{"ts":{},"x":{x}}}"#, NOW_MS + offset_ms)
}

fn step(channel: &mut Channel, stored_ms: i64, time_ms: i64, x: i32) -> bool {
    match channel.apply_at(stored_ms, payload(time_ms, x)) {
        Ok(_) => true,
        Err(reason) => {
            assert_eq!(reason, DropReason::Repeat);
            assert_eq!(reason.problem(), None);
            false
        }
    }
}

/// Corner: `Every`, repeat.
#[test]
fn an_event_that_was_directly_before_is_a_repeat() {
    let mut every = channel();
    assert!(step(&mut every, 0, -1, 1));
    assert!(!step(&mut every, 10, -1, 1));
    assert!(!step(&mut every, 20, -1, 1), "also of one that was a repeat itself");
    assert!(step(&mut every, 30, -1, 2), "two events may share a millisecond");
    assert!(step(&mut every, 40, -2, 2));
    assert!(step(&mut every, 50, -1, 1), "not directly before, and not late");
    assert!(!step(&mut every, 60_050, -1, 1), "a minute later");
    assert!(step(&mut every, 120_051, -1, 1), "later");
}

#[test]
fn a_late_event_is_a_repeat_of_any_in_the_last_minute() {
    let mut every = channel();
    assert!(step(&mut every, 0, -1, 1));
    assert!(step(&mut every, 10, -2, 2));
    assert!(step(&mut every, 998, -1, 1));
    assert!(step(&mut every, 998, -2, 2));
    assert!(!step(&mut every, 1_000, -1, 1));
    assert!(!step(&mut every, 60_998, -2, 2));
    assert!(step(&mut every, 60_998 + 60_001, -2, 2));
}

/// What is shown of the newest message, if it isn't late, depends on no message but the one that is shown
/// before it.
#[test]
fn a_late_repeat_is_not_the_event_before_the_next_one() {
    let mut every = channel();
    assert!(step(&mut every, 0, -835, 1));
    assert!(step(&mut every, 1_212, 1_212, 2));
    assert!(!step(&mut every, 1_213, -835, 1));
    assert!(!step(&mut every, 1_214, 1_212, 2));
    // The broker's clock is set back, so that it isn't late.
    assert!(!step(&mut every, 1_215, -835, 1));
    assert!(step(&mut every, 165, -835, 1));
}

#[test]
fn events_whose_time_is_a_whole_second_are_never_repeats() {
    let mut every = channel();
    for stored in [0, 1, 2_000] {
        assert!(step(&mut every, stored, -1_000, 1));
    }
}

#[test]
fn the_broker_s_clock_may_step_back_between_an_event_and_its_repeat() {
    let mut every = channel();
    assert!(step(&mut every, 0, -5_001, 1));
    assert!(step(&mut every, -3_000, -5_001, 2));
    assert!(!step(&mut every, -2_999, -5_001, 1));
}

#[test]
fn no_more_events_are_remembered_than_the_tail_has() {
    let mut every = channel();
    for x in 0..600 {
        assert!(step(&mut every, 2_000, -1, x));
    }
    let mut before = every.state.clone();
    assert!(!step(&mut every, 2_000, -1, 89));
    std::mem::swap(&mut before, &mut every.state);
    assert!(step(&mut every, 2_000, -1, 88));
}
