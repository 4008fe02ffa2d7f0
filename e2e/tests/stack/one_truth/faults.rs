//! Devices of the demo that send wrong things: each fault is named with device, channel, reason and remedy
//! where people look (the pod's log, the stream, the JSON API), and ends when the device is right again.

use std::time::Duration;

use flutecast_testkit::{Dataplane, LocalStack, Publisher, http_client, wait_until};
use serde_json::{Value, json};

use super::screen::Screen;
use crate::factory::{SOON, now_ms};

const TENANT: &str = "demo";
const CHANNEL: &str = "telemetry";
/// The time within which a fault on a watched channel is told.
const TOLD: Duration = Duration::from_secs(10);

/// A device that sends something wrong, and what is said of it.
struct Fault {
    device: &'static str,
    reason: &'static str,
    field: Option<&'static str>,
    /// What the place says, or begins with.
    place: &'static str,
    found: Option<&'static str>,
    /// Words of the remedy.
    remedy: &'static str,
    /// A wrong and a right message, at this time.
    wrong: fn(u64) -> String,
    right: fn(u64) -> String,
}

fn corrugator(ts: u64) -> String {
    format!(
        r#"{{"ts":{ts},"d":{{"speed":1824,"st":1,"webTension":420,"glueGap":130,"steamPreheater1":1105,
            "steamPreheater2":1098,"steamDoubleBacker":1120,"tempPreheater1":1651,"tempPreheater2":1644,
            "tempDoubleBacker":1702}}}}"#
    )
}

fn die_cutter(ts: u64) -> String {
    format!(r#"{{"ts":{ts},"d":{{"strokes":154,"pressure":1835,"st":1}}}}"#)
}

fn printer(ts: u64) -> String {
    format!(
        r#"{{"ts":{ts},"d":{{"speed":9240,"inkViscosity":221,"inkTemp":236,"registerError":84,"st":1}}}}"#
    )
}

fn stacker(ts: u64, state: u32) -> String {
    format!(r#"{{"ts":{ts},"d":{{"height":312,"pileCount":7,"st":{state}}}}}"#)
}

fn slitter(ts: u64, speed: &str) -> String {
    format!(r#"{{"ts":{ts},"d":{{"{speed}":1824,"knives":4,"trimLeft":182,"trimRight":179,"st":1}}}}"#)
}

const FAULTS: [Fault; 5] = [
    Fault {
        device: "CORR-01",
        reason: "TooOld",
        field: None,
        place: "/ts",
        found: None,
        remedy: "clock",
        wrong: |now| corrugator(now - 40_000),
        right: corrugator,
    },
    Fault {
        device: "DIE-01",
        reason: "Malformed",
        field: None,
        place: "byte ",
        found: None,
        remedy: "cut",
        wrong: |now| {
            let mut whole = die_cutter(now);
            whole.truncate(whole.len() / 2);
            whole
        },
        right: die_cutter,
    },
    Fault {
        device: "STACK-01",
        reason: "BadField",
        field: Some("state"),
        place: "/d/st",
        found: Some("7"),
        remedy: "values",
        wrong: |now| stacker(now, 7),
        right: |now| stacker(now, 1),
    },
    Fault {
        device: "SLIT-01",
        reason: "FieldNotFound",
        field: Some("speed"),
        place: "/d/speed",
        found: None,
        remedy: "pointer",
        wrong: |now| slitter(now, "sped"),
        right: |now| slitter(now, "speed"),
    },
    Fault {
        device: "FLEX-01",
        reason: "TooFarAhead",
        field: None,
        place: "/ts",
        found: None,
        remedy: "clock",
        wrong: |now| printer(now + 3_600_000),
        right: printer,
    },
];

/// The number of messages without a field after which its pointer is taken for a wrong one.
const MESSAGES_WITHOUT: u64 = 20;

impl Fault {
    async fn send(
        &self,
        stack: &LocalStack,
        publisher: &Publisher,
        message: fn(u64) -> String,
    ) -> anyhow::Result<()> {
        let subject = stack.subject(self.device, CHANNEL)?;
        for n in 0..MESSAGES_WITHOUT {
            publisher.publish(&subject, message(now_ms() + n)).await?;
        }
        Ok(())
    }

    /// Checks that a problem says what is wrong and where.
    fn is_named_by(&self, problem: &Value) -> Result<(), String> {
        let place = problem["place"].as_str().unwrap_or_default();
        let message = problem["message"].as_str().unwrap_or_default();
        let named = problem["reason"] == self.reason
            && problem["field"] == json!(self.field)
            && place.starts_with(self.place)
            && self.found.is_none_or(|found| problem["found"] == found)
            && message.contains(self.remedy)
            && problem["count"].as_u64() > Some(0)
            && problem["since"].is_string()
            && problem["last"].is_string();
        if named { Ok(()) } else { Err(problem.to_string()) }
    }

    async fn in_json(&self, pod: &Dataplane) -> Result<Value, String> {
        let url = format!("{}/v1/{TENANT}/devices/{}", pod.url, self.device);
        let device = http_client::get_json(&url).await.map_err(|error| format!("{error:#}"))?;
        Ok(device["channels"][CHANNEL]["problem"].clone())
    }
}

#[tokio::test]
async fn each_fault_of_the_demo_is_named_where_people_look_and_ends_when_it_is_healed() -> anyhow::Result<()>
{
    let stack = LocalStack::demo().await?;
    let mut pod = stack.dataplane().await?;
    let publisher = stack.publisher().await?;
    let mut screens = Vec::new();
    for fault in &FAULTS {
        screens.push((fault, Screen::open(&pod, TENANT, fault.device).await?));
    }
    for fault in &FAULTS {
        fault.send(&stack, &publisher, fault.right).await?;
    }
    for (fault, screen) in &mut screens {
        screen.read_until("a value", |screen| screen.events(CHANNEL).last().map(|_| ())).await?;
        assert_eq!(screen.problem(CHANNEL), &Value::Null, "{}", fault.device);
        assert_eq!(fault.in_json(&pod).await, Ok(Value::Null), "{}", fault.device);
    }

    let begin = std::time::Instant::now();
    for fault in &FAULTS {
        fault.send(&stack, &publisher, fault.wrong).await?;
    }
    for (fault, screen) in &mut screens {
        let what = format!("the problem {} of {}", fault.reason, fault.device);
        screen.read_until(&what, |screen| fault.is_named_by(screen.problem(CHANNEL)).ok()).await?;
        wait_until(&what, TOLD, async || fault.is_named_by(&fault.in_json(&pod).await?)).await?;
        let line = |line: &str| {
            ["WARN", TENANT, fault.device, CHANNEL, fault.reason].iter().all(|word| line.contains(word))
        };
        pod.process.wait_for_line(&what, TOLD, line).await?;
    }
    assert!(begin.elapsed() < TOLD, "{:?}", begin.elapsed());

    // Faults end 10 s after the last wrong message, once right ones follow.
    for fault in &FAULTS {
        fault.send(&stack, &publisher, fault.right).await?;
    }
    for (fault, screen) in &mut screens {
        let what = format!("the end of {} of {}", fault.reason, fault.device);
        screen.read_until(&what, |screen| screen.problem(CHANNEL).is_null().then_some(())).await?;
        wait_until(&what, SOON, async || match fault.in_json(&pod).await? {
            Value::Null => Ok(()),
            problem => Err(problem.to_string()),
        })
        .await?;
        // A screen that comes now isn't told either.
        let new = Screen::open(&pod, TENANT, fault.device).await?;
        assert_eq!(new.problem(CHANNEL), &Value::Null, "{}", fault.device);
    }
    Ok(())
}
