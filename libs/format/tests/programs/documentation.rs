//! The examples of docs/push-formats.md give the results that the page shows.

use flutecast_contract::document::FormatDocument;
use flutecast_contract::duration;
use flutecast_format::program::{ChannelState, Message, Output, Program, Timestamp};
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
        ("record", "expireFields", "expireFieldsMs"),
    ] {
        let Some(part) = spec.get_mut(part).and_then(Value::as_object_mut) else { continue };
        if let Some(duration) = part.remove(from) {
            let millis = duration::parse(duration.as_str().unwrap()).unwrap().as_millis();
            part.insert(to.to_owned(), json!(u64::try_from(millis).unwrap()));
        }
    }
    serde_json::from_value(spec).unwrap()
}

/// An example under way: its messages are stored one second apart.
struct Example {
    program: Program,
    state: ChannelState,
    messages: i64,
    output: Output,
}

impl Example {
    fn new(spec: &str) -> Self {
        let program = Program::compile(&format(spec)).unwrap();
        Self { program, state: ChannelState::complete(), messages: 0, output: Output::default() }
    }

    fn apply(&mut self, payload: &str) {
        let first = Timestamp::from_rfc3339("2026-11-22T10:00:00.123Z").unwrap();
        let stored_at = Timestamp::from_millis(first.as_millis() + self.messages * 1000);
        self.messages += 1;
        let message = Message { payload: payload.as_bytes(), stored_at, captured_at: None };
        let applied = self.program.apply(message, &mut self.state, &mut self.output).unwrap();
        assert!(applied.verdict.is_ok(), "{payload}: {applied:?}");
    }
}

/// Returns the parts of a message that are shown, by the words after their fences.
fn parts(output: &Output) -> [(&'static str, &str); 3] {
    let text = |part| std::str::from_utf8(part).unwrap();
    [("json values", text(&output.values)), ("json bad", text(&output.bad)), ("json at", text(&output.at))]
}

#[test]
fn each_example_has_its_values() {
    let (mut example, mut checked): (Option<Example>, Vec<&str>) = (None, Vec::new());
    let blocks = blocks();
    for (index, (kind, text)) in blocks.iter().enumerate() {
        match *kind {
            "yaml" => example = Some(Example::new(text)),
            "json payload" => example.as_mut().unwrap().apply(text),
            "json values" => {
                let shown: Vec<_> = blocks[index..]
                    .iter()
                    .take_while(|(kind, _)| matches!(*kind, "json values" | "json bad" | "json at"))
                    .map(|(kind, text)| (*kind, text.trim()))
                    .collect();
                let example = example.take().unwrap();
                let real: Vec<_> =
                    parts(&example.output).into_iter().filter(|(_, text)| !text.is_empty()).collect();
                assert_eq!(shown, real);
                checked.extend(shown.iter().map(|(kind, _)| kind));
            }
            _ => {}
        }
    }
    let values = checked.iter().filter(|kind| **kind == "json values").count();
    assert_eq!((values, checked.contains(&"json bad"), checked.contains(&"json at")), (4, true, true));
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
