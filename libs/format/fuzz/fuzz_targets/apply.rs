//! Applies several programs to arbitrary payloads. The first byte chooses the program; messages are separated
//! by a line with `~`.

#![no_main]

use std::sync::LazyLock;

use flutecast_format::json;
use flutecast_format::program::{ChannelState, Message, Output, Program, Timestamp};
use libfuzzer_sys::fuzz_target;

/// 2026-11-22T10:00:00Z.
const NOW: Timestamp = Timestamp(1_795_341_600_000_000);

const FORMATS: [&str; 5] = [
    r#"
codec: JSON
timestamp: {pointer: /ts, unit: Milliseconds, maxAgeMs: 30000, maxAheadMs: 5000}
fields:
  - {name: speed, pointer: /d/speed, type: Number, scale: 0.1, decimals: 1, unit: m/min, deadband: 0.5}
  - {name: temp, pointer: /d/tempPreheater1, type: Number, scale: 0.1, offset: -3.5}
  - name: state
    pointer: /d/st
    type: Enum
    values: {"0": stopped, "1": running, "2": threading}
    onChange: true
"#,
    r#"
codec: JSON
timestamp: {pointer: /ts, unit: RFC3339}
delivery: {policy: Every}
when: values.severity != "cleared" || has(values.code)
fields:
  - {name: code, pointer: /code, type: Number}
  - {name: severity, pointer: /severity, type: String}
  - {name: text, pointer: /text, type: String}
  - {name: both, expression: 'values.severity + ": " + values.text'}
"#,
    r#"
codec: JSON
delivery: {policy: Every}
fields:
  - {name: good, pointer: /good, type: Number}
  - {name: total, pointer: /total, type: Number}
  - {name: share, expression: values.good / values.total, decimals: 4, onChange: true}
  - {name: mixed, expression: "math.greatest(values.good, values.total) % 7 + size(string(values.good))"}
  - {name: "on", pointer: /on, type: Bool, onChange: true}
"#,
    r#"
codec: JSON
timestamp: {pointer: "", unit: Seconds}
fields:
  - {name: whole, pointer: "", type: Number, decimals: 9}
  - {name: first, pointer: /0, type: String}
  - {name: key, pointer: /~1~0, type: Bool}
"#,
    r#"
codec: JSON
timestamp: {pointer: /ts, unit: Milliseconds}
record: {merge: true, expireFieldsMs: 60000}
when: values.st != "off" || has(values.v)
fields:
  - {name: v, pointer: /v, type: Number, deadband: 0.5}
  - {name: st, pointer: /st, type: Enum, values: {"0": off, "1": "on"}, onChange: true}
  - {name: other, pointer: /st, type: Enum, values: {"0": off}, otherwise: other}
  - {name: twice, expression: values.v * 2}
"#,
];

static PROGRAMS: LazyLock<Vec<Program>> = LazyLock::new(|| {
    let compile = |format: &&str| Program::compile(&serde_yaml::from_str(format).unwrap()).unwrap();
    FORMATS.iter().map(compile).collect()
});

/// Replaces the words for numbers that aren't finite outside of strings, which serde_json doesn't know.
fn without_words(payload: &[u8]) -> Option<Vec<u8>> {
    let (mut out, mut rest, mut in_string) = (Vec::new(), payload, false);
    while let Some((&byte, after)) = rest.split_first() {
        let words = [&b"NaN"[..], b"nan", b"-nan", b"Infinity", b"-Infinity", b"inf", b"-inf"];
        match words.iter().find(|word| !in_string && rest.starts_with(word)) {
            Some(word) => {
                out.extend_from_slice(b"[]");
                rest = &rest[word.len()..];
                continue;
            }
            None if in_string && byte == b'\\' => {
                out.push(byte);
                out.extend_from_slice(after.get(..1)?);
                rest = &after[1..];
                continue;
            }
            None => in_string ^= byte == b'"',
        }
        out.push(byte);
        rest = after;
    }
    Some(out)
}

fuzz_target!(|data: &[u8]| {
    let Some((choice, payloads)) = data.split_first() else { return };
    let program = &PROGRAMS[usize::from(*choice) % PROGRAMS.len()];
    let mut states = [ChannelState::default(), ChannelState::complete()];
    let mut stored_at = NOW;
    let mut messages: Vec<&[u8]> = vec![];
    let mut rest = payloads;
    while let Some(at) = rest.windows(3).position(|window| window == b"\n~\n") {
        messages.push(&rest[..at]);
        rest = &rest[at + 3..];
    }
    messages.push(rest);
    for payload in messages {
        stored_at.0 += 1;
        let message = Message { payload, stored_at, captured_at: None };
        for state in &mut states {
            check(program, message, state);
        }
        if let Ok(array) = serde_json::from_slice::<Vec<serde_json::Value>>(payload) {
            let array = array.into_iter();
            let elements = json::elements(std::str::from_utf8(payload).expect("UTF-8"));
            assert!(
                elements
                    .map(|element| serde_json::from_str::<serde_json::Value>(element).expect("JSON"))
                    .eq(array)
            );
        }
    }
});

fn check(program: &Program, message: Message<'_>, state: &mut ChannelState) {
    let mut output = Output { values: b"before".to_vec(), bad: b"before".to_vec(), at: b"before".to_vec() };
    let Ok(applied) = program.apply(message, state, &mut output) else {
        assert!(output.values.is_empty());
        return;
    };
    let object = |json: &[u8]| serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(json);
    if let Ok(event) = applied.verdict {
        let values = object(&output.values).expect("JSON");
        assert!(!values.is_empty() && values.len() <= program.fields().len());
        assert!(event.time <= message.stored_at);
        for part in [output.bad, output.at].into_iter().filter(|part| !part.is_empty()) {
            let part = object(&part).expect("JSON");
            assert!(!part.is_empty() && part.keys().all(|name| values.contains_key(name)));
        }
        let known = without_words(message.payload).expect("a string ends");
        assert!(serde_json::from_slice::<serde::de::IgnoredAny>(&known).is_ok());
    } else {
        assert!(output.values.is_empty() && output.bad.is_empty() && output.at.is_empty());
    }
    let problems = program.explain(message, applied.verdict.err(), state);
    assert_eq!(problems.first().map(|problem| problem.reason), applied.problem);
    for problem in problems {
        let found = problem.found.unwrap_or_default();
        assert!(found.chars().count() <= 64 && !found.contains(char::is_control));
    }
}
