//! The hot path allocates nothing once its buffers have grown.

use flutecast_format::program::{ChannelState, DropReason, Message, Output, Program, Timestamp};

fn program(format: &str) -> Program {
    Program::compile(&serde_yaml::from_str(format).unwrap()).unwrap()
}

/// Applies the messages of `payload`. Returns the allocations of the second half, and how many messages of it
/// were pushed.
fn allocations(program: &Program, payload: impl Fn(i64) -> String) -> (u64, usize) {
    let payloads: Vec<String> = (0..200).map(payload).collect();
    let mut state = ChannelState::default();
    let mut output = Output { values: Vec::with_capacity(4096), ..Output::default() };
    let mut apply = |at: usize| {
        let time = Timestamp(i64::try_from(at).unwrap());
        let message = Message { payload: payloads[at].as_bytes(), stored_at: time, captured_at: None };
        program.apply(message, &mut state, &mut output).unwrap().verdict
    };
    for at in 0..100 {
        let _ = apply(at);
    }
    let mut pushed = 0;
    let counted = allocation_counter::measure(|| {
        for at in 100..200 {
            pushed += usize::from(apply(at).is_ok());
        }
    });
    (counted.count_total, pushed)
}

#[test]
fn allocations_are_counted() {
    let counted = allocation_counter::measure(|| drop(std::hint::black_box(vec![1, 2, 3])));
    assert_eq!(counted.count_total, 1);
}

#[test]
fn telemetry_allocates_nothing() {
    let program = program(
        r#"
codec: JSON
timestamp: {pointer: /ts, unit: Milliseconds}
fields:
  - {name: speed, pointer: /d/speed, type: Number, scale: 0.1, decimals: 1, deadband: 0.5}
  - {name: fine, pointer: /d/fine, type: Number}
  - {name: state, pointer: /d/st, type: Enum, values: {"0": stopped, "1": running}, onChange: true}
  - {name: text, pointer: /d/text, type: String, onChange: true}
  - {name: "on", pointer: /d/on, type: Bool}
"#,
    );
    let payload = |at: i64| {
        let (speed, state, order) = (1_000 + at * 7, at % 2, at % 3);
        format!(
            r#"{{"ts":{at},"more":[1,{{"x":[2]}}],"d":{{"speed":{speed},"fine":1.{at}25,
            "st":{state},"text":"order \u0041-{order} \"x\"","on":{state}}}}}"#
        )
    };
    assert_eq!(allocations(&program, payload), (0, 100));
}

#[test]
fn dropped_messages_allocate_nothing() {
    let program = program(
        r#"
codec: JSON
timestamp: {pointer: /ts, unit: RFC3339}
fields: [{name: speed, pointer: /speed, type: Number, onChange: true}]
"#,
    );
    for (dropped, payload) in [
        (DropReason::Malformed, format!("{{\"a\":{}", "[".repeat(100_000))),
        (DropReason::Malformed, "\u{0}".repeat(1_000)),
        (DropReason::BadTimestamp, r#"{"ts":"yesterday","speed":1}"#.to_owned()),
        (DropReason::NoFields, r#"{"ts":"1970-01-01T00:00:00Z","Speed":1}"#.to_owned()),
    ] {
        assert_eq!(allocations(&program, |_| payload.clone()), (0, 0), "{dropped}");
    }
}

#[test]
fn computed_numbers_allocate_nothing() {
    let program = program(
        r#"
codec: JSON
when: values.total > 0 && has(values.good)
fields:
  - {name: good, pointer: /good, type: Number}
  - {name: total, pointer: /total, type: Number}
  - {name: share, expression: values.good / values.total * 100, decimals: 1}
"#,
    );
    assert_eq!(allocations(&program, |at| format!(r#"{{"good":{at},"total":{}}}"#, at + 7)), (0, 100));
}
