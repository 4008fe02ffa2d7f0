//! The streams of a tenant on a real nats-server: created, not touched, and switched without loss.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::finding::Reason;
use crate::jetstream::streams::TenantStreams;
use crate::jetstream::tenant::{self, Applied, Streams};
use crate::tests::{Folder, manifests};
use async_nats::jetstream;
use flutecast_nats::{JetStreamApi, RequestError};
use flutecast_testkit::{NatsServer, wait_until};
use futures_util::StreamExt;
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(10);

struct Bench {
    server: NatsServer,
    api: JetStreamApi,
    client: async_nats::Client,
}

impl Bench {
    async fn start() -> Self {
        let server = NatsServer::start().await.unwrap();
        let client = server.client().await.unwrap();
        Self { api: JetStreamApi::new(client.clone()), client, server }
    }

    async fn streams(&self) -> Streams {
        let streams = self.api.streams().await.unwrap();
        streams
            .into_iter()
            .map(|stream| (stream.config["name"].as_str().unwrap().to_owned(), stream))
            .collect()
    }

    async fn apply(&self, wanted: &TenantStreams) -> Applied {
        tenant::apply(&self.api, &self.streams().await, wanted).await.unwrap()
    }

    /// Applies streams without findings.
    async fn apply_well(&self, wanted: &TenantStreams) -> u32 {
        let applied = self.apply(wanted).await;
        assert!(applied.findings.is_empty(), "{:?}", applied.findings);
        applied.changes
    }

    async fn config(&self, stream: &str) -> Value {
        Value::Object(self.api.stream(stream).await.unwrap().unwrap().config)
    }

    async fn publish(&self, subject: &str, payload: &str) {
        let context = jetstream::new(self.client.clone());
        context.publish(subject.to_owned(), payload.to_owned().into()).await.unwrap().await.unwrap();
    }

    /// Returns the messages of the tenant's stream, in order, once there are `count`.
    async fn stored(&self, count: usize) -> Vec<(String, String)> {
        let context = jetstream::new(self.client.clone());
        wait_until(&format!("{count} stored messages"), SOON, async || {
            let stream = context.get_stream("IOT_demo").await.map_err(|error| error.to_string())?;
            let state = stream.get_info().await.map_err(|error| error.to_string())?.state;
            let mut stored = Vec::new();
            for sequence in state.first_sequence..=state.last_sequence {
                let message = stream.get_raw_message(sequence).await.map_err(|error| error.to_string())?;
                stored.push((
                    message.subject.to_string(),
                    String::from_utf8(message.payload.to_vec()).unwrap(),
                ));
            }
            if stored.len() == count { Ok(stored) } else { Err(format!("{stored:?}")) }
        })
        .await
        .unwrap()
    }
}

/// Returns the streams of a Tenant; `spec` is one line of its spec.
fn wanted(spec: &str) -> TenantStreams {
    wanted_of("demo", spec)
}

fn wanted_of(tenant: &str, spec: &str) -> TenantStreams {
    let mut folder = Folder::default();
    folder.load(&[("a.yaml", &manifests::tenant(tenant, spec))]);
    let built = folder.built();
    assert!(folder.outcome(&format!("Tenant/{tenant}")).contains("Accepted"), "{}", folder.outcomes());
    built.tenants.values().next().unwrap().streams.clone()
}

const GATEWAY: &str = "{name: gw, subject: plant.gw1.*.power, channel: power, iotId: {subjectToken: 3}}";
const MES: &str =
    "{name: mes, subject: mes.out, channel: counters, iotId: {pointer: /deviceId}, items: /readings}";

