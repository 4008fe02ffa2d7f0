//! Properties of programs, compared with serde_json and with exact arithmetic.

use proptest::prelude::*;
use serde_json::Value;

use super::super::number::NumberRule;
use super::*;
use flutecast_contract::document::{Codec, DeliveryDocument, FieldDocument, FieldType};

/// A program with each type of field and each option.
const EVERYTHING: &str = r#"
codec: JSON
timestamp: {pointer: /ts, unit: Milliseconds, maxAgeMs: 30000, maxAheadMs: 5000}
delivery: {policy: Every}
when: has(values.number) || true
fields:
  - {name: number, pointer: /d/v, type: Number, scale: 0.1, offset: -3, decimals: 2, deadband: 0.5}
  - {name: plain, pointer: /d/v, type: Number}
  - {name: text, pointer: /d/s, type: String, onChange: true}
  - {name: bool, pointer: /d/0, type: Bool}
  - {name: word, pointer: /d/st, type: Enum, values: {"0": off, "1": on, "true": "yes", "": nothing}}
  - {name: whole, pointer: "", type: String}
  - {name: deep, pointer: /d/a/1/b, type: Number}
  - {name: sum, expression: values.number + values.plain * 2, decimals: 3}
  - {name: both, expression: values.text + values.word}
  - {name: share, expression: values.plain / values.number}
"#;

/// JSON texts with white space, escapes, numbers of all forms and repeated keys.
fn json() -> impl Strategy<Value = String> {
    let key = prop::sample::select(&["d", "v", "s", "0", "1", "st", "a", "b", "ts", "", "\\u0064", "é"][..]);
    let leaf = prop_oneof![
        prop::sample::select(
            &[
                "null",
                "true",
                "false",
                "0",
                "1",
                "-0",
                "-1.5e3",
                "1E-7",
                "1e999",
                "12345678901234567890123",
                "0.1",
                "1795341600000",
                "\"\"",
                "\"1\"",
                "\"on\"",
                "\"\\ud83d\\ude00\"",
                "\"\\ud800\"",
                "\"a\\\"b\\\\\\n\"",
            ][..]
        )
        .prop_map(str::to_owned),
        any::<i64>().prop_map(|number| number.to_string()),
        any::<f64>().prop_map(|number| if number.is_finite() { number.to_string() } else { "0".into() }),
        "[a-z 0-9é]{0,20}".prop_map(|text| format!("\"{text}\"")),
    ];
    let space = prop::sample::select(&["", "", " ", "\n\t"][..]);
    leaf.prop_recursive(5, 40, 6, move |inner| {
        let members = prop::collection::vec((key.clone(), inner.clone()), 0..6);
        prop_oneof![
            (members, space.clone()).prop_map(|(members, space)| {
                let members: Vec<_> =
                    members.iter().map(|(key, value)| format!("{space}\"{key}\"{space}:{value}")).collect();
                format!("{{{}{space}}}", members.join(","))
            }),
            (prop::collection::vec(inner, 0..6), space.clone()).prop_map(|(elements, space)| format!(
                "[{space}{}{space}]",
                elements.join(&format!("{space},"))
            )),
        ]
    })
}

/// Concatenated fragments of JSON, most of them malformed.
fn almost_json() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop::sample::select(
        &[
            "{", "}", "[", "]", ",", ":", "\"", "\"d\"", "\"v\"", "\"a\":", "{\"d\":", "1", "-", "0", "01",
            ".5", "1.", "e", "1e5", "true", "tru", "null", "NaN", " ", "\\", "\\u", "\\ud800", "\u{0}",
            "\u{1f}", "é", "\u{feff}", "//", "'",
        ][..],
    );
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat().into_bytes())
}

