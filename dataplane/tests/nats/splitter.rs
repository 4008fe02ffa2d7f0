//! Payload sources on a real nats-server.

use std::sync::Arc;
use std::time::Duration;

use crate::support::{DEADLINE, Mapping, Room, build, fast};
use async_nats::jetstream;
use flutecast_contract::document::{IdKind, PayloadSourceDocument};
use flutecast_contract::name::{ChannelName, SourceName};
use flutecast_dataplane::ingest::broker;
use flutecast_dataplane::ingest::splitter;
use flutecast_nats::{Login, StreamReader};
use flutecast_testkit::{http_client, wait_until};
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

const PINNED: Duration = Duration::from_secs(10);

fn mapping() -> Mapping {
    let mut mapping = Mapping::new(&["A", "B"]);
    let settings = mapping.document.settings.as_mut().unwrap();
    settings.sources.push(PayloadSourceDocument {
        name: SourceName::new("mes").unwrap(),
        stream: "SRC_acme_mes".to_owned(),
        consumer: "split".to_owned(),
        channel: ChannelName::new("every").unwrap(),
        id_pointer: "/deviceId".to_owned(),
        id_kind: IdKind::IotId,
        items: Some("/readings".to_owned()),
    });
    mapping
}

/// The first sequence of the stream. The operator takes the time in µs.
const FIRST_SEQUENCE: u64 = 1_790_000_000_000_000;

/// Creates the source stream and its consumer as the operator does.
async fn create_source(room: &Room) {
    let config = jetstream::stream::Config {
        name: "SRC_acme_mes".to_owned(),
        subjects: vec!["mes.out".to_owned()],
        first_sequence: Some(FIRST_SEQUENCE),
        max_age: Duration::from_secs(3_600),
        allow_direct: true,
        ..jetstream::stream::Config::default()
    };
    let stream = room.jetstream.create_stream(config).await.unwrap();
    let consumer = jetstream::consumer::pull::Config {
        durable_name: Some("split".to_owned()),
        ack_policy: jetstream::consumer::AckPolicy::Explicit,
        ack_wait: Duration::from_secs(30),
        max_ack_pending: 1_000,
        priority_groups: vec!["split".to_owned()],
        priority_policy: jetstream::consumer::PriorityPolicy::PinnedClient,
        priority_timeout: PINNED,
        ..jetstream::consumer::pull::Config::default()
    };
    stream.create_consumer(consumer).await.unwrap();
}

/// The splitter of one pod.
struct Pod {
    registry: Registry,
    stop: CancellationToken,
    handle: JoinHandle<()>,
    catalog: watch::Sender<Arc<flutecast_dataplane::catalog::Catalog>>,
}

impl Pod {
    async fn start(room: &Room) -> Self {
        let mut registry = Registry::default();
        let stop = CancellationToken::new();
        let (catalog, receiver) = watch::channel(Arc::new(build(&mapping(), None)));
        let broker = broker::connect(&Login::at(&room.nats.url()), "test").await.unwrap();
        let handle = splitter::start(broker, receiver, &mut registry, stop.clone());
        Self { registry, stop, handle, catalog }
    }

    fn metric(&self, line: &str) -> u64 {
        crate::support::metric(&self.registry, line)
    }
}

async fn publish(room: &Room, payload: String) {
    room.jetstream.publish("mes.out", payload.into()).await.unwrap().await.unwrap();
}