#[tokio::test]
async fn streams_are_created_as_wanted_and_then_not_touched() {
    let bench = Bench::start().await;
    let retention = "retention: {maxAge: 10m, maxMessagesPerSubject: 7, maxBytes: 8Mi}";
    let wanted = wanted(&format!("{retention}\n  sources: [{GATEWAY}, {MES}]"));
    let mut advisories = bench.client.subscribe("$JS.EVENT.ADVISORY.STREAM.>").await.unwrap();
    bench.client.flush().await.unwrap();
    assert_eq!(bench.apply_well(&wanted).await, 5);
    let stream = bench.config("IOT_demo").await;
    for (pointer, expected) in [
        ("/subjects", json!(["iot.demo.>"])),
        ("/retention", json!("limits")),
        ("/discard", json!("old")),
        ("/max_age", json!(600_000_000_000_u64)),
        ("/max_msgs_per_subject", json!(7)),
        ("/max_bytes", json!(8 << 20)),
        ("/storage", json!("file")),
        ("/num_replicas", json!(1)),
        ("/allow_direct", json!(true)),
        ("/duplicate_window", json!(120_000_000_000_u64)),
        ("/republish/src", json!("iot.demo.>")),
        ("/republish/dest", json!("live.demo.>")),
        ("/metadata/flutecast.io~1owner-namespace", json!("default")),
        ("/metadata/flutecast.io~1owner-name", json!("demo")),
        ("/sources/0/name", json!("SRC_demo_gw")),
        ("/sources/0/subject_transforms/0/dest", json!("iot.demo.{{wildcard(1)}}.power")),
    ] {
        assert_eq!(stream.pointer(pointer), Some(&expected), "{pointer} in {stream:#}");
    }
    let kept = bench.config("LAST_demo").await;
    for (pointer, expected) in [
        ("/subjects", json!(["last.demo.>"])),
        ("/discard", json!("old")),
        ("/max_age", json!(0)),
        ("/max_msgs_per_subject", json!(256)),
        ("/max_bytes", json!(8 << 20)),
        ("/storage", json!("file")),
        ("/num_replicas", json!(1)),
        ("/allow_direct", json!(true)),
        ("/allow_rollup_hdrs", json!(true)),
        ("/metadata/flutecast.io~1owner-name", json!("demo")),
    ] {
        assert_eq!(kept.pointer(pointer), Some(&expected), "{pointer} in {kept:#}");
    }
    assert!(kept.get("republish").is_none() && kept.get("mirror").is_none(), "{kept:#}");
    let consumer = bench.api.consumer("SRC_demo_mes", "split").await.unwrap().unwrap();
    assert_eq!(consumer["config"]["ack_policy"], "explicit");
    assert_eq!(consumer["config"]["priority_policy"], "pinned_client");
    assert_eq!(consumer["config"]["priority_groups"], json!(["split"]));

    // JetStream reports each change, in order: four new streams, and then only the last one, which shows
    // that all reports have arrived.
    assert_eq!(bench.apply_well(&wanted).await, 0);
    assert_eq!(bench.apply_well(&wanted).await, 0);
    let last = jetstream::stream::Config { name: "LAST".into(), ..Default::default() };
    jetstream::new(bench.client.clone()).create_stream(last).await.unwrap();
    let mut heard = Vec::new();
    while !heard.last().is_some_and(|subject: &String| subject.ends_with(".LAST")) {
        let advisory = tokio::time::timeout(SOON, advisories.next()).await.unwrap().unwrap();
        heard.push(advisory.subject.to_string());
    }
    let made = ["SRC_demo_gw", "SRC_demo_mes", "IOT_demo", "LAST_demo", "LAST"]
        .map(|name| format!("$JS.EVENT.ADVISORY.STREAM.CREATED.{name}"));
    assert_eq!(heard, made);
}

#[tokio::test]
async fn a_source_reaches_the_tenants_stream_and_the_live_subject() {
    let bench = Bench::start().await;
    bench.apply_well(&wanted(&format!("sources: [{GATEWAY}]"))).await;
    let mut live = bench.client.subscribe("live.demo.>").await.unwrap();
    bench.client.flush().await.unwrap();
    bench.publish("plant.gw1.abc.power", "1").await;
    let message = tokio::time::timeout(SOON, live.next()).await.unwrap().unwrap();
    assert_eq!((message.subject.as_str(), &message.payload[..]), ("live.demo.abc.power", &b"1"[..]));
    assert_eq!(bench.stored(1).await, [("iot.demo.abc.power".to_owned(), "1".to_owned())]);
}

