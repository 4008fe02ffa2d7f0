//! The snapshot, and the live messages behind it.

use crate::support::{DEADLINE, Mapping, Room, fast, format, timed_format};
use flutecast_contract::document::DeliveryPolicy;
use flutecast_testkit::wait_until;

#[tokio::test(flavor = "multi_thread")]
async fn a_client_gets_hello_the_snapshot_and_then_what_comes() {
    let room = Room::new(&["A", "B"]).await;
    room.publish("A", "latest", 1).await;
    room.publish("A", "every", 2).await;
    let sequence = room.publish("B", "latest", 3).await;

    let mut client = room.subscribe(&["A"]);
    let hello = client.next().await.unwrap();
    assert_eq!(hello.name(), "hello");
    let hello = hello.json().unwrap();
    assert_eq!(hello["tenant"], "acme");
    assert_eq!(hello["devices"][0]["device"], "A");
    assert_eq!(hello["devices"][0]["channels"][0]["delivery"], "Every");
    assert_eq!(hello["devices"].as_array().unwrap().len(), 1);

    let id = client.settled().await;
    assert!(id.ends_with(&format!("-{sequence}")), "{id}");
    let first = client.next().await.unwrap();
    let second = client.next().await.unwrap();
    assert!(first.id.is_none() && second.id.is_none(), "the snapshot carries no id");
    assert_eq!(first.json().unwrap()["channel"], "latest", "in stream order");
    assert_eq!(crate::support::number(&second.json().unwrap()), 2);

    room.publish("B", "latest", 4).await;
    let sequence = room.publish("A", "latest", 5).await;
    let data = client.next().await.unwrap();
    assert_eq!(crate::support::number(&data.json().unwrap()), 5);
    assert_eq!(data.id.unwrap(), id.replace("-3", &format!("-{sequence}")));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_message_is_lost_between_snapshot_and_live() {
    const MESSAGES: u64 = 3_000;
    let room = Room::new(&["A", "B", "C"]).await;
    let publisher = async {
        for n in 1..=MESSAGES {
            let device = ["A", "B", "C"][usize::try_from(n % 3).unwrap()];
            room.publish(device, "every", n).await;
            if n % 7 == 0 {
                room.publish(device, "latest", n).await;
            }
        }
    };
    let clients = async {
        let mut tasks = Vec::new();
        for _ in 0..20 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            let mut client = room.subscribe(&["A", "B"]);
            tasks.push(tokio::spawn(async move {
                let (mut a, mut b) = (Vec::new(), Vec::new());
                while a.last() != Some(&(MESSAGES)) || b.last() != Some(&(MESSAGES - 2)) {
                    let data = client.next_named("message").await.json().unwrap();
                    if data["channel"] == "every" {
                        if data["device"] == "A" { &mut a } else { &mut b }
                            .push(crate::support::number(&data));
                    }
                }
                for values in [&a, &b] {
                    for pair in values.windows(2) {
                        assert_eq!(pair[1], pair[0] + 3, "a hole or a repetition");
                    }
                }
                assert_eq!(client.count("gap"), 0);
                a[0]
            }));
        }
        let mut starts = Vec::new();
        for task in tasks {
            starts.push(task.await.unwrap());
        }
        starts
    };
    let ((), starts) = tokio::join!(publisher, clients);
    assert!(starts.iter().any(|&start| start > 3), "the clients are to come while messages come: {starts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_format_that_changes_while_messages_come_loses_none() {
    const MESSAGES: u64 = 2_000;
    let mut mapping = Mapping::new(&["A"]);
    let room = Room::with(&mapping, fast()).await;
    let mut client = room.subscribe(&["A"]);
    client.settled().await;
    let published = std::sync::atomic::AtomicBool::new(false);
    let publisher = async {
        for n in 1..=MESSAGES {
            room.publish("A", "every", n).await;
        }
        published.store(true, std::sync::atomic::Ordering::Relaxed);
    };
    let changes = async {
        let mut changes = 0;
        while !published.load(std::sync::atomic::Ordering::Relaxed) {
            changes += 1;
            // Other decimals: another format that writes whole numbers alike.
            let mut other = format(DeliveryPolicy::Every);
            other.fields[0].decimals = Some(changes % 5);
            mapping.set_format("every", other);
            room.change_mapping(&mapping);
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        changes
    };
    let ((), changes, mut values) =
        tokio::join!(publisher, changes, client.values_until("A", "every", MESSAGES));
    assert!(changes > 5, "{changes} changes");
    // At each change the current value comes again.
    values.dedup();
    assert_eq!(values, (1..=MESSAGES).collect::<Vec<_>>());
    assert_eq!(client.count("gap"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_without_clients_has_no_subscription() {
    let room = Room::new(&["A", "B"]).await;
    assert_eq!(room.live_subscriptions().await, 0);
    let mut one = room.subscribe(&["A"]);
    let mut two = room.subscribe_with(&["A"], |request| {
        request.channels = Some([flutecast_contract::name::ChannelName::new("every").unwrap()].into());
    });
    one.settled().await;
    two.settled().await;
    assert_eq!(room.live_subscriptions().await, 2, "one for each channel, however many clients");
    drop(one);
    let left = |expected: usize| {
        let room = &room;
        wait_until("the subscriptions to go", DEADLINE, async move || match room.live_subscriptions().await {
            found if found == expected => Ok(()),
            found => Err(format!("{found} subscriptions")),
        })
    };
    left(1).await.unwrap();
    drop(two);
    left(0).await.unwrap();
    let no_hub = async || match room.metric("hubs") {
        0 => Ok(()),
        hubs => Err(format!("{hubs} hubs")),
    };
    wait_until("the tenant's task to end", DEADLINE, no_hub).await.unwrap();
    let mut again = room.subscribe(&["A"]);
    again.settled().await;
    let sequence = room.publish("A", "every", 1).await;
    again.passes(sequence).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn late_and_old_messages_reach_no_client_and_are_counted() {
    let mut mapping = Mapping::new(&[]);
    mapping.set_format("timed", timed_format(30_000));
    mapping.set_device("A", &[("latest", "timed", None)]);
    let room = Room::with(&mapping, fast()).await;
    let mut client = room.subscribe(&["A"]);
    client.settled().await;
    let now = jiff::Timestamp::now().as_millisecond();
    let send = async |ts: i64, n: u64| {
        room.publish_text("A", "latest", &format!("{{\"ts\":{ts},\"n\":{n}}}")).await;
    };
    send(now, 1).await;
    assert_eq!(client.next_value("A", "latest").await, 1);
    send(now - 5_000, 2).await;
    send(now, 3).await;
    assert_eq!(client.next_value("A", "latest").await, 3, "of two of one time the later one wins");
    send(now - 60_000, 4).await;
    send(now + 3_600_000, 5).await;
    room.publish_text("A", "latest", "{\"ts\":").await;
    send(now + 1, 6).await;
    assert_eq!(client.next_value("A", "latest").await, 6);
    let dropped = |reason: &str| room.metric(&format!("messages_dropped_total{{reason=\"{reason}\"}}"));
    for reason in ["OutOfOrder", "TooOld", "TooFarAhead", "Malformed"] {
        assert_eq!(dropped(reason), 1, "{reason}");
    }
}
