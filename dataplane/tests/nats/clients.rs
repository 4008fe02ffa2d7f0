//! Slow clients, intervals, freshness, changes of the mapping, newest values, draining.

use std::time::Duration;

use crate::support::{Client, DEADLINE, Mapping, Room, fast, format, subscribe_to};
use flutecast_contract::document::DeliveryPolicy;
use flutecast_contract::name::DeviceCode;
use flutecast_dataplane::access::Scope;
use flutecast_dataplane::fanout::{DeviceQuery, HubSettings, Selector, Unavailable};
use flutecast_dataplane::pipeline::Frame;
use flutecast_testkit::wait_until;

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_client_learns_of_its_loss_and_slows_no_other() {
    let settings = HubSettings { every_max_count: 50, ..fast() };
    let room = Room::with(&Mapping::new(&["A"]), settings).await;
    let mut slow = room.subscribe(&["A"]);
    let mut quick = room.subscribe(&["A"]);
    slow.settled().await;
    quick.settled().await;
    let publisher = async {
        for n in 1..=500 {
            room.publish("A", "every", n).await;
            room.publish("A", "latest", n).await;
        }
    };
    let reader = async {
        let values = quick.values_until("A", "every", 500).await;
        quick.values_until("A", "latest", 500).await;
        values
    };
    let (quick_values, ()) = tokio::join!(reader, publisher);
    assert_eq!(quick_values, (1..=500).collect::<Vec<_>>());
    assert_eq!(quick.count("gap"), 0);

    let gap = slow.next_named("gap").await.json().unwrap();
    assert_eq!((gap["channel"].as_str(), gap["reason"].as_str()), (Some("every"), Some("SlowClient")));
    let lost = gap["lost"].as_u64().unwrap();
    let values = slow.values_until("A", "every", 500).await;
    assert!(values.len() <= 50, "the backlog is bounded: {}", values.len());
    assert_eq!(lost + values.len() as u64, 500, "what is lost is counted");
    assert_eq!(values, (lost + 1..=500).collect::<Vec<_>>());
    slow.values_until("A", "latest", 500).await;
    let latest =
        slow.seen.iter().filter(|event| event.is_data() && event.json().unwrap()["channel"] == "latest");
    assert_eq!(latest.count(), 1, "only the newest value of a Latest channel waits");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_nothing_is_closed() {
    let settings = HubSettings { take_timeout: Duration::from_millis(700), ..fast() };
    let room = Room::with(&Mapping::new(&["A"]), settings).await;
    let mut client = room.subscribe(&["A"]);
    client.settled().await;
    let closed = || async {
        match room.metric("slow_clients_closed_total") {
            1 => Ok(()),
            other => Err(format!("{other} closed")),
        }
    };
    wait_until("the client to be closed", DEADLINE, closed).await.unwrap();
    assert_eq!(client.next_named("bye").await.json().unwrap()["reason"], "SlowClient");
    assert!(client.next().await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interval_limits_latest_channels_and_never_every_channels() {
    let room = Room::new(&["A"]).await;
    let mut client = room.subscribe_with(&["A"], |request| request.interval = Some(Duration::from_secs(2)));
    client.settled().await;
    let start = tokio::time::Instant::now();
    for n in 1..=100 {
        room.publish("A", "latest", n).await;
        room.publish("A", "every", n).await;
    }
    assert!(start.elapsed() < Duration::from_secs(2), "the test needs all messages within one interval");
    assert_eq!(client.values_until("A", "latest", 100).await, [1, 100], "the first at once, then the newest");
    assert!(start.elapsed() >= Duration::from_secs(2));
    let every =
        client.seen.iter().filter(|event| event.is_data() && event.json().unwrap()["channel"] == "every");
    assert_eq!(every.count(), 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_min_interval_of_a_format_holds_for_all_clients() {
    let mut mapping = Mapping::new(&[]);
    let mut limited = format(DeliveryPolicy::Latest);
    limited.delivery.min_interval_ms = Some(1_500);
    mapping.set_format("limited", limited);
    mapping.set_device("A", &[("latest", "limited", None)]);
    let room = Room::with(&mapping, fast()).await;
    let mut client = room.subscribe(&["A"]);
    client.settled().await;
    for n in 1..=50 {
        room.publish("A", "latest", n).await;
    }
    let newest = || async {
        let values = room.hubs.latest(&crate::support::tenant(), &Scope::All, &everything(), None).await;
        let values = values.map_err(|error| error.to_string())?;
        match values[0].channels[0].frame.as_ref().map(Frame::values).as_deref() {
            Some(b"{\"n\":50}") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    };
    wait_until("the newest message to be here", DEADLINE, newest).await.unwrap();
    let mut late = room.subscribe(&["A"]);
    assert_eq!(late.next_value("A", "latest").await, 50, "who comes gets the newest value at once");
    assert_eq!(client.values_until("A", "latest", 50).await, [1, 50]);
}

#[tokio::test(flavor = "multi_thread")]
async fn stale_and_fresh_are_sent_once() {
    let mut mapping = Mapping::new(&[]);
    mapping.set_device("A", &[("latest", "latest", Some(600)), ("every", "every", Some(60_000))]);
    let room = Room::with(&mapping, fast()).await;
    room.publish("A", "latest", 1).await;
    let mut client = room.subscribe(&["A"]);
    assert_eq!(client.next_value("A", "latest").await, 1);
    let never = client.next_named("stale").await.json().unwrap();
    assert_eq!(
        (never["channel"].as_str(), never["since"].is_null()),
        (Some("every"), true),
        "nothing was ever stored"
    );
    let stale = client.next_named("stale").await.json().unwrap();
    assert_eq!((stale["channel"].as_str(), stale["staleAfterMs"].as_u64()), (Some("latest"), Some(600)));
    let since: jiff::Timestamp = stale["since"].as_str().unwrap().parse().unwrap();
    let age = jiff::Timestamp::now().duration_since(since).as_millis();
    assert!((600..10_000).contains(&age), "{age}");

    let mut late = room.subscribe(&["A"]);
    let mut channels = Vec::new();
    for _ in 0..2 {
        channels.push(late.next_named("stale").await.json().unwrap()["channel"].as_str().unwrap().to_owned());
    }
    channels.sort();
    assert_eq!(channels, ["every", "latest"], "the snapshot tells what is stale");
    assert_eq!(client.next().await.unwrap().name(), "ping", "it is told once");
    room.publish("A", "latest", 2).await;
    for client in [&mut client, &mut late] {
        client.next_named("fresh").await;
        assert_eq!(client.next_value("A", "latest").await, 2, "fresh comes before the data");
    }
    client.next_named("stale").await;
    let values = room.hubs.latest(&crate::support::tenant(), &Scope::All, &everything(), None).await.unwrap();
    assert!(values[0].channels.iter().all(|channel| channel.stale));
}

fn everything() -> DeviceQuery {
    DeviceQuery { all: true, ..DeviceQuery::default() }
}

/// Clients that ask for the same devices in different ways.
struct Audience {
    all: Client,
    selecting: Client,
    named: Client,
    /// Asks for all devices and may read only A.
    limited: Client,
}

impl Audience {
    async fn subscribe(room: &Room) -> Self {
        let all = room.subscribe_with(&[], |request| request.wanted = everything());
        let selecting = room.subscribe_with(&[], |request| {
            let selector: Selector = "line=l1".parse().unwrap();
            request.wanted = DeviceQuery { selector: Some(selector), ..DeviceQuery::default() };
        });
        let named = room.subscribe(&["B"]);
        let limited = room.subscribe_with(&[], |request| {
            request.wanted = everything();
            request.scope = Scope::Only(std::sync::Arc::new([DeviceCode::new("A").unwrap()].into()));
        });
        Self { all, selecting, named, limited }
    }

    /// Returns the clients that get B.
    fn of_b(&mut self) -> [&mut Client; 3] {
        [&mut self.all, &mut self.selecting, &mut self.named]
    }

    fn everyone(&mut self) -> [&mut Client; 4] {
        [&mut self.all, &mut self.selecting, &mut self.named, &mut self.limited]
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_come_go_and_change_while_clients_are_connected() {
    let mut mapping = Mapping::new(&["A"]);
    let room = Room::with(&mapping, fast()).await;
    let mut audience = Audience::subscribe(&room).await;
    let named = &mut audience.named;
    assert_eq!(named.next().await.unwrap().json().unwrap()["devices"].as_array().unwrap().len(), 0);
    let refused = named.next_named("refused").await.json().unwrap();
    assert_eq!((refused["device"].as_str(), refused["reason"].as_str()), (Some("B"), Some("UnknownDevice")));
    for client in audience.everyone() {
        client.settled().await;
    }
    device_b_appears(&room, &mut mapping, &mut audience).await;
    one_format_of_b_changes(&room, &mut mapping, &mut audience.named).await;
    device_b_goes(&room, &mut mapping, &mut audience).await;
    assert!(
        !audience.limited.seen.iter().any(|event| event.data.as_ref().unwrap().contains("\"B\"")),
        "never a device out of scope"
    );
    room.remove_tenant();
    for client in audience.everyone() {
        assert_eq!(client.next_named("bye").await.json().unwrap()["reason"], "TenantRemoved");
        assert!(client.next().await.is_none());
    }
}

async fn device_b_appears(room: &Room, mapping: &mut Mapping, audience: &mut Audience) {
    room.publish("B", "latest", 1).await;
    mapping.set_device("B", &[("latest", "latest", None), ("every", "every", None)]);
    room.change_mapping(mapping);
    for client in audience.of_b() {
        let devices = client.next_named("devices").await.json().unwrap();
        assert_eq!(devices["added"][0]["device"], "B");
        assert_eq!(devices["added"][0]["channels"][0]["fields"][0]["name"], "n");
        assert_eq!(devices["removed"].as_array().unwrap().len(), 0);
        assert_eq!(client.next_value("B", "latest").await, 1, "with its snapshot");
    }
    room.publish("B", "every", 2).await;
    for client in audience.of_b() {
        assert_eq!(client.next_value("B", "every").await, 2);
    }
}

async fn one_format_of_b_changes(room: &Room, mapping: &mut Mapping, client: &mut Client) {
    let mut scaled = format(DeliveryPolicy::Latest);
    scaled.fields[0].scale = Some(10.0);
    mapping.set_format("latest", scaled);
    room.change_mapping(mapping);
    client.next_named("devices").await;
    assert_eq!(client.next_value("B", "latest").await, 10, "the current value in its new form");
    room.publish("B", "latest", 2).await;
    assert_eq!(client.next_value("B", "latest").await, 20);
    let data = client.seen.iter().filter(|event| event.is_data());
    let every = data.filter(|event| event.json().unwrap()["channel"] == "every").count();
    assert_eq!(every, 1, "a channel whose format is the same goes on");
}

async fn device_b_goes(room: &Room, mapping: &mut Mapping, audience: &mut Audience) {
    mapping.remove_device("B");
    room.change_mapping(mapping);
    for client in audience.of_b() {
        loop {
            let devices = client.next_named("devices").await.json().unwrap();
            if devices["removed"] == serde_json::json!(["B"]) {
                break;
            }
        }
    }
    let left = || async {
        match room.live_subscriptions().await {
            2 => Ok(()),
            other => Err(format!("{other} subscriptions")),
        }
    };
    wait_until("the removed device to be left", DEADLINE, left).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_values_come_from_the_hub_or_from_the_stream() {
    let room = Room::new(&["A", "B"]).await;
    room.publish("A", "latest", 1).await;
    room.publish("B", "every", 2).await;
    let values = async |wanted: &DeviceQuery, scope: &Scope| {
        let values = room.hubs.latest(&crate::support::tenant(), scope, wanted, None).await.unwrap();
        let mut json = Vec::new();
        let mut all = Vec::new();
        for device in values {
            json.clear();
            device.write_json(&mut json);
            all.push(serde_json::from_slice::<serde_json::Value>(&json).unwrap());
        }
        all
    };
    let read = values(&everything(), &Scope::All).await;
    assert_eq!(read[0]["device"], "A");
    assert_eq!(read[0]["channels"]["latest"]["values"]["n"], 1);
    assert!(read[0]["channels"]["every"]["values"].is_null());
    assert_eq!(read[1]["channels"]["every"]["values"]["n"], 2);
    let mut client = room.subscribe(&["A"]);
    client.settled().await;
    room.publish("A", "latest", 3).await;
    client.values_until("A", "latest", 3).await;
    assert_eq!(values(&everything(), &Scope::All).await[0]["channels"]["latest"]["values"]["n"], 3);
    let only_b = Scope::Only(std::sync::Arc::new([DeviceCode::new("B").unwrap()].into()));
    assert_eq!(values(&everything(), &only_b).await.len(), 1);
    let nobody = flutecast_contract::name::TenantName::new("nobody").unwrap();
    let unknown = room.hubs.latest(&nobody, &Scope::All, &everything(), None).await;
    assert_eq!(unknown.unwrap_err(), Unavailable::Starting);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_pod_sends_new_clients_away() {
    let room = Room::with(&Mapping::new(&["A"]), HubSettings { max_clients: 1, ..fast() }).await;
    let first = room.subscribe(&["A"]);
    let mut second = room.subscribe(&["A"]);
    assert_eq!(second.next().await.unwrap().name(), "hello");
    let bye = second.next().await.unwrap();
    assert_eq!(bye.json().unwrap()["reason"], "Full");
    assert_eq!(bye.retry.unwrap().as_millis(), u128::from(bye.json().unwrap()["retryMs"].as_u64().unwrap()));
    assert!(second.next().await.is_none());
    drop((first, second));
    assert_eq!(room.hubs.connections(), 0);
    room.subscribe(&["A"]).settled().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draining_pod_spreads_the_reconnects() {
    let room = Room::new(&["A"]).await;
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut client = room.subscribe(&["A"]);
        client.settled().await;
        clients.push(client);
    }
    room.hubs.drain(Duration::from_secs(20));
    let mut times = Vec::new();
    for client in &mut clients {
        let bye = client.next_named("bye").await.json().unwrap();
        assert_eq!(bye["reason"], "Draining");
        times.push(bye["retryMs"].as_u64().unwrap());
        assert!(client.next().await.is_none());
    }
    times.sort_unstable();
    for (part, time) in times.iter().enumerate() {
        let part = u64::try_from(part).unwrap();
        assert!((part * 1_000..=(part + 1) * 1_000).contains(time), "one in each second: {times:?}");
    }
    let mut late = room.subscribe(&["A"]);
    assert_eq!(late.next_named("bye").await.json().unwrap()["reason"], "Draining");
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_two_pods_get_all_events_of_their_devices_and_no_others() {
    let room = Room::new(&["A", "B"]).await;
    let other_pod = room.other_pod().await;
    let mut clients = vec![room.subscribe(&["A"]), subscribe_to(&other_pod, &["A"], None)];
    let mut other = room.subscribe(&["B"]);
    for client in clients.iter_mut().chain([&mut other]) {
        client.settled().await;
    }
    for n in 1..=200 {
        room.publish("A", "every", n).await;
    }
    room.publish("B", "every", 1).await;
    for client in &mut clients {
        assert_eq!(client.values_until("A", "every", 200).await, (1..=200).collect::<Vec<_>>());
    }
    assert_eq!(other.next_value("B", "every").await, 1);
    assert!(!other.seen.iter().any(|event| event.data.as_ref().unwrap().contains("\"A\"")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_very_many_channels_gets_all_of_its_snapshot() {
    const DEVICES: usize = 600;
    let codes: Vec<String> = (0..DEVICES).map(|device| format!("D{device}")).collect();
    let codes: Vec<&str> = codes.iter().map(String::as_str).collect();
    let settings = HubSettings { every_max_count: 100, ..fast() };
    let room = Room::with(&Mapping::new(&codes), settings).await;
    for (n, code) in (1_u64..).zip(&codes) {
        room.publish(code, "every", n).await;
    }
    // The first one waits for two reads, as one holds 1,024 subjects at most; the second one finds the values
    // here.
    for _ in 0..2 {
        let mut client = room.subscribe_with(&[], |request| request.wanted = everything());
        let id = client.settled().await;
        assert!(id.ends_with(&format!("-{DEVICES}")), "{id}");
        let mut values = Vec::new();
        while values.len() < DEVICES {
            values.push(crate::support::number(&client.next_named("message").await.json().unwrap()));
        }
        values.sort_unstable();
        assert_eq!(values, (1..=DEVICES as u64).collect::<Vec<_>>());
        assert_eq!(client.count("gap"), 0);
    }
}