/// Returns a message with the readings `n` and `n + 1` of A, and `n` of B.
fn message(n: u64) -> String {
    let reading = |device: &str, n: u64| format!("{{\"deviceId\":\"id-{device}\",\"n\":{n}}}");
    format!("{{\"readings\":[{},{},{}]}}", reading("A", n), reading("B", n), reading("A", n + 1))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_item_says_when_the_sources_stream_captured_it() {
    let room = Room::with(&mapping(), fast()).await;
    create_source(&room).await;
    // It waits until a pod splits it.
    publish(&room, message(1)).await;
    sleep(Duration::from_millis(200)).await;
    let _pod = Pod::start(&room).await;
    let client = room.nats.client().await.unwrap();
    let source = StreamReader::new(client.clone(), "SRC_acme_mes".to_owned());
    let captured = source.last_of(&["mes.out"]).await.unwrap().messages.remove(0).stored_at;
    let stream = StreamReader::new(client, "IOT_acme".to_owned());
    let item = async || {
        let lasts = stream.last_of(&["iot.acme.id-A.every"]).await.map_err(|error| error.to_string())?;
        lasts.messages.into_iter().next().ok_or_else(|| "nothing is stored".to_owned())
    };
    let item = wait_until("an item to be stored", DEADLINE, item).await.unwrap();
    assert_eq!(item.captured_at, Some(captured));
    assert!(item.stored_at.duration_since(captured).as_millis() >= 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn items_reach_their_devices_in_order_and_what_is_wrong_is_counted() {
    let room = Room::with(&mapping(), fast()).await;
    create_source(&room).await;
    let pod = Pod::start(&room).await;
    let mut client = room.subscribe(&["A", "B"]);
    client.settled().await;
    publish(&room, "no json".to_owned()).await;
    publish(&room, "{\"readings\":7}".to_owned()).await;
    publish(&room, "{\"readings\":[{\"deviceId\":\"id-X\"},{\"n\":1},3]}".to_owned()).await;
    for n in (1..200).step_by(2) {
        publish(&room, message(n)).await;
    }
    let (mut a, mut b) = (Vec::new(), Vec::new());
    while a.len() < 200 || b.len() < 100 {
        let data = client.next_named("message").await.json().unwrap();
        assert_eq!(data["channel"], "every");
        if data["device"] == "A" { &mut a } else { &mut b }.push(crate::support::number(&data));
    }
    assert_eq!(a, (1..=200).collect::<Vec<_>>());
    assert_eq!(b, (1..200).step_by(2).collect::<Vec<_>>());
    let skipped = |reason: &str| pod.metric(&format!("split_skipped_total{{reason=\"{reason}\"}}"));
    assert_eq!(
        [skipped("Malformed"), skipped("NoItems"), skipped("UnknownDevice"), skipped("NoId")],
        [1, 1, 1, 2]
    );
    let stream = room.jetstream.get_stream("SRC_acme_mes").await.unwrap();
    let acknowledged = async || {
        let info = stream.consumer_info("split").await.map_err(|error| error.to_string())?;
        if info.num_ack_pending == 0 && info.num_pending == 0 { Ok(()) } else { Err(format!("{info:?}")) }
    };
    wait_until("everything to be acknowledged", DEADLINE, acknowledged).await.unwrap();
    // The client may have got the last item before its acknowledgement was counted.
    assert_eq!(pod.metric("split_items_stored_total"), 300);
    pod.stop.cancel();
    pod.handle.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_pods_one_splits_and_the_next_takes_over_without_loss_or_repetition() {
    let room = Room::with(&mapping(), fast()).await;
    create_source(&room).await;
    let one = Pod::start(&room).await;
    publish(&room, message(1)).await;
    let mut client = room.subscribe(&["A"]);
    assert_eq!(client.values_until("A", "every", 2).await.last(), Some(&2));
    let two = Pod::start(&room).await;
    for n in (3..100).step_by(2) {
        publish(&room, message(n)).await;
    }
    assert_eq!(client.values_until("A", "every", 100).await, (3..=100).collect::<Vec<_>>());
    assert_eq!(two.metric("split_messages_total"), 0, "only one of them reads");
    // Ends in the middle of its work without giving the pin back, as in a crash.
    let publisher = async {
        for n in (101..400).step_by(2) {
            publish(&room, message(n)).await;
            if n == 201 {
                one.handle.abort();
            }
        }
    };
    let took_over = Duration::from_secs(60);
    let reader = tokio::time::timeout(took_over, async {
        let mut values = Vec::new();
        while values.last() != Some(&400) {
            let data = loop {
                let event = client.next().await.unwrap();
                if event.is_data() {
                    break event.json().unwrap();
                }
            };
            if data["device"] == "A" {
                values.push(crate::support::number(&data));
            }
        }
        values
    });
    let ((), values) = tokio::join!(publisher, reader);
    assert_eq!(values.unwrap(), (101..=400).collect::<Vec<_>>());
    assert!(two.metric("split_messages_total") > 0);
    two.stop.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_hangs_for_moments_finds_the_same_reader() {
    let mut room = Room::with(&mapping(), fast()).await;
    create_source(&room).await;
    let pods = [Pod::start(&room).await, Pod::start(&room).await];
    let mut client = room.subscribe(&["A"]);
    client.settled().await;
    publish(&room, message(1)).await;
    assert_eq!(client.values_until("A", "every", 2).await, [1, 2]);
    let stream = room.jetstream.get_stream("SRC_acme_mes").await.unwrap();
    let reader =
        async || stream.consumer_info("split").await.unwrap().priority_groups[0].pinned_client_id.clone();
    let before = reader().await;
    assert!(before.is_some());
    for n in [3, 5, 7] {
        // Longer than a heartbeat may take, and too short to lose the source or the connection.
        room.nats.process().freeze().unwrap();
        sleep(Duration::from_secs(3)).await;
        room.nats.process().thaw().unwrap();
        publish(&room, message(n)).await;
        assert_eq!(client.values_until("A", "every", n + 1).await, [n, n + 1]);
    }
    assert_eq!(reader().await, before);
    pods.iter().for_each(|pod| pod.stop.cancel());
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_retention_removed_are_skipped_together() {
    let room = Room::with(&mapping(), fast()).await;
    create_source(&room).await;
    // The data plane was away for so long that all but the last messages are gone.
    for n in (1..4_000).step_by(2) {
        room.jetstream.publish("mes.out", message(n).into()).await.unwrap();
    }
    publish(&room, message(4_001)).await;
    let mut stream = room.jetstream.get_stream("SRC_acme_mes").await.unwrap();
    let limited =
        jetstream::stream::Config { max_messages: 10, ..stream.info().await.unwrap().config.clone() };
    room.jetstream.update_stream(limited).await.unwrap();
    let requests = async || {
        let statistics = http_client::get_json(&format!("{}/jsz", room.nats.monitor_url())).await.unwrap();
        statistics["api"]["total"].as_u64().unwrap()
    };
    let mut client = room.subscribe(&["A"]);
    client.settled().await;
    let before = requests().await;
    let pod = Pod::start(&room).await;
    assert_eq!(client.next_value("A", "every").await, 3_983, "the eldest that is left");
    assert_eq!(client.values_until("A", "every", 4_002).await.len(), 19);
    let asked = requests().await - before;
    assert!(asked < 200, "{asked} requests for 10 messages");
    pod.stop.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn sources_come_and_go_with_the_mapping() {
    let room = Room::with(&mapping(), fast()).await;
    create_source(&room).await;
    let pod = Pod::start(&room).await;
    let mut client = room.subscribe(&["A"]);
    client.settled().await;
    publish(&room, message(1)).await;
    client.values_until("A", "every", 2).await;
    pod.catalog.send_replace(Arc::new(build(&Mapping::new(&["A", "B"]), None)));
    let stream = room.jetstream.get_stream("SRC_acme_mes").await.unwrap();
    let nobody_reads = async || {
        let info = stream.consumer_info("split").await.map_err(|error| error.to_string())?;
        if info.num_waiting == 0 { Ok(()) } else { Err(format!("{} pulls wait", info.num_waiting)) }
    };
    wait_until("the source to be left", DEADLINE, nobody_reads).await.unwrap();
    publish(&room, message(3)).await;
    pod.catalog.send_replace(Arc::new(build(&mapping(), None)));
    assert_eq!(client.values_until("A", "every", 4).await, [3, 4]);
    pod.stop.cancel();
    pod.handle.await.unwrap();
}
