//! What a channel shows to whom comes late: from its tail on a real nats-server, and from what was kept.

use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream;
use flutecast_contract::document::{
    DeliveryPolicy, FieldDocument, FieldType, FormatDocument, RecordDocument, TimestampDocument,
    TimestampUnit,
};
use flutecast_contract::header::{CAPTURED, ORIGIN_EPOCH, ORIGIN_SEQUENCE, ORIGIN_TIME};
use flutecast_contract::stream_position::Sequence;
use flutecast_dataplane::access::Scope;
use flutecast_dataplane::fanout::{ChannelValues, DeviceQuery, Hubs};
use flutecast_nats::StreamReader;
use flutecast_testkit::wait_until;
use serde_json::{Value, json};

use crate::support::{Client, DEADLINE, Mapping, Room, fast, format, subscribe_to, tenant};

/// A format with a time of its own in milliseconds, without limits.
fn timed(policy: DeliveryPolicy) -> FormatDocument {
    let timestamp = TimestampDocument {
        pointer: "/ts".to_owned(),
        unit: TimestampUnit::Milliseconds,
        max_age_ms: None,
        max_ahead_ms: None,
    };
    FormatDocument { timestamp: Some(timestamp), ..format(policy) }
}

fn one_channel(format: FormatDocument) -> Mapping {
    let mut mapping = Mapping::new(&[]);
    mapping.set_format("one", format);
    mapping.set_device("A", &[("c", "one", None)]);
    mapping
}

fn millis() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

/// Returns the next data event.
async fn next_data(client: &mut Client) -> Value {
    client.next_named("message").await.json().unwrap()
}

/// Returns the channel of the only device as the JSON API of a pod shows it.
async fn json_of(hubs: &Hubs) -> Value {
    let everything = DeviceQuery { all: true, ..DeviceQuery::default() };
    let devices = hubs.latest(&tenant(), &Scope::All, &everything, None).await.unwrap();
    let mut out = Vec::new();
    devices[0].write_json(&mut out);
    serde_json::from_slice::<Value>(&out).unwrap()["channels"]["c"].clone()
}

fn reads(room: &Room, kind: &str) -> u64 {
    room.metric(&format!("stream_reads_total{{kind=\"{kind}\"}}"))
}

