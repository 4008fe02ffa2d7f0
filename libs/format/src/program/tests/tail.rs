//! A state that was there from the beginning, one that starts from the tail, and one of which the past isn't
//! known say the same.

use proptest::prelude::*;

use super::*;

/// A message: its payload, and the times of storing and capturing.
type Stored = (String, Timestamp, Option<Timestamp>);

/// Returns formats of each policy, with and without times of their own, triggers, `when` and records.
fn format() -> impl Strategy<Value = String> {
    let timestamp = prop::sample::select(
        &[
            "",
            "timestamp: {pointer: /ts, unit: Milliseconds}\n",
            "timestamp: {pointer: /ts, unit: Milliseconds, maxAgeMs: 30000, maxAheadMs: 5000}\n",
            "timestamp: {pointer: /s, unit: Seconds, maxAgeMs: 3600000}\n",
        ][..],
    );
    let delivery = prop::sample::select(
        &[
            "",
            "delivery: {policy: Every}\n",
            "record: {expireFieldsMs: 90000}\n",
            "record: {}\n",
            "record: {expireFieldsMs: 20000}\n",
        ][..],
    );
    let when =
        prop::sample::select(&["", "when: values.a >= 0\n", "when: values.a > 1 || has(values.b)\n"][..]);
    let trigger = || prop::sample::select(&["", ", onChange: true", ", deadband: 2"][..]);
    let always = any::<bool>();
    (timestamp, delivery, when, trigger(), trigger(), always).prop_map(
        |(timestamp, delivery, when, a, b, always)| {
            let b = if always { "" } else { b };
            let word = if always { "" } else { ", onChange: true" };
            format!(
                "codec: JSON\n{timestamp}{delivery}{when}fields:
  - {{name: a, pointer: /a, type: Number{a}}}
  - {{name: b, pointer: /b, type: Number{b}}}
  - {{name: sum, expression: values.a + values.b{b}}}
  - {{name: word, pointer: /a, type: Enum, values: {{'0': zero, '1': one}}, otherwise: more{word}}}\n"
            )
        },
    )
}

/// Returns a channel's messages, in the order of the stream.
fn messages() -> impl Strategy<Value = Vec<Stored>> {
    let step_ms = prop_oneof![
        6 => 0..3_000_i64,
        2 => 3_000..70_000_i64,
        1 => -1_500..0_i64,
        1 => prop::sample::select(&[-3_600_000, 59_000, 60_000, 61_000, 90_000][..]),
    ];
    let lag_ms = prop_oneof![
        6 => 0..500_i64,
        3 => 500..5_000_i64,
        2 => 5_000..100_000_i64,
        1 => prop::sample::select(&[-3_600_000, -6_000, -1_000, 1_000, 3_600_000][..]),
    ];
    let number = prop::sample::select(&["0", "1", "2", "3", "5", "-1", "null", "NaN", "\"x\"", "", ""][..]);
    let captured = prop::option::weighted(0.1, 0..20_000_i64);
    // Some payloads are sent again.
    let message = (step_ms, lag_ms, number.clone(), number, captured, any::<prop::sample::Index>(), 0..10_u8);
    prop::collection::vec(message, 1..60).prop_map(|drawn| {
        let mut messages: Vec<Stored> = Vec::new();
        let mut stored_ms = NOW_MS;
        for (step, lag, a, b, captured, before, kind) in drawn {
            stored_ms += step;
            let own = stored_ms - lag;
            let payload = match kind {
                0 => "{\"cut\":".to_owned(),
                1 => r#"{"a":1}"#.to_owned(),
                2 | 3 if !messages.is_empty() => before.get(&messages).0.clone(),
                _ => {
                    let member = |name, value: &str| {
                        if value.is_empty() { String::new() } else { format!(r#","{name}":{value}"#) }
                    };
                    format!(
                        r#"{{"ts":{own},"s":{}.5{}{}}}"#,
                        own.div_euclid(1_000),
                        member("a", a),
                        member("b", b)
                    )
                }
            };
            let captured = captured.map(|before| Timestamp::from_millis(stored_ms - before));
            messages.push((payload, Timestamp::from_millis(stored_ms), captured));
        }
        messages
    })
}

/// What is shown of a message.
#[derive(Debug, Clone, PartialEq)]
struct Shown {
    event: Event,
    values: String,
    bad: String,
    at: String,
}

/// Returns what is shown of the message, or why it isn't.
fn apply(
    program: &Program,
    state: &mut ChannelState,
    (payload, stored_at, captured_at): &Stored,
) -> Result<Result<Shown, DropReason>, NeedsTail> {
    let mut output = Output::default();
    let message = Message { payload: payload.as_bytes(), stored_at: *stored_at, captured_at: *captured_at };
    let applied = program.apply(message, state, &mut output)?;
    let text = |json: Vec<u8>| String::from_utf8(json).unwrap();
    let Output { values, bad, at } = output;
    Ok(applied.verdict.map(|event| Shown { event, values: text(values), bad: text(bad), at: text(at) }))
}

/// Returns the messages that are read back at the last of `messages`: those stored since the look-back before
/// it, and whatever came after the first of them.
fn tail<'a>(program: &Program, messages: &'a [Stored]) -> &'a [Stored] {
    let (Some(back), Some((_, last, _))) = (program.look_back(), messages.last()) else { return messages };
    let since = last.0 - i64::try_from(back.as_micros()).unwrap();
    let start = messages.iter().position(|(_, stored_at, _)| stored_at.0 >= since).unwrap();
    &messages[start..]
}

