//! The loopback listener: a look at the last messages of a device, and what became of each.

use flutecast_contract::header::{ORIGIN_EPOCH, ORIGIN_SEQUENCE, ORIGIN_TIME};
use flutecast_contract::stream_position::Epoch;
use flutecast_testkit::http_client::{Response, get, request};
use flutecast_testkit::{Process, program};
use http::Method;
use serde_json::{Value, json};

use crate::fixture::{DEADLINE, PodFixture, error};

/// A tenant whose device CORR-01 has a channel with a time of its own, an Enum and a `when`.
const MAPPING: &str = "apiVersion: mapping.flutecast.io/v1
tenant: acme
shard: 0
shards: 1
revision: r2
settings: {stream: IOT_acme}
formats:
  timed:
    codec: JSON
    timestamp: {pointer: /ts, unit: Milliseconds, maxAgeMs: 30000}
    delivery: {policy: Latest}
    when: values.v >= 0.0
    fields:
    - {name: v, pointer: /v, type: Number}
    - {name: state, pointer: /st, type: Enum, values: {'0': stopped, '1': running}}
devices:
  corr1acme:
    code: CORR-01
    name: corrugator-1
    labels: {}
    channels: {timed: {format: timed}}
";

async fn look(setup: &PodFixture, path: &str) -> Response {
    get(&format!("{}{path}", setup.dataplane.inspect_url().unwrap())).await.unwrap()
}

/// Returns the messages of the only channel of an answer, the newest first.
fn messages(answer: &Value) -> &Vec<Value> {
    assert_eq!(answer["channels"].as_array().unwrap().len(), 1, "{answer}");
    answer["channels"][0]["messages"].as_array().unwrap()
}

/// Starts a pod that serves [`MAPPING`].
async fn timed_pod() -> PodFixture {
    let setup = PodFixture::start(&[]).await;
    setup.write("flutecast-acme-0.yaml", MAPPING);
    let served = async || {
        let answer = look(&setup, "/channels?tenant=acme&device=CORR-01&channel=timed").await;
        if answer.status == 200 { Ok(()) } else { Err(answer.text()) }
    };
    flutecast_testkit::wait_until("the mapping to be served", DEADLINE, served).await.unwrap();
    setup
}

#[tokio::test]
async fn a_look_names_the_step_that_stopped_each_message() {
    let setup = timed_pod().await;
    let now = jiff::Timestamp::now().as_millisecond();
    let secret = "x".repeat(1_000);
    let payloads = [
        format!("{{\"ts\":{now},\"v\":1,\"st\":1}}"),
        format!("{{\"ts\":{},\"v\":2,\"st\":1}}", now - 40_000),
        format!("{{\"ts\":{now},\"v\":3,\"st\":7}}"),
        format!("{{\"ts\":{now},\"v\":-1,\"st\":1}}"),
        format!("{{\"ts\":{now},\"v\":4,\"text\":\"{secret}"),
        "\u{1b}[31m\nforged".to_owned(),
    ];
    for payload in &payloads {
        setup.publish("acme", "corr1", "timed", payload).await;
    }
    let answer = look(&setup, "/channels?tenant=acme&device=CORR-01").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers["cache-control"], "no-store");
    assert!(!answer.headers.contains_key("access-control-allow-origin"));
    let answer = answer.json().unwrap();
    assert_eq!((&answer["tenant"], &answer["iotId"]), (&json!("acme"), &json!("corr1acme")));
    assert_eq!(answer["channels"][0]["subject"], "iot.acme.corr1acme.timed");
    assert_eq!(answer["channels"][0]["problem"]["reason"], "Malformed");
    let messages = messages(&answer);
    let steps: Vec<&str> = messages.iter().rev().map(|message| message["step"].as_str().unwrap()).collect();
    assert_eq!(steps, ["Shown", "TooOld", "Shown", "Filtered", "Malformed", "Malformed"]);
    let [forged, cut, filtered, bad, old, good] = &messages[..] else { panic!("{messages:#?}") };

    assert_eq!((&good["values"], &good["problems"]), (&json!({"v": 1, "state": "running"}), &json!([])));
    assert_eq!(good["payload"], payloads[0].as_str());
    assert!(good["time"].is_string() && good["stored"].is_string());
    assert_eq!((&old["values"], &old["time"]), (&Value::Null, &Value::Null));
    let problem = &old["problems"][0];
    assert_eq!((&problem["reason"], &problem["place"]), (&json!("TooOld"), &json!("/ts")));
    assert!(problem["message"].as_str().unwrap().len() > 20, "{problem}");
    assert_eq!((&bad["values"]["state"], &bad["bad"]), (&Value::Null, &json!({"state": "7"})));
    assert_eq!(bad["problems"][0]["reason"], "BadField");
    assert_eq!((&filtered["step"], &filtered["problems"]), (&json!("Filtered"), &json!([])));
    assert_eq!(cut["bytes"], payloads[4].len());
    assert!(cut["payload"].as_str().unwrap().len() <= 200, "{cut}");
    assert_eq!(forged["payload"], "\\u{1b}[31m\\nforged");
}

