//! Judgements of devices without a broker: each reason, hints, budgets, and what is told of it.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use flutecast_contract::document::FormatDocument;
use flutecast_contract::name::{ChannelName, IotId, TenantName};
use flutecast_contract::stream_position::Sequence;
use flutecast_contract::tail::LATENESS_WINDOW;
use flutecast_format::program::Program;
use flutecast_nats::StoredMessage;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::{MessageJudge, Tails, Told};
use crate::last_messages::{ChannelLook, DeviceLook};
use crate::presence::{Understanding, Understood};

const FORMAT: &str = "{codec: JSON, timestamp: {pointer: /ts, unit: Milliseconds}, fields: \
    [{name: speed, pointer: /v, type: Number}, {name: state, pointer: /st, type: Enum, values: {'0': off, \
    '1': on}}]}";

type Stored = BTreeMap<(IotId, ChannelName), Vec<StoredMessage>>;

/// The messages of devices, each with the same channels and the same format.
struct Plant {
    program: Program,
    now: Timestamp,
    stored: Stored,
    sequence: u64,
    judge: MessageJudge<Answers>,
}

/// What was told last of each device, and how often something else was.
#[derive(Default)]
struct Answers(Mutex<BTreeMap<String, (Understanding, usize)>>);

impl Told for Answers {
    fn tell(&self, device: &DeviceLook<'_>, understanding: Understanding, is_certain: bool) {
        let mut answers = self.0.lock().unwrap();
        let (told, changes) = answers.entry(device.key.1.clone()).or_insert((Understanding::NO_MESSAGES, 0));
        let after = told.followed_by(understanding, is_certain);
        *changes += usize::from(after != *told);
        *told = after;
    }
}

struct Budget<'a> {
    stored: &'a Stored,
    left: AtomicUsize,
}

impl Tails for Budget<'_> {
    async fn newest(
        &self,
        iot_id: &IotId,
        channel: &ChannelName,
        count: usize,
    ) -> Option<Vec<StoredMessage>> {
        let take = |left: usize| left.checked_sub(1);
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).ok()?;
        let all = &self.stored[&(iot_id.clone(), channel.clone())];
        Some(all[all.len().saturating_sub(count)..].to_vec())
    }
}

fn program(format: &str) -> Program {
    let document: FormatDocument = serde_yaml::from_str(format).unwrap();
    Program::compile(&document).unwrap()
}

fn channel(name: &str) -> ChannelName {
    ChannelName::new(name).unwrap()
}

fn iot_id(device: &str) -> IotId {
    IotId::new(device).unwrap()
}

impl Plant {
    fn new(format: &str) -> Self {
        let answers = Answers::default();
        Self {
            program: program(format),
            now: "2026-11-28T10:00:00.123Z".parse().unwrap(),
            stored: Stored::new(),
            sequence: 0,
            judge: MessageJudge::new(answers),
        }
    }

    /// Stores a message whose `TS` is the time, in milliseconds, so many after it was stored.
    fn send(&mut self, device: &str, name: &str, payload: &str, ahead: i64) {
        self.sequence += 1;
        let own = self.now.as_millisecond() + ahead;
        let message = StoredMessage {
            subject: format!("iot.acme.{device}.{name}"),
            sequence: Sequence(self.sequence),
            stored_at: self.now,
            captured_at: None,
            origin: None,
            payload: payload.replace("TS", &own.to_string()).into_bytes().into(),
        };
        self.stored.entry((iot_id(device), channel(name))).or_default().push(message);
        self.now += SignedDuration::from_millis(100);
    }

    /// Looks at devices with these channels; `most` tails are read.
    async fn look(&mut self, devices: &[&str], channels: &[&str], most: usize) -> usize {
        self.now += SignedDuration::from_secs(45);
        let (tenant, names) = (TenantName::new("acme").unwrap(), channels.iter().copied().map(channel));
        let names: Vec<ChannelName> = names.collect();
        let tails = Budget { stored: &self.stored, left: AtomicUsize::new(most) };
        for device in devices {
            let iot_id = iot_id(device);
            let channels = names.iter().map(|name| ChannelLook {
                name,
                program: &self.program,
                last: self.stored.get(&(iot_id.clone(), name.clone())).and_then(|all| all.last()),
            });
            let look = DeviceLook {
                tenant: &tenant,
                iot_id: &iot_id,
                key: ("default".to_owned(), (*device).to_owned()),
                channels: channels.collect(),
                now: self.now,
                is_in_turn: true,
            };
            self.judge.device(&look, &tails).await;
        }
        most - tails.left.into_inner()
    }