#[tokio::test]
async fn streams_of_others_are_never_touched() {
    let bench = Bench::start().await;
    let context = jetstream::new(bench.client.clone());
    for (name, subject, metadata) in [
        ("IOT_demo", "foreign.a", BTreeMap::new()),
        (
            "SRC_demo_gw",
            "foreign.b",
            BTreeMap::from([
                ("flutecast.io/owner-namespace", "default"),
                ("flutecast.io/owner-name", "other"),
            ]),
        ),
    ] {
        let config = jetstream::stream::Config {
            name: name.to_owned(),
            subjects: vec![subject.to_owned()],
            metadata: metadata.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
            ..Default::default()
        };
        context.create_stream(config).await.unwrap();
    }
    let before = (bench.config("IOT_demo").await, bench.config("SRC_demo_gw").await);
    let applied = bench.apply(&wanted(&format!("sources: [{GATEWAY}]"))).await;
    assert_eq!(applied.changes, 0);
    let said: Vec<String> = applied.findings.iter().map(ToString::to_string).collect();
    assert!(applied.findings.iter().all(|finding| finding.reason == Reason::StreamOwnedByOther), "{said:?}");
    assert!(said[0].contains("SRC_demo_gw exists and belongs to Tenant/default/other"), "{said:?}");
    assert!(said[1].contains("IOT_demo exists and belongs to nobody"), "{said:?}");
    assert_eq!(before, (bench.config("IOT_demo").await, bench.config("SRC_demo_gw").await));
    // They are not removed with the Tenant either.
    let gone = wanted("retention: {onDelete: Delete}");
    assert_eq!(tenant::remove(&bench.api, &bench.streams().await, &gone).await.unwrap().changes, 0);
    assert_eq!(bench.streams().await.len(), 2);
}

#[tokio::test]
async fn an_owner_with_another_uid_is_another() {
    let bench = Bench::start().await;
    let with_uid = |uid: &str| {
        let mut wanted = wanted("retention: {onDelete: Keep}");
        wanted.owner.uid = Some(uid.to_owned());
        wanted
    };
    bench.apply_well(&with_uid("one")).await;
    assert_eq!(bench.apply(&with_uid("two")).await.findings[0].reason, Reason::StreamOwnedByOther);
    // With Keep the next Tenant of the name takes the stream over with its messages.
    bench.publish("iot.demo.abc.power", "1").await;
    let removed = tenant::remove(&bench.api, &bench.streams().await, &with_uid("one")).await.unwrap();
    assert_eq!(removed.changes, 2);
    assert_eq!(bench.apply_well(&with_uid("two")).await, 2);
    assert_eq!(bench.stored(1).await.len(), 1);
    assert_eq!(bench.config("IOT_demo").await["metadata"]["flutecast.io/owner-uid"], "two");
}

#[tokio::test]
async fn sources_of_a_tenant_that_went_are_free_for_another() {
    let bench = Bench::start().await;
    let [old, new] = ["demo", "line-1"].map(|tenant| {
        let mut wanted = wanted_of(tenant, &format!("sources: [{GATEWAY}, {MES}]"));
        wanted.owner.uid = Some(tenant.to_owned());
        wanted
    });
    bench.apply_well(&old).await;
    assert_eq!(bench.apply(&new).await.findings[0].reason, Reason::SourceConflict);
    for (from, to) in [(&old, &new), (&new, &old)] {
        tenant::remove(&bench.api, &bench.streams().await, from).await.unwrap();
        bench.apply_well(to).await;
    }
    assert_eq!(bench.config("SRC_demo_mes").await["subjects"], json!(["mes.out"]));
}