/// Asserts that the output is JSON and that each field is written or counted.
fn check_apply(channel: &mut Channel, payload: &[u8]) {
    let applied = channel.apply_in_full(payload);
    if applied.verdict.is_ok() {
        let values: serde_json::Map<String, Value> = serde_json::from_str(&channel.values()).unwrap();
        assert!(!values.is_empty() && values.len() <= channel.program.fields().len());
        if !channel.bad().is_empty() {
            let bad: serde_json::Map<String, Value> = serde_json::from_str(channel.bad()).unwrap();
            assert!(bad.keys().all(|name| values[name].is_null()), "{bad:?} {values:?}");
            assert!(bad.len() <= applied.skipped_fields as usize);
        }
    }
    let problems = channel.program.explain(channel.message(payload), applied.verdict.err(), &channel.state);
    assert_eq!(problems.first().map(|problem| problem.reason), applied.problem, "{problems:?}");
    assert!(problems.is_sorted_by_key(|problem| problem.reason), "{problems:?}");
    for problem in problems {
        assert!(!problem.sentence().is_empty() && problem.sentence().len() < 2_000);
        let found = problem.found.unwrap_or_default();
        assert!(found.chars().count() <= 64 && !found.contains(char::is_control), "{found:?}");
    }
}

fn fields_of_each_type() -> Vec<FieldDocument> {
    let field = |name: &str, pointer: &str, kind| FieldDocument {
        name: name.into(),
        pointer: Some(pointer.into()),
        kind: Some(kind),
        ..FieldDocument::default()
    };
    let mut word = field("word", "/d/st", FieldType::Enum);
    word.values = [("0", "off"), ("1", "on"), ("true", "yes"), ("", "nothing"), ("on", "ON")]
        .map(|(raw, word)| (raw.to_owned(), word.to_owned()))
        .into();
    vec![
        field("number", "/d/v", FieldType::Number),
        field("text", "/d/s", FieldType::String),
        field("bool", "/d/0", FieldType::Bool),
        word,
        field("deep", "/d/a/1", FieldType::Number),
    ]
}

fn format_of(fields: Vec<FieldDocument>) -> FormatDocument {
    let delivery = DeliveryDocument::default();
    FormatDocument { codec: Codec::Json, timestamp: None, delivery, record: None, when: None, fields }
}

/// Returns the expected values, and the number of skipped fields.
fn reference_values(document: &Value, fields: &[FieldDocument]) -> (serde_json::Map<String, Value>, u32) {
    let (mut values, mut skipped) = (serde_json::Map::new(), 0);
    for field in fields {
        let Some(raw) = document.pointer(field.pointer.as_ref().unwrap()) else { continue };
        match reference_value(field, raw) {
            Some(value) => drop(values.insert(field.name.clone(), value)),
            None => {
                skipped += 1;
                values.insert(field.name.clone(), Value::Null);
            }
        }
    }
    (values, skipped)
}

