//! Clients that come back, and brokers that go away or lose messages.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::{Client, DEADLINE, Mapping, Room, fast, format, number, subscribe_to};
use flutecast_contract::document::DeliveryPolicy;
use flutecast_dataplane::fanout::HubSettings;
use flutecast_testkit::{NatsOptions, NatsServer, copy_folder, wait_until};

/// Takes the events that have come, and leaves. Returns the last id.
async fn leave(mut client: Client) -> String {
    client.settled().await;
    client.last_id.clone().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_comes_back_gets_missed_events_once() {
    let room = Room::new(&["A", "B"]).await;
    let mut client = room.subscribe(&["A", "B"]);
    client.settled().await;
    room.publish("A", "every", 1).await;
    room.publish("B", "every", 1).await;
    client.values_until("B", "every", 1).await;
    let id = client.last_id.clone().unwrap();
    drop(client);
    for n in 2..=600 {
        room.publish("A", "every", n).await;
        room.publish("A", "latest", n).await;
    }

    let mut client = room.resume(&["A", "B"], &id);
    let hello = client.next().await.unwrap().json().unwrap();
    assert_eq!(hello["resumed"], true);
    assert_eq!(client.values_until("A", "every", 600).await, (2..=600).collect::<Vec<_>>());
    let sequence = room.publish("A", "every", 601).await;
    assert_eq!(client.next_value("A", "every").await, 601);
    client.passes(sequence).await;
    assert_eq!(client.count("gap"), 0, "{:?}", client.seen);
    let events = client.seen.iter().filter(|event| event.is_data()).map(|event| event.json().unwrap());
    let (latest, every): (Vec<_>, Vec<_>) = events.partition(|data| data["channel"] == "latest");
    assert_eq!(latest.len(), 1, "Latest gives its current value only");
    assert_eq!(every.len(), 600, "B has missed nothing");
}

/// The events of two devices that a client got, as `n`.
#[derive(Default)]
struct Received {
    a: Vec<u64>,
    b: Vec<u64>,
    /// Events that came behind the last id, which may come again: whether of A, and `n`.
    behind_id: Vec<(bool, u64)>,
}

impl Received {
    /// Records that the events so far came before an id.
    fn confirm(&mut self) {
        for (of_a, n) in self.behind_id.drain(..) {
            if of_a { &mut self.a } else { &mut self.b }.push(n);
        }
    }

    /// Returns whether the client has got everything up to `last`, some of it perhaps behind the last id.
    fn reached(&self, last: u64) -> bool {
        let reached =
            |of_a, safe: &Vec<u64>| safe.last() == Some(&last) || self.behind_id.contains(&(of_a, last));
        reached(true, &self.a) && reached(false, &self.b)
    }

    fn is_confirmed_up_to(&self, last: u64) -> bool {
        self.a.last() == Some(&last) && self.b.last() == Some(&last)
    }

    /// Takes events for a while: at least `least`, and with `until_id` until one carries an id. Returns the
    /// last id.
    async fn take(&mut self, client: &mut Client, least: u64, until_id: bool, last: u64) -> Option<String> {
        let mut id = client.last_id.clone();
        let mut taken = 0;
        while taken < least || until_id && id.is_none() {
            taken += 1;
            let data = client.next_named("message").await.json().unwrap();
            if data["channel"] == "every" {
                self.behind_id.push((data["device"] == "A", number(&data)));
            }
            if client.last_id != id {
                id.clone_from(&client.last_id);
                self.confirm();
            }
            if self.reached(last) {
                break;
            }
        }
        id
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_event_is_lost_by_clients_that_come_and_go_while_messages_come() {
    const MESSAGES: u64 = 2_000;
    let room = Room::new(&["A", "B"]).await;
    let publisher = async {
        for n in 1..=MESSAGES {
            room.publish("A", "every", n).await;
            room.publish("B", "every", n).await;
            if n % 3 == 0 {
                room.publish("A", "latest", n).await;
            }
        }
    };
    let client = async {
        let mut received = Received::default();
        let mut client = room.subscribe(&["A", "B"]);
        let mut resume_at = client.settled().await;
        let mut rounds = 0_u64;
        while !received.is_confirmed_up_to(MESSAGES) {
            rounds += 1;
            received.behind_id.clear();
            // Now and then a client stays until it has an id; others leave in the middle of their replay.
            let stays = rounds.is_multiple_of(4);
            let id = received.take(&mut client, rounds % 37 + 1, stays, MESSAGES).await;
            assert_eq!(client.count("gap"), 0, "{:?}", client.seen);
            // A client that left before it got an id comes back with the one that it came with.
            resume_at = id.unwrap_or(resume_at);
            if received.behind_id.iter().any(|(_, n)| *n == MESSAGES) {
                // Nothing follows that could bring another id but a ping.
                resume_at = client.next_named("ping").await.id.unwrap();
                received.confirm();
            }
            client = room.resume(&["A", "B"], &resume_at);
        }
        assert!(rounds > 20, "{rounds}");
        for values in [received.a, received.b] {
            let mut expected = values[0];
            for n in values {
                assert!(n <= expected, "{expected} is missing before {n}");
                expected = expected.max(n + 1);
            }
        }
    };
    tokio::join!(publisher, client);
}

/// Records an event. One that came without an id before the client left comes again, and so does the current
/// value in a new form.
fn push_newer(seen: &mut Vec<u64>, n: u64) {
    match seen.last() {
        Some(last) if n <= *last => {}
        Some(last) => {
            assert_eq!(n, last + 1, "a hole");
            seen.push(n);
        }
        None => seen.push(n),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_alternate_between_pods_lose_no_event_and_get_no_gap() {
    const MESSAGES: u64 = 4_000;
    let mut mapping = Mapping::new(&["A", "B"]);
    let room = Room::with(&mapping, fast()).await;
    let pods = [room.hubs.clone(), room.other_pod().await];
    let published = AtomicBool::new(false);
    let publisher = async {
        for n in 1..=MESSAGES {
            room.publish("A", "every", n).await;
            if n % 5 == 0 {
                room.publish("B", "every", n).await;
            }
        }
        published.store(true, Ordering::Relaxed);
    };
    let changes = async {
        while !published.load(Ordering::Relaxed) {
            for decimals in 0..3 {
                let mut other = format(DeliveryPolicy::Every);
                other.fields[0].decimals = Some(decimals);
                mapping.set_format("every", other);
                room.change_mapping(&mapping);
                tokio::time::sleep(Duration::from_millis(30)).await;
            }
        }
    };
    let clients = (0..12_usize).map(async |index| {
        let (mut seen, mut id, mut moves) = (Vec::<u64>::new(), None::<String>, 0);
        while seen.last() != Some(&MESSAGES) {
            let mut client = subscribe_to(&pods[(index + moves) % 2], &["A", "B"], id.as_deref());
            let stay = Duration::from_millis(rand::random_range(1..200));
            let leave = tokio::time::Instant::now() + stay;
            while let Ok(event) = tokio::time::timeout_at(leave, client.next()).await {
                let event = event.unwrap();
                assert_ne!(event.name(), "gap", "{event:?} after {id:?}");
                let data = event.json().unwrap();
                if event.is_data() && data["device"] == "A" && data["channel"] == "every" {
                    push_newer(&mut seen, number(&data));
                }
            }
            if client.last_id.is_none() && id.is_none() {
                // It was never told where to resume, so it starts from the current values.
                seen.clear();
            }
            id = client.last_id.or(id);
            moves += 1;
        }
        assert!(moves > 5, "{moves}");
    });
    tokio::join!(publisher, changes, futures_util::future::join_all(clients));
}

#[tokio::test(flavor = "multi_thread")]
async fn restarting_the_broker_loses_no_stored_event() {
    let mut room = Room::new(&["A", "B"]).await;
    let mut staying = room.subscribe(&["A"]);
    staying.settled().await;
    room.publish("A", "every", 1).await;
    assert_eq!(staying.next_value("A", "every").await, 1);
    let mut leaving = room.subscribe(&["A"]);
    leaving.settled().await;
    let id = leave(leaving).await;

    for round in 0..3 {
        let first = 2 + round * 200;
        for n in first..first + 100 {
            room.publish("A", "every", n).await;
        }
        room.nats.kill().await.unwrap();
        room.nats.restart().await.unwrap();
        // With a connection of its own, which is back before the pod's may be.
        let other = async_nats::jetstream::new(room.nats.client().await.unwrap());
        for n in first + 100..first + 200 {
            let payload = format!("{{\"n\":{n}}}");
            let stored = async || match other.publish("iot.acme.id-A.every", payload.clone().into()).await {
                Ok(ack) => ack.await.map(drop).map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            };
            wait_until("the stream to store", DEADLINE, stored).await.unwrap();
        }
    }
    let expected: Vec<u64> = (2..602).collect();
    assert_eq!(staying.values_until("A", "every", 601).await, expected, "the client that stayed");
    assert_eq!(staying.count("gap"), 0);
    let mut back = room.resume(&["A"], &id);
    assert_eq!(back.values_until("A", "every", 601).await, expected, "the client that came back");
    assert_eq!(back.count("gap"), 0);
    // The client that stayed still gets ids, so that it can resume later.
    let sequence = room.publish("B", "every", 1).await;
    let sequence = room.publish("A", "every", 602).await.max(sequence);
    staying.values_until("A", "every", 602).await;
    staying.passes(sequence).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_ends_with_its_device() {
    let mut mapping = Mapping::new(&["A", "B"]);
    let room = Room::with(&mapping, HubSettings { every_max_count: 20, ..fast() }).await;
    let client = room.subscribe(&["A", "B"]);
    let id = leave(client).await;
    for n in 1..=100 {
        room.publish("A", "every", n).await;
    }
    let mut client = room.resume(&["A", "B"], &id);
    assert_eq!(client.next_value("A", "every").await, 1);
    // It takes nothing more until the device is gone, so that the replay stands still at half of the bound.
    mapping.remove_device("A");
    room.change_mapping(&mapping);
    let left = async || match room.metric("channels_watched ") {
        2 => Ok(()),
        other => Err(format!("{other} channels")),
    };
    wait_until("the device's channels to be left", DEADLINE, left).await.unwrap();
    assert_eq!(client.next_named("devices").await.json().unwrap()["removed"][0], "A");
    let before = client.seen.iter().filter(|event| event.is_data()).count();
    let sequence = room.publish("B", "every", 1).await;
    client.passes(sequence).await;
    // A `ping` comes when there is nothing else.
    client.next_named("ping").await;
    let after = client.seen.iter().filter(|event| event.is_data()).count();
    assert_eq!((before < 50, after), (true, before + 1), "{:?}", client.seen);
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_retention_removed_are_announced_as_a_gap() {
    let room = Room::new(&["A", "B"]).await;
    room.create_stream(|config| config.max_messages_per_subject = 10).await;
    let mut client = room.subscribe(&["A"]);
    client.settled().await;
    room.publish("A", "every", 1).await;
    client.next_value("A", "every").await;
    let id = leave(client).await;
    for n in 2..=9 {
        room.publish("A", "every", n).await;
    }
    let mut client = room.resume(&["A"], &id);
    assert_eq!(client.values_until("A", "every", 9).await, (2..=9).collect::<Vec<_>>());
    client.settled().await;
    assert_eq!(client.count("gap"), 0, "eight of ten are provably all");
    drop(client);

    for n in 10..=30 {
        room.publish("A", "every", n).await;
    }
    let mut client = room.resume(&["A"], &id);
    assert_eq!(client.values_until("A", "every", 30).await, (21..=30).collect::<Vec<_>>());
    let gap = match client.seen.iter().find(|event| event.name() == "gap") {
        Some(gap) => gap.clone(),
        None => client.next_named("gap").await,
    };
    let gap = gap.json().unwrap();
    assert_eq!((gap["device"].as_str(), gap["channel"].as_str()), (Some("A"), Some("every")));
    assert_eq!(gap["reason"], "Retention");
    assert!(gap["lost"].is_null());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_is_announced_even_when_retention_left_no_message() {
    let room = Room::new(&["A"]).await;
    room.create_stream(|config| config.max_age = Duration::from_secs(1)).await;
    let mut client = room.subscribe(&["A"]);
    client.settled().await;
    room.publish("A", "every", 1).await;
    client.next_value("A", "every").await;
    let id = leave(client).await;
    room.publish("A", "every", 2).await;
    let missed = room.publish("A", "latest", 3).await;
    let mut stream = room.jetstream.get_stream("IOT_acme").await.unwrap();
    let mut empty = async || match stream.info().await.unwrap().state.first_sequence {
        first if first > missed => Ok(()),
        first => Err(format!("the oldest is {first}")),
    };
    wait_until("the stream to be empty", DEADLINE, &mut empty).await.unwrap();
    let mut client = room.resume(&["A"], &id);
    assert_eq!(client.next_named("gap").await.json().unwrap()["reason"], "Retention");
    let all = client.settled().await;
    assert_eq!(all.split_once('-').unwrap().1, missed.to_string());
    drop(client);
    let mut client = room.resume(&["A"], &all);
    client.settled().await;
    assert_eq!(client.count("gap"), 0, "nothing was stored since: {:?}", client.seen);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_was_created_again_is_announced_to_all() {
    let room = Room::new(&["A"]).await;
    let mut staying = room.subscribe(&["A"]);
    staying.settled().await;
    for n in 1..=5 {
        room.publish("A", "every", n).await;
    }
    staying.values_until("A", "every", 5).await;
    let id = staying.last_id.clone().unwrap();

    room.jetstream.delete_stream("IOT_acme").await.unwrap();
    room.create_stream(|_| {}).await;
    room.publish("A", "every", 11).await;
    assert_eq!(staying.next_named("gap").await.json().unwrap()["reason"], "Epoch");
    assert_eq!(staying.next_value("A", "every").await, 11);

    let mut back = room.resume(&["A"], &id);
    let hello = back.next().await.unwrap().json().unwrap();
    assert_eq!(hello["resumed"], false);
    assert_eq!(back.next_named("gap").await.json().unwrap()["reason"], "Epoch");
    assert_eq!(back.next_value("A", "every").await, 11, "then the current value");
    let new = back.last_id.take();
    assert!(new.is_none(), "the snapshot carries no id");
    assert_ne!(back.settled().await[..8], id[..8]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_waits_for_a_stream_that_is_not_there_yet() {
    let nats = flutecast_testkit::NatsServer::start().await.unwrap();
    let room = Room::on(nats, &Mapping::new(&["A"]), fast()).await;
    let mut client = room.subscribe(&["A"]);
    assert_eq!(client.next().await.unwrap().name(), "hello");
    let refused = client.next_named("refused").await.json().unwrap();
    assert_eq!(refused["reason"], "Starting");
    assert!(refused.get("device").is_none());
    assert_eq!(client.next().await.unwrap().name(), "ping");
    room.create_stream(|_| {}).await;
    room.publish("A", "every", 1).await;
    assert_eq!(client.next_value("A", "every").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_stay_connected_and_learn_that_the_broker_is_away() {
    let mut room = Room::new(&["A"]).await;
    let mut client = room.subscribe(&["A"]);
    client.settled().await;
    let id = client.last_id.clone().unwrap();
    room.nats.stop().await.unwrap();
    let no_id = async || {
        let ping = client.next_named("ping").await;
        if ping.id.is_none() { Ok(()) } else { Err("pings have ids") }
    };
    wait_until("pings without id", DEADLINE, no_id).await.unwrap();
    let mut new = room.subscribe(&["A"]);
    assert_eq!(new.next().await.unwrap().name(), "hello");
    assert_eq!(new.next_named("refused").await.json().unwrap()["reason"], "BrokerAway");
    let mut resuming = room.resume(&["A"], &id);
    assert_eq!(resuming.next().await.unwrap().name(), "hello");
    room.nats.restart().await.unwrap();
    let stored = async || match room.jetstream.publish("iot.acme.id-A.every", "{\"n\":7}".into()).await {
        Ok(ack) => tokio::time::timeout(Duration::from_secs(1), ack.into_future())
            .await
            .map_err(|_| "late".to_owned())?
            .map_err(|e| e.to_string()),
        Err(error) => Err(error.to_string()),
    };
    wait_until("the stream to store", DEADLINE, stored).await.unwrap();
    for client in [&mut client, &mut new, &mut resuming] {
        assert_eq!(client.next_value("A", "every").await, 7);
        assert_eq!(client.count("gap"), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_stream_is_noticed_by_its_first_message() {
    let settings = HubSettings { audit: Duration::from_secs(600), ..fast() };
    let room = Room::with(&Mapping::new(&["A"]), settings).await;
    let mut client = room.subscribe(&["A"]);
    client.settled().await;
    for n in 1..=5 {
        room.publish("A", "every", n).await;
    }
    client.values_until("A", "every", 5).await;
    room.jetstream.delete_stream("IOT_acme").await.unwrap();
    room.create_stream(|_| {}).await;
    room.publish("A", "every", 11).await;
    assert_eq!(client.next_named("gap").await.json().unwrap()["reason"], "Epoch");
    assert_eq!(client.next_value("A", "every").await, 11);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_lost_its_newest_messages_is_announced_and_ids_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (streams, backup) = (folder.path().join("nats"), folder.path().join("backup"));
    let options = NatsOptions { folder: Some(streams.clone()), ..NatsOptions::default() };
    let nats = NatsServer::start_with(options).await.unwrap();
    let mut room = Room::on(nats, &Mapping::new(&["A"]), fast()).await;
    room.create_stream(|_| {}).await;
    let mut staying = room.subscribe(&["A"]);
    staying.settled().await;
    room.publish("A", "every", 1).await;
    staying.values_until("A", "every", 1).await;
    room.nats.stop().await.unwrap();
    copy_folder(&streams, &backup).unwrap();
    room.nats.restart().await.unwrap();
    let publish = async |room: &Room, n: u64| {
        let published = async || {
            let payload = format!("{{\"n\":{n}}}").into();
            let ack =
                room.jetstream.publish("iot.acme.id-A.every", payload).await.map_err(|e| e.to_string())?;
            let ack = tokio::time::timeout(Duration::from_secs(1), ack.into_future()).await;
            ack.map_err(|_| "late".to_owned())?.map_err(|e| e.to_string())
        };
        wait_until("the stream to store", DEADLINE, published).await.unwrap().sequence
    };
    for n in 2..=9 {
        publish(&room, n).await;
    }
    staying.values_until("A", "every", 9).await;
    staying.passes(9).await;
    let id = staying.last_id.clone().unwrap();

    room.nats.kill().await.unwrap();
    // Until the pod has noticed, a ping may tell the old place.
    while staying.next_named("ping").await.id.is_some() {}
    staying.last_id = None;
    std::fs::remove_dir_all(&streams).unwrap();
    copy_folder(&backup, &streams).unwrap();
    room.nats.restart().await.unwrap();
    let sequence = publish(&room, 10).await;
    assert!(sequence < 9, "the numbers are given once more: {sequence}");
    assert_eq!(staying.next_named("gap").await.json().unwrap()["reason"], "Retention");
    staying.values_until("A", "every", 10).await;
    staying.passes(sequence).await;

    let mut back = room.resume(&["A"], &id);
    assert_eq!(back.next_named("gap").await.json().unwrap()["reason"], "Retention");
    assert_eq!(back.next_value("A", "every").await, 10);
    let place = back.settled().await;
    assert_eq!(place.split_once('-').unwrap().1, sequence.to_string());
    let sequence = publish(&room, 11).await;
    for client in [&mut staying, &mut back] {
        assert_eq!(client.next_value("A", "every").await, 11);
        client.passes(sequence).await;
    }
}
