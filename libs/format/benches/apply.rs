//! The time of a message and its parts, and of other libraries for JSON: `cargo bench -p flutecast-format`.
//!
//! The cases of a group are measured in turns, so that other load on the machine affects all of them; the
//! ratios mean more than the times.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a measurement that fails ends, and prints its result"
)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use flutecast_contract::document::FormatDocument;
use flutecast_format::json::{Matches, Pointer, Pointers};
use flutecast_format::program::{ChannelState, Message, Output, Program, Timestamp};

const ROUNDS: usize = 60;
const ROUND: Duration = Duration::from_millis(10);

/// A message of the demo's corrugator.
const TELEMETRY: &str = concat!(
    r#"{"ts":1795341600123,"d":{"speed":1824,"steamPreheater1":1105,"steamPreheater2":1098,"#,
    r#""steamDoubleBacker":1021,"tempPreheater1":1712,"tempPreheater2":1698,"tempDoubleBacker":1655,"#,
    r#""glueGap":152,"webTension":480,"st":1}}"#
);

const TELEMETRY_POINTERS: [&str; 11] = [
    "/ts",
    "/d/speed",
    "/d/st",
    "/d/webTension",
    "/d/glueGap",
    "/d/steamPreheater1",
    "/d/steamPreheater2",
    "/d/steamDoubleBacker",
    "/d/tempPreheater1",
    "/d/tempPreheater2",
    "/d/tempDoubleBacker",
];

const TELEMETRY_FORMAT: &str = r#"
codec: JSON
timestamp: {pointer: /ts, unit: Milliseconds, maxAgeMs: 3000000, maxAheadMs: 5000}
fields:
  - {name: speed, pointer: /d/speed, type: Number, scale: 0.1, decimals: 1, unit: m/min}
  - name: state
    pointer: /d/st
    type: Enum
    values: {"0": stopped, "1": running, "2": threading}
    onChange: true
  - {name: webTension, pointer: /d/webTension, type: Number, decimals: 0, unit: "N"}
  - {name: glueGap, pointer: /d/glueGap, type: Number, decimals: 0, unit: µm}
  - {name: steamPreheater1, pointer: /d/steamPreheater1, type: Number, scale: 0.01, decimals: 2, unit: bar}
  - {name: steamPreheater2, pointer: /d/steamPreheater2, type: Number, scale: 0.01, decimals: 2, unit: bar}
  - name: steamDoubleBacker
    pointer: /d/steamDoubleBacker
    type: Number
    scale: 0.01
    decimals: 2
    unit: bar
  - {name: tempPreheater1, pointer: /d/tempPreheater1, type: Number, scale: 0.1, decimals: 1, unit: °C}
  - {name: tempPreheater2, pointer: /d/tempPreheater2, type: Number, scale: 0.1, decimals: 1, unit: °C}
  - {name: tempDoubleBacker, pointer: /d/tempDoubleBacker, type: Number, scale: 0.1, decimals: 1, unit: °C}
"#;

const COUNTERS: &str =
    r#"{"deviceId":"q5z4yejnrgbjlj6m","ts":1795341600123,"order":"A-1042","good":123,"total":130}"#;

const COUNTERS_FORMAT: &str = r#"
codec: JSON
timestamp: {pointer: /ts, unit: Milliseconds}
delivery: {policy: Every}
when: values.total > 0.0
fields:
  - {name: order, pointer: /order, type: String}
  - {name: good, pointer: /good, type: Number, decimals: 0}
  - {name: total, pointer: /total, type: Number, decimals: 0}
  - name: efficiency
    expression: "values.total > 0.0 ? values.good / values.total * 100.0 : 0.0"
    decimals: 1
"#;

/// A measured operation.
struct Case<'a> {
    name: &'a str,
    run: Box<dyn FnMut() + 'a>,
    times: Vec<f64>,
}

impl<'a> Case<'a> {
    fn new(name: &'a str, run: impl FnMut() + 'a) -> Self {
        Self { name, run: Box::new(run), times: Vec::new() }
    }

    /// Runs the operation for a round and stores the nanoseconds of a call.
    fn round(&mut self) {
        let start = Instant::now();
        let mut calls = 0;
        while start.elapsed() < ROUND {
            for _ in 0..64 {
                (self.run)();
            }
            calls += 64;
        }
        self.times.push(start.elapsed().as_secs_f64() * 1e9 / f64::from(calls));
    }

    fn median(&mut self) -> f64 {
        self.times.sort_by(f64::total_cmp);
        self.times[self.times.len() / 2]
    }
}