/// A state, and what is on its screen.
struct Screen<'a> {
    program: &'a Program,
    state: ChannelState,
    shown: Option<Shown>,
}

impl<'a> Screen<'a> {
    fn new(program: &'a Program, mut state: ChannelState) -> Self {
        state.claim(program.id);
        Self { program, state, shown: None }
    }

    fn apply(&mut self, message: &Stored) -> Result<Result<Shown, DropReason>, NeedsTail> {
        let applied = apply(self.program, &mut self.state, message)?;
        if let Ok(shown) = &applied {
            self.shown = Some(shown.clone());
        }
        Ok(applied)
    }

    /// Asserts that a message has the same result here and on another screen, or one that the rules admit. It
    /// may be a repeat there, whose event stands on the screen already, if it isn't filtered. And it may be a
    /// reason to push on one of them only, since triggers compare with what was pushed last: then the values
    /// on both screens differ by less than the deadband.
    fn assert_agrees(
        &self,
        here: &Result<Shown, DropReason>,
        other: &Screen<'_>,
        there: &Result<Shown, DropReason>,
    ) -> Result<(), TestCaseError> {
        let is_admitted = match (here, there) {
            (Ok(_) | Err(DropReason::Unchanged), Err(DropReason::Repeat))
            | (Err(DropReason::Repeat), Ok(_)) => self.is_near(other),
            (Err(DropReason::Filtered | DropReason::NoFields), Err(DropReason::Repeat)) => true,
            (Err(DropReason::Unchanged), Ok(_)) | (Ok(_), Err(DropReason::Unchanged)) => self.is_near(other),
            _ => false,
        };
        if !is_admitted {
            prop_assert_eq!(here, there);
        }
        Ok(())
    }

    fn is_near(&self, other: &Screen<'_>) -> bool {
        let values = |screen: &Screen<'_>| -> Option<serde_json::Map<String, serde_json::Value>> {
            serde_json::from_str(&screen.shown.as_ref()?.values).ok()
        };
        let (Some(here), Some(there)) = (values(self), values(other)) else { return false };
        let deadband = if self.program.conditional { 2.0 } else { f64::MIN_POSITIVE };
        here.keys().eq(there.keys())
            && here.iter().all(|(name, here)| match (here.as_f64(), there[name].as_f64()) {
                (Some(here), Some(there)) => (here - there).abs() < deadband,
                _ => *here == there[name],
            })
    }
}

proptest! {
    #[test]
    fn the_tail_says_the_same_as_having_been_there(format in format(), messages in messages()) {
        let Ok(program) = compile(&format) else { return Ok(()) };
        let mut there = Screen::new(&program, ChannelState::complete());
        for end in 1..=messages.len() {
            let expected = there.apply(&messages[end - 1]).unwrap();
            let (last, before) = tail(&program, &messages[..end]).split_last().unwrap();
            let mut folded = Screen::new(&program, ChannelState::complete());
            for message in before {
                folded.apply(message).unwrap().ok();
            }
            let real = folded.apply(last).unwrap();
            folded.assert_agrees(&real, &there, &expected)?;
        }
    }

    #[test]
    fn an_unknown_past_decides_only_what_it_can_not_change(format in format(), messages in messages()) {
        let Ok(program) = compile(&format) else { return Ok(()) };
        for start in 0..messages.len() {
            let mut there = Screen::new(&program, ChannelState::complete());
            for message in &messages[..start] {
                there.apply(message).unwrap().ok();
            }
            let mut unknown = Screen::new(&program, ChannelState::default());
            for message in &messages[start..] {
                let expected = there.apply(message).unwrap();
                let before = format!("{:?}", unknown.state);
                let Ok(real) = unknown.apply(message) else {
                    prop_assert_eq!(format!("{:?}", unknown.state), before);
                    break;
                };
                unknown.assert_agrees(&real, &there, &expected)?;
            }
        }
    }
}

