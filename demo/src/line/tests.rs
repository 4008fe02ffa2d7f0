//! Tests of the model: the same seed gives the same messages, values are plausible, and alarms and orders
//! change.

use std::collections::{BTreeMap, BTreeSet};

use flutecast_contract::name::TenantName;
use proptest::prelude::*;
use serde_json::Value;

use super::*;

const CLOCK: WallClock = WallClock { start_unix_ms: 0, rate_factor: 1.0 };

fn line(seed: u64, disturbance: Disturbance) -> Line {
    Line::new(&LineOptions { tenant: TenantName::new("demo").unwrap(), seed, disturbance }).unwrap()
}

/// Returns subject and payload of each message in the line's first `seconds`.
fn sent(seed: u64, disturbance: Disturbance, seconds: u64) -> Vec<(String, Value)> {
    let messages = line(seed, disturbance).advance(seconds * 1000);
    messages.iter().map(|message| (message.route.subject(), json(message))).collect()
}

fn json(message: &Message) -> Value {
    serde_json::from_slice(&message.payload(&CLOCK).unwrap()).unwrap()
}

/// Returns the readable part of a subject: device code and channel.
fn readable(line: &Line, subject: &str) -> String {
    let tokens: Vec<&str> = subject.split('.').collect();
    for device in Device::ALL {
        if tokens.contains(&line.addresses().iot_id(device).as_str()) {
            return format!("{} {}", device.code(), tokens.last().unwrap());
        }
    }
    subject.to_owned()
}

#[test]
fn the_same_seed_gives_the_same_messages() {
    let first = sent(7, Disturbance::default(), 120);
    assert_eq!(first, sent(7, Disturbance::default(), 120));
    assert!(first.len() > 2000, "{}", first.len());
}

#[test]
fn another_seed_gives_other_messages() {
    assert_ne!(sent(7, Disturbance::default(), 20), sent(8, Disturbance::default(), 20));
}

#[test]
fn it_does_not_matter_in_which_steps_time_passes() {
    let mut in_small_steps = line(3, Disturbance::default());
    let mut collected = Vec::new();
    for now_ms in (0..=60_000).step_by(7) {
        collected.extend(in_small_steps.advance(now_ms));
    }
    collected.extend(in_small_steps.advance(60_000));
    assert_eq!(collected, line(3, Disturbance::default()).advance(60_000));
}

#[test]
fn each_device_keeps_its_rates_and_subjects() {
    let mut line = line(1, Disturbance::NONE);
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for message in line.advance(10_000) {
        *counts.entry(readable(&line, &message.route.subject())).or_default() += 1;
    }
    let count = |name: &str| counts.get(name).copied().unwrap_or_default();
    // A message with the maximum jitter at the end of the ten seconds may not be sent yet.
    let about = |name: &str, expected: usize| {
        assert!((expected - 1..=expected).contains(&count(name)), "{name}: {} of {expected}", count(name));
    };
    about("CORR-01 telemetry", 50);
    about("SLIT-01 telemetry", 20);
    about("FLEX-01 telemetry", 100);
    about("DIE-01 telemetry", 20);
    about("STACK-01 telemetry", 10);
    about("mes.out", 10);
    assert!(count("CORR-01 counters") >= 9, "{counts:?}");
    for name in ["CORR-01 alarms", "FLEX-01 alarms", "STACK-01 alarms"] {
        assert!(count(name) >= 1, "{name} missing in {counts:?}");
    }
    for device in Device::ALL {
        assert!(count(&format!("{} power", device.code())) >= 1, "{counts:?}");
    }
}

#[test]
fn topics_are_those_of_the_contract() {
    let line = line(1, Disturbance::NONE);
    let addresses = line.addresses();
    let id = |device| addresses.iot_id(device).as_str().to_owned();
    let route = |device, channel| addresses.route(device, channel).clone();
    assert_eq!(
        route(Device::Corrugator, Channel::Telemetry),
        Route::Nats(format!("iot.demo.{}.telemetry", id(Device::Corrugator)).into())
    );
    assert_eq!(
        route(Device::Flexo, Channel::Telemetry),
        Route::Mqtt(Device::Flexo, format!("iot/demo/{}/telemetry", id(Device::Flexo)).into())
    );
    assert_eq!(
        route(Device::DieCutter, Channel::Power),
        Route::Nats(format!("plant.gw1.{}.power", id(Device::DieCutter)).into())
    );
    assert_eq!(
        route(Device::Flexo, Channel::Telemetry).subject(),
        format!("iot.demo.{}.telemetry", id(Device::Flexo))
    );
    let ids: BTreeSet<String> = Device::ALL.into_iter().map(id).collect();
    assert_eq!(ids.len(), 5);
}