    fn said(&self, device: &str) -> Understanding {
        self.judge.told.0.lock().unwrap()[device].0.clone()
    }

    fn changes(&self, device: &str) -> usize {
        self.judge.told.0.lock().unwrap()[device].1
    }
}

/// Returns what is said of a device that sent only this.
async fn said_of(format: &str, payload: &str, ahead: i64) -> (Understood, String, String) {
    let mut plant = Plant::new(format);
    plant.send("press", "telemetry", payload, ahead);
    plant.look(&["press"], &["telemetry"], 64).await;
    let Understanding { status, reason, message } = plant.said("press");
    (status, reason.into_owned(), message.into_owned())
}

#[tokio::test]
async fn each_reason_is_named_with_channel_place_and_remedy() {
    let strict = FORMAT.replace("Milliseconds", "Milliseconds, maxAge: 60s, maxAhead: 10m");
    let strict = strict.replace("maxAge: 60s, maxAhead: 10m", "maxAgeMs: 60000, maxAheadMs: 600000");
    let good = "{\"ts\":TS,\"v\":1,\"st\":1}";
    for (format, payload, ahead, status, reason, words) in [
        (FORMAT, good, 0, Understood::True, "Understood", "is understood"),
        (FORMAT, good, 3_600_000, Understood::True, "ClockAhead", "channel telemetry at /ts: "),
        (FORMAT, "{\"ts\":TS,\"v\":1,", 0, Understood::False, "Malformed", "channel telemetry: at byte "),
        (FORMAT, "{\"ts\":true,\"v\":1}", 0, Understood::False, "BadTimestamp", "channel telemetry at /ts: "),
        (&strict, good, -61_000, Understood::False, "TooOld", "channel telemetry at /ts: "),
        (&strict, good, 3_600_000, Understood::False, "TooFarAhead", "channel telemetry at /ts: "),
        (FORMAT, "{\"ts\":TS,\"V\":1}", 0, Understood::False, "NoFields", "channel telemetry: "),
        (
            FORMAT,
            "{\"ts\":TS,\"v\":1,\"st\":7}",
            0,
            Understood::False,
            "BadField",
            "channel telemetry, field state at /st: ",
        ),
    ] {
        let (said, why, message) = said_of(format, payload, ahead).await;
        assert_eq!((said, why.as_str()), (status, reason), "{payload}: {message}");
        assert!(message.contains(words), "{message}");
    }
    let (_, _, message) = said_of(FORMAT, "{\"ts\":TS,\"v\":1,\"st\":7}", 0).await;
    // As docs/conditions.md shows it.
    let page = include_str!("../../../../docs/conditions.md");
    assert!(page.contains(&format!("\n{message}\n")), "{message}");
}

#[tokio::test]
async fn what_a_format_leaves_out_is_understood() {
    let format = "{codec: JSON, when: values.v >= 0, fields: [{name: v, pointer: /v, type: Number}]}";
    assert_eq!(said_of(format, "{\"v\":-1}", 0).await.0, Understood::True);
    // With a record, a message that has only some of its fields is whole.
    let record = FORMAT.replace("fields:", "record: {expireFieldsMs: 600000}, fields:");
    let mut plant = Plant::new(&record);
    for _ in 0..30 {
        plant.send("press", "telemetry", "{\"ts\":TS,\"v\":1}", 0);
        plant.send("press", "telemetry", "{\"ts\":TS,\"st\":1}", 0);
    }
    plant.look(&["press"], &["telemetry"], 64).await;
    assert_eq!(plant.said("press"), Understanding::UNDERSTOOD);
    let repeats = format!("{{delivery: {{policy: Every}}, {}", &FORMAT[1..]);
    let mut plant = Plant::new(&repeats);
    let late = format!("{{\"ts\":{},\"v\":1,\"st\":1}}", plant.now.as_millisecond() - 30_000);
    plant.send("press", "telemetry", &late, 0);
    plant.send("press", "telemetry", &late, 0);
    assert_eq!(plant.look(&["press"], &["telemetry"], 64).await, 0);
    assert_eq!(plant.said("press"), Understanding::UNDERSTOOD);
}

