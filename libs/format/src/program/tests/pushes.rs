use super::*;

/// Applies the values of `x` in order and returns those that are pushed.
fn pushed(field: &str, raws: &[&str]) -> Vec<String> {
    let mut channel = Channel::with_fields(field);
    let mut pushed = Vec::new();
    for (at, raw) in raws.iter().enumerate() {
        channel.stored_at = Timestamp(i64::try_from(at).unwrap());
        match channel.apply(raw) {
            Ok(values) => pushed.push(values),
            Err(dropped) => assert_eq!(dropped, DropReason::Unchanged, "{raw}"),
        }
    }
    pushed
}

#[test]
fn on_change_pushes_changed_values_only() {
    let field = "{name: x, pointer: /x, type: Bool, onChange: true}, \
                 {name: y, pointer: /y, type: String, onChange: true}";
    let raws = [
        r#"{"x":0}"#,
        r#"{"x":false}"#,
        r#"{"x":1}"#,
        r#"{"x":1,"y":"a"}"#,
        r#"{"x":1,"y":"a"}"#,
        r#"{"x":null,"y":"a"}"#,
        r#"{"y":"a"}"#,
        r#"{"y":"a"}"#,
    ];
    let expected =
        [r#"{"x":false}"#, r#"{"x":true}"#, r#"{"x":true,"y":"a"}"#, r#"{"x":null,"y":"a"}"#, r#"{"y":"a"}"#];
    assert_eq!(pushed(field, &raws), expected);
}

#[test]
fn deadband_counts_from_the_value_last_pushed() {
    let field = "{name: x, pointer: /x, type: Number, scale: 0.1, decimals: 1, deadband: 0.5}";
    let raws = [
        r#"{"x":1819}"#,
        r#"{"x":1823}"#,
        r#"{"x":1824}"#,
        r#"{"x":1820}"#,
        r#"{"x":1819}"#,
        r#"{"x":null}"#,
        r#"{"x":null}"#,
        r#"{"x":1819}"#,
    ];
    assert_eq!(
        pushed(field, &raws),
        [r#"{"x":181.9}"#, r#"{"x":182.4}"#, r#"{"x":181.9}"#, r#"{"x":null}"#, r#"{"x":181.9}"#]
    );
}

#[test]
fn a_slow_drift_is_pushed() {
    let raws: Vec<String> = (0..20).map(|x| format!(r#"{{"x":{x}}}"#)).collect();
    let raws: Vec<&str> = raws.iter().map(String::as_str).collect();
    let field = "{name: x, pointer: /x, type: Number, deadband: 5}";
    assert_eq!(pushed(field, &raws), [r#"{"x":0}"#, r#"{"x":5}"#, r#"{"x":10}"#, r#"{"x":15}"#]);
}

#[test]
fn a_field_without_a_condition_always_causes_a_push() {
    let field = "{name: x, pointer: /x, type: Number, onChange: true}, {name: y, pointer: /y, type: Number}";
    let raws = [r#"{"x":1,"y":1}"#, r#"{"x":1,"y":1}"#, r#"{"x":1}"#, r#"{"x":1}"#, r#"{"x":2}"#];
    let expected = [r#"{"x":1,"y":1}"#, r#"{"x":1,"y":1}"#, r#"{"x":1}"#, r#"{"x":2}"#];
    assert_eq!(pushed(field, &raws), expected);
}

#[test]
fn a_push_for_one_field_stores_the_values_of_the_others() {
    let field = "{name: x, pointer: /x, type: Number, deadband: 5}, \
                 {name: y, pointer: /y, type: Number, onChange: true}";
    let raws = [r#"{"x":0,"y":0}"#, r#"{"x":4,"y":1}"#, r#"{"x":8,"y":1}"#, r#"{"x":9,"y":1}"#];
    assert_eq!(pushed(field, &raws), [r#"{"x":0,"y":0}"#, r#"{"x":4,"y":1}"#, r#"{"x":9,"y":1}"#]);
}

#[test]
fn a_state_starts_anew_with_another_program() {
    let field = "{name: x, pointer: /x, type: Number, onChange: true}";
    let mut before = Channel::with_fields(field);
    assert!(before.apply(r#"{"x":1}"#).is_ok());
    let mut after = Channel::with_fields(field);
    after.state = before.state;
    assert!(after.apply(r#"{"x":1}"#).is_ok());
    assert_eq!(after.apply(r#"{"x":1}"#), Err(DropReason::Unchanged));
}

/// Corner: `Every` with onChange or deadband is compared with the message before it in the stream.
#[test]
fn events_are_compared_with_the_one_before_in_the_stream() {
    let format = |policy: &str, field: &str| {
        Channel::new(&format!(
            "{{codec: JSON, delivery: {{policy: {policy}}}, when: values.x >= 0, fields: [{field}]}}"
        ))
    };
    let run = |mut channel: Channel, raws: &[i32]| -> Vec<i32> {
        let shown = |raw: &&i32| channel.apply(format!(r#"{{"x":{raw}}}"#)).is_ok();
        raws.iter().filter(shown).copied().collect()
    };
    let drift = "{name: x, pointer: /x, type: Number, deadband: 5}";
    let change = "{name: x, pointer: /x, type: Number, onChange: true}";
    assert_eq!(run(format("Every", drift), &[0, 3, 6, 9, 12, 20]), [0, 20]);
    assert_eq!(run(format("Latest", drift), &[0, 3, 6, 9, 12, 20]), [0, 6, 12, 20]);
    // The filtered one is the one before.
    assert_eq!(run(format("Every", change), &[1, -1, 1, 1]), [1, 1]);
    assert_eq!(run(format("Latest", change), &[1, -1, 1, 1]), [1]);
}

/// Only what is in the tail is compared with: a replay may start there.
#[test]
fn an_event_before_the_tail_is_not_compared_with() {
    for (policy, expected) in [("Every", Ok(())), ("Latest", Err(DropReason::Unchanged))] {
        let mut channel = Channel::new(&format!(
            "{{codec: JSON, delivery: {{policy: {policy}}}, \
             fields: [{{name: x, pointer: /x, type: Number, onChange: true}}]}}"
        ));
        assert!(channel.apply(r#"{"x":1}"#).is_ok());
        for _ in 0..510 {
            assert_eq!(channel.apply("?"), Err(DropReason::Malformed));
        }
        let mut later = channel.state.clone();
        assert_eq!(channel.apply(r#"{"x":1}"#), Err(DropReason::Unchanged));
        std::mem::swap(&mut later, &mut channel.state);
        assert_eq!(channel.apply("?"), Err(DropReason::Malformed));
        assert_eq!(channel.apply(r#"{"x":1}"#).map(drop), expected, "{policy}");
    }
}
