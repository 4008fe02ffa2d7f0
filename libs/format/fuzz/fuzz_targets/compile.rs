//! Compiles arbitrary formats: text as YAML, and as expression, pointer and name. Programs are applied to a
//! message.

#![no_main]

use flutecast_contract::document::{Codec, DeliveryDocument, FieldDocument, FieldType, FormatDocument};
use flutecast_format::program::{ChannelState, Message, Output, Program, Timestamp};
use libfuzzer_sys::fuzz_target;

const PAYLOAD: &[u8] = br#"{"a":12.5,"b":0,"s":"text \"\u00e9\"","p":true,"n":null,"d":{"e":[1,{"f":-3}]}}"#;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(format) = serde_yaml::from_str::<FormatDocument>(text) {
        check(&format);
    }
    let raw = |name: &str, kind| FieldDocument {
        name: name.into(),
        pointer: Some(format!("/{name}")),
        kind: Some(kind),
        ..FieldDocument::default()
    };
    let mut fields = vec![
        raw("a", FieldType::Number),
        raw("b", FieldType::Number),
        raw("s", FieldType::String),
        raw("p", FieldType::Bool),
        raw("n", FieldType::Number),
    ];
    fields.push(FieldDocument {
        name: "x".into(),
        expression: Some(text.into()),
        ..FieldDocument::default()
    });
    check(&format(fields.clone()));
    fields[5] =
        FieldDocument { name: text.into(), pointer: Some(text.into()), ..raw("x", FieldType::Number) };
    check(&format(fields));
});

fn format(fields: Vec<FieldDocument>) -> FormatDocument {
    FormatDocument {
        codec: Codec::Json,
        timestamp: None,
        delivery: DeliveryDocument::default(),
        record: None,
        when: None,
        fields,
    }
}

fn check(format: &FormatDocument) {
    match Program::compile(format) {
        Ok(program) => {
            let message = Message { payload: PAYLOAD, stored_at: Timestamp(1), captured_at: None };
            let (mut state, mut output) = (ChannelState::complete(), Output::default());
            let applied = program.apply(message, &mut state, &mut output).expect("all is known");
            if applied.verdict.is_ok() {
                let values = serde_json::from_slice::<serde_json::Value>(&output.values).expect("JSON");
                assert!(values.is_object());
            }
            let _ = program.explain(message, applied.verdict.err(), &state);
        }
        Err(errors) => {
            assert!(!errors.is_empty());
            for error in errors {
                assert!(error.to_string().len() < 4096, "{error}");
            }
        }
    }
}