/// Measures the cases in turns and prints their times, and the ratios to the first one.
fn compare(title: &str, mut cases: Vec<Case<'_>>) {
    for _ in 0..ROUNDS {
        cases.iter_mut().for_each(Case::round);
    }
    println!("{title}");
    let first = cases[0].median();
    for case in &mut cases {
        let time = case.median();
        println!("  {:<58} {time:>8.0} ns   {:>5.2} ×", case.name, time / first);
    }
}

/// Reads the same values from the same text with several libraries.
fn extraction(title: &str, text: &str, pointers: &[&str]) {
    let parsed: Vec<Pointer> = pointers.iter().map(|pointer| pointer.parse().unwrap()).collect();
    let tree = Pointers::new(&parsed);
    let mut found = Matches::default();
    let mut sonic_tree = sonic_rs::PointerTree::new();
    for pointer in &parsed {
        sonic_tree.add_path(pointer.tokens());
    }
    let cases = vec![
        Case::new("flutecast: by pointer, all of it checked", move || {
            let text = tree.find(black_box(text.as_bytes()), &mut found).unwrap();
            for at in 0..pointers.len() {
                black_box(tree.value_at(at, text, &found));
            }
        }),
        Case::new("sonic-rs: get_many (checks up to the last value)", || {
            black_box(sonic_rs::get_many(black_box(text.as_bytes()), &sonic_tree).unwrap());
        }),
        Case::new("sonic-rs: get_many, and all of it checked", || {
            sonic_rs::from_slice::<serde::de::IgnoredAny>(black_box(text.as_bytes())).unwrap();
            black_box(sonic_rs::get_many(text, &sonic_tree).unwrap());
        }),
        Case::new("serde_json: Value and its pointer", || {
            let value: serde_json::Value = serde_json::from_slice(black_box(text.as_bytes())).unwrap();
            for pointer in pointers {
                black_box(value.pointer(pointer));
            }
        }),
        Case::new("serde_json: all of it checked, nothing read", || {
            serde_json::from_slice::<serde::de::IgnoredAny>(black_box(text.as_bytes())).unwrap();
        }),
    ];
    compare(title, cases);
}

/// Applies the same payload repeatedly, each time as a new message.
fn application<'a>(name: &'a str, format: &str, payload: &'a str, timed: bool) -> Case<'a> {
    let mut format: FormatDocument = serde_yaml::from_str(format).unwrap();
    if !timed {
        format.timestamp = None;
    }
    let program = Program::compile(&format).unwrap();
    let mut state = ChannelState::complete();
    let mut output = Output { values: Vec::with_capacity(4096), ..Output::default() };
    let mut stored_at = Timestamp::from_millis(1_795_341_600_123);
    Case::new(name, move || {
        stored_at.0 += 1;
        let message = Message { payload: black_box(payload.as_bytes()), stored_at, captured_at: None };
        let _ = black_box(program.apply(message, &mut state, &mut output).unwrap());
    })
}

/// Parses and writes the time of a message.
fn times() {
    const TEXT: &str = "2026-11-22T10:00:00.123Z";
    let mut out = Vec::with_capacity(64);
    let cases = vec![
        Case::new("parsed", || {
            black_box(Timestamp::from_rfc3339(black_box(TEXT)));
        }),
        Case::new("written", move || {
            out.clear();
            black_box(Timestamp(1_795_341_600_123_000)).to_rfc3339(&mut out);
        }),
    ];
    compare("a time in RFC 3339", cases);
}

fn main() {
    extraction("telemetry of the demo, 228 bytes, 11 values of 11", TELEMETRY, &TELEMETRY_POINTERS);
    extraction("the same, 2 values of 11", TELEMETRY, &TELEMETRY_POINTERS[..2]);
    let members: Vec<String> = (0..200)
        .map(|at| format!(r#""signal{at}":{{"value":{at}.25,"quality":"good","unit":"°C"}}"#))
        .collect();
    let large = format!("{{{}}}", members.join(","));
    let title = format!("a gateway's message, {} bytes, 3 values of 600", large.len());
    extraction(&title, &large, &["/signal5/value", "/signal100/value", "/signal199/value"]);
    let record = format!("record: {{expireFieldsMs: 600000}}{TELEMETRY_FORMAT}");
    compare(
        "from payload to values",
        vec![
            application("telemetry: 10 fields", TELEMETRY_FORMAT, TELEMETRY, false),
            application("counters: 3 fields, one computed, when", COUNTERS_FORMAT, COUNTERS, false),
            application("telemetry with its own time", TELEMETRY_FORMAT, TELEMETRY, true),
            application("the same as a record", &record, TELEMETRY, true),
        ],
    );
    times();
}
