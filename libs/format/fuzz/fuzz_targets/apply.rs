//! Applies several programs to arbitrary payloads. The first byte chooses the program; messages are separated
//! by a line with `~`.

#![no_main]

use std::sync::LazyLock;

use flutecast_format::json;
use flutecast_format::program::{ChannelState, Message, Program, Timestamp};
use libfuzzer_sys::fuzz_target;

/// 2026-11-22T10:00:00Z.
const NOW: Timestamp = Timestamp(1_795_341_600_000_000);

const FORMATS: [&str; 4] = [
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
];

static PROGRAMS: LazyLock<Vec<Program>> = LazyLock::new(|| {
    let compile = |format: &&str| Program::compile(&serde_yaml::from_str(format).unwrap()).unwrap();
    FORMATS.iter().map(compile).collect()
});

fuzz_target!(|data: &[u8]| {
    let Some((choice, payloads)) = data.split_first() else { return };
    let program = &PROGRAMS[usize::from(*choice) % PROGRAMS.len()];
    let mut state = ChannelState::default();
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
        let newest = state.newest();
        let mut out = b"before".to_vec();
        let applied = program.apply(Message { payload, stored_at, now: NOW }, &mut state, &mut out);
        let values = out.strip_prefix(b"before").expect("what was there stays");
        match applied {
            Ok(applied) => {
                let values: serde_json::Map<String, serde_json::Value> =
                    serde_json::from_slice(values).expect("JSON");
                assert!(!values.is_empty());
                assert!(values.len() + applied.skipped_fields as usize <= program.fields().len());
                assert!(serde_json::from_slice::<serde::de::IgnoredAny>(payload).is_ok());
                assert!(newest.is_none_or(|newest| newest <= applied.time));
                assert_eq!(state.newest(), Some(applied.time));
            }
            Err(_) => assert!(values.is_empty()),
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
        assert!(newest.is_none_or(|newest| state.newest().is_some_and(|now| now >= newest)));
    }
});
