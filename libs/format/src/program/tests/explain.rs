//! What people are told of a message.

use super::*;

/// Applies a message and returns its problems as `reason field place found: sentence`.
fn problems(channel: &mut Channel, payload: impl AsRef<[u8]>) -> Vec<String> {
    let applied = channel.apply_in_full(&payload);
    let message = channel.message(payload.as_ref());
    let problems = channel.program.explain(message, applied.verdict.err(), &channel.state);
    assert_eq!(problems.first().map(|problem| problem.reason), applied.problem);
    let told = |problem: &super::super::Problem| {
        let field = problem.field.as_deref().unwrap_or("-");
        let found = problem.found.as_deref().unwrap_or("-");
        let reason = problem.reason.as_str();
        format!("{reason} {field} {:?} {found}: {}", problem.place, problem.sentence())
    };
    problems.iter().map(told).collect()
}

fn channel(rest: &str) -> Channel {
    Channel::new(&format!(
        "codec: JSON
timestamp: {{pointer: /ts, unit: Milliseconds{rest}}}
fields:
  - {{name: speed, pointer: /d/v, type: Number}}
  - {{name: st, pointer: /st, type: Enum, values: {{'0': stopped, '1': running}}}}"
    ))
}

#[test]
fn a_payload_that_is_not_json_is_placed() {
    let mut channel = Channel::with_fields("{name: x, pointer: /x, type: Number}");
    let deep = "[".repeat(200);
    for (payload, place, part) in [
        (&b""[..], "byte 0", "is empty"),
        (b"{\"ts\":1,", "byte 8", "ends in the middle of an object"),
        (b"{\"x\":[1,2", "byte 9", "ends in the middle of an array"),
        (b"{\"secret\":\"abc", "byte 14", "ends in the middle of an object"),
        (b"\"abc", "byte 4", "ends in the middle of a value"),
        (b"\xef\xbb\xbf{\"x\":1}", "byte 0", "byte-order mark"),
        (b"{\"x\":1}\0", "byte 7", "zero byte"),
        (b"{\"x\":\"\xb8\xd6\"}", "byte 6", "not UTF-8"),
        (b"{\"x\":\"a\nb\"}", "byte 7", "control character"),
        (b"{\"x\":1} {\"x\":2}", "byte 8", "one JSON text"),
        (b"{'secret':1}", "byte 1", "within an object is not JSON"),
        (b"x=1", "byte 0", "one JSON text"),
        (deep.as_bytes(), "byte 128", "nested deeper than 128"),
    ] {
        let shown = String::from_utf8_lossy(payload).into_owned();
        let told = problems(&mut channel, payload);
        let [told] = told.as_slice() else { panic!("{shown}: {told:?}") };
        assert!(told.starts_with(&format!("Malformed - {place:?} -: ")), "{shown}: {told}");
        assert!(told.contains(part) && !told.contains("secret"), "{shown}: {told}");
    }
}

