//! Which messages are copied, and when.

use std::time::Duration;

use flutecast_contract::document::FormatDocument;
use flutecast_contract::stream_position::{Epoch, Sequence};
use flutecast_format::program::Program;
use flutecast_nats::StoredMessage;
use k8s_openapi::jiff::Timestamp;

use crate::last_messages::keep::{self, LookTimes, Step};
use crate::last_messages::memory::{ChannelMemory, Kept};

const MAX_AGE: Duration = Duration::from_secs(600);
const EPOCH: Epoch = Epoch(1);

fn program(format: &str) -> Program {
    let document: FormatDocument = serde_json::from_str(format).unwrap();
    Program::compile(&document).unwrap()
}

fn plain() -> Program {
    program(r#"{"codec": "JSON", "fields": [{"name": "v", "pointer": "/v", "type": "Number"}]}"#)
}

fn positive() -> Program {
    program(
        r#"{"codec": "JSON", "when": "values.v >= 0",
            "fields": [{"name": "v", "pointer": "/v", "type": "Number"}]}"#,
    )
}

fn record(when: &str) -> Program {
    program(&format!(
        r#"{{"codec": "JSON", "record": {{}}, {when} "fields": [
            {{"name": "temp", "pointer": "/temp", "type": "Number"}},
            {{"name": "hum", "pointer": "/hum", "type": "Number"}}]}}"#
    ))
}

/// The messages with these payloads, one each second from `stored` on, with sequences from 1 on.
fn tail(stored: i64, payloads: &[&str]) -> Vec<StoredMessage> {
    let message = |(place, payload): (usize, &&str)| StoredMessage {
        subject: "iot.demo.a.power".to_owned(),
        sequence: Sequence(place as u64 + 1),
        stored_at: Timestamp::from_second(stored + i64::try_from(place).unwrap()).unwrap(),
        captured_at: None,
        origin: None,
        payload: (*payload).to_owned().into(),
    };
    payloads.iter().enumerate().map(message).collect()
}

fn at(second: i64) -> LookTimes {
    LookTimes::new(Timestamp::from_second(second).unwrap(), MAX_AGE)
}

fn kept(sequence: u64) -> ChannelMemory {
    ChannelMemory { kept: Some(Kept { epoch: EPOCH, sequence: Sequence(sequence) }), looked: None }
}

/// The sequences that are copied of a tail at a time, and what is remembered then.
fn copied(
    program: &Program,
    tail: &[StoredMessage],
    memory: ChannelMemory,
    second: i64,
) -> (Vec<u64>, ChannelMemory) {
    let (messages, looked) = keep::look_at_tail(program, tail, Some(&memory), at(second));
    let copied: Vec<u64> = messages.iter().map(|message| message.sequence.0).collect();
    let kept = copied.last().map(|last| Kept { epoch: EPOCH, sequence: Sequence(*last) });
    (copied, ChannelMemory { kept: kept.or(memory.kept), looked })
}

#[test]
fn a_message_that_is_shown_is_copied_when_half_of_max_age_is_over() {
    let last = &tail(1000, &[r#"{"v": 1}"#])[0];
    let program = plain();
    assert_eq!(keep::step(&program, last, None, at(1299)), Step::Nothing);
    assert_eq!(keep::step(&program, last, None, at(1300)), Step::CopyLast);
    assert_eq!(keep::step(&program, last, Some(&kept(1)), at(1300)), Step::Nothing, "it is kept already");
    assert_eq!(keep::step(&program, last, Some(&kept(9)), at(1300)), Step::CopyLast, "another one is kept");
}

#[test]
fn of_a_filtered_message_the_one_that_is_shown_is_copied() {
    let tail = tail(1000, &[r#"{"v": 1}"#, r#"{"v": 2}"#, r#"{"v": -1}"#, r#"{"v": -2}"#]);
    let (program, last) = (positive(), &tail[3]);
    assert_eq!(keep::step(&program, last, None, at(1100)), Step::ReadTail);
    // It is young, so it is read again when it is due, and not before.
    let (none, memory) = copied(&program, &tail, ChannelMemory::default(), 1100);
    assert!(none.is_empty(), "{none:?}");
    assert_eq!(keep::step(&program, last, Some(&memory), at(1300)), Step::Nothing);
    assert_eq!(keep::step(&program, last, Some(&memory), at(1301)), Step::ReadTail);
    let (second, memory) = copied(&program, &tail, memory, 1301);
    assert_eq!(second, [2]);
    assert_eq!(keep::step(&program, last, Some(&memory), at(5000)), Step::Nothing, "silent since");
    // After a restart it is found to be kept.
    let (none, memory) = copied(&program, &tail, kept(2), 1400);
    assert!(none.is_empty(), "{none:?}");
    assert_eq!(keep::step(&program, last, Some(&memory), at(5000)), Step::Nothing);
}

#[test]
fn a_tail_of_which_nothing_is_shown_is_not_read_at_each_look() {
    let mut messages = tail(1000, &[r#"{"v": -1}"#, "{"]);
    let program = positive();
    let (none, memory) = copied(&program, &messages, ChannelMemory::default(), 1010);
    assert!(none.is_empty() && memory.looked.is_some());
    messages.extend(tail(1011, &["{"]));
    messages[2].sequence = Sequence(3);
    assert_eq!(keep::step(&program, &messages[2], Some(&memory), at(1012)), Step::Nothing);
    assert_eq!(keep::step(&program, &messages[2], Some(&memory), at(1160)), Step::ReadTail);
}

#[test]
fn of_a_record_the_messages_are_copied_that_its_fields_come_from() {
    let tail = tail(
        1000,
        &[r#"{"temp": 1}"#, r#"{"hum": 1}"#, r#"{"temp": 2}"#, "{", r#"{"hum": 2}"#, r#"{"hum": 3}"#],
    );
    let program = record("");
    assert_eq!(keep::step(&program, &tail[5], None, at(1200)), Step::Nothing);
    assert_eq!(keep::step(&program, &tail[5], None, at(1305)), Step::ReadTail);
    let (messages, memory) = copied(&program, &tail, ChannelMemory::default(), 1305);
    assert_eq!(messages, [3, 6]);
    assert_eq!(keep::step(&program, &tail[5], Some(&memory), at(1400)), Step::Nothing);
    // Its condition is true only for both fields together.
    let program = record(r#""when": "has(values.temp) && has(values.hum)","#);
    let (messages, _) = copied(&program, &tail, ChannelMemory::default(), 1305);
    assert!(messages.contains(&3) && messages.contains(&6), "{messages:?}");
}

#[test]
fn a_record_is_kept_while_the_device_goes_on_without_anything_to_show() {
    let mut payloads = vec![r#"{"temp": 1, "hum": 1}"#, r#"{"hum": 2}"#];
    let young = vec![r#"{"temp": -1}"#; 300];
    payloads.extend(&young);
    let messages = tail(1000, &payloads);
    let program = record(r#""when": "values.temp >= 0","#);
    let last = messages.last().unwrap();
    assert_eq!(keep::step(&program, last, None, at(1302)), Step::ReadTail, "the newest one is young");
    let (copies, memory) = copied(&program, &messages, ChannelMemory::default(), 1302);
    assert_eq!(copies, [1, 2]);
    assert_eq!(keep::step(&program, last, Some(&memory), at(1303)), Step::Nothing, "it was looked at");
    // One that is shown by itself is young, and so is the record.
    let shown = &tail(1302, &[r#"{"temp": 3}"#])[0];
    assert_eq!(keep::step(&program, shown, None, at(1303)), Step::Nothing);
}