#[tokio::test]
async fn a_look_shows_the_newest_of_many_messages() {
    let setup = timed_pod().await;
    let now = jiff::Timestamp::now().as_millisecond();
    let empty = look(&setup, "/channels?device=CORR-01&tenant=acme").await.json().unwrap();
    assert_eq!((messages(&empty), &empty["channels"][0]["problem"]), (&Vec::new(), &Value::Null));
    for n in 0..700 {
        let payload = format!("{{\"ts\":{now},\"v\":{n},\"st\":1}}");
        setup.client.publish("iot.acme.corr1acme.timed", payload.into()).await.unwrap();
        setup.client.publish("iot.acme.other.timed", "{}".into()).await.unwrap();
    }
    setup.publish("acme", "corr1", "timed", &format!("{{\"ts\":{now},\"v\":700}}")).await;
    let answer = look(&setup, "/channels?device=CORR-01&tenant=acme").await.json().unwrap();
    let shown: Vec<f64> =
        messages(&answer).iter().map(|message| message["values"]["v"].as_f64().unwrap()).collect();
    assert_eq!(shown, (681..=700).rev().map(f64::from).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_look_finds_what_was_kept_of_this_stream() {
    let setup = timed_pod().await;
    let context = async_nats::jetstream::new(setup.client.clone());
    let config = async_nats::jetstream::stream::Config {
        name: "LAST_acme".to_owned(),
        subjects: vec!["last.acme.>".to_owned()],
        allow_direct: true,
        ..Default::default()
    };
    context.create_stream(config).await.unwrap();
    let info = setup.client.request("$JS.API.STREAM.INFO.IOT_acme", "".into()).await.unwrap();
    let info: Value = serde_json::from_slice(&info.payload).unwrap();
    let epoch = Epoch::of_creation(info["created"].as_str().unwrap()).to_string();
    for (epoch, kept) in [("00000001", 0), (epoch.as_str(), 1)] {
        let mut headers = async_nats::HeaderMap::new();
        for (name, value) in
            [(ORIGIN_EPOCH, epoch), (ORIGIN_SEQUENCE, "42"), (ORIGIN_TIME, "2026-11-22T10:00:00.123Z")]
        {
            headers.insert(name, value);
        }
        let payload = r#"{"ts":1795341600123,"v":5,"st":1}"#;
        let subject = "last.acme.corr1acme.timed";
        context.publish_with_headers(subject, headers, payload.into()).await.unwrap().await.unwrap();
        let answer = look(&setup, "/channels?device=CORR-01&tenant=acme").await.json().unwrap();
        let messages = messages(&answer);
        assert_eq!(messages.len(), kept, "{answer:#}");
        for message in messages {
            assert_eq!((&message["kept"], &message["seq"]), (&json!(true), &json!(42)));
            assert_eq!(message["stored"], "2026-11-22T10:00:00.123Z");
            assert_eq!(message["values"], json!({"v": 5, "state": "running"}));
        }
    }
}

#[tokio::test]
async fn what_can_not_be_looked_at_is_said() {
    let setup = PodFixture::start(&[]).await;
    for (path, status, code, expected) in [
        ("/channels", 400, "BadRequest", "device: exactly one is needed"),
        ("/channels?device=CORR-01", 400, "BadRequest", "several tenants have a device CORR-01"),
        ("/channels?devices=CORR-01", 400, "BadRequest", "did you mean device?"),
        ("/channels?device=CORR-99", 404, "NotFound", "no device CORR-99"),
        ("/channels?tenant=nobody&device=CORR-01", 404, "NotFound", "no tenant nobody"),
        (
            "/channels?tenant=open&device=CORR-01&channel=speed",
            404,
            "NotFound",
            "it has alarms, large, telemetry",
        ),
        ("/metrics", 404, "NotFound", "/channels?device=CORR-01"),
    ] {
        let answer = look(&setup, path).await;
        assert_eq!(answer.status, status, "{path}");
        assert!(!answer.headers.contains_key("access-control-allow-origin"), "{path}");
        let (found, message) = error(&answer);
        assert_eq!(found, code, "{path}");
        assert!(message.contains(expected), "{path}: {message}");
    }
    let url = format!("{}/channels?tenant=open&device=CORR-01", setup.dataplane.inspect_url().unwrap());
    let posted = request(Method::POST, &url, &[], "").await.unwrap();
    assert_eq!((posted.status.as_u16(), posted.headers["allow"].to_str().unwrap()), (405, "GET"));
    let whole = get(&url).await.unwrap().json().unwrap();
    assert_eq!(whole["channels"].as_array().unwrap().len(), 3, "all channels without `channel`");
}

#[tokio::test]
async fn a_name_that_is_not_of_loopback_is_refused() {
    let setup = PodFixture::start(&[]).await;
    let url = format!("{}/channels?tenant=open&device=CORR-01", setup.dataplane.inspect_url().unwrap());
    for (host, status) in [
        ("localhost:8082", 200),
        ("[::1]:8082", 200),
        ("rebound.evil.example:8082", 403),
        ("10.1.2.3:8082", 403),
    ] {
        let answer = request(Method::GET, &url, &[("host", host)], "").await.unwrap();
        assert_eq!(answer.status, status, "{host}: {}", answer.text());
    }
}

#[tokio::test]
async fn only_loopback_is_listened_on_and_a_taken_port_is_a_warning() {
    let executable = program("flutecast-dataplane").unwrap();
    let mapping = tempfile::tempdir().unwrap();
    let arguments = ["--mapping", mapping.path().to_str().unwrap(), "--inspect-address", "0.0.0.0:8082"];
    let mut process = Process::spawn(&executable, arguments).unwrap();
    process
        .wait_for_line("the reason", DEADLINE, |line| line.contains("only loopback is served"))
        .await
        .unwrap();
    assert!(!process.wait(DEADLINE).await.unwrap().success());

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let setup = PodFixture::start(&["--inspect-address", &address]).await;
    let output = setup.dataplane.process.output();
    let expected = format!("--inspect-address {address} can't be listened on");
    assert!(output.iter().any(|line| line.contains("WARN") && line.contains(&expected)), "{output:#?}");
    assert_eq!(setup.dataplane.inspect_url(), None);
    assert_eq!(setup.get("/v1/open/devices", &[]).await.status, 200);
}
