//! The hard corners of the rule, each on a device of its own: what was sent, and what all places show.

use futures_util::future::FutureExt;
use serde_json::{Value, json};

use super::plant::{BRIEF, CHANNEL, Fixture, Plant, Row, wait_until_dropped};
use super::screen::{Screen, Shown};
use super::table::{RowTest, run};
use crate::factory::now_ms;

/// Messages of one channel and what is shown of them.
struct Corner {
    /// The corner, as the device's code: `W` for a `Latest` channel's last message, `E` for `Every`, `F` for
    /// fields, `R` for records.
    code: &'static str,
    format: &'static str,
    /// The messages; the argument is the time, in milliseconds since 1970.
    messages: fn(u64) -> Vec<String>,
    /// The message whose place is shown, by index.
    shown: usize,
    expected: Value,
    /// The numbers of the messages that the screen which was there got as events.
    events: &'static [usize],
}

impl Corner {
    fn row(self) -> (Fixture, RowTest) {
        let fixture = Fixture::new(self.code, self.format);
        let test: RowTest = Box::new(|_, row| self.check(row).boxed_local());
        (fixture, test)
    }

    async fn check(self, mut row: Row<'_>) -> anyhow::Result<Shown> {
        let messages = (self.messages)(now_ms());
        let places = row.send_all(&messages, self.events).await?;
        let mut expected = self.expected;
        expected["seq"] = json!(places[self.shown]);
        let shown = row.all_show(&expected).await?;
        let got: Vec<_> = row.screen.events(CHANNEL).iter().map(|event| event["seq"].as_u64()).collect();
        let wanted: Vec<_> = self.events.iter().map(|index| Some(places[*index])).collect();
        anyhow::ensure!(got == wanted, "the screen that was there got {got:?} of {places:?}");
        Ok(shown)
    }
}

fn texts(messages: &[&str]) -> Vec<String> {
    messages.iter().copied().map(str::to_owned).collect()
}

const SPEED: &str = "when: values.v >= 0, fields: [{name: v, pointer: /v, type: Number}]";
const TIMED: &str = "timestamp: {pointer: /ts, unit: Milliseconds, maxAge: 30s, maxAhead: 5s}, \
                     fields: [{name: v, pointer: /v, type: Number}]";
const FREE: &str = "timestamp: {pointer: /ts, unit: Milliseconds}, \
                    fields: [{name: v, pointer: /v, type: Number}]";
const EVERY: &str = "timestamp: {pointer: /ts, unit: Milliseconds}, delivery: {policy: Every}, \
                     fields: [{name: v, pointer: /v, type: Number}]";
const STATE: &str = "fields: [{name: speed, pointer: /speed, type: Number}, \
                     {name: st, pointer: /st, type: Enum, values: {'0': stopped, '1': running}}]";