fn reference_value(field: &FieldDocument, raw: &Value) -> Option<Value> {
    match (field.kind.unwrap(), raw) {
        (_, Value::Null) => Some(Value::Null),
        (FieldType::Number, Value::Number(_)) => Some(raw.clone()),
        // Space around a number is not part of it; serde_json would skip it.
        (FieldType::Number, Value::String(text)) if text.trim() == text => {
            serde_json::from_str(text).ok().filter(Value::is_number)
        }
        (FieldType::String, Value::String(_)) | (FieldType::Bool, Value::Bool(_)) => Some(raw.clone()),
        (FieldType::Bool, Value::Number(number)) => match number.as_f64() {
            Some(0.0) if number.to_string() != "-0.0" => Some(Value::Bool(false)),
            Some(1.0) => Some(Value::Bool(true)),
            _ => None,
        },
        (FieldType::Enum, Value::String(_) | Value::Bool(_) | Value::Number(_)) => {
            let text = raw.as_str().map_or_else(|| raw.to_string(), str::to_owned);
            field.values.get(&text).map(|word| Value::String(word.clone()))
        }
        _ => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_cause_no_panic(
        payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..64), 1..4),
    ) {
        let mut channel = Channel::new(EVERYTHING);
        for payload in payloads {
            check_apply(&mut channel, &payload);
        }
    }

    #[test]
    fn damaged_json_causes_no_panic(
        json in json(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut payload = format!(r#"{{"ts":{NOW_MS},"d":{json}}}"#).into_bytes();
        for (at, byte) in damage {
            let at = at.index(payload.len());
            payload[at] = byte;
        }
        let mut channel = Channel::new(EVERYTHING);
        check_apply(&mut channel, &payload);
        check_apply(&mut channel, &payload[..cut.index(payload.len() + 1)]);
    }

    #[test]
    fn json_is_accepted_as_by_serde_json(
        whole in json(),
        pieces in almost_json(),
        bytes in prop::collection::vec(any::<u8>(), 0..12),
    ) {
        let pointers = crate::json::Pointers::new(&[]);
        let ours = |payload: &[u8]| pointers.find(payload, &mut crate::json::Matches::default()).is_ok();
        let theirs = |payload: &[u8]| {
            // serde_json doesn't check the UTF-8 of ignored values, and doesn't know `NaN`.
            std::str::from_utf8(payload).is_ok_and(|text| {
                serde_json::from_str::<serde::de::IgnoredAny>(&text.replace("NaN", "[]")).is_ok()
            })
        };
        prop_assert!(ours(whole.as_bytes()), "{}", whole);
        prop_assert_eq!(ours(&pieces), theirs(&pieces), "{}", String::from_utf8_lossy(&pieces));
        prop_assert_eq!(ours(&bytes), theirs(&bytes));
    }

    #[test]
    fn pointers_refer_to_the_same_values_as_in_serde_json(
        json in json(),
        pointers in prop::collection::vec(
            prop::collection::vec(
                prop::sample::select(&["d", "v", "0", "1", "2", "a", "st", "", "é", "01"][..]),
                0..4,
            ),
            1..8,
        ),
    ) {
        // serde_json refuses numbers that aren't finite, and single surrogates.
        let Ok(document) = serde_json::from_str::<Value>(&json) else { return Ok(()) };
        let pointers: Vec<String> = pointers
            .iter()
            .map(|tokens| tokens.iter().map(|token| format!("/{token}")).collect())
            .collect();
        let ours = pointers.iter().map(|pointer| pointer.parse().unwrap());
        let tree = crate::json::Pointers::new(&ours.collect::<Vec<crate::json::Pointer>>());
        let mut found = crate::json::Matches::default();
        let text = tree.find(json.as_bytes(), &mut found).unwrap();
        for (at, pointer) in pointers.iter().enumerate() {
            use crate::json::RawValue as Ours;
            let ours = tree.value_at(at, text, &found).map(|value| match value {
                Ours::Null => Value::Null,
                Ours::Bool(bool) => Value::Bool(bool),
                Ours::Number(raw) | Ours::Container(raw) => serde_json::from_str(raw).unwrap(),
                Ours::NotFinite(word) => unreachable!("{word} is not in {json}"),
                Ours::String(text) => Value::String(text.resolve(&mut String::new()).unwrap().to_owned()),
            });
            prop_assert_eq!(ours.as_ref(), document.pointer(pointer), "{} in {}", pointer, json);
        }
    }

    #[test]
    fn elements_are_returned_without_surrounding_space(
        elements in prop::collection::vec(json(), 0..6),
        space in "[ \n\t]{0,2}",
    ) {
        let array = format!("{space}[{space}{}{space}]{space}", elements.join(&format!("{space},{space}")));
        let ours: Vec<&str> = crate::json::elements(&array).collect();
        let theirs: Vec<&str> = elements.iter().map(|element| element.trim()).collect();
        prop_assert_eq!(ours, theirs);
    }

    /// Compares the values with those of another implementation, which builds a document.
    #[test]
    fn values_are_those_of_a_reference(json in json()) {
        let payload = format!(r#"{{"d":{json}}}"#);
        let Ok(document) = serde_json::from_str::<Value>(&payload) else { return Ok(()) };
        let fields = fields_of_each_type();
        let (expected, skipped) = reference_values(&document, &fields);
        let program = Program::compile(&format_of(fields)).unwrap();
        let mut output = Output::default();
        let message = Message { payload: payload.as_bytes(), stored_at: Timestamp(0), captured_at: None };
        let applied = program.apply(message, &mut ChannelState::complete(), &mut output).unwrap();
        match applied.verdict {
            Ok(_) => {
                let values: serde_json::Map<String, Value> = serde_json::from_slice(&output.values).unwrap();
                let names = values.keys().collect::<Vec<_>>();
                prop_assert_eq!(names, expected.keys().collect::<Vec<_>>(), "{}", json);
                for (name, value) in &values {
                    // 1e2 is written as 100.
                    let same_number = value.is_number() && value.as_f64() == expected[name].as_f64();
                    let same = value == &expected[name] || same_number;
                    prop_assert!(same, "{}: {} is not {} in {}", name, value, expected[name], json);
                }
                prop_assert_eq!(applied.skipped_fields, skipped, "{}", json);
            }
            Err(reason) => {
                prop_assert!(reason == DropReason::NoFields && expected.is_empty(), "{:?} {}", reason, json);
            }
        }
    }

    #[test]
    fn numbers_are_scaled_exactly_and_rounded_half_away_from_zero(
        raw in -1_000_000_000_i64..1_000_000_000,
        raw_decimals in 0..4_u32,
        scale in -100_000_i64..100_000,
        scale_decimals in 0..6_u32,
        offset in -100_000_i64..100_000,
        decimals in prop::option::of(0..=9_u8),
    ) {
        prop_assume!(scale != 0);
        let decimal = |value: i64, decimals: u32| {
            let digits = format!("{:0width$}", value.unsigned_abs(), width = decimals as usize + 1);
            let (whole, fraction) = digits.split_at(digits.len() - decimals as usize);
            let (sign, point) = (if value < 0 { "-" } else { "" }, if decimals == 0 { "" } else { "." });
            format!("{sign}{whole}{point}{fraction}")
        };
        let rule = NumberRule::new(
            Some(decimal(scale, scale_decimals).parse().unwrap()),
            Some(decimal(offset, 2).parse().unwrap()),
            decimals,
        );
        let mut out = Vec::new();
        prop_assert!(rule.write(&decimal(raw, raw_decimals), &mut out));
        // All in units of 10^-9: raw × scale has at most 8 decimals.
        let unit = 9 - raw_decimals - scale_decimals;
        let scaled = i128::from(raw) * i128::from(scale) * 10_i128.pow(unit);
        let exact = scaled + i128::from(offset) * 10_i128.pow(7);
        let step = 10_i128.pow(9 - u32::from(decimals.unwrap_or(9)));
        let rounded = (exact.abs() + step / 2) / step * step * exact.signum();
        let (whole, fraction) = (rounded.abs() / 1_000_000_000, rounded.abs() % 1_000_000_000);
        let mut expected = format!("{}{whole}.{fraction:09}", if rounded < 0 { "-" } else { "" });
        expected.truncate(expected.trim_end_matches('0').trim_end_matches('.').len());
        // Beyond 17 digits a double can't tell the difference.
        if rounded.to_string().trim_end_matches('0').len() <= 17 {
            prop_assert_eq!(String::from_utf8(out).unwrap(), expected);
        } else {
            let shown: f64 = String::from_utf8(out).unwrap().parse().unwrap();
            let expected: f64 = expected.parse().unwrap();
            prop_assert!((shown - expected).abs() <= expected.abs() * 1e-15);
        }
    }

    #[test]
    fn a_number_without_options_keeps_its_value(
        value in any::<f64>(),
        text in "-?(0|[1-9][0-9]{0,40})(\\.[0-9]{1,40})?([eE][+-]?[0-9]{1,3})?",
    ) {
        for raw in [format!("{value:e}"), text] {
            let mut out = Vec::new();
            let written = NumberRule::default().write(&raw, &mut out);
            let Ok(number) = raw.parse::<f64>() else { continue };
            prop_assert_eq!(written, number.is_finite(), "{}", raw);
            if written {
                let out = String::from_utf8(out).unwrap();
                let parsed = serde_json::from_str::<Value>(&out);
                prop_assert!(parsed.is_ok_and(|value| value.is_number()), "{}", out);
                prop_assert_eq!(out.parse::<f64>().unwrap(), number, "{} was written as {}", raw, out);
            }
        }
    }

    #[test]
    fn times_round_trip_in_any_time_zone(
        micros in Timestamp::MIN.0..=Timestamp::MAX.0,
        minutes in -1439..=1439_i64,
    ) {
        let mut text = Vec::new();
        Timestamp(micros).to_rfc3339(&mut text);
        let text = String::from_utf8(text).unwrap();
        prop_assert_eq!(Timestamp::from_rfc3339(&text), Some(Timestamp(micros)));
        // jiff parses the same time, and the time with an offset is the same one.
        let theirs: jiff::Timestamp = text.parse().unwrap();
        prop_assert_eq!(theirs.as_microsecond(), micros);
        let local = theirs.as_microsecond() + minutes * 60_000_000;
        prop_assume!((Timestamp::MIN.0..=Timestamp::MAX.0).contains(&local));
        let mut shifted = Vec::new();
        Timestamp(local).to_rfc3339(&mut shifted);
        let sign = if minutes < 0 { '-' } else { '+' };
        let offset = format!("{sign}{:02}:{:02}", minutes.abs() / 60, minutes.abs() % 60);
        let shifted = String::from_utf8(shifted).unwrap().replace('Z', &offset);
        prop_assert_eq!(Timestamp::from_rfc3339(&shifted), Some(Timestamp(micros)), "{}", shifted);
    }

    #[test]
    fn arbitrary_text_is_no_time_out_of_range(text in "[0-9TtZz:+. -]{0,32}|\\PC{0,24}") {
        if let Some(time) = Timestamp::from_rfc3339(&text) {
            prop_assert!((Timestamp::MIN..=Timestamp::MAX).contains(&time));
        }
    }

    #[test]
    fn any_format_is_compiled_or_refused(
        name in "[a-z]{0,3}|\\PC{0,5}",
        pointer in prop::option::of("(/[a-z~01]{0,3}){0,3}|\\PC{0,8}"),
        expression in prop::option::of(
            "[a-z0-9.()+*/%<>=!&|?:'\"\\[\\] -]{0,30}|values\\.[a-z]{1,3} [-+*/%<>] [0-9]{1,3}",
        ),
        kind in prop::option::of(prop::sample::select(
            &[FieldType::Number, FieldType::Enum, FieldType::Bool, FieldType::String][..],
        )),
        numbers in any::<[Option<f64>; 3]>(),
        decimals in any::<Option<u8>>(),
    ) {
        let [scale, offset, deadband] = numbers;
        let field = FieldDocument {
            name,
            pointer,
            expression,
            kind,
            scale,
            offset,
            deadband,
            decimals,
            ..FieldDocument::default()
        };
        let format = FormatDocument { when: field.expression.clone(), ..format_of(vec![field]) };
        if let Err(errors) = Program::compile(&format) {
            prop_assert!(!errors.is_empty());
            for error in errors {
                let CompileError { field, problem, expected } = error;
                prop_assert!(!field.is_empty() && !problem.is_empty() && !expected.is_empty());
            }
        }
    }
}