#[test]
fn the_usual_message_is_decided_without_a_tail() {
    for (format, time, decided) in [
        ("", -3_600_000, true),
        ("delivery: {policy: Every}\n", -3_600_000, true),
        ("timestamp: {pointer: /ts, unit: Milliseconds}\n", -1_000, true),
        ("timestamp: {pointer: /ts, unit: Milliseconds}\n", 3_600_000, true),
        ("timestamp: {pointer: /ts, unit: Milliseconds}\n", -1_001, false),
        ("timestamp: {pointer: /ts, unit: Milliseconds}\ndelivery: {policy: Every}\n", -999, true),
        ("timestamp: {pointer: /ts, unit: Milliseconds}\ndelivery: {policy: Every}\n", -1_001, false),
        ("timestamp: {pointer: /ts, unit: Milliseconds}\ndelivery: {policy: Every}\n", -2_000, true),
        ("record: {}\n", 0, false),
    ] {
        let format = format!("codec: JSON\n{format}fields: [{{name: x, pointer: /x, type: Number}}]");
        let mut channel = Channel::new(&format);
        channel.state = ChannelState::default();
        // What can't be read is nothing that the past could change.
        if !channel.program.is_record() {
            assert_eq!(channel.apply("?"), Err(DropReason::Malformed));
        }
        let applied = channel.try_apply(format!(r#"{{"ts":{},"x":1}}"#, NOW_MS + time));
        assert_eq!(applied.is_ok(), decided, "{format} {time}");
    }
}

#[test]
fn the_past_becomes_known_by_itself() {
    let format = "codec: JSON
timestamp: {pointer: /ts, unit: Milliseconds}
fields: [{name: x, pointer: /x, type: Number}]";
    let late = |stored_ms: i64| format!(r#"{{"ts":{},"x":1}}"#, NOW_MS + stored_ms - 3_600_000);
    let mut channel = Channel::new(format);
    channel.state = ChannelState::default();
    assert_eq!(channel.apply("?"), Err(DropReason::Malformed));
    channel.stored_at = at(60_000);
    assert_eq!(channel.try_apply(late(60_000)), Err(NeedsTail));
    assert!(channel.apply_at(60_001, late(60_001)).is_ok());

    let mut channel = Channel::new(format);
    channel.state = ChannelState::default();
    for _ in 0..511 {
        assert_eq!(channel.apply("?"), Err(DropReason::Malformed));
    }
    assert_eq!(channel.try_apply(late(0)), Err(NeedsTail));
    assert_eq!(channel.apply("?"), Err(DropReason::Malformed));
    assert!(channel.state.is_complete() && channel.apply(late(0)).is_ok());
}

#[test]
fn how_far_is_looked_back() {
    for (format, seconds, remembers) in [
        ("fields: [{name: x, pointer: /x, type: Number, onChange: true}]", Some(60), false),
        (
            "timestamp: {pointer: /ts, unit: Seconds}\nfields: [{name: x, pointer: /x, type: Number}]",
            Some(60),
            false,
        ),
        ("delivery: {policy: Every}\nfields: [{name: x, pointer: /x, type: Number}]", Some(60), false),
        (
            "delivery: {policy: Every}
timestamp: {pointer: /ts, unit: Seconds}
fields: [{name: x, pointer: /x, type: Number}]",
            Some(60),
            true,
        ),
        (
            "delivery: {policy: Every}\nfields: [{name: x, pointer: /x, type: Number, onChange: true}]",
            None,
            true,
        ),
        ("record: {expireFieldsMs: 1000}\nfields: [{name: x, pointer: /x, type: Number}]", Some(60), false),
    ] {
        let program = compile(&format!("codec: JSON\n{format}")).unwrap();
        assert_eq!(program.look_back().map(|back| back.as_secs()), seconds, "{format}");
        assert_eq!(program.remembers(), remembers, "{format}");
    }
}
