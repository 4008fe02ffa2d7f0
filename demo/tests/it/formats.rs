//! Applies the formats in manifests/demo, as mapped by the operator, to the line's messages.

use std::collections::BTreeMap;

use flutecast_contract::document::ShardDocument;
use flutecast_contract::name::{IotId, TenantName};
use flutecast_demo::line::{Body, Delivery, Disturbance, Line, LineOptions, Message, Reading, WallClock};
use flutecast_format::program::{ChannelState, DropReason, Message as Raw, Output, Program, Timestamp};
use flutecast_testkit::LocalStack;

/// An arbitrary time in November 2026.
const CLOCK: WallClock = WallClock { start_unix_ms: 1_795_341_000_000, rate_factor: 1.0 };

/// The programs and states of the demo's channels, by iotId and channel.
struct Channels(BTreeMap<(String, String), (Program, ChannelState)>);

impl Channels {
    /// Reads the mapping that the operator generates from manifests/demo.
    async fn of_the_demo() -> Self {
        let stack = LocalStack::demo().await.unwrap();
        let mut channels = BTreeMap::new();
        for entry in std::fs::read_dir(stack.mapping()).unwrap() {
            let path = entry.unwrap().path();
            if !path.file_name().unwrap().to_str().unwrap().starts_with("flutecast-demo-") {
                continue;
            }
            let shard = ShardDocument::from_yaml(&std::fs::read_to_string(&path).unwrap()).unwrap();
            for (iot_id, device) in &shard.devices {
                for (channel, document) in &*device.channels {
                    let program = Program::compile(&shard.formats[&document.format]).unwrap();
                    let key = (iot_id.to_string(), channel.to_string());
                    channels.insert(key, (program, ChannelState::complete()));
                }
            }
        }
        assert_eq!(channels.keys().filter(|(_, channel)| channel == "telemetry").count(), 5);
        Self(channels)
    }

    /// Returns the values of a payload as text, and the number of fields that can't be read.
    fn apply(
        &mut self,
        key: &(String, String),
        payload: &[u8],
        at_ms: u64,
    ) -> Result<(String, u32), DropReason> {
        let (program, state) =
            self.0.get_mut(key).unwrap_or_else(|| panic!("{key:?} is not in the manifests"));
        let now = Timestamp::from_millis(CLOCK.unix_ms(at_ms));
        let mut output = Output::default();
        let applied =
            program.apply(Raw { payload, stored_at: now, captured_at: None }, state, &mut output).unwrap();
        applied.verdict?;
        Ok((String::from_utf8(output.values).unwrap(), applied.skipped_fields))
    }
}

/// Returns the payloads of a message, each with its iotId and channel; an MES message has several.
fn payloads(message: &Message) -> Vec<((String, String), Vec<u8>)> {
    let whole = message.payload(&CLOCK).unwrap();
    if let Body::Mes { readings, .. } = &message.body {
        let json: serde_json::Value = serde_json::from_slice(&whole).unwrap();
        let items = json["readings"].as_array().unwrap().iter().zip(readings);
        let good = items.filter_map(|(item, reading)| match reading {
            Reading::Good { iot_id, .. } => Some((counters(iot_id), serde_json::to_vec(item).unwrap())),
            Reading::Malformed(_) => None,
        });
        return good.collect();
    }
    let subject = message.route.subject();
    let tokens: Vec<&str> = subject.split('.').collect();
    vec![((tokens[2].to_owned(), tokens[3].to_owned()), whole)]
}

fn counters(iot_id: &IotId) -> (String, String) {
    (iot_id.to_string(), "counters".to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_formats_take_what_the_line_sends() {
    let mut channels = Channels::of_the_demo().await;
    let disturbance = Disturbance { late_percent: 2.0, duplicate_percent: 2.0, malformed_percent: 10.0 };
    let options = LineOptions { tenant: TenantName::new("demo").unwrap(), seed: 1, disturbance };
    let mut taken: BTreeMap<(String, String), u32> = BTreeMap::new();
    let mut dropped: BTreeMap<String, u32> = BTreeMap::new();
    for message in Line::new(&options).unwrap().advance(120_000) {
        for (key, payload) in payloads(&message) {
            let text = String::from_utf8_lossy(&payload).into_owned();
            match (message.delivery, channels.apply(&key, &payload, message.due_ms)) {
                (_, Ok((values, skipped))) => {
                    assert_eq!(skipped, 0, "{key:?}: {text} became {values}");
                    *taken.entry(key).or_default() += 1;
                }
                // A machine stands still or has not made any pieces yet.
                (Delivery::OnTime, Err(DropReason::Unchanged | DropReason::Filtered)) => {}
                (Delivery::OnTime, Err(reason)) => panic!("{key:?}: {text} is dropped: {reason:?}"),
                (delivery, Err(reason)) => {
                    *dropped.entry(format!("{delivery:?} {reason:?}")).or_default() += 1
                }
            }
        }
    }
    for key in channels.0.keys() {
        assert!(taken.contains_key(key), "nothing of {key:?} came through: {taken:?}");
    }
    for expected in ["Late TooOld", "Duplicate OutOfOrder", "Duplicate Repeat"] {
        assert!(dropped.contains_key(expected), "{expected} is not in {dropped:?}");
    }
}