#[test]
fn payloads_have_the_shapes_of_the_contract() {
    let mut line = line(5, Disturbance::NONE);
    let messages = line.advance(60_000);
    let mut seen = std::collections::HashSet::new();
    for message in &messages {
        let name = readable(&line, &message.route.subject());
        let payload = json(message);
        match message.body {
            Body::Telemetry { .. } => {
                assert!(payload["ts"].is_u64(), "{payload}");
                let names: Vec<&str> = payload["d"].as_object().unwrap().keys().map(String::as_str).collect();
                let mut expected = telemetry_fields(name.split(' ').next().unwrap()).to_vec();
                expected.sort_unstable();
                assert_eq!(names, expected, "{name}");
                assert!(payload["d"].as_object().unwrap().values().all(Value::is_i64), "{payload}");
            }
            Body::Power { .. } => {
                assert!(
                    payload["ts"].is_u64() && [0, 1].contains(&payload["on"].as_i64().unwrap()),
                    "{payload}"
                );
            }
            Body::Counters { .. } => assert_counts(&payload),
            Body::Mes { .. } => {
                assert!(payload["sentAt"].is_u64(), "{payload}");
                let readings = payload["readings"].as_array().unwrap();
                assert_eq!(readings.len(), 3);
                for reading in readings {
                    assert!(reading["deviceId"].is_string(), "{reading}");
                    assert_counts(reading);
                }
            }
            Body::Alarm { .. } => {
                let time = payload["ts"].as_str().unwrap();
                assert!(time.parse::<jiff::Timestamp>().is_ok() && time.ends_with('Z'), "{payload}");
                assert!(payload["code"].is_u64() && payload["text"].is_string(), "{payload}");
                let severity = payload["severity"].as_str().unwrap();
                assert!(["warning", "critical", "cleared"].contains(&severity), "{payload}");
            }
        }
        seen.insert(std::mem::discriminant(&message.body));
    }
    assert_eq!(seen.len(), 5, "each kind of message came");
}

fn telemetry_fields(code: &str) -> &'static [&'static str] {
    match code {
        "CORR-01" => &[
            "speed",
            "steamPreheater1",
            "steamPreheater2",
            "steamDoubleBacker",
            "tempPreheater1",
            "tempPreheater2",
            "tempDoubleBacker",
            "glueGap",
            "webTension",
            "st",
        ],
        "SLIT-01" => &["speed", "knives", "trimLeft", "trimRight", "st"],
        "FLEX-01" => &["speed", "inkViscosity", "inkTemp", "registerError", "st"],
        "DIE-01" => &["strokes", "pressure", "st"],
        "STACK-01" => &["height", "pileCount", "st"],
        other => panic!("no device {other}"),
    }
}

fn assert_counts(payload: &Value) {
    assert!(payload["ts"].is_u64(), "{payload}");
    assert!(payload["order"].as_str().unwrap().starts_with("A-"), "{payload}");
    let (good, total) = (payload["good"].as_i64().unwrap(), payload["total"].as_i64().unwrap());
    assert!(0 <= good && good <= total, "{payload}");
}

#[test]
fn real_times_follow_the_rate_factor() {
    let clock = WallClock { start_unix_ms: 1_000_000, rate_factor: 5.0 };
    let message = line(1, Disturbance::NONE).advance(10_000).pop().unwrap();
    let Body::Telemetry { at_ms, .. } = message.body else { panic!("{message:?}") };
    let payload: Value = serde_json::from_slice(&message.payload(&clock).unwrap()).unwrap();
    let expected = 1_000_000 + i64::try_from(at_ms / 5).unwrap();
    assert!((payload["ts"].as_i64().unwrap() - expected).abs() <= 1, "{payload}");
}

/// Returns the time of a body, and whether its payload is deliberately malformed.
fn time(body: &Body) -> u64 {
    match body {
        Body::Telemetry { at_ms, .. }
        | Body::Power { at_ms, .. }
        | Body::Counters { at_ms, .. }
        | Body::Mes { sent_ms: at_ms, .. }
        | Body::Alarm { at_ms, .. } => *at_ms,
    }
}

#[test]
fn late_messages_come_after_newer_ones_and_duplicates_are_the_same() {
    let disturbance = Disturbance { late_percent: 3.0, duplicate_percent: 3.0, malformed_percent: 0.0 };
    let messages = line(11, disturbance).advance(180_000);
    let mut newest: BTreeMap<Route, u64> = BTreeMap::new();
    let mut sent: Vec<(&Route, &Body)> = Vec::new();
    let (mut late, mut overtaken, mut very_late, mut duplicates) = (0, 0, 0, 0);
    for message in &messages {
        let at = time(&message.body);
        let newest = newest.entry(message.route.clone()).or_default();
        match message.delivery {
            Delivery::OnTime => assert!(at > *newest, "{message:?} is not newer than {newest}"),
            Delivery::Late => {
                late += 1;
                overtaken += u32::from(*newest > at);
                very_late += u32::from(message.due_ms - at > 30_000);
            }
            Delivery::Duplicate => {
                duplicates += 1;
                assert!(sent.contains(&(&message.route, &message.body)), "{message:?} was not there before");
            }
        }
        *newest = (*newest).max(at);
        sent.push((&message.route, &message.body));
    }
    let share = |count: u32| f64::from(count) / messages.len() as f64;
    assert!(
        (0.02..0.04).contains(&share(late)) && (0.02..0.04).contains(&share(duplicates)),
        "{late} {duplicates}"
    );
    // The next message may be late too, and then no message overtakes this one.
    assert!(overtaken * 10 > late * 9, "{overtaken} of {late}");
    assert!(very_late > 0, "none older than the formats' maxAge");
}