#[tokio::test]
async fn retention_changes_in_place_and_other_settings_stay() {
    let bench = Bench::start().await;
    bench.apply_well(&wanted("retention: {maxAge: 1h}")).await;
    bench.publish("iot.demo.abc.power", "1").await;
    let mut config = bench.api.stream("IOT_demo").await.unwrap().unwrap().config;
    config.insert("max_msg_size".to_owned(), json!(4096));
    config["metadata"]["team"] = json!("blue");
    bench.api.update_stream("IOT_demo", config).await.unwrap();
    assert_eq!(bench.apply_well(&wanted("retention: {maxAge: 30s, maxMessagesPerSubject: 3}")).await, 1);
    let config = bench.config("IOT_demo").await;
    assert_eq!(config["max_age"], json!(30_000_000_000_u64));
    assert_eq!(config["duplicate_window"], json!(30_000_000_000_u64));
    assert_eq!(config["max_msgs_per_subject"], 3);
    assert_eq!((&config["max_msg_size"], &config["metadata"]["team"]), (&json!(4096), &json!("blue")));
    assert_eq!(bench.stored(1).await.len(), 1);
}

#[tokio::test]
async fn a_refusal_of_nats_is_reported_in_its_words() {
    let bench = Bench::start().await;
    bench.apply_well(&wanted("retention: {storage: File}")).await;
    bench.publish("iot.demo.abc.power", "1").await;
    let applied = bench.apply(&wanted("retention: {storage: Memory}")).await;
    let said = applied.findings[0].to_string();
    assert!(
        said.starts_with("StreamRefused: ")
            && said.contains("a change of stream IOT_demo")
            && said.contains("can not change storage type"),
        "{said}"
    );
    assert_eq!(bench.config("IOT_demo").await["storage"], "file");
    assert_eq!(bench.stored(1).await.len(), 1);
}

#[tokio::test]
async fn a_subject_of_a_foreign_stream_is_a_conflict() {
    let bench = Bench::start().await;
    let context = jetstream::new(bench.client.clone());
    let foreign = jetstream::stream::Config {
        name: "FOREIGN".into(),
        subjects: vec!["plant.>".into()],
        ..Default::default()
    };
    context.create_stream(foreign).await.unwrap();
    let applied = bench.apply(&wanted(&format!("sources: [{GATEWAY}, {MES}]"))).await;
    let said: Vec<String> = applied.findings.iter().map(ToString::to_string).collect();
    assert!(
        said.len() == 1
            && said[0].starts_with("SourceConflict: NATS refuses stream SRC_demo_gw: subjects overlap"),
        "{said:?}"
    );
    // The others are in force.
    let streams: Vec<String> = bench.streams().await.into_keys().collect();
    assert_eq!(streams, ["FOREIGN", "IOT_demo", "LAST_demo", "SRC_demo_mes"]);
}

#[tokio::test]
async fn a_source_is_switched_off_and_on_without_loss_or_repetition() {
    let bench = Bench::start().await;
    let on = wanted(&format!("sources: [{GATEWAY}]"));
    let off = wanted("sources: []");
    bench.apply_well(&on).await;
    for n in 0..50 {
        bench.publish("plant.gw1.abc.power", &n.to_string()).await;
    }
    // Removed at once: stored messages must still arrive.
    bench.apply_well(&off).await;
    assert_eq!(bench.stored(50).await.len(), 50);
    assert_eq!(bench.streams().await.into_keys().collect::<Vec<_>>(), ["IOT_demo", "LAST_demo"]);
    assert_eq!(bench.config("IOT_demo").await.get("sources"), None);
    bench.apply_well(&on).await;
    for n in 50..60 {
        bench.publish("plant.gw1.abc.power", &n.to_string()).await;
    }
    let stored = bench.stored(60).await;
    let payloads: Vec<usize> = stored.iter().map(|(_, payload)| payload.parse().unwrap()).collect();
    assert_eq!(payloads, (0..60).collect::<Vec<_>>());
}