#[test]
fn times_are_explained_with_what_would_be_right() {
    let mut channel = channel(", maxAgeMs: 30000, maxAheadMs: 5000");
    let of = |ts: String| format!(r#"{{"ts":{ts},"d":{{"v":1}}}}"#);
    for (ts, expected) in [
        (
            (NOW_MS - 40_000).to_string(),
            "TooOld - \"/ts\" 1795341560000: its time is 40 s before it was stored; the format's maxAge is \
             30 s; set the device's clock (NTP), or raise maxAge",
        ),
        (
            (NOW_MS + 6_500).to_string(),
            "TooFarAhead - \"/ts\" 1795341606500: its time is 6.5 s after it was stored; the format's \
             maxAhead is 5 s; set the device's clock (NTP), or raise maxAhead",
        ),
        (
            (NOW_MS / 1_000).to_string(),
            "TooOld - \"/ts\" 1795341600: its time is 20758.6 d before it was stored; it is a time of \
             today if it is read as Seconds; correct `unit` in the format's timestamp",
        ),
        (
            "\"2026-11-22T10:00:00Z\"".into(),
            "BadTimestamp - \"/ts\" 2026-11-22T10:00:00Z: it is a time of today if it is read as RFC3339; \
             correct `unit` in the format's timestamp",
        ),
        (
            "\"so\\non\"".into(),
            "BadTimestamp - \"/ts\" so\\non: the format expects a time in unit Milliseconds at \"/ts\", \
             such as 1795341600123",
        ),
    ] {
        assert_eq!(problems(&mut channel, of(ts)), [expected]);
    }
    let missing = problems(&mut channel, r#"{"d":{"v":1}}"#);
    assert!(
        missing[0].starts_with("BadTimestamp - \"/ts\" -: there is nothing where the time"),
        "{missing:?}"
    );
}

#[test]
fn disorder_and_a_clock_ahead_are_explained() {
    let mut channel = channel("");
    let of = |time: i64| format!(r#"{{"ts":{},"d":{{"v":1}}}}"#, NOW_MS + time);
    assert_eq!(
        problems(&mut channel, of(3_600_000)),
        ["ClockAhead - \"/ts\" 1795345200000: its time is 1 h after it was stored; the time of storing is \
          shown instead; set the device's clock (NTP)"]
    );
    assert_eq!(
        problems(&mut channel, of(-90_000)),
        ["OutOfOrder - \"/ts\" 1795341510000: its time is 1.5 min before that of a message of the last \
          minute; policy Latest shows the newest; set the clocks of all that publish on this channel \
          (NTP), or use policy Every"]
    );
}

#[test]
fn fields_are_explained() {
    let mut channel = channel("");
    let told = problems(&mut channel, format!(r#"{{"ts":{},"d":{{"v":"12,5"}},"st":7}}"#, NOW_MS + 2_000));
    assert_eq!(
        told,
        [
            "BadField speed \"/d/v\" 12,5: field speed can't be read; type Number takes a number, or a \
             string that holds just one (with a point)",
            "BadField st \"/st\" 7: field st can't be read; its values have words for 0, 1; add one for \
             this, or a word for all others as `otherwise`",
            "ClockAhead - \"/ts\" 1795341602000: its time is 2 s after it was stored; the time of storing \
             is shown instead; set the device's clock (NTP)",
        ]
    );
    let told = problems(&mut channel, format!(r#"{{"ts":{NOW_MS},"V":1}}"#));
    assert_eq!(
        told,
        ["NoFields - \"\" -: it has none of the format's fields; compare their pointers (/d/v, /st) with a \
          payload"]
    );
    let told = problems(&mut channel, format!(r#"{{"ts":{NOW_MS},"d":{{"v":NaN}}}}"#));
    assert!(
        told[0].ends_with("field speed can't be read; the device has no value for it: look at its sensor")
    );
    assert!(problems(&mut channel, format!(r#"{{"ts":{NOW_MS},"d":{{"v":1}}}}"#)).is_empty());
}

#[test]
fn the_bad_value_that_a_record_keeps_stays_explained() {
    let fields = "{name: a, pointer: /a, type: Number}, {name: b, pointer: /b, type: Number}";
    let mut channel = Channel::with_fields(fields);
    channel.program = compile(&format!("{{codec: JSON, record: {{}}, fields: [{fields}]}}")).unwrap();
    assert_eq!(problems(&mut channel, r#"{"a":"\"x"}"#).len(), 1);
    let told = problems(&mut channel, r#"{"b":1}"#);
    assert_eq!(
        told,
        ["BadField a \"/a\" \"x: field a can't be read; an earlier message had it, and none since has one \
          that can be read"]
    );
    assert!(problems(&mut channel, r#"{"a":1}"#).is_empty());
    // A value that came late is not shown, and is no problem.
    channel.captured_at = Some(at(-60_000));
    assert!(problems(&mut channel, r#"{"a":"x"}"#).is_empty());
}

/// A hint for a wrong pointer: it matched in none of the last 20 messages that had other fields.
#[test]
fn a_pointer_that_matches_nothing_is_a_hint() {
    let fields = "{name: speed, pointer: /d/Speed, type: Number}, {name: st, pointer: /st, type: Number}, \
    {name: twice, expression: values.speed * 2}";
    let mut channel = Channel::with_fields(fields);
    for _ in 0..19 {
        assert!(problems(&mut channel, r#"{"st":1,"d":{"speed":1}}"#).is_empty());
        assert_eq!(problems(&mut channel, r#"{"d":{"speed":1}}"#).len(), 1, "NoFields doesn't count");
        assert_eq!(problems(&mut channel, "?").len(), 1, "nor does what isn't JSON");
    }
    let hint = "FieldNotFound speed \"/d/Speed\" -: the pointer of field speed matched nothing in the last \
                20 messages, which had other fields; compare it with a payload of the device (capitals \
                count)";
    assert_eq!(problems(&mut channel, r#"{"st":1}"#), [hint]);
    assert_eq!(problems(&mut channel, r#"{"st":1}"#), [hint]);
    assert!(problems(&mut channel, r#"{"d":{"Speed":1}}"#).is_empty());
    assert!(problems(&mut channel, r#"{"st":1}"#).is_empty());
    let program = &channel.program;
    assert_eq!(program.missing_fields(br#"{"st":null}"#), [0]);
    assert!(program.missing_fields(br#"{"x":1}"#).is_empty() && program.missing_fields(b"{").is_empty());
}
