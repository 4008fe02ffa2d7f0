use super::*;

/// Applies a message and returns the values and the number of skipped fields.
pub(super) fn alone(fields: &str, payload: impl AsRef<[u8]>) -> Result<(String, u32), DropReason> {
    Channel::with_fields(fields).apply_alone(payload)
}

/// Returns the values of a message of which no field is skipped.
pub(super) fn values(fields: &str, payload: &str) -> String {
    let (values, skipped) = alone(fields, payload).unwrap_or_else(|dropped| panic!("{payload}: {dropped}"));
    assert_eq!(skipped, 0, "{payload}");
    values
}

#[test]
fn the_example_of_the_protocol_has_its_values() {
    let mut channel = Channel::new(
        r#"
        codec: JSON
        timestamp: {pointer: /ts, unit: Milliseconds, maxAgeMs: 30000, maxAheadMs: 5000}
        delivery: {policy: Latest, minIntervalMs: 200}
        fields:
          - {name: speed, pointer: /d/v, type: Number, scale: 0.1, decimals: 1, unit: m/min}
          - {name: state, pointer: /d/st, type: Enum, values: {"0": stopped, "1": running}}
        "#,
    );
    let applied = channel.apply_in_full(format!(r#"{{"ts":{NOW_MS},"d":{{"v":1824,"st":1}}}}"#));
    assert_eq!(channel.values(), r#"{"speed":182.4,"state":"running"}"#);
    let event = Event { time: Timestamp::from_millis(NOW_MS), late: false };
    assert_eq!(applied, Applied { verdict: Ok(event), skipped_fields: 0, problem: None });
    assert_eq!(channel.program.min_interval_ms(), Some(200));
    let speed = &channel.program.fields()[0];
    assert_eq!(
        (speed.name.as_str(), speed.kind, speed.unit.as_deref(), speed.decimals),
        ("speed", "Number", Some("m/min"), Some(1))
    );
}

#[test]
fn raw_values_are_converted_to_the_type_of_the_field() {
    let number = "{name: x, pointer: /x, type: Number}";
    let string = "{name: x, pointer: /x, type: String}";
    let bool = "{name: x, pointer: /x, type: Bool}";
    let word = r#"{name: x, pointer: /x, type: Enum,
        values: {"0": off, "1": on, "true": "yes", "-1": 'say "fault"', run: running}}"#;
    for (field, raw, expected) in [
        (number, "5", "5"),
        (number, "-0.50", "-0.5"),
        (number, r#""12.5""#, "12.5"),
        (number, "12345678901234567890123", "12345678901234567890123"),
        (number, "null", "null"),
        (string, r#""A-1042""#, r#""A-1042""#),
        (string, r#""""#, r#""""#),
        (string, r#""a\"b\\c\/d\u00e9\n\u0001""#, r#""a\"b\\c/dé\n\u0001""#),
        (string, r#""\ud83d\ude00""#, r#""😀""#),
        (string, "null", "null"),
        (bool, "true", "true"),
        (bool, "false", "false"),
        (bool, "0", "false"),
        (bool, "1", "true"),
        (bool, "1.0", "true"),
        (bool, "null", "null"),
        (word, "0", r#""off""#),
        (word, "1.0", r#""on""#),
        (word, r#""1""#, r#""on""#),
        (word, r#""r\u0075n""#, r#""running""#),
        (word, "true", r#""yes""#),
        (word, "-1", r#""say \"fault\"""#),
        (word, "null", "null"),
    ] {
        assert_eq!(values(field, &format!(r#"{{"x":{raw}}}"#)), format!(r#"{{"x":{expected}}}"#), "{raw}");
    }
}

#[test]
fn missing_fields_are_left_out_and_not_counted() {
    let fields = "{name: x, pointer: /d/x/0, type: Number}, {name: y, pointer: /y, type: Bool}";
    for payload in [
        r#"{"y":true}"#,
        r#"{"y":true,"d":null}"#,
        r#"{"y":true,"d":5}"#,
        r#"{"y":true,"d":{}}"#,
        r#"{"y":true,"d":{"x":[]}}"#,
        r#"{"y":true,"d":[{"x":[1]}]}"#,
        r#"{"y":true,"d":{"X":[1]}}"#,
    ] {
        assert_eq!(alone(fields, payload), Ok((r#"{"y":true}"#.into(), 0)), "{payload}");
    }
    assert_eq!(alone(fields, "[1,2]"), Err(DropReason::NoFields));
}

#[test]
fn payloads_other_than_json_are_malformed() {
    let deep = format!("{}1{}", "[".repeat(129), "]".repeat(129));
    let deeper = "[".repeat(100_000);
    let objects = r#"{"a":"#.repeat(100_000);
    for payload in [
        &b""[..],
        b" ",
        b"{",
        b"{\"x\":1",
        b"{\"x\":1}}",
        b"{\"x\":1} 2",
        b"{\"x\":1,}",
        b"{\"x\" 1}",
        b"{x:1}",
        b"{'x':1}",
        b"{\"x\":NaNs}",
        b"{\"x\":+Infinity}",
        b"{\"x\":-NaN}",
        b"{NaN:1}",
        b"{\"x\":+1}",
        b"{\"x\":01}",
        b"{\"x\":1.}",
        b"{\"x\":.5}",
        b"{\"x\":1e}",
        b"{\"x\":-}",
        b"{\"x\":1,\"y\":[1,]}",
        b"{\"x\":1,\"y\":[,1]}",
        b"{\"x\":1,\"y\":\"a\nb\"}",
        b"{\"x\":1,\"y\":\"\\x\"}",
        b"{\"x\":1,\"y\":\"\\u12\"}",
        b"{\"x\":1,\"y\":\"open}",
        b"{\"x\":1,\"y\":tru}",
        b"{\"x\":1,\"y\":truex}",
        b"{\"x\":1]",
        b"[1}",
        b"\xef\xbb\xbf{\"x\":1}",
        b"{\"x\":1,\"y\":\"\xff\"}",
        b"{\"x\":1,\"y\":\"\xed\xa0\x80\"}",
        b"{\"x\":1}\0",
        deep.as_bytes(),
        deeper.as_bytes(),
        objects.as_bytes(),
    ] {
        let shown = String::from_utf8_lossy(&payload[..payload.len().min(40)]).into_owned();
        assert_eq!(
            alone("{name: x, pointer: /x, type: Number}", payload),
            Err(DropReason::Malformed),
            "{shown}"
        );
    }
    let just_deep_enough = format!(r#"{{"x":1,"y":{}1{}}}"#, "[".repeat(127), "]".repeat(127));
    assert_eq!(values("{name: x, pointer: /x, type: Number}", &just_deep_enough), r#"{"x":1}"#);
}

#[test]
fn control_characters_are_malformed_wherever_they_stand() {
    let fields = "{name: x, pointer: /x, type: String}";
    for length in 0..24 {
        for at in 0..length {
            for control in 0..0x20_u8 {
                let mut text = vec![b'a'; length];
                text[at] = control;
                let payload = [&b"{\"x\":\""[..], &text, b"\"}"].concat();
                assert_eq!(
                    alone(fields, payload),
                    Err(DropReason::Malformed),
                    "{control:#x} at {at} of {length}"
                );
            }
        }
        let payload = format!(r#"{{"x":"{}"}}"#, "a".repeat(length));
        assert_eq!(values(fields, &payload), payload);
    }
}

#[test]
fn the_last_value_of_a_repeated_key_counts() {
    let fields = "{name: x, pointer: /d/x, type: Number}, {name: y, pointer: /d/y, type: Number}";
    assert_eq!(values(fields, r#"{"d":{"x":1,"x":2}}"#), r#"{"x":2}"#);
    assert_eq!(values(fields, r#"{"d":{"x":1},"d":{"y":2}}"#), r#"{"y":2}"#);
    assert_eq!(alone(fields, r#"{"d":{"x":1},"d":3}"#), Err(DropReason::NoFields));
    assert_eq!(values(fields, r#"{"d":3,"d":{"x":1}}"#), r#"{"x":1}"#);
}

#[test]
fn pointers_reach_keys_indexes_and_the_whole() {
    assert_eq!(values("{name: x, pointer: '', type: Number}", "42"), r#"{"x":42}"#);
    assert_eq!(values("{name: x, pointer: /1/b, type: Number}", r#"[0,{"b":7}]"#), r#"{"x":7}"#);
    assert_eq!(values("{name: x, pointer: /1, type: Number}", r#"{"1":7}"#), r#"{"x":7}"#);
    assert_eq!(
        values("{name: x, pointer: /a~1b/m~0n/, type: Number}", r#"{"a/b":{"m~n":{"":7}}}"#),
        r#"{"x":7}"#
    );
    assert_eq!(values("{name: x, pointer: /é, type: Number}", r#"{"\u00e9":7}"#), r#"{"x":7}"#);
    // By RFC 6901, 01 is not an index.
    assert_eq!(alone("{name: x, pointer: /01, type: Number}", "[1,2]"), Err(DropReason::NoFields));
    // Two fields may have the same pointer.
    let twice = "{name: x, pointer: /v, type: Number}, {name: y, pointer: /v, type: Bool}";
    assert_eq!(values(twice, r#"{"v":1}"#), r#"{"x":1,"y":true}"#);
    // A pointer may be a prefix of another one.
    let both = "{name: x, pointer: /v, type: Number}, {name: y, pointer: /v/0, type: Number}";
    assert_eq!(alone(both, r#"{"v":[1]}"#), Ok((r#"{"x":null,"y":1}"#.into(), 1)));
}

#[test]
fn fields_come_in_the_order_of_the_format() {
    let fields = "{name: b, pointer: /b, type: Number}, {name: a, pointer: /a, type: Number}";
    assert_eq!(values(fields, r#"{"a":1,"b":2}"#), r#"{"b":2,"a":1}"#);
}

#[test]
fn labels_are_distinct() {
    let labels: std::collections::BTreeSet<_> =
        DropReason::ALL.iter().map(|dropped| dropped.as_str()).collect();
    assert_eq!(labels.len(), DropReason::ALL.len());
    assert!(labels.iter().all(|label| label.starts_with(|c: char| c.is_ascii_uppercase())));
}