#[tokio::test]
async fn one_reader_at_a_time_gets_the_messages_of_a_payload_source() {
    let bench = Bench::start().await;
    bench.apply_well(&wanted(&format!("sources: [{MES}]"))).await;
    let context = jetstream::new(bench.client.clone());
    let stream = context.get_stream("SRC_demo_mes").await.unwrap();
    let reader = async || {
        let consumer = stream.get_consumer::<jetstream::consumer::pull::Config>("split").await.unwrap();
        consumer.stream().group("split").expires(Duration::from_secs(2)).messages().await.unwrap()
    };
    let mut first = reader().await;
    bench.publish("mes.out", "0").await;
    let message = tokio::time::timeout(SOON, first.next()).await.unwrap().unwrap().unwrap();
    message.ack().await.unwrap();
    let mut second = reader().await;
    for n in 1..20 {
        bench.publish("mes.out", &n.to_string()).await;
    }
    for n in 1..20 {
        let message = tokio::select! {
            message = first.next() => message.unwrap().unwrap(),
            message = second.next() => panic!("the second reader got {message:?}"),
            () = tokio::time::sleep(SOON) => panic!("nothing came"),
        };
        assert_eq!(&message.payload[..], n.to_string().as_bytes());
        message.ack().await.unwrap();
    }
}

#[tokio::test]
async fn removing_a_payload_source_waits_until_the_rest_is_split() {
    let bench = Bench::start().await;
    bench.apply_well(&wanted(&format!("sources: [{MES}]"))).await;
    bench.publish("mes.out", "{}").await;
    let off = wanted("sources: []");
    let streams = bench.streams().await;
    let mut switching = std::pin::pin!(tenant::apply(&bench.api, &streams, &off));
    // It stops capturing, but keeps its messages.
    let parked = async {
        wait_until("the source is parked", SOON, async || {
            let subjects = bench.config("SRC_demo_mes").await["subjects"].clone();
            if subjects == json!(["SRC_demo_mes"]) { Ok(()) } else { Err(subjects.to_string()) }
        })
        .await
        .unwrap();
        let consumer = bench.api.consumer("SRC_demo_mes", "split").await.unwrap().unwrap();
        assert_eq!(consumer["num_pending"], 1);
        // A data plane reads it.
        let context = jetstream::new(bench.client.clone());
        context.get_stream("SRC_demo_mes").await.unwrap().purge().await.unwrap();
    };
    tokio::select! {
        _ = &mut switching => panic!("it did not wait"),
        () = parked => {}
    }
    let applied = tokio::time::timeout(Duration::from_secs(2), switching).await.unwrap().unwrap();
    assert!(applied.findings.is_empty(), "{:?}", applied.findings);
    assert_eq!(bench.streams().await.into_keys().collect::<Vec<_>>(), ["IOT_demo", "LAST_demo"]);
}

#[tokio::test]
async fn a_changed_source_continues_where_it_was() {
    let bench = Bench::start().await;
    bench.apply_well(&wanted(&format!("sources: [{GATEWAY}]"))).await;
    for n in 0..20 {
        bench.publish("plant.gw1.abc.power", &n.to_string()).await;
    }
    // Another subject with the id at another position, under the same name.
    let moved = "sources: [{name: gw, subject: plant.*.gw2.power, channel: power, iotId: {subjectToken: 2}}]";
    bench.apply_well(&wanted(moved)).await;
    for n in 20..40 {
        bench.publish("plant.xyz.gw2.power", &n.to_string()).await;
    }
    let stored = bench.stored(40).await;
    let payloads: Vec<usize> = stored.iter().map(|(_, payload)| payload.parse().unwrap()).collect();
    assert_eq!(payloads, (0..40).collect::<Vec<_>>());
    assert_eq!((stored[19].0.as_str(), stored[20].0.as_str()), ("iot.demo.abc.power", "iot.demo.xyz.power"));
    assert_eq!(bench.apply_well(&wanted(moved)).await, 0);
}

