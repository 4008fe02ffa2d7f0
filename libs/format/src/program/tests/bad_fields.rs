use super::*;

#[test]
fn a_field_that_is_there_and_can_not_be_read_is_null_and_named() {
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
        (number, "NaN"),
        (number, "-Infinity"),
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
        (string, "nan"),
        (bool, "2"),
        (bool, r#""true""#),
        (bool, "[]"),
        (word, "5"),
        (word, r#""Run""#),
        (word, "false"),
        (word, "Infinity"),
        (word, "{}"),
    ] {
        let mut channel = Channel::with_fields(&format!("{field}, {{name: y, pointer: /y, type: Bool}}"));
        let payload = format!(r#"{{"x":{raw},"y":true}}"#);
        assert_eq!(channel.apply_alone(&payload), Ok((r#"{"x":null,"y":true}"#.into(), 1)), "{payload}");
        let bad: serde_json::Value = serde_json::from_str(channel.bad()).unwrap();
        let told = bad["x"].as_str().unwrap();
        assert!(!told.is_empty() && told.chars().count() <= 64, "{payload}: {told}");
    }
}

#[test]
fn bad_texts_are_short_and_escaped() {
    let fields = "{name: x, pointer: /x, type: Number}, {name: y, pointer: /y, type: Number}";
    let mut channel = Channel::with_fields(fields);
    for (raw, told) in [
        ("7", None),
        (r#""unavailable""#, Some(r#""unavailable""#)),
        (r#""a\"b\n\u0001é""#, Some(r#""a\"b\n\u0001é""#)),
        (r#""\ud800x""#, Some(r#""\\ud800x""#)),
        (r#"[1, {"a":2}]"#, Some(r#""[1, {\"a\":2}]""#)),
        ("-nan", Some(r#""-nan""#)),
    ] {
        assert!(channel.apply(format!(r#"{{"x":{raw}}}"#)).is_ok());
        let expected = told.map_or(String::new(), |told| format!(r#"{{"x":{told}}}"#));
        assert_eq!(channel.bad(), expected, "{raw}");
    }
    for (character, written) in [("é", "é"), ("\\u00e9", "é"), ("\\\\", "\\\\"), ("\\ud83d\\ude00", "😀")]
    {
        channel.apply(format!(r#"{{"x":"{}","y":[]}}"#, character.repeat(1000))).unwrap();
        assert_eq!(channel.values(), r#"{"x":null,"y":null}"#);
        assert_eq!(channel.bad(), format!(r#"{{"x":"{}…","y":"[]"}}"#, written.repeat(63)));
    }
}

#[test]
fn a_bare_nan_costs_its_own_field_only() {
    let mut channel = Channel::with_fields(
        "{name: speed, pointer: /d/speed, type: Number}, {name: st, pointer: /d/st, type: Number}",
    );
    for word in ["NaN", "nan", "-nan", "Infinity", "-Infinity", "inf", "-inf"] {
        let payload = format!(r#"{{"more":[{word},{{"a":{word}}}],"d":{{"speed": {word} ,"st":2}}}}"#);
        let applied = channel.apply_in_full(payload);
        assert_eq!(channel.values(), r#"{"speed":null,"st":2}"#);
        assert_eq!(channel.bad(), format!(r#"{{"speed":"{word}"}}"#));
        assert_eq!((applied.skipped_fields, applied.problem), (1, Some(ProblemReason::BadField)));
    }
    // A time isn't such a number.
    let mut timed = Channel::new(
        "codec: JSON
timestamp: {pointer: /ts, unit: Seconds}
fields: [{name: x, pointer: /x, type: Number}]",
    );
    assert_eq!(timed.apply(r#"{"ts":NaN,"x":1}"#), Err(DropReason::BadTimestamp));
}

#[test]
fn an_enum_has_a_word_for_all_others() {
    let mut channel = Channel::with_fields(
        "{name: st, pointer: /st, type: Enum, values: {'0': stopped, '1': running}, otherwise: unknown}",
    );
    for (raw, expected) in [
        ("1", r#""running""#),
        ("7", r#""unknown""#),
        (r#""off""#, r#""unknown""#),
        ("true", r#""unknown""#),
        ("NaN", r#""unknown""#),
        ("{}", r#""unknown""#),
        ("null", "null"),
    ] {
        let applied = channel.apply_in_full(format!(r#"{{"st":{raw}}}"#));
        assert_eq!(channel.values(), format!(r#"{{"st":{expected}}}"#));
        assert_eq!((channel.bad(), applied.problem), ("", None), "{raw}");
    }
    let errors = compile("{codec: JSON, fields: [{name: x, pointer: /x, type: Number, otherwise: a}]}");
    assert!(errors.is_err_and(|errors| errors[0].field == "fields[0].otherwise"));
}

#[test]
fn case_p3_an_unknown_code_is_not_the_old_value() {
    let mut channel =
        Channel::with_fields("{name: st, pointer: /st, type: Enum, values: {'0': stopped, '1': running}}");
    assert_eq!(channel.apply(r#"{"st":1}"#).unwrap(), r#"{"st":"running"}"#);
    assert_eq!(channel.apply(r#"{"st":7}"#).unwrap(), r#"{"st":null}"#);
    assert_eq!(channel.bad(), r#"{"st":"7"}"#);
}

#[test]
fn when_and_expressions_that_need_a_bad_field_do_not_filter() {
    let mut channel = Channel::new(
        r#"
codec: JSON
when: values.a > 0 && (values.b > 0 || values.a > 5)
fields:
  - {name: a, pointer: /a, type: Number}
  - {name: b, pointer: /b, type: Number}
  - {name: sum, expression: values.a + values.b}
  - {name: twice, expression: values.sum * 2}
  - {name: there, expression: has(values.b)}
  - {name: safe, expression: "values.a > 0 || values.b > 0"}
"#,
    );
    // `b` decides and is bad: shown. What is computed from it is null, but not named.
    let values = channel.apply(r#"{"a":1,"b":"x"}"#).unwrap();
    assert_eq!(values, r#"{"a":1,"b":null,"sum":null,"twice":null,"there":true,"safe":true}"#);
    assert_eq!(channel.bad(), r#"{"b":"x"}"#);
    // `a` decides: filtered.
    assert_eq!(channel.apply(r#"{"a":0,"b":"x"}"#), Err(DropReason::Filtered));
    assert!(channel.apply(r#"{"a":6,"b":"x"}"#).is_ok());
    // `b` is absent or null: not true, as before.
    for payload in [r#"{"a":1}"#, r#"{"a":1,"b":null}"#] {
        assert_eq!(channel.apply(payload), Err(DropReason::Filtered), "{payload}");
    }
    let applied = channel.apply_in_full(r#"{"a":0,"b":"x"}"#);
    assert_eq!(applied.problem, Some(ProblemReason::BadField), "also of a message that is filtered");
    assert!(applied.is_understood());
}

#[test]
fn another_bad_text_is_news() {
    let mut channel = Channel::with_fields("{name: x, pointer: /x, type: Number, deadband: 5}");
    for (raw, expected) in [
        ("null", Ok(())),
        (r#""a""#, Ok(())),
        (r#""a""#, Err(DropReason::Unchanged)),
        (r#""b""#, Ok(())),
        ("1", Ok(())),
        ("2", Err(DropReason::Unchanged)),
        ("NaN", Ok(())),
        ("null", Ok(())),
    ] {
        assert_eq!(channel.apply(format!(r#"{{"x":{raw}}}"#)).map(drop), expected, "{raw}");
    }
}
