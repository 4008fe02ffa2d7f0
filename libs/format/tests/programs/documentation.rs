//! The examples of docs/push-formats.md give the results that the page shows.

use flutecast_contract::document::FormatDocument;
use flutecast_contract::duration;
use flutecast_format::program::{ChannelState, Message, Program, Timestamp};
use serde_json::{Value, json};

const PAGE: &str = include_str!("../../../../docs/push-formats.md");

/// Returns the code blocks as pairs of the words after the fence and the text.
fn blocks() -> Vec<(&'static str, &'static str)> {
    PAGE.split("```").skip(1).step_by(2).map(|block| block.split_once('\n').unwrap()).collect()
}

/// Converts the spec of a PushFormat as the operator does: durations become milliseconds.
fn format(spec: &str) -> FormatDocument {
    let mut spec: Value = serde_yaml::from_str(spec).unwrap();
    spec["codec"] = json!("JSON");
    for (part, from, to) in [
        ("timestamp", "maxAge", "maxAgeMs"),
        ("timestamp", "maxAhead", "maxAheadMs"),
        ("delivery", "minInterval", "minIntervalMs"),
    ] {
        let Some(part) = spec.get_mut(part).and_then(Value::as_object_mut) else { continue };
        if let Some(duration) = part.remove(from) {
            let millis = duration::parse(duration.as_str().unwrap()).unwrap().as_millis();
            part.insert(to.to_owned(), json!(u64::try_from(millis).unwrap()));
        }
    }
    serde_json::from_value(spec).unwrap()
}

#[test]
fn each_example_has_its_values() {
    let now = Timestamp::from_rfc3339("2026-11-22T10:00:00.123Z").unwrap();
    let (mut program, mut payload, mut checked) = (None, None, 0);
    for (kind, text) in blocks() {
        match kind {
            "yaml" => program = Some(Program::compile(&format(text)).unwrap()),
            "json payload" => payload = Some(text),
            "json values" => {
                let message = Message { payload: payload.take().unwrap().as_bytes(), stored_at: now, now };
                let mut out = Vec::new();
                let applied =
                    program.take().unwrap().apply(message, &mut ChannelState::default(), &mut out).unwrap();
                assert_eq!(String::from_utf8(out).unwrap(), text.trim());
                assert_eq!(applied.time, now);
                checked += 1;
            }
            _ => {}
        }
    }
    assert_eq!(checked, 3);
}

#[test]
fn each_error_has_its_message() {
    let spec = "
codec: JSON
fields:
- {name: good, pointer: d.v, type: Number}
- {name: total, pointer: /d, type: Enum}
- {name: share, expression: values.good / values.totl}
";
    let errors = Program::compile(&serde_yaml::from_str(spec).unwrap()).unwrap_err();
    let told: Vec<String> = errors.iter().map(ToString::to_string).collect();
    let (_, text) = blocks().into_iter().find(|(kind, _)| *kind == "text").unwrap();
    assert_eq!(text.lines().collect::<Vec<_>>(), told);
}
