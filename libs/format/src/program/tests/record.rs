//! Records: messages that carry only some of the fields.

use super::*;

fn record(rest: &str) -> Channel {
    Channel::new(&format!(
        "codec: JSON
timestamp: {{pointer: /ts, unit: Milliseconds}}
{rest}"
    ))
}

const TWO: &str = "record: {expireFieldsMs: 600000}
fields: [{name: temp, pointer: /temp, type: Number}, {name: hum, pointer: /hum, type: Number}]";

/// Applies a message of the time `time_ms` that is stored at `stored_ms`. Returns what is shown.
fn step(channel: &mut Channel, stored_ms: i64, time_ms: i64, fields: &str) -> String {
    channel.stored_at = at(stored_ms);
    let applied = channel.apply_in_full(format!(r#"{{"ts":{},{fields}}}"#, NOW_MS + time_ms));
    match applied.verdict {
        Ok(event) => {
            let time = event.time.as_millis() - NOW_MS;
            [format!("{time}: {}", channel.values()), channel.bad().into(), channel.at().into()]
                .join(" ")
                .trim_end()
                .to_owned()
        }
        Err(reason) => reason.as_str().to_owned(),
    }
}

/// Case P7. Corner: a field that is absent stays, with its `at`.
#[test]
fn each_event_is_the_whole_record() {
    let mut channel = record(TWO);
    assert_eq!(step(&mut channel, 0, 0, r#""temp":20"#), r#"0: {"temp":20}"#);
    assert_eq!(
        step(&mut channel, 1_000, 1_000, r#""hum":50"#),
        r#"1000: {"temp":20,"hum":50}  {"temp":"2026-11-22T10:00:00.000Z"}"#
    );
    assert_eq!(
        step(&mut channel, 2_000, 2_000, r#""temp":21"#),
        r#"2000: {"temp":21,"hum":50}  {"hum":"2026-11-22T10:00:01.000Z"}"#
    );
    assert_eq!(step(&mut channel, 3_000, 3_000, r#""temp":22,"hum":51"#), r#"3000: {"temp":22,"hum":51}"#);
    assert_eq!(step(&mut channel, 4_000, 4_000, r#""other":1"#), "NoFields");
}

/// Corner: record, a field absent / null / bad.
#[test]
fn null_and_bad_values_are_values() {
    let mut channel = record(TWO);
    step(&mut channel, 0, 0, r#""temp":20,"hum":50"#);
    assert_eq!(
        step(&mut channel, 1, 1, r#""temp":null"#),
        r#"1: {"temp":null,"hum":50}  {"hum":"2026-11-22T10:00:00.000Z"}"#
    );
    assert_eq!(
        step(&mut channel, 2, 2, r#""hum":"err""#),
        r#"2: {"temp":null,"hum":null} {"hum":"err"} {"temp":"2026-11-22T10:00:00.001Z"}"#
    );
    // Until it is read, the bad value stays, and so does the problem.
    let shown = step(&mut channel, 3, 3, r#""temp":1"#);
    assert_eq!(shown, r#"3: {"temp":1,"hum":null} {"hum":"err"} {"hum":"2026-11-22T10:00:00.002Z"}"#);
    assert_eq!(step(&mut channel, 4, 4, r#""hum":7,"temp":1"#), r#"4: {"temp":1,"hum":7}"#);
}

/// Corner: record, expiry: against the time of storing of the newest message, or 512 messages.
#[test]
fn values_expire() {
    let mut channel = record(TWO);
    step(&mut channel, 0, -5, r#""temp":20"#);
    let both = step(&mut channel, 600_000, 600_000, r#""hum":50"#);
    assert!(both.starts_with(r#"600000: {"temp":20,"hum":50}"#), "{both}");
    assert_eq!(step(&mut channel, 600_001, 600_001, r#""hum":51"#), r#"600001: {"hum":51}"#);
    // Without messages nothing expires: silence is what `staleAfter` is for.

    let mut channel = record(&TWO.replace("{expireFieldsMs: 600000}", "{}"));
    step(&mut channel, 0, 0, r#""temp":20"#);
    for _ in 0..510 {
        channel.apply("?").unwrap_err();
    }
    assert!(step(&mut channel, i64::from(i32::MAX), 1, r#""hum":1"#).contains("temp"));
    assert_eq!(step(&mut channel, i64::from(i32::MAX), 1, r#""hum":2"#), r#"1: {"hum":2}"#);
}

/// Corner: record, late message: for each field the greatest time in the tail; at a tie, stored later.
#[test]
fn late_messages_fill_gaps_only() {
    let mut channel = record(TWO);
    step(&mut channel, 0, 0, r#""temp":20"#);
    assert_eq!(
        step(&mut channel, 10_000, -60_000, r#""temp":10,"hum":40"#),
        r#"0: {"temp":20,"hum":40}  {"hum":"2026-11-22T09:59:00.000Z"}"#
    );
    assert_eq!(
        step(&mut channel, 10_001, 0, r#""temp":22"#),
        r#"0: {"temp":22,"hum":40}  {"hum":"2026-11-22T09:59:00.000Z"}"#
    );
    // It waits for the value before it to expire.
    let mut channel = record(TWO);
    step(&mut channel, 0, 0, r#""temp":20"#);
    step(&mut channel, 10_000, -60_000, r#""temp":10"#);
    let shown = step(&mut channel, 605_000, 605_000, r#""hum":1"#);
    assert_eq!(shown, r#"605000: {"temp":10,"hum":1}  {"temp":"2026-11-22T09:59:00.000Z"}"#);
}

/// Corner: record with `when`: merged always, and `when` decides whether the record is shown.
#[test]
fn a_record_is_merged_also_if_it_is_not_shown() {
    let mut channel = record(&format!("when: values.temp > 0\n{TWO}"));
    assert_eq!(step(&mut channel, 0, 0, r#""hum":50"#), "Filtered");
    assert_eq!(
        step(&mut channel, 1, 1, r#""temp":1"#),
        r#"1: {"temp":1,"hum":50}  {"hum":"2026-11-22T10:00:00.000Z"}"#
    );
    assert_eq!(step(&mut channel, 2, 2, r#""temp":0,"hum":51"#), "Filtered");
    assert_eq!(step(&mut channel, 3, 3, r#""hum":52"#), "Filtered");
    assert_eq!(
        step(&mut channel, 4, 4, r#""temp":2"#),
        r#"4: {"temp":2,"hum":52}  {"hum":"2026-11-22T10:00:00.003Z"}"#
    );
    // A field that can't be read doesn't filter.
    let shown = step(&mut channel, 5, 5, r#""temp":"?""#);
    assert_eq!(shown, r#"5: {"temp":null,"hum":52} {"temp":"?"} {"hum":"2026-11-22T10:00:00.003Z"}"#);
}

/// Corner: record with expressions, `has()`: over the record, as old as the oldest input.
#[test]
fn expressions_are_over_the_record() {
    let mut channel = record(
        r#"record: {}
fields:
  - {name: good, pointer: /good, type: Number}
  - {name: total, pointer: /total, type: Number}
  - {name: share, expression: values.good / values.total}
  - {name: half, expression: values.share / 2}
  - {name: both, expression: has(values.good) && has(values.total)}
  - {name: one, expression: "1"}"#,
    );
    assert_eq!(step(&mut channel, 0, 0, r#""good":1"#), r#"0: {"good":1,"both":false,"one":1}"#);
    let at = "2026-11-22T10:00:00.000Z";
    assert_eq!(
        step(&mut channel, 1, 1, r#""total":2"#),
        [
            r#"1: {"good":1,"total":2,"share":0.5,"half":0.25,"both":true,"one":1}  "#,
            &format!(r#"{{"good":"{at}","share":"{at}","half":"{at}","both":"{at}"}}"#)
        ]
        .concat()
    );
    assert_eq!(
        step(&mut channel, 2, 2, r#""good":"x","total":4"#),
        r#"2: {"good":null,"total":4,"share":null,"half":null,"both":true,"one":1} {"good":"x"}"#
    );
}

#[test]
fn a_record_needs_its_tail_and_policy_latest() {
    let mut channel = record(TWO);
    channel.state = ChannelState::default();
    assert_eq!(channel.try_apply(format!(r#"{{"ts":{NOW_MS},"temp":1}}"#)), Err(NeedsTail));
    assert!(channel.program.is_record());
    assert_eq!(channel.program.look_back().map(|back| back.as_secs()), Some(600));
    assert_eq!(record(&TWO.replace("{expireFieldsMs: 600000}", "{}")).program.look_back(), None);
    let errors = compile(&format!("codec: JSON\ndelivery: {{policy: Every}}\n{TWO}")).unwrap_err();
    assert_eq!((errors.len(), errors[0].field.as_str()), (1, "record"));
    let errors = compile(&format!("codec: JSON\n{}", TWO.replace("600000", "0"))).unwrap_err();
    assert_eq!((errors.len(), errors[0].field.as_str()), (1, "record.expireFields"));
}

#[test]
fn a_field_causes_pushes_of_the_record() {
    let mut channel = record(
        "record: {}
fields:
  - {name: a, pointer: /a, type: Number, onChange: true}
  - {name: b, pointer: /b, type: Number, deadband: 5}",
    );
    assert_eq!(step(&mut channel, 0, 0, r#""a":1"#), r#"0: {"a":1}"#);
    assert!(step(&mut channel, 1, 1, r#""b":1"#).starts_with(r#"1: {"a":1,"b":1}"#));
    assert_eq!(step(&mut channel, 2, 2, r#""b":5.9"#), "Unchanged");
    assert_eq!(step(&mut channel, 3, 3, r#""a":1"#), "Unchanged");
    assert!(step(&mut channel, 4, 4, r#""b":6"#).starts_with(r#"4: {"a":1,"b":6}"#));
}

/// A backlog that is sent newest first would fill the memory.
#[test]
fn few_values_wait() {
    let mut channel = record(TWO);
    for at in 0..500 {
        step(&mut channel, 1_000 + at, -at, &format!(r#""temp":{at}"#));
    }
    assert_eq!(channel.state.record.waiting(), 16);
}