#[test]
fn no_disturbance_means_none() {
    let messages = line(11, Disturbance::NONE).advance(60_000);
    assert!(messages.iter().all(|message| message.delivery == Delivery::OnTime));
}

#[test]
fn malformed_items_come_in_every_kind() {
    let disturbance = Disturbance { malformed_percent: 50.0, ..Disturbance::NONE };
    let mut kinds = Vec::new();
    for message in line(2, disturbance).advance(120_000) {
        if let Body::Mes { readings, .. } = message.body {
            kinds.extend(readings.into_iter().filter_map(|reading| match reading {
                Reading::Malformed(kind) => Some(kind),
                Reading::Good { .. } => None,
            }));
        }
    }
    for kind in super::message::Malformed::ALL {
        assert!(kinds.contains(&kind), "{kind:?} not in {kinds:?}");
    }
    assert!((40..80).contains(&kinds.len()), "{}", kinds.len());
}

/// Returns the longest time between changes of alarms.
fn longest_quiet(messages: &[Message]) -> u64 {
    let times =
        messages.iter().filter(|message| matches!(message.body, Body::Alarm { .. })).map(|m| time(&m.body));
    let times: Vec<u64> = times.collect();
    times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(u64::MAX)
}

#[test]
fn orders_alarms_and_stops_come_within_minutes() {
    for seed in 1..=12 {
        let mut line = line(seed, Disturbance::NONE);
        let messages = line.advance(300_000);
        let mut alarms = BTreeMap::new();
        let mut orders: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let mut power: BTreeMap<String, Vec<bool>> = BTreeMap::new();
        let mut corrugator_states = BTreeSet::new();
        for message in &messages {
            let name = readable(&line, &message.route.subject());
            match &message.body {
                Body::Alarm { notice, .. } if notice.code != 0 => {
                    *alarms.entry((notice.code, notice.severity.as_str())).or_insert(0) += 1;
                }
                Body::Counters { order, .. } => {
                    orders.entry(name).or_default().insert(order.clone());
                }
                Body::Mes { readings, .. } => {
                    if let Some(Reading::Good { order, .. }) = readings.first() {
                        orders.entry(name).or_default().insert(order.clone());
                    }
                }
                Body::Power { on, .. } => power.entry(name).or_default().push(*on),
                Body::Telemetry { values, .. } if name.starts_with("CORR") => {
                    corrugator_states
                        .extend(values.iter().filter(|(name, _)| *name == "st").map(|(_, st)| *st));
                }
                Body::Alarm { .. } | Body::Telemetry { .. } => {}
            }
        }
        let raised: u32 =
            alarms.iter().filter(|((_, severity), _)| *severity != "cleared").map(|(_, n)| n).sum();
        assert!((6..=14).contains(&raised), "seed {seed}: {raised} alarms in five minutes: {alarms:?}");
        assert!(
            longest_quiet(&messages) < 100_000,
            "seed {seed}: {} ms without an alarm",
            longest_quiet(&messages)
        );
        let changes = orders.values().map(BTreeSet::len).min().unwrap();
        assert!((3..=7).contains(&changes), "seed {seed}: {orders:?}");
        assert_eq!(corrugator_states, BTreeSet::from([0, 1, 2]), "seed {seed}");
        for device in ["CORR-01", "SLIT-01", "DIE-01"] {
            let states = &power[&format!("{device} power")];
            assert!(states.contains(&true) && states.contains(&false), "seed {seed} {device}: {states:?}");
        }
    }
}

#[test]
fn each_alarm_is_raised_and_cleared_in_turn() {
    let mut line = line(4, Disturbance::NONE);
    let mut active = BTreeMap::new();
    let mut raised = BTreeSet::new();
    for message in line.advance(900_000) {
        let name = readable(&line, &message.route.subject());
        let Body::Alarm { notice, .. } = message.body else { continue };
        if notice.code == 0 {
            continue;
        }
        let is_raised = notice.severity.as_str() != "cleared";
        let was_raised = active.insert((name, notice.code), is_raised).unwrap_or(false);
        assert_ne!(is_raised, was_raised, "{notice:?}");
        raised.insert(notice.code);
    }
    assert_eq!(raised, BTreeSet::from([17, 21, 41, 44, 61]));
}