#[tokio::test]
async fn whether_a_message_is_out_of_order_is_read() {
    let mut plant = Plant::new(FORMAT);
    let good = "{\"ts\":TS,\"v\":1,\"st\":1}";
    // A clock that is 40 s slow is in order with itself.
    plant.send("press", "telemetry", good, -40_000);
    plant.send("press", "telemetry", good, -40_000);
    assert_eq!(plant.look(&["press"], &["telemetry"], 64).await, 1);
    assert_eq!(plant.said("press"), Understanding::UNDERSTOOD);
    // A second gateway, whose clock is right, publishes on the same channel.
    plant.now += SignedDuration::try_from(LATENESS_WINDOW).unwrap();
    plant.send("press", "telemetry", good, 0);
    plant.send("press", "telemetry", good, -40_000);
    assert_eq!(plant.look(&["press"], &["telemetry"], 64).await, 1);
    let said = plant.said("press");
    assert_eq!((said.status, &*said.reason), (Understood::False, "OutOfOrder"), "{said:?}");
    assert!(said.message.starts_with("channel telemetry at /ts: "), "{said:?}");
    // The same message needs no second reading; while nothing can be read, what was said stays.
    assert_eq!(plant.look(&["press"], &["telemetry"], 64).await, 0);
    plant.send("press", "telemetry", good, -20_000);
    plant.look(&["press"], &["telemetry"], 0).await;
    assert_eq!(plant.said("press"), said);
    assert_eq!(plant.changes("press"), 2);
    plant.now += SignedDuration::try_from(LATENESS_WINDOW).unwrap();
    plant.send("press", "telemetry", good, -20_000);
    plant.look(&["press"], &["telemetry"], 64).await;
    assert_eq!(plant.said("press"), Understanding::UNDERSTOOD);
}

#[tokio::test]
async fn a_field_that_never_comes_is_a_hint() {
    let mut plant = Plant::new(FORMAT);
    for _ in 0..19 {
        plant.send("press", "telemetry", "{\"ts\":TS,\"v\":1}", 0);
    }
    assert_eq!(plant.look(&["press"], &["telemetry"], 64).await, 1);
    assert_eq!(plant.said("press"), Understanding::UNDERSTOOD, "it may come yet");
    for _ in 0..20 {
        plant.send("press", "telemetry", "{\"ts\":TS,\"v\":1}", 0);
    }
    // It is read again, though not at each look.
    let mut read = 0;
    for _ in 0..10 {
        read += plant.look(&["press"], &["telemetry"], 64).await;
    }
    assert_eq!(read, 1);
    let said = plant.said("press");
    assert_eq!((said.status, &*said.reason), (Understood::True, "FieldNotFound"), "{said:?}");
    assert!(said.message.starts_with("channel telemetry, field state at /st: "), "{said:?}");
    // Without a budget the hint stays, as after a restart.
    plant.judge = MessageJudge::new(std::mem::take(&mut plant.judge.told));
    plant.look(&["press"], &["telemetry"], 0).await;
    assert_eq!(plant.said("press"), said);
    plant.look(&["press"], &["telemetry"], 64).await;
    assert_eq!((plant.said("press"), plant.changes("press")), (said, 2));
    // Once the field came, a message without it is not held against it.
    plant.send("press", "telemetry", "{\"ts\":TS,\"v\":1,\"st\":1}", 0);
    plant.look(&["press"], &["telemetry"], 64).await;
    assert_eq!(plant.said("press"), Understanding::UNDERSTOOD);
    plant.send("press", "telemetry", "{\"ts\":TS,\"v\":1}", 0);
    plant.look(&["press"], &["telemetry"], 64).await;
    assert_eq!(plant.said("press"), Understanding::UNDERSTOOD);
}

