use super::*;

/// Applies one message and tells the values and how many fields were skipped.
fn alone(fields: &str, payload: impl AsRef<[u8]>) -> Result<(String, u32), Dropped> {
    Channel::with_fields(fields).apply_alone(payload)
}

/// The values of a message none of whose fields is skipped.
fn values(fields: &str, payload: &str) -> String {
    let (values, skipped) = alone(fields, payload).unwrap_or_else(|dropped| panic!("{payload}: {dropped}"));
    assert_eq!(skipped, 0, "{payload}");
    values
}

#[test]
fn the_example_of_the_protocol() {
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
    let (values, applied) =
        channel.apply_in_full(format!(r#"{{"ts":{NOW_MS},"d":{{"v":1824,"st":1}}}}"#)).unwrap();
    assert_eq!(values, r#"{"speed":182.4,"state":"running"}"#);
    assert_eq!(applied, Applied { time: Timestamp::from_millis(NOW_MS), skipped_fields: 0 });
    assert_eq!(channel.state.newest(), Some(applied.time));
    assert_eq!(channel.program.min_interval_ms(), Some(200));
    let speed = &channel.program.fields()[0];
    assert_eq!(
        (speed.name.as_str(), speed.kind, speed.unit.as_deref(), speed.decimals),
        ("speed", "Number", Some("m/min"), Some(1))
    );
}

#[test]
fn raw_values_become_values() {
    let number = "{name: x, pointer: /x, type: Number}";
    let string = "{name: x, pointer: /x, type: String}";
    let bool = "{name: x, pointer: /x, type: Bool}";
    let word = r#"{name: x, pointer: /x, type: Enum, values: {"0": off, "1": on, "true": "yes", "-1": 'say "fault"', run: running}}"#;
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
fn what_can_not_be_formatted_is_left_out_and_counted() {
    let number = "{name: x, pointer: /x, type: Number}";
    let string = "{name: x, pointer: /x, type: String}";
    let bool = "{name: x, pointer: /x, type: Bool}";
    let word = "{name: x, pointer: /x, type: Enum, values: {'0': off, run: running}}";
    let long = format!("\"{}\"", "x".repeat(4097));
    for (field, raw) in [
        (number, "true"),
        (number, r#""fast""#),
        (number, r#""NaN""#),
        (number, r#"" 1""#),
        (number, r#""0x10""#),
        (number, "1e999"),
        (number, "-1e999"),
        (number, "[1]"),
        (number, r#"{"v":1}"#),
        (string, "1"),
        (string, "false"),
        (string, r#"["a"]"#),
        (string, r#""\ud800""#),
        (string, r#""\udc00\ud800""#),
        (string, r#""\ud800\u0041""#),
        (string, &long),
        (bool, "2"),
        (bool, r#""true""#),
        (bool, "[]"),
        (word, "5"),
        (word, r#""Run""#),
        (word, "false"),
        (word, "{}"),
    ] {
        let payload = format!(r#"{{"x":{raw},"y":true}}"#);
        assert_eq!(alone(field, &payload), Err(Dropped::NoFields), "{payload}");
        let with_another = format!("{field}, {{name: y, pointer: /y, type: Bool}}");
        assert_eq!(alone(&with_another, &payload), Ok((r#"{"y":true}"#.into(), 1)), "{payload}");
    }
}

#[test]
fn what_a_message_does_not_hold_is_left_out_and_not_counted() {
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
    assert_eq!(alone(fields, "[1,2]"), Err(Dropped::NoFields));
}

#[test]
fn what_is_not_json_is_malformed() {
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
        b"{\"x\":NaN}",
        b"{\"x\":Infinity}",
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
            Err(Dropped::Malformed),
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
                    Err(Dropped::Malformed),
                    "{control:#x} at {at} of {length}"
                );
            }
        }
        let payload = format!(r#"{{"x":"{}"}}"#, "a".repeat(length));
        assert_eq!(values(fields, &payload), payload);
    }
}

#[test]
fn of_a_repeated_key_the_last_one_counts() {
    let fields = "{name: x, pointer: /d/x, type: Number}, {name: y, pointer: /d/y, type: Number}";
    assert_eq!(values(fields, r#"{"d":{"x":1,"x":2}}"#), r#"{"x":2}"#);
    assert_eq!(values(fields, r#"{"d":{"x":1},"d":{"y":2}}"#), r#"{"y":2}"#);
    assert_eq!(alone(fields, r#"{"d":{"x":1},"d":3}"#), Err(Dropped::NoFields));
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
    // An index is written as RFC 6901 has it: 01 is no index.
    assert_eq!(alone("{name: x, pointer: /01, type: Number}", "[1,2]"), Err(Dropped::NoFields));
    // Two fields may read the same value.
    let twice = "{name: x, pointer: /v, type: Number}, {name: y, pointer: /v, type: Bool}";
    assert_eq!(values(twice, r#"{"v":1}"#), r#"{"x":1,"y":true}"#);
    // A pointer may lead into what another one points at.
    let both = "{name: x, pointer: /v, type: Number}, {name: y, pointer: /v/0, type: Number}";
    assert_eq!(alone(both, r#"{"v":[1]}"#), Ok((r#"{"y":1}"#.into(), 1)));
}

#[test]
fn fields_come_in_the_order_of_the_format() {
    let fields = "{name: b, pointer: /b, type: Number}, {name: a, pointer: /a, type: Number}";
    assert_eq!(values(fields, r#"{"a":1,"b":2}"#), r#"{"b":2,"a":1}"#);
}

mod stale_filter {
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
    fn time_moves_forward() {
        for policy in ["Latest", "Every"] {
            let mut channel = channel(policy);
            assert!(channel.apply(message(-20, 1)).is_ok());
            assert_eq!(channel.apply(message(-21, 2)), Err(Dropped::OutOfOrder), "{policy}");
            assert_eq!(channel.apply(message(-20, 1)), Err(Dropped::Duplicate), "{policy}");
            assert!(channel.apply(message(-19, 3)).is_ok());
            assert_eq!(channel.state.newest(), Some(Timestamp::from_millis(NOW_MS - 19)));
        }
    }

    #[test]
    fn events_of_one_millisecond_are_told_apart_by_their_payload() {
        let mut every = channel("Every");
        for x in 0..10 {
            assert!(every.apply(message(0, x)).is_ok());
        }
        assert_eq!(every.apply(message(0, 3)), Err(Dropped::Duplicate));
        assert!(every.apply(message(1, 3)).is_ok());
        assert_eq!(every.apply(message(0, 11)), Err(Dropped::OutOfOrder));

        let mut latest = channel("Latest");
        assert!(latest.apply(message(0, 1)).is_ok());
        assert_eq!(latest.apply(message(0, 2)), Err(Dropped::Duplicate));
    }

    #[test]
    fn too_old_and_too_far_ahead_leave_no_trace() {
        let mut channel = channel("Latest");
        assert_eq!(channel.apply(message(-30_001, 1)), Err(Dropped::TooOld));
        assert_eq!(channel.apply(message(5_001, 1)), Err(Dropped::TooFarAhead));
        assert_eq!(channel.state.newest(), None);
        assert!(channel.apply(message(-30_000, 1)).is_ok());
        assert!(channel.apply(message(5_000, 1)).is_ok());
        assert_eq!(channel.apply(message(4_999, 1)), Err(Dropped::OutOfOrder));
    }

    #[test]
    fn a_time_that_can_not_be_read_is_a_bad_timestamp() {
        let mut channel = channel("Latest");
        for ts in ["true", "null", "\"soon\"", "[1]", "{}", "1e40", "-1e15", "\"2026-11-22T10:00:00Z\""] {
            let payload = format!(r#"{{"ts":{ts},"x":1}}"#);
            assert_eq!(channel.apply(&payload), Err(Dropped::BadTimestamp), "{ts}");
        }
        assert_eq!(channel.apply(r#"{"x":1}"#), Err(Dropped::BadTimestamp));
        assert_eq!(channel.state.newest(), None);
    }

    #[test]
    fn without_a_timestamp_the_time_of_storage_counts() {
        for policy in ["Latest", "Every"] {
            let mut channel = Channel::new(&format!(
                "{{codec: JSON, delivery: {{policy: {policy}}}, fields: [{{name: x, pointer: /x, type: Number}}]}}"
            ));
            let mut time_of = |stored_at, payload: &str| {
                channel.stored_at = Timestamp(stored_at);
                channel.apply_in_full(payload).unwrap().1.time
            };
            assert_eq!(time_of(1_000, r#"{"x":1}"#), Timestamp(1_000));
            // Stored in the same microsecond, with the same payload: still two messages.
            assert_eq!(time_of(1_000, r#"{"x":1}"#), Timestamp(1_000));
            assert_eq!(time_of(1_001, r#"{"x":2}"#), Timestamp(1_001));
            // The broker's clock was set back: the message is shown, and time doesn't go back.
            assert_eq!(time_of(999, r#"{"x":3}"#), Timestamp(1_001));
            assert_eq!(time_of(1_002, r#"{"x":4}"#), Timestamp(1_002));
        }
    }

    #[test]
    fn a_message_that_shows_nothing_does_not_move_the_time() {
        let mut channel = channel("Latest");
        assert_eq!(channel.apply(format!(r#"{{"ts":{NOW_MS},"x":"?"}}"#)), Err(Dropped::NoFields));
        assert_eq!(channel.state.newest(), None);
        assert!(channel.apply(message(-1, 1)).is_ok());
    }

    #[test]
    fn another_payload_at_the_newest_time_is_remembered_up_to_a_bound() {
        let mut every = channel("Every");
        for x in 0..1000 {
            assert!(every.apply(message(0, x)).is_ok(), "{x}");
        }
        assert_eq!(every.apply(message(0, 999)), Err(Dropped::Duplicate));
        assert_eq!(every.apply(message(0, 936)), Err(Dropped::Duplicate));
        // Of more than 64 the oldest are forgotten, and shown again rather than lost.
        assert!(every.apply(message(0, 935)).is_ok());
    }
}

mod news {
    use super::*;

    /// Applies the values of `x` one after the other and tells which are pushed.
    fn pushed(field: &str, raws: &[&str]) -> Vec<String> {
        let mut channel = Channel::with_fields(field);
        let mut pushed = Vec::new();
        for (at, raw) in raws.iter().enumerate() {
            channel.stored_at = Timestamp(i64::try_from(at).unwrap());
            match channel.apply(raw) {
                Ok(values) => pushed.push(values),
                Err(dropped) => assert_eq!(dropped, Dropped::Unchanged, "{raw}"),
            }
            assert_eq!(channel.state.newest(), Some(channel.stored_at), "time moves on");
        }
        pushed
    }

    #[test]
    fn on_change() {
        let field = "{name: x, pointer: /x, type: Bool, onChange: true}, {name: y, pointer: /y, type: String, onChange: true}";
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
        let expected = [
            r#"{"x":false}"#,
            r#"{"x":true}"#,
            r#"{"x":true,"y":"a"}"#,
            r#"{"x":null,"y":"a"}"#,
            r#"{"y":"a"}"#,
        ];
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
    fn a_slow_drift_is_noticed() {
        let raws: Vec<String> = (0..20).map(|x| format!(r#"{{"x":{x}}}"#)).collect();
        let raws: Vec<&str> = raws.iter().map(String::as_str).collect();
        let field = "{name: x, pointer: /x, type: Number, deadband: 5}";
        assert_eq!(pushed(field, &raws), [r#"{"x":0}"#, r#"{"x":5}"#, r#"{"x":10}"#, r#"{"x":15}"#]);
    }

    #[test]
    fn a_field_without_a_condition_is_always_a_reason() {
        let field =
            "{name: x, pointer: /x, type: Number, onChange: true}, {name: y, pointer: /y, type: Number}";
        let raws = [r#"{"x":1,"y":1}"#, r#"{"x":1,"y":1}"#, r#"{"x":1}"#, r#"{"x":1}"#, r#"{"x":2}"#];
        let expected = [r#"{"x":1,"y":1}"#, r#"{"x":1,"y":1}"#, r#"{"x":1}"#, r#"{"x":2}"#];
        assert_eq!(pushed(field, &raws), expected);
    }

    #[test]
    fn a_push_for_one_field_renews_what_is_known_of_the_others() {
        let field = "{name: x, pointer: /x, type: Number, deadband: 5}, {name: y, pointer: /y, type: Number, onChange: true}";
        let raws = [r#"{"x":0,"y":0}"#, r#"{"x":4,"y":1}"#, r#"{"x":8,"y":1}"#, r#"{"x":9,"y":1}"#];
        assert_eq!(pushed(field, &raws), [r#"{"x":0,"y":0}"#, r#"{"x":4,"y":1}"#, r#"{"x":9,"y":1}"#]);
    }

    #[test]
    fn a_new_program_pushes_its_first_message() {
        let field = "{name: x, pointer: /x, type: Number, onChange: true}";
        let mut before = Channel::with_fields(field);
        assert!(before.apply(r#"{"x":1}"#).is_ok());
        let mut after = Channel::with_fields(field);
        after.state = before.state;
        assert!(after.apply(r#"{"x":1}"#).is_ok());
        after.stored_at = Timestamp(after.stored_at.0 + 1);
        assert_eq!(after.apply(r#"{"x":1}"#), Err(Dropped::Unchanged));
    }
}

mod expressions {
    use super::*;

    #[test]
    fn computed_fields() {
        let raw = "{name: good, pointer: /good, type: Number}, {name: total, pointer: /total, type: Number}, \
                   {name: text, pointer: /text, type: String}, {name: on, pointer: /on, type: Bool}";
        let payload = r#"{"good":123,"total":130,"text":"say \"hé\"","on":true}"#;
        for (expression, expected) in [
            ("values.good / values.total", "0.9461538461538461"),
            ("values.total - values.good", "7"),
            ("values.total * 2", "260"),
            ("2 * values.total + 1u", "261"),
            ("(values.good + values.total) / 2", "126.5"),
            ("-values.good", "-123"),
            ("values.total % 4", "2"),
            ("values.total > values.good", "true"),
            ("values.total >= 130 && values.on", "true"),
            ("values['good'] == 123", "true"),
            ("values.good == 123.0 ? 'full' : 'part'", r#""full""#),
            ("values.text", r#""say \"hé\"""#),
            ("values.text + '!'", r#""say \"hé\"!""#),
            ("size(values.text) + 1", "9"),
            ("values.text.size()", "8"),
            ("values.text.startsWith('say')", "true"),
            ("values.text.contains('x') || values.text.endsWith('\"')", "true"),
            ("!values.on", "false"),
            ("values.text in ['a', 'b']", "false"),
            ("values.good in [1, 123]", "true"),
            ("has(values.good)", "true"),
            ("int(values.good / 10)", "12"),
            ("double('1.5') + 1", "2.5"),
            ("string(values.good) + ' m'", r#""123 m""#),
            ("math.round(values.good / 10)", "12"),
            ("math.abs(-values.good)", "123"),
            ("math.floor(1.5) + math.ceil(1.5) + math.trunc(1.5) + math.sign(2) + math.sqrt(4)", "7"),
            ("math.greatest(values.good, values.total)", "130"),
            ("math.least(values.good, values.total, 5)", "5"),
            ("math.least(7, values.good)", "7"),
            ("bool('true')", "true"),
            ("null", "null"),
        ] {
            let fields =
                format!("{raw}, {{name: x, expression: {}}}", serde_json::to_string(expression).unwrap());
            let result = values(&fields, payload);
            let (_, x) = result.split_once(r#""x":"#).unwrap_or_else(|| panic!("{expression}: {result}"));
            assert_eq!(x, format!("{expected}}}"), "{expression}");
        }
    }

    #[test]
    fn computed_numbers_are_rounded() {
        let fields =
            "{name: a, pointer: /a, type: Number}, {name: x, expression: values.a / 3.0, decimals: 2}";
        assert_eq!(values(fields, r#"{"a":2}"#), r#"{"a":2,"x":0.67}"#);
        assert_eq!(values(fields, r#"{"a":0}"#), r#"{"a":0,"x":0}"#);
    }

    #[test]
    fn computed_fields_may_use_computed_fields() {
        let fields = "{name: a, pointer: /a, type: Number}, {name: b, expression: values.a * 2}, {name: c, expression: values.b + values.a}";
        assert_eq!(values(fields, r#"{"a":2}"#), r#"{"a":2,"b":4,"c":6}"#);
    }

    #[test]
    fn what_can_not_be_computed_is_left_out_and_counted() {
        let raw = "{name: a, pointer: /a, type: Number}, {name: b, pointer: /b, type: Number}, {name: t, pointer: /t, type: String}";
        for (expression, payload) in [
            ("values.a / values.b", r#"{"a":1,"b":0}"#),
            ("values.a / values.b", r#"{"a":0,"b":0}"#),
            ("values.a / values.b", r#"{"a":1}"#),
            ("values.a / values.b", r#"{"a":1,"b":null}"#),
            ("values.a % values.b", r#"{"a":1,"b":0}"#),
            ("values.a + values.t", r#"{"a":1,"t":"x"}"#),
            ("values.a * 1e308 * 1e308", r#"{"a":1}"#),
            ("double(values.t)", r#"{"t":"NaN"}"#),
            ("int(values.a)", r#"{"a":1e300}"#),
            ("values.a > 'x'", r#"{"a":1}"#),
            ("values.a ? 1 : 2", r#"{"a":1}"#),
            ("math.sqrt(values.a)", r#"{"a":-1}"#),
        ] {
            let fields =
                format!("{raw}, {{name: x, expression: {}}}", serde_json::to_string(expression).unwrap());
            let (values, skipped) = alone(&fields, payload).unwrap();
            assert!(skipped == 1 && !values.contains(r#""x":"#), "{expression}: {values}, {skipped} skipped");
        }
        let long = format!("{raw}, {{name: x, expression: values.t + values.t}}");
        assert_eq!(alone(&long, format!(r#"{{"t":"{}"}}"#, "x".repeat(2049))).unwrap().1, 1);
    }

    #[test]
    fn presence_can_be_asked_for() {
        let fields = "{name: a, pointer: /a, type: Number}, {name: b, pointer: /b, type: Number}, {name: x, expression: 'has(values.b) ? values.b : values.a'}";
        assert_eq!(values(fields, r#"{"a":1,"b":2}"#), r#"{"a":1,"b":2,"x":2}"#);
        assert_eq!(values(fields, r#"{"a":1}"#), r#"{"a":1,"x":1}"#);
    }

    #[test]
    fn the_deepest_expression_is_evaluated_on_a_small_stack() {
        let expressions = [
            format!("{}1", "1 + ".repeat(63)),
            format!("{}true", "true && ".repeat(60)),
            format!("{}1{}", "(1 + ".repeat(23), ")".repeat(23)),
            format!("{}1", "true ? 1 : ".repeat(23)),
            format!("{}1{}", "math.abs(".repeat(23), ")".repeat(23)),
            format!("{}9{}", "9 + (".repeat(10), ")".repeat(10)),
        ];
        for expression in expressions {
            let fields = format!("{{name: x, expression: '{expression}'}}");
            let thread = std::thread::Builder::new().stack_size(256 << 10);
            let result = thread.spawn(move || alone(&fields, r#"{"x":1}"#)).unwrap().join().unwrap();
            assert!(result.is_ok_and(|(_, skipped)| skipped == 0), "{expression}");
        }
    }

    #[test]
    fn when_decides() {
        let mut channel = Channel::new(
            "{codec: JSON, when: values.speed > 0, fields: [{name: speed, pointer: /v, type: Number}, {name: x, pointer: /x, type: Number}]}",
        );
        for (at, (payload, expected)) in [
            (r#"{"v":1}"#, Ok(r#"{"speed":1}"#.to_owned())),
            (r#"{"v":0}"#, Err(Dropped::Filtered)),
            // It can't be evaluated.
            (r#"{"x":1}"#, Err(Dropped::Filtered)),
            (r#"{"v":null}"#, Err(Dropped::Filtered)),
            (r#"{"v":2}"#, Ok(r#"{"speed":2}"#.to_owned())),
        ]
        .into_iter()
        .enumerate()
        {
            channel.stored_at = Timestamp(i64::try_from(at).unwrap());
            assert_eq!(channel.apply(payload), expected, "{payload}");
            assert_eq!(channel.state.newest(), Some(channel.stored_at), "time moves on");
        }
        // What isn't a boolean isn't true.
        let mut channel =
            Channel::new("{codec: JSON, when: values.x, fields: [{name: x, pointer: /x, type: Number}]}");
        assert_eq!(channel.apply(r#"{"x":1}"#), Err(Dropped::Filtered));
    }

    #[test]
    fn a_filtered_message_does_not_count_as_pushed() {
        let mut channel = Channel::new(
            "{codec: JSON, when: values.ok, fields: [{name: x, pointer: /x, type: Number, onChange: true}, {name: ok, pointer: /ok, type: Bool, onChange: true}]}",
        );
        let mut step = |at, payload: &str| {
            channel.stored_at = Timestamp(at);
            channel.apply(payload)
        };
        assert!(step(0, r#"{"x":1,"ok":true}"#).is_ok());
        assert_eq!(step(1, r#"{"x":2,"ok":false}"#), Err(Dropped::Filtered));
        assert_eq!(step(2, r#"{"x":1,"ok":true}"#), Err(Dropped::Unchanged));
    }
}

#[test]
fn labels_are_distinct() {
    let labels: std::collections::BTreeSet<_> = Dropped::ALL.iter().map(|dropped| dropped.as_str()).collect();
    assert_eq!(labels.len(), Dropped::ALL.len());
    assert!(labels.iter().all(|label| label.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')));
}