/// Asserts that a screen that comes now, one on another pod and the JSON API of a third show these values of
/// this message.
async fn everyone_sees(room: &Room, seq: u64, values: &Value) {
    let mut here = room.subscribe(&["A"]);
    let mut there = subscribe_to(&room.other_pod().await, &["A"], None);
    for data in
        [next_data(&mut here).await, next_data(&mut there).await, json_of(&room.other_pod().await).await]
    {
        assert_eq!((&data["seq"], &data["values"]), (&json!(seq), values), "{data}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn in_the_usual_case_nothing_is_read_but_the_newest_messages() {
    let devices = ["A", "B", "C", "D"];
    let room = Room::new(&devices).await;
    for device in devices {
        room.publish(device, "latest", 1).await;
        room.publish(device, "every", 2).await;
    }
    let mut client = room.subscribe(&devices);
    client.settled().await;
    assert_eq!((reads(&room, "Last"), reads(&room, "Tail"), reads(&room, "Kept")), (1, 0, 0));
    assert_eq!(reads(&room, "Missed"), 0);
    let offset = room.metric("broker_clock_offset_seconds");
    assert_eq!(offset, 0, "it is one machine");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_is_found_behind_messages_that_cannot_be_shown() {
    let when = Some("values.n >= 0".to_owned());
    let room =
        Room::with(&one_channel(FormatDocument { when, ..format(DeliveryPolicy::Latest) }), fast()).await;
    let mut open = room.subscribe(&["A"]);
    open.settled().await;
    let seq = room.publish("A", "c", 1_824).await;
    assert_eq!(open.next_value("A", "c").await, 1_824);
    room.publish_text("A", "c", "{\"n\":-1}").await;
    everyone_sees(&room, seq, &json!({"n": 1_824})).await;
    for _ in 0..300 {
        room.publish_text("A", "c", "{\"n\":").await;
    }
    everyone_sees(&room, seq, &json!({"n": 1_824})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_tail_is_entered_near_its_end() {
    let when = Some("values.n >= 0".to_owned());
    let room =
        Room::with(&one_channel(FormatDocument { when, ..format(DeliveryPolicy::Latest) }), fast()).await;
    for _ in 0..4_000 {
        let payload = "{\"n\":-1}".into();
        room.jetstream.publish("iot.acme.id-A.c", payload).await.unwrap();
    }
    let seq = room.publish("A", "c", 7).await;
    for _ in 0..500 {
        room.publish_text("A", "c", "{\"n\":-1}").await;
    }
    everyone_sees(&room, seq, &json!({"n": 7})).await;
    let most = 64;
    assert!(reads(&room, "Tail") < most, "{} reads", reads(&room, "Tail"));
}

/// Few of them fill a page, and a tail.
#[tokio::test(flavor = "multi_thread")]
async fn a_tail_of_large_messages_is_entered_near_its_end() {
    let room = Room::with(&one_channel(format(DeliveryPolicy::Latest)), fast()).await;
    let bad = "x".repeat(800_000);
    for _ in 0..120 {
        room.publish_text("A", "c", &bad).await;
    }
    let seq = room.publish("A", "c", 7).await;
    room.publish_text("A", "c", &bad).await;
    everyone_sees(&room, seq, &json!({"n": 7})).await;
    let most = 3 * 12;
    assert!(reads(&room, "Tail") < most, "{} reads", reads(&room, "Tail"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_message_does_not_win_because_it_is_the_newest_one() {
    let room = Room::with(&one_channel(timed(DeliveryPolicy::Latest)), fast()).await;
    let now = millis();
    let seq = room.publish_text("A", "c", &format!("{{\"ts\":{now},\"n\":1}}")).await;
    room.publish_text("A", "c", &format!("{{\"ts\":{},\"n\":2}}", now - 30_000)).await;
    everyone_sees(&room, seq, &json!({"n": 1})).await;
    assert!(reads(&room, "Tail") >= 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_ahead_is_live_for_everybody_at_the_time_of_storing() {
    let room = Room::with(&one_channel(timed(DeliveryPolicy::Latest)), fast()).await;
    let mut open = room.subscribe(&["A"]);
    open.settled().await;
    room.publish_text("A", "c", &format!("{{\"ts\":{},\"n\":1}}", millis() + 3_600_000)).await;
    let data = next_data(&mut open).await;
    let time: jiff::Timestamp = data["time"].as_str().unwrap().parse().unwrap();
    assert!(time <= jiff::Timestamp::now(), "{data}");
    let seq = room.publish_text("A", "c", &format!("{{\"ts\":{},\"n\":2}}", millis())).await;
    assert_eq!(open.next_value("A", "c").await, 2);
    everyone_sees(&room, seq, &json!({"n": 2})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_is_whole_for_everybody() {
    let room = Room::with(&one_channel(record()), fast()).await;
    let mut open = room.subscribe(&["A"]);
    open.settled().await;
    room.publish("A", "c", 20).await;
    assert_eq!(next_data(&mut open).await["values"], json!({"n": 20}));
    // The times on the wire have milliseconds.
    tokio::time::sleep(Duration::from_millis(20)).await;
    let seq = room.publish_text("A", "c", "{\"hum\":50}").await;
    let whole = json!({"n": 20, "hum": 50});
    let live = next_data(&mut open).await;
    assert_eq!(live["values"], whole);
    assert!(live["at"]["n"].is_string() && live["at"]["hum"].is_null(), "{live}");
    everyone_sees(&room, seq, &whole).await;
    let mut late = room.subscribe(&["A"]);
    assert_eq!(next_data(&mut late).await, live, "also the times of the fields");
    assert_eq!(json_of(&room.other_pod().await).await["at"], live["at"]);
}

fn record() -> FormatDocument {
    let mut document = format(DeliveryPolicy::Latest);
    document.record = Some(RecordDocument { expire_fields_ms: Some(600_000) });
    document.fields.push(FieldDocument {
        name: "hum".to_owned(),
        pointer: Some("/hum".to_owned()),
        kind: Some(FieldType::Number),
        ..FieldDocument::default()
    });
    document
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_whose_older_messages_are_gone_is_gathered_from_what_was_kept() {
    const MAX_AGE: Duration = Duration::from_secs(3);
    let room = Room::with(&one_channel(record()), fast()).await;
    let age = |config: &mut jetstream::stream::Config| {
        (config.max_age, config.duplicate_window) = (MAX_AGE, MAX_AGE);
    };
    room.create_stream(age).await;
    create_kept_stream(&room).await;
    let mut open = room.subscribe(&["A"]);
    open.settled().await;
    let first = room.publish("A", "c", 20).await;
    next_data(&mut open).await;
    let aged_out = || async {
        let reader = StreamReader::new(room.nats.client().await.unwrap(), "IOT_acme".to_owned());
        match reader.first_of("iot.acme.id-A.c").await.map_err(|error| error.to_string())? {
            None => Ok(()),
            Some(first) => Err(format!("{first:?} is still stored")),
        }
    };
    wait_until("the first message to age out", DEADLINE, aged_out).await.unwrap();
    let seq = room.publish_text("A", "c", "{\"hum\":50}").await;
    let whole = json!({"n": 20, "hum": 50});
    let shown = next_data(&mut open).await;
    assert_eq!(shown["values"], whole);
    // As the operator keeps them: the messages that the record's fields come from.
    let (epoch, at) = (epoch(&room).await, shown["at"]["n"].as_str().unwrap());
    keep_of(&room, &epoch, first, at, "{\"n\":20}").await;
    keep_of(&room, &epoch, seq, &jiff::Timestamp::now().to_string(), "{\"hum\":50}").await;
    everyone_sees(&room, seq, &whole).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_not_repeated_across_a_resume() {
    let room = Room::with(&one_channel(timed(DeliveryPolicy::Every)), fast()).await;
    let mut client = room.subscribe(&["A"]);
    client.settled().await;
    let event = format!("{{\"ts\":{},\"n\":1}}", millis() / 1_000 * 1_000 + 1);
    let first = room.publish_text("A", "c", &event).await;
    client.passes(first).await;
    let id = client.last_id.clone().unwrap();
    drop(client);
    room.publish_text("A", "c", &event).await;
    room.publish_text("A", "c", &format!("{{\"ts\":{},\"n\":2}}", millis() - 60_000)).await;
    for hubs in [room.hubs.clone(), room.other_pod().await] {
        let mut back = subscribe_to(&hubs, &["A"], Some(&id));
        let data = next_data(&mut back).await;
        assert_eq!((&data["values"], &data["late"]), (&json!({"n": 2}), &json!(true)), "{data}");
        assert_eq!(back.count("gap"), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_a_limit_drops_leaves_no_gap_and_ids_pass_on() {
    let mut document = timed(DeliveryPolicy::Every);
    document.timestamp.as_mut().unwrap().max_ahead_ms = Some(5_000);
    let room = Room::with(&one_channel(document), fast()).await;
    let mut client = room.subscribe(&["A"]);
    client.settled().await;
    let id = client.last_id.clone().unwrap();
    room.publish_text("A", "c", &format!("{{\"ts\":{},\"n\":1}}", millis())).await;
    room.publish_text("A", "c", &format!("{{\"ts\":{},\"n\":2}}", millis() - 1_000)).await;
    let last = room.publish_text("A", "c", &format!("{{\"ts\":{},\"n\":3}}", millis() + 60_000)).await;
    assert_eq!(client.values_until("A", "c", 2).await, [1, 2]);
    client.passes(last).await;
    let mut back = room.resume(&["A"], &id);
    assert_eq!(back.values_until("A", "c", 2).await, [1, 2]);
    back.passes(last).await;
    assert_eq!(client.count("gap") + back.count("gap"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_request_looks_back_on_a_bounded_number_of_channels_and_is_answered() {
    let devices: Vec<String> = (0..300).map(|n| format!("D{n:03}")).collect();
    let mut mapping = Mapping::new(&[]);
    mapping.set_format("one", format(DeliveryPolicy::Latest));
    devices.iter().for_each(|device| mapping.set_device(device, &[("c", "one", None)]));
    let room = Room::with(&mapping, fast()).await;
    for device in &devices {
        room.publish(device, "c", 1).await;
        room.publish_text(device, "c", "{").await;
    }
    let everything = DeviceQuery { all: true, ..DeviceQuery::default() };
    let shown = room.hubs.latest(&tenant(), &Scope::All, &everything, None).await.unwrap();
    let channels: Vec<_> = shown.iter().flat_map(|device| &device.channels).collect();
    assert_eq!(channels.len(), devices.len());
    let (with, without): (Vec<&ChannelValues>, Vec<_>) =
        channels.into_iter().partition(|channel| channel.frame.is_some());
    assert!(!with.is_empty() && with.len() <= 256, "{} were looked back on", with.len());
    for channel in without {
        assert!(channel.problem.as_ref().is_some_and(|problem| problem.contains("NotRead")), "{channel:?}");
    }
    assert_eq!(reads(&room, "Tail"), with.len() as u64, "one read for each");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_request_reads_all_records_and_all_slow_clocks() {
    let devices: Vec<String> = (0..300).map(|n| format!("D{n:03}")).collect();
    for format in [record(), timed(DeliveryPolicy::Latest)] {
        let mut mapping = Mapping::new(&[]);
        mapping.set_format("one", format);
        devices.iter().for_each(|device| mapping.set_device(device, &[("c", "one", None)]));
        let room = Room::with(&mapping, fast()).await;
        for device in &devices {
            room.publish_text(device, "c", &format!("{{\"ts\":{},\"n\":20}}", millis() - 2_000)).await;
        }
        let everything = DeviceQuery { all: true, ..DeviceQuery::default() };
        let shown = room.hubs.latest(&tenant(), &Scope::All, &everything, None).await.unwrap();
        let channels = shown.iter().flat_map(|device| &device.channels);
        assert_eq!(channels.filter(|channel| channel.frame.is_some()).count(), devices.len());
    }
}

/// Creates the stream of kept last values as the operator does.
async fn create_kept_stream(room: &Room) {
    let config = jetstream::stream::Config {
        name: "LAST_acme".to_owned(),
        subjects: vec!["last.acme.>".to_owned()],
        allow_direct: true,
        ..jetstream::stream::Config::default()
    };
    room.jetstream.create_stream(config).await.unwrap();
}

async fn keep(room: &Room, epoch: &str, sequence: u64, payload: &str) {
    keep_of(room, epoch, sequence, "2026-11-22T10:00:00Z", payload).await;
}

async fn keep_of(room: &Room, epoch: &str, sequence: u64, stored_at: &str, payload: &str) {
    let mut headers = HeaderMap::new();
    headers.insert(ORIGIN_EPOCH, epoch);
    headers.insert(ORIGIN_SEQUENCE, sequence.to_string().as_str());
    headers.insert(ORIGIN_TIME, stored_at);
    let subject = "last.acme.id-A.c";
    let ack = room.jetstream.publish_with_headers(subject, headers, payload.to_owned().into()).await.unwrap();
    ack.await.unwrap();
}

async fn epoch(room: &Room) -> String {
    let reader = StreamReader::new(room.nats.client().await.unwrap(), "IOT_acme".to_owned());
    reader.state().await.unwrap().epoch.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_last_value_is_shown_where_the_stream_has_none() {
    let mut mapping = one_channel(format(DeliveryPolicy::Latest));
    mapping.set_device("A", &[("c", "one", Some(10_000))]);
    let room = Room::with(&mapping, fast()).await;
    create_kept_stream(&room).await;
    keep(&room, "00000000", 3, "{\"n\":3}").await;
    let mut client = room.subscribe(&["A"]);
    client.settled().await;
    assert_eq!(client.count("message"), 0);
    assert_eq!(json_of(&room.other_pod().await).await["values"], Value::Null, "it is another stream's");
    drop(client);

    keep(&room, &epoch(&room).await, 42, "{\"n\":42}").await;
    let mut client = subscribe_to(&room.other_pod().await, &["A"], None);
    let event = client.next_named("message").await;
    let data = event.json().unwrap();
    assert_eq!((&data["seq"], &data["values"]), (&json!(42), &json!({"n": 42})));
    assert_eq!((event.id, &data["time"]), (None, &json!("2026-11-22T10:00:00.000Z")));
    let stale = client.next_named("stale").await.json().unwrap();
    assert_eq!(stale["since"], "2026-11-22T10:00:00.000Z");
    let json = json_of(&room.other_pod().await).await;
    assert_eq!(
        (&json["seq"], &json["stale"], &json["values"]),
        (&json!(42), &json!(true), &json!({"n": 42}))
    );

    // What comes live goes on in the tenant's stream.
    let seq = room.publish("A", "c", 43).await;
    assert_eq!(client.next_value("A", "c").await, 43);
    everyone_sees(&room, seq, &json!({"n": 43})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tail_of_a_subject_is_read_from_a_time_and_up_to_a_place() {
    let room = Room::new(&["A"]).await;
    let reader = StreamReader::new(room.nats.client().await.unwrap(), "IOT_acme".to_owned());
    let subject = "iot.acme.id-A.every";
    let mut headers = HeaderMap::new();
    headers.insert(CAPTURED, "2026-11-22T10:00:00.5Z");
    let first = room.jetstream.publish_with_headers(subject, headers, "1".into()).await.unwrap();
    first.await.unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    room.publish("A", "latest", 2).await;
    let third = room.publish("A", "every", 3).await;
    let last = reader.last_of(&[subject]).await.unwrap().messages.remove(0);
    assert_eq!((last.sequence, last.captured_at), (Sequence(third), None));

    let page = reader.page_from(subject, last.stored_at).await.unwrap();
    assert_eq!((page.messages.len(), page.pending), (1, 0), "from its time on");
    let all = reader.page_from(subject, jiff::Timestamp::UNIX_EPOCH).await.unwrap().messages;
    assert_eq!(all.iter().map(|message| message.sequence.0).collect::<Vec<_>>(), [1, 3]);
    assert_eq!(all[0].captured_at, Some("2026-11-22T10:00:00.5Z".parse().unwrap()));
    let later = last.stored_at + Duration::from_secs(1);
    assert!(reader.page_from(subject, later).await.unwrap().messages.is_empty());

    let up_to = async |place| reader.last_up_to(&[subject], Sequence(place)).await.unwrap().messages;
    assert_eq!(up_to(2).await[0].sequence, Sequence(1));
    assert_eq!(up_to(3).await[0].sequence, Sequence(3));
    let state = reader.state().await.unwrap();
    assert!(state.time >= last.stored_at && state.time.duration_since(last.stored_at).as_secs() < 10);
}