#[tokio::test]
async fn the_worst_of_several_channels_is_named() {
    let mut plant = Plant::new(FORMAT);
    plant.send("press", "alarm", "{\"ts\":TS,\"v\":1,\"st\":7}", 0);
    plant.send("press", "order", "{\"ts\":TS,", 0);
    plant.send("press", "power", "{\"ts\":TS,\"v\":1,\"st\":1}", 3_600_000);
    let channels = ["alarm", "order", "power", "telemetry"];
    plant.look(&["press"], &channels, 64).await;
    let said = plant.said("press");
    assert_eq!((said.status, &*said.reason), (Understood::False, "Malformed"));
    assert!(said.message.starts_with("channel order, and 1 more channel: at byte "), "{said:?}");
    plant.send("press", "order", "{\"ts\":TS,\"v\":1,\"st\":1}", 0);
    plant.send("press", "alarm", "{\"ts\":TS,\"v\":1,\"st\":1}", 0);
    plant.look(&["press"], &channels, 64).await;
    assert_eq!(&*plant.said("press").reason, "ClockAhead");
}

#[tokio::test]
async fn the_same_problem_is_told_once_whatever_is_found() {
    let mut plant = Plant::new(FORMAT);
    plant.look(&["press"], &["telemetry"], 64).await;
    assert_eq!(plant.said("press"), Understanding::NO_MESSAGES);
    for (cut, state) in (0..20).zip([7, 8].into_iter().cycle()) {
        let payload = format!("{{\"ts\":TS,\"v\":{cut},\"st\":{state}}}");
        plant.send("press", "telemetry", &payload, 0);
        plant.look(&["press"], &["telemetry"], 64).await;
    }
    assert_eq!(plant.changes("press"), 1);
    // Cut off at another byte each time, and a clock that drifts.
    for length in 3..12 {
        plant.send("press", "telemetry", &"{\"ts\":TS,\"v\":1"[..length], 0);
        plant.look(&["press"], &["telemetry"], 64).await;
    }
    assert_eq!((plant.changes("press"), &*plant.said("press").reason), (2, "Malformed"));
    for drift in 2..20 {
        plant.send("press", "telemetry", "{\"ts\":TS,\"v\":1,\"st\":1}", drift * 1000);
        plant.look(&["press"], &["telemetry"], 64).await;
    }
    assert_eq!((plant.changes("press"), &*plant.said("press").reason), (3, "ClockAhead"));
}

#[tokio::test]
async fn a_small_budget_reaches_every_channel_in_turn() {
    const DEVICES: usize = 200;
    let mut plant = Plant::new(FORMAT);
    let names: Vec<String> = (0..DEVICES).map(|number| format!("d{number}")).collect();
    let devices: Vec<&str> = names.iter().map(String::as_str).collect();
    for device in &devices {
        for _ in 0..20 {
            plant.send(device, "telemetry", "{\"ts\":TS,\"v\":1}", 0);
        }
    }
    let hinted =
        |plant: &Plant| devices.iter().filter(|device| plant.said(device).reason == "FieldNotFound").count();
    for look in 1..=20 {
        let read = plant.look(&devices, &["telemetry"], 10).await;
        assert_eq!((read, hinted(&plant)), (10, 10 * look));
    }
    // They mend; each is found to have mended at the next look, and none is forgotten.
    for device in &devices {
        plant.send(device, "telemetry", "{\"ts\":TS,\"v\":1,\"st\":1}", 0);
    }
    plant.look(&devices, &["telemetry"], 10).await;
    assert_eq!(hinted(&plant), 0);
    // A fleet of slow clocks has its order looked at in turn, too.
    for device in &devices {
        plant.send(device, "telemetry", "{\"ts\":TS,\"v\":1,\"st\":1}", -40_000);
    }
    let mut read = 0;
    for _ in 0..25 {
        read += plant.look(&devices, &["telemetry"], 10).await;
    }
    assert!(read >= DEVICES, "{read}");
    assert!(devices.iter().all(|device| plant.said(device) == Understanding::UNDERSTOOD));
}