#[tokio::test]
async fn sources_can_exchange_subjects() {
    let bench = Bench::start().await;
    let sources = |one: &str, two: &str, three: &str| {
        let source = |name: &str, subject: &str, channel: &str| {
            format!(
                "{{name: {name}, subject: {subject}.*.x, channel: {channel}, iotId: {{subjectToken: 2}}}}"
            )
        };
        let all = [source("a", one, "power"), source("b", two, "counters"), source("c", three, "alarms")];
        wanted(&format!("sources: [{}]", all.join(", ")))
    };
    bench.apply_well(&sources("gw1", "gw2", "gw3")).await;
    bench.publish("gw1.abc.x", "1").await;
    bench.publish("gw2.abc.x", "2").await;
    bench.stored(2).await;
    // Two sources swap their subjects; then all three shift by one, which is a cycle.
    bench.apply_well(&sources("gw2", "gw1", "gw3")).await;
    bench.publish("gw1.abc.x", "3").await;
    bench.publish("gw2.abc.x", "4").await;
    bench.stored(4).await;
    bench.apply_well(&sources("gw1", "gw3", "gw2")).await;
    for (gateway, payload) in [("gw1", "5"), ("gw2", "6"), ("gw3", "7")] {
        bench.publish(&format!("{gateway}.abc.x"), payload).await;
    }
    let mut stored = bench.stored(7).await;
    stored.sort_by(|one, other| one.1.cmp(&other.1));
    let stored: Vec<String> = stored
        .iter()
        .map(|(subject, payload)| format!("{payload} {}", subject.trim_start_matches("iot.demo.abc.")))
        .collect();
    assert_eq!(
        stored,
        ["1 power", "2 counters", "3 counters", "4 power", "5 power", "6 alarms", "7 counters"]
    );
    assert_eq!(bench.apply_well(&sources("gw1", "gw3", "gw2")).await, 0);
}

#[tokio::test]
async fn a_source_under_a_new_name_takes_over_the_subject() {
    let bench = Bench::start().await;
    bench.apply_well(&wanted(&format!("sources: [{GATEWAY}]"))).await;
    bench.publish("plant.gw1.abc.power", "0").await;
    bench.apply_well(&wanted(&format!("sources: [{}]", GATEWAY.replace("name: gw", "name: gateway")))).await;
    bench.publish("plant.gw1.abc.power", "1").await;
    assert_eq!(bench.stored(2).await.len(), 2);
    let streams: Vec<String> = bench.streams().await.into_keys().collect();
    assert_eq!(streams, ["IOT_demo", "LAST_demo", "SRC_demo_gateway"]);
}

#[tokio::test]
async fn a_source_that_was_deleted_by_hand_comes_back_and_loses_nothing_new() {
    let bench = Bench::start().await;
    let wanted = wanted(&format!("sources: [{GATEWAY}]"));
    bench.apply_well(&wanted).await;
    for n in 0..30 {
        bench.publish("plant.gw1.abc.power", &n.to_string()).await;
    }
    bench.stored(30).await;
    bench.api.delete_stream("SRC_demo_gw").await.unwrap();
    // Created again, removed from the list, and listed again.
    assert_eq!(bench.apply_well(&wanted).await, 3);
    for n in 30..40 {
        bench.publish("plant.gw1.abc.power", &n.to_string()).await;
    }
    let stored = bench.stored(40).await;
    let payloads: Vec<usize> = stored.iter().map(|(_, payload)| payload.parse().unwrap()).collect();
    assert_eq!(payloads, (0..40).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_tenant_that_goes_releases_its_streams() {
    let bench = Bench::start().await;
    let keep = wanted(&format!("sources: [{GATEWAY}]"));
    bench.apply_well(&keep).await;
    assert_eq!(tenant::remove(&bench.api, &bench.streams().await, &keep).await.unwrap().changes, 0);
    assert_eq!(bench.streams().await.len(), 3);
    let mut delete = keep;
    delete.on_delete = crate::jetstream::streams::OnDelete::Delete;
    assert_eq!(tenant::remove(&bench.api, &bench.streams().await, &delete).await.unwrap().changes, 3);
    assert_eq!(bench.streams().await.len(), 0);
}

#[tokio::test]
async fn an_unavailable_broker_is_no_refusal() {
    let mut bench = Bench::start().await;
    bench.server.stop().await.unwrap();
    let error = wait_until("the broker is away", SOON, async || match bench.api.streams().await {
        Err(error) => Ok(error),
        Ok(_) => Err("it answers"),
    });
    assert!(matches!(error.await.unwrap(), RequestError::Unavailable(_)));
}