fn values(message: &Message) -> BTreeMap<&'static str, i64> {
    match &message.body {
        Body::Telemetry { values, .. } => values.iter().copied().collect(),
        _ => BTreeMap::new(),
    }
}

/// Returns the range of a raw value on a machine without faults.
fn plausible(field: &str, code: &str) -> std::ops::RangeInclusive<i64> {
    match (code, field) {
        ("CORR-01" | "SLIT-01", "speed") => 0..=2900,
        ("CORR-01", "steamPreheater1" | "steamPreheater2" | "steamDoubleBacker") => 550..=1200,
        ("CORR-01", "tempPreheater1" | "tempPreheater2" | "tempDoubleBacker") => 1500..=1900,
        ("CORR-01", "glueGap") => 75..=130,
        ("CORR-01", "webTension") => 0..=1000,
        ("SLIT-01", "knives") => 3..=6,
        ("SLIT-01", "trimLeft" | "trimRight") => 50..=300,
        ("FLEX-01", "speed") => 0..=11_000,
        ("FLEX-01", "inkViscosity") => 205..=260,
        ("FLEX-01", "inkTemp") => 215..=255,
        ("FLEX-01", "registerError") => -200..=700,
        ("DIE-01", "strokes") => 0..=185,
        ("DIE-01", "pressure") => 0..=2000,
        ("STACK-01", "height") => 0..=485,
        ("STACK-01", "pileCount") => 0..=1000,
        ("CORR-01" | "SLIT-01" | "FLEX-01", "st") => 0..=2,
        ("DIE-01" | "STACK-01", "st") => 0..=1,
        other => panic!("no range for {other:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn numbers_are_plausible_whatever_the_seed(seed in any::<u64>()) {
        let mut line = line(seed, Disturbance::NONE);
        for message in line.advance(240_000) {
            let name = readable(&line, &message.route.subject());
            let code = name.split(' ').next().unwrap();
            for (field, value) in values(&message) {
                prop_assert!(plausible(field, code).contains(&value), "{code} {field} is {value}");
            }
        }
    }

    #[test]
    fn counters_never_go_back_within_an_order(seed in any::<u64>()) {
        let mut last: BTreeMap<String, (String, i64, i64)> = BTreeMap::new();
        let mut orders_done: BTreeSet<(String, String)> = BTreeSet::new();
        let mut check = |who: String, order: &str, good: i64, total: i64| {
            prop_assert!(0 <= good && good <= total, "{who} {order}: {good} of {total}");
            if let Some((last_order, last_good, last_total)) = last.get(&who) {
                if last_order == order {
                    prop_assert!(*last_good <= good && *last_total <= total, "{who} {order} went back");
                } else {
                    prop_assert!(orders_done.insert((who.clone(), last_order.clone())), "{who} {last_order} \
                     twice");
                }
            }
            last.insert(who, (order.to_owned(), good, total));
            Ok(())
        };
        for message in line(seed, Disturbance::NONE).advance(240_000) {
            match &message.body {
                Body::Counters { order, good, total, .. } => check("CORR-01".to_owned(), order, *good,
                 *total)?,
                Body::Mes { readings, .. } => {
                    for reading in readings {
                        if let Reading::Good { iot_id, order, good, total, .. } = reading {
                            check(iot_id.to_string(), order, *good, *total)?;
                        }
                    }
                }
                _ => {}
            }
        }
    }

    #[test]
    fn speed_changes_no_faster_than_a_drive_can(seed in any::<u64>()) {
        let mut line = line(seed, Disturbance::NONE);
        let mut last: Option<i64> = None;
        for message in line.advance(240_000) {
            let name = readable(&line, &message.route.subject());
            if name != "CORR-01 telemetry" {
                continue;
            }
            let speed = values(&message)["speed"];
            if let Some(last) = last {
                // An emergency stop slows down by 75 m/min per second, here for 0.2 s; measurement noise is
                // added.
                prop_assert!((speed - last).abs() <= 150 + 25, "from {last} to {speed}");
            }
            last = Some(speed);
        }
    }

    #[test]
    fn the_temperature_follows_the_steam_slowly(seed in any::<u64>()) {
        let mut line = line(seed, Disturbance::NONE);
        let mut last: Option<i64> = None;
        for message in line.advance(200_000) {
            let name = readable(&line, &message.route.subject());
            if name != "CORR-01 telemetry" {
                continue;
            }
            let temperature = values(&message)["tempDoubleBacker"];
            if let Some(last) = last {
                prop_assert!((temperature - last).abs() <= 4, "from {last} to {temperature}");
            }
            last = Some(temperature);
        }
    }
}