fn timed(ts: u64, v: i64) -> String {
    format!(r#"{{"ts":{ts},"v":{v}}}"#)
}

/// The last message can't be shown (S1 and its variants).
fn last_messages() -> Vec<Corner> {
    let good = json!({"values": {"v": 1824}});
    let but = |reason: &str| json!({"values": {"v": 1824}, "reason": reason});
    vec![
        Corner {
            code: "W-HEARTBEAT",
            format: SPEED,
            messages: |_| texts(&[r#"{"v":1824}"#, r#"{"hb":1}"#]),
            shown: 0,
            expected: but("NoFields"),
            events: &[0],
        },
        Corner {
            code: "W-TEXT",
            format: SPEED,
            messages: |_| texts(&[r#"{"v":1824}"#, "online"]),
            shown: 0,
            expected: but("Malformed"),
            events: &[0],
        },
        Corner {
            code: "W-CUT",
            format: SPEED,
            messages: |_| texts(&[r#"{"v":1824}"#, r#"{"v":18"#]),
            shown: 0,
            expected: but("Malformed"),
            events: &[0],
        },
        Corner {
            code: "W-FUTURE",
            format: TIMED,
            messages: |now| vec![timed(now, 1824), timed(now + 600_000, 1)],
            shown: 0,
            expected: but("TooFarAhead"),
            events: &[0],
        },
        Corner {
            code: "W-OLD",
            format: TIMED,
            messages: |now| vec![timed(now, 1824), timed(now - 40_000, 1)],
            shown: 0,
            expected: but("TooOld"),
            events: &[0],
        },
        // A message that is worse than the one behind it: the look back goes on.
        Corner {
            code: "W-MANY",
            format: SPEED,
            messages: |_| [vec![r#"{"v":1824}"#.to_owned()], vec![r#"{"v":-1}"#.to_owned(); 100]].concat(),
            shown: 0,
            expected: good,
            events: &[0],
        },
        Corner {
            code: "W-LATE",
            format: FREE,
            messages: |now| vec![timed(now, 1824), timed(now - 3_000, 1)],
            shown: 0,
            expected: but("OutOfOrder"),
            events: &[0],
        },
        // Two clocks that are 300 ms apart: the message that was stored later wins.
        Corner {
            code: "W-TWO-CLOCKS",
            format: FREE,
            messages: |now| vec![timed(now, 1), timed(now - 300, 1824)],
            shown: 1,
            expected: json!({"values": {"v": 1824}}),
            events: &[0, 1],
        },
    ]
}

fn every() -> Vec<Corner> {
    vec![
        // The warning is the newest, and filtered.
        Corner {
            code: "E-FILTERED",
            format: "delivery: {policy: Every}, when: values.s == 'critical', \
                     fields: [{name: s, pointer: /s, type: Enum, values: {c: critical, w: warning}}]",
            messages: |_| texts(&[r#"{"s":"c"}"#, r#"{"s":"w"}"#]),
            shown: 0,
            expected: json!({"values": {"s": "critical"}}),
            events: &[0],
        },
        // Pulses of a clock in whole seconds: equal bytes are other events.
        Corner {
            code: "E-PULSES",
            format: EVERY,
            messages: |now| vec![timed(now / 1_000 * 1_000, 1); 3],
            shown: 2,
            expected: json!({"values": {"v": 1}}),
            events: &[0, 1, 2],
        },
        // The same with a finer time is the same event again, at once and later.
        Corner {
            code: "E-REPEAT",
            format: EVERY,
            messages: |now| {
                let early = timed(now / 1_000 * 1_000 - 2_877, 1);
                let other = timed(now / 1_000 * 1_000 - 1_877, 2);
                vec![early.clone(), early.clone(), other, early]
            },
            shown: 2,
            expected: json!({"values": {"v": 2}}),
            events: &[0, 2],
        },
        Corner {
            code: "E-ON-CHANGE",
            format: "delivery: {policy: Every}, \
                     fields: [{name: v, pointer: /v, type: Number, onChange: true}]",
            messages: |_| texts(&[r#"{"v":1}"#, r#"{"v":2}"#, r#"{"v":2}"#, r#"{"v":1}"#]),
            shown: 3,
            expected: json!({"values": {"v": 1}}),
            events: &[0, 1, 3],
        },
    ]
}

fn fields() -> Vec<Corner> {
    let bad = |values: Value, bad: Value| json!({"values": values, "bad": bad, "reason": "BadField"});
    vec![
        Corner {
            code: "F-NAN",
            format: STATE,
            messages: |_| texts(&[r#"{"speed":1.5,"st":0}"#, r#"{"speed":NaN,"st":1}"#]),
            shown: 1,
            expected: bad(json!({"speed": null, "st": "running"}), json!({"speed": "NaN"})),
            events: &[0, 1],
        },
        Corner {
            code: "F-NULL",
            format: STATE,
            messages: |_| texts(&[r#"{"speed":1.5}"#, r#"{"speed":null}"#]),
            shown: 1,
            expected: json!({"values": {"speed": null}}),
            events: &[0, 1],
        },
        Corner {
            code: "F-OTHERWISE",
            format: "fields: [{name: st, pointer: /st, type: Enum, values: {'1': running}, \
                     otherwise: fault}]",
            messages: |_| texts(&[r#"{"st":1}"#, r#"{"st":7}"#]),
            shown: 1,
            expected: json!({"values": {"st": "fault"}}),
            events: &[0, 1],
        },
        // A condition can't judge what it can't read: the event is shown.
        Corner {
            code: "F-WHEN-BAD",
            format: "when: values.v >= 0, fields: [{name: v, pointer: /v, type: Number}, \
                     {name: twice, expression: values.v * 2}]",
            messages: |_| texts(&[r#"{"v":1}"#, r#"{"v":"fault"}"#]),
            shown: 1,
            expected: bad(json!({"v": null, "twice": null}), json!({"v": "fault"})),
            events: &[0, 1],
        },
        Corner {
            code: "F-LONG",
            format: "fields: [{name: v, pointer: /v, type: Number}]",
            messages: |_| {
                texts(&[r#"{"v":[0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24]}"#])
            },
            shown: 0,
            expected: bad(
                json!({"v": null}),
                json!({"v": "[0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,…"}),
            ),
            events: &[0],
        },
    ]
}

const RECORD: &str = "timestamp: {pointer: /ts, unit: Milliseconds}, record: {merge: true}, \
                      when: values.temp >= 0, fields: [{name: temp, pointer: /temp, type: Number}, \
                      {name: hum, pointer: /hum, type: Number}, \
                      {name: sum, expression: values.temp + values.hum}]";

fn records() -> Vec<Corner> {
    vec![
        // A message that is late is merged by its own time, field by field.
        Corner {
            code: "R-LATE",
            format: RECORD,
            messages: |now| {
                vec![
                    format!(r#"{{"ts":{now},"temp":20,"hum":50}}"#),
                    format!(r#"{{"ts":{},"temp":19,"hum":49}}"#, now - 20_000),
                ]
            },
            shown: 1,
            expected: json!({"values": {"temp": 20, "hum": 50, "sum": 70}}),
            events: &[0, 1],
        },
        // What can't be read is not the value before it.
        Corner {
            code: "R-BAD",
            format: "record: {merge: true}, fields: [{name: a, pointer: /a, type: Number}]",
            messages: |_| texts(&[r#"{"a":1}"#, r#"{"a":"x"}"#]),
            shown: 1,
            expected: json!({"values": {"a": null}, "bad": {"a": "x"}, "reason": "BadField"}),
            events: &[0, 1],
        },
        Corner {
            code: "R-NULL",
            format: "record: {merge: true}, fields: [{name: a, pointer: /a, type: Number}]",
            messages: |_| texts(&[r#"{"a":1}"#, r#"{"a":null}"#]),
            shown: 1,
            expected: json!({"values": {"a": null}}),
            events: &[0, 1],
        },
        // `when` decides whether the record is shown; the message is merged in any case.
        Corner {
            code: "R-WHEN",
            format: "record: {merge: true}, when: values.on, \
                     fields: [{name: 'on', pointer: /on, type: Bool}]",
            messages: |_| texts(&[r#"{"on":true}"#, r#"{"on":false}"#]),
            shown: 0,
            expected: json!({"values": {"on": true}}),
            events: &[0],
        },
    ]
}

#[tokio::test]
async fn last_messages_that_cannot_be_shown_are_looked_behind_in_all_places() -> anyhow::Result<()> {
    run(last_messages().into_iter().map(Corner::row).collect()).await
}

#[tokio::test]
async fn events_fields_and_records_are_the_same_in_all_places() -> anyhow::Result<()> {
    let corners = [every(), fields(), records()].into_iter().flatten();
    let mut rows: Vec<_> = corners.map(Corner::row).collect();
    rows.push((Fixture::new("W-NOTHING", SPEED), Box::new(|_, row| nothing(row).boxed_local())));
    rows.push((Fixture::new("E-LATE", EVERY), Box::new(|plant, row| late(plant, row).boxed_local())));
    let silent = "fields: [{name: v, pointer: /v, type: Number}], record: {merge: true, expireFields: 5m}";
    rows.push((
        Fixture::new("R-KEPT", silent).of(BRIEF),
        Box::new(|plant, row| kept_record(plant, row).boxed_local()),
    ));
    run(rows).await
}

/// Nothing in the tail can be shown: all places show nothing, and say why.
async fn nothing(mut row: Row<'_>) -> anyhow::Result<Shown> {
    row.send(["online", r#"{"v":"#]).await?;
    row.all_show(&json!({"values": null, "reason": "Malformed"})).await
}

/// An event that was late is delivered in the order of the stream and marked, in a replay too.
async fn late(plant: &Plant, mut row: Row<'_>) -> anyhow::Result<Shown> {
    let before = row.screen.last_id();
    let now = now_ms();
    let [_, last] = row.send([timed(now, 1), timed(now - 7_000, 2)]).await?;
    let shown = row.all_show(&json!({"seq": last, "values": {"v": 2}})).await?;
    let marked = |screen: &Screen| -> Vec<_> {
        screen
            .events(CHANNEL)
            .iter()
            .map(|event| (event["values"]["v"].clone(), event["late"].clone()))
            .collect()
    };
    let expected = [(json!(1), Value::Null), (json!(2), json!(true))];
    anyhow::ensure!(marked(&row.screen) == expected, "{:?}", marked(&row.screen));
    let Fixture { tenant, device, .. } = row.fixture;
    for pod in [&plant.one, &plant.two] {
        let resumed = Screen::resume(pod, tenant, device, before.as_deref()).await?;
        anyhow::ensure!(marked(&resumed) == expected, "resumed: {:?}", marked(&resumed));
        let new = Screen::open(pod, tenant, device).await?;
        anyhow::ensure!(marked(&new) == expected[1..], "new: {:?}", marked(&new));
    }
    Ok(shown)
}

/// A record outlives the messages that it was made of.
async fn kept_record(plant: &Plant, mut row: Row<'_>) -> anyhow::Result<Shown> {
    let [last] = row.send([r#"{"v":1}"#]).await?;
    wait_until_dropped(plant, row.fixture).await?;
    row.all_show(&json!({"seq": last, "values": {"v": 1}})).await
}
