//! A data plane on a real nats-server, with a mapping folder that the test writes.

use std::fs;
use std::time::Duration;

use async_nats::jetstream::stream::{Config, Republish, StorageType};
use flutecast_testkit::http_client::{Response, request};
use flutecast_testkit::{Dataplane, DataplaneOptions, NatsServer, ProcessOptions, SseClient, SseEvent};
use http::Method;

/// The longest that a test waits for something to happen; long enough for a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// Tokens of the tenants; [`access`] says what they open.
pub(crate) const ALL: &str = "tok-all-7c1d";
pub(crate) const SOME: &str = "tok-some-93aa";
pub(crate) const OTHER: &str = "tok-other-44b2";

/// Tenants: `open` is anonymous, `acme` and `other` have tokens, `shut` has no access, `unmapped` no mapping.
pub(crate) fn access() -> String {
    format!(
        "apiVersion: mapping.flutecast.io/v1
tenants:
  open: {{anonymous: true}}
  shut: {{}}
  unmapped: {{anonymous: true}}
  acme:
    allowedOrigins: [https://screens.acme.example]
    tokens:
      all: {{sha256: {}}}
      some: {{sha256: {}, devices: [CORR-01]}}
  other: {{allowedOrigins: ['*'], tokens: {{one: {{sha256: {}}}}}}}
",
        digest(ALL),
        digest(SOME),
        digest(OTHER)
    )
}

pub(crate) fn digest(token: &str) -> String {
    use sha2::{Digest, Sha256};
    data_encoding::HEXLOWER.encode(&Sha256::digest(token.as_bytes()))
}

/// The devices CORR-01 (label line=l1) and FLEX-01 (line=l2), each with the channels `telemetry` (Latest) and
/// `alarms` (Every). The channel `large` of CORR-01 repeats one text in 25 fields, each limited to 4 KiB by
/// the engine.
pub(crate) fn shard(tenant: &str, settings: &str) -> String {
    let large: Vec<String> =
        (0..25).map(|n| format!("{{name: text{n}, pointer: /text, type: String}}")).collect();
    let large = large.join(", ");
    format!(
        "apiVersion: mapping.flutecast.io/v1
tenant: {tenant}
shard: 0
shards: 1
revision: r1
settings: {{stream: IOT_{tenant}{settings}}}
formats:
  telemetry:
    codec: JSON
    delivery: {{policy: Latest}}
    fields:
    - {{name: v, pointer: /v, type: Number, unit: m/min, decimals: 1}}
    - {{name: text, pointer: /text, type: String}}
  alarms: {{codec: JSON, delivery: {{policy: Every}}, fields: [{{name: code, pointer: /code, type: Number}}]}}
  large: {{codec: JSON, fields: [{large}]}}
devices:
  corr1{tenant}:
    code: CORR-01
    name: corrugator-1
    labels: {{line: l1}}
    channels:
      telemetry: {{format: telemetry, staleAfterMs: 3600000}}
      alarms: {{format: alarms}}
      large: {{format: large}}
  flex1{tenant}:
    code: FLEX-01
    name: flexo-1
    labels: {{line: l2}}
    channels: {{telemetry: {{format: telemetry}}, alarms: {{format: alarms}}}}
"
    )
}

/// A running data plane, its nats-server and its mapping folder.
pub(crate) struct PodFixture {
    pub(crate) nats: NatsServer,
    pub(crate) client: async_nats::Client,
    pub(crate) dataplane: Dataplane,
    pub(crate) mapping: tempfile::TempDir,
}

impl PodFixture {
    /// Starts a data plane with the mapping of the tenants open, acme, other and shut.
    pub(crate) async fn start(arguments: &[&str]) -> Self {
        Self::start_with(arguments, &[]).await
    }

    pub(crate) async fn start_with(arguments: &[&str], env: &[(&str, &str)]) -> Self {
        let nats = NatsServer::start().await.unwrap();
        let client = nats.client().await.unwrap();
        let mapping = tempfile::tempdir().unwrap();
        for tenant in ["open", "acme", "other", "shut"] {
            create_stream(&client, tenant).await;
            fs::write(mapping.path().join(format!("flutecast-{tenant}-0.yaml")), shard(tenant, "")).unwrap();
        }
        fs::write(mapping.path().join("flutecast-access.yaml"), access()).unwrap();
        let process = ProcessOptions {
            env: env.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
            ..ProcessOptions::default()
        };
        let options = DataplaneOptions {
            mapping: mapping.path().to_owned(),
            nats: nats.url(),
            args: arguments.iter().map(Into::into).collect(),
            process,
            ..DataplaneOptions::default()
        };
        let dataplane = Dataplane::start(options).await.unwrap();
        Self { nats, client, dataplane, mapping }
    }

    /// Replaces a file of the mapping atomically, as the operator does.
    pub(crate) fn write(&self, name: &str, content: &str) {
        let beside = self.mapping.path().join(".beside");
        fs::write(&beside, content).unwrap();
        fs::rename(beside, self.mapping.path().join(name)).unwrap();
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.dataplane.url)
    }

    pub(crate) async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Response {
        request(Method::GET, &self.url(path), headers, "").await.unwrap()
    }

    pub(crate) async fn connect(&self, path: &str, headers: &[(&str, &str)]) -> SseClient {
        SseClient::connect(&self.url(path), headers).await.unwrap()
    }

    /// Publishes to a device of a tenant and returns when the stream has stored it.
    pub(crate) async fn publish(&self, tenant: &str, device: &str, channel: &str, payload: &str) {
        let context = async_nats::jetstream::new(self.client.clone());
        let subject = format!("iot.{tenant}.{device}{tenant}.{channel}");
        context.publish(subject, payload.to_owned().into()).await.unwrap().await.unwrap();
    }
}

/// Creates the tenant's stream as the operator does.
pub(crate) async fn create_stream(client: &async_nats::Client, tenant: &str) {
    let config = Config {
        name: format!("IOT_{tenant}"),
        subjects: vec![format!("iot.{tenant}.>")],
        republish: Some(Republish {
            source: format!("iot.{tenant}.>"),
            destination: format!("live.{tenant}.>"),
            headers_only: false,
        }),
        allow_direct: true,
        max_age: Duration::from_secs(3600),
        storage: StorageType::Memory,
        ..Config::default()
    };
    async_nats::jetstream::new(client.clone()).create_stream(config).await.unwrap();
}

/// The `code` and the `message` of an error.
pub(crate) fn error(answer: &Response) -> (String, String) {
    assert_eq!(answer.headers["content-type"], "application/json");
    let json = answer.json().unwrap();
    let text = |name: &str| json["error"][name].as_str().unwrap().to_owned();
    (text("code"), text("message"))
}

/// The `reason` of an event that has one.
pub(crate) fn reason(event: &SseEvent) -> String {
    event.json().unwrap()["reason"].as_str().unwrap().to_owned()
}

/// The data of the `hello` event.
pub(crate) async fn hello(client: &mut SseClient) -> serde_json::Value {
    client.next_named("hello", DEADLINE).await.unwrap().json().unwrap()
}

/// The codes of the devices in `hello`, or in an answer of `devices`.
pub(crate) fn codes(hello: &serde_json::Value) -> Vec<&str> {
    hello["devices"].as_array().unwrap().iter().map(|device| device["device"].as_str().unwrap()).collect()
}

/// Returns the events up to the end of the stream.
pub(crate) async fn read_to_end(client: &mut SseClient) -> Vec<SseEvent> {
    let mut events = Vec::new();
    while let Some(event) = client.next_or_end(DEADLINE).await.unwrap() {
        events.push(event);
    }
    events
}
