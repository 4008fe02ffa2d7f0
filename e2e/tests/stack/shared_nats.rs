//! Two factories on one nats-server. With an account each, as in manifests/nats/two-factories.conf, neither
//! can reach anything of the other. In one account their streams are separate, and the second owner of a
//! tenant's name gets an error.

use std::ffi::OsString;
use std::path::PathBuf;

use async_nats::jetstream::{self, stream};
use async_nats::{Client, ConnectOptions, RequestErrorKind};
use flutecast_contract::iot_id;
use flutecast_contract::name::{DeviceCode, TenantName};
use flutecast_testkit::{
    Dataplane, DataplaneOptions, NatsOptions, NatsServer, Operator, OperatorOptions, SseClient, http_client,
    in_repository, wait_until,
};
use futures_util::StreamExt as _;
use futures_util::stream::{BoxStream, select_all};
use serde_json::Value;

use crate::factory::{FORMATS, SOON, device, switch, value};

const PASSWORD: &str = "p1-of_Many-letters";
const ACCOUNTS: &str = "manifests/nats/two-factories.conf";
/// The environment variables that [`ACCOUNTS`] reads.
const PASSWORDS: [&str; 7] = [
    "PLANT_1_OPERATOR_PASSWORD",
    "PLANT_1_DATAPLANE_PASSWORD",
    "PLANT_1_DEVICES_PASSWORD",
    "PLANT_2_OPERATOR_PASSWORD",
    "PLANT_2_DATAPLANE_PASSWORD",
    "PLANT_2_DEVICES_PASSWORD",
    "MES_PASSWORD",
];
const USERS: [&str; 3] = ["operator", "dataplane", "devices"];

/// A factory with the tenant `acme`, which both have, and a tenant with the factory's own name.
struct Factory {
    name: &'static str,
    operator: Operator,
    dataplane: Dataplane,
    _folder: tempfile::TempDir,
}

fn tenant(name: &str, namespace: &str) -> String {
    format!(
        "
apiVersion: flutecast.io/v1alpha1
kind: Tenant
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  retention: {{maxAge: 1h, maxMessagesPerSubject: 1000, maxBytes: 64Mi}}
  sources:
  - {{name: mes, subject: mes.{name}.*.state, channel: switch, iotId: {{subjectToken: 3}}}}
  access: {{anonymous: true}}
"
    )
}

/// Adds the namespace to each `metadata`.
fn placed(manifest: &str, namespace: &str) -> String {
    manifest.replace("metadata: {", &format!("metadata: {{namespace: {namespace}, "))
}

impl Factory {
    async fn start(
        name: &'static str,
        url: impl Fn(&str) -> String,
        arguments: &[&str],
    ) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let (manifests, mapping) = (folder.path().join("manifests"), folder.path().join("mapping"));
        for folder in [&manifests, &mapping] {
            std::fs::create_dir(folder)?;
        }
        let own = device("own", "A-1").replace("tenant: acme", &format!("tenant: {name}"));
        for (file, text) in [
            ("acme.yaml", tenant("acme", name)),
            ("own-tenant.yaml", tenant(name, name)),
            ("formats.yaml", placed(FORMATS, name)),
            ("a.yaml", placed(&device("a", "A-1"), name)),
            ("own.yaml", placed(&own, name)),
        ] {
            std::fs::write(manifests.join(file), text)?;
        }
        let operator = OperatorOptions {
            manifests,
            mapping: mapping.clone(),
            nats: url("operator"),
            ..Default::default()
        };
        let operator = Operator::start(operator).await?;
        let mut args: Vec<OsString> = arguments.iter().map(Into::into).collect();
        args.extend(["--server-name".into(), format!("{name}-pod").into()]);
        let dataplane = DataplaneOptions { mapping, nats: url("dataplane"), args, ..Default::default() };
        let dataplane = Dataplane::start(dataplane).await?;
        Ok(Self { name, operator, dataplane, _folder: folder })
    }

    async fn screen(&self, tenant: &str) -> anyhow::Result<SseClient> {
        let url = format!("{}/v1/{tenant}/events?device=A-1", self.dataplane.url);
        let mut client = SseClient::connect(&url, &[]).await?;
        client.next_named("hello", SOON).await?;
        Ok(client)
    }
}

/// Returns the id of `A-1`, which depends only on tenant and device code.
fn id(tenant: &str) -> anyhow::Result<String> {
    Ok(iot_id::generate(&TenantName::new(tenant)?, &DeviceCode::new("A-1")?).to_string())
}

fn stored(tenant: &str) -> anyhow::Result<String> {
    Ok(format!("iot.{tenant}.{}.switch", id(tenant)?))
}

async fn expect(screen: &mut SseClient, n: u64) -> anyhow::Result<()> {
    let event = screen.next_where("a value", SOON, |event| value(event).is_some()).await?;
    let (.., seen) = value(&event).expect("a value");
    assert_eq!(seen, n, "another factory's value");
    Ok(())
}

async fn publish(client: &Client, subject: &str, n: u64) -> anyhow::Result<()> {
    client.publish(subject.to_owned(), switch(n).into()).await?;
    Ok(client.flush().await?)
}

/// Returns the names of all streams that a login can list.
async fn streams(client: &Client) -> anyhow::Result<Vec<String>> {
    let answer = client.request("$JS.API.STREAM.LIST", "".into()).await?;
    let answer: Value = serde_json::from_slice(&answer.payload)?;
    let names = answer["streams"].as_array().into_iter().flatten();
    let mut names: Vec<_> =
        names.filter_map(|stream| stream["config"]["name"].as_str().map(str::to_owned)).collect();
    names.sort_unstable();
    Ok(names)
}

/// Subscribes each login of a factory to all subjects that it may read. Returns the messages as text.
async fn subscribe_to_everything(
    logins: &[(&'static str, Client)],
) -> anyhow::Result<impl futures_util::Stream<Item = String>> {
    let mut heard: Vec<BoxStream<'_, String>> = Vec::new();
    for (user, client) in logins {
        let subjects: &[&str] = match *user {
            "operator" => &[
                "_INBOX.>",
                "$JS.EVENT.ADVISORY.STREAM.>",
                "flutecast.serving.*.*",
                "flutecast.*.enroll",
                "live.>",
            ],
            "dataplane" => &["_INBOX.>", "live.>", "flutecast.serving.*.query", "flutecast.load.*.*"],
            _ => &["_INBOX.>", "flutecast.*.enrolled.>"],
        };
        for subject in subjects {
            let messages = client.subscribe(*subject).await?;
            let text = |message: async_nats::Message| {
                format!("{} {}", message.subject, String::from_utf8_lossy(&message.payload))
            };
            heard.push(messages.map(text).boxed());
        }
        client.flush().await?;
    }
    Ok(select_all(heard))
}

/// One nats-server with an account for each of two factories.
struct Accounts {
    nats: NatsServer,
    first: Factory,
    second: Factory,
    /// The clients of all logins of the first factory.
    logins: Vec<(&'static str, Client)>,
    second_devices: Client,
}

impl Accounts {
    async fn start() -> anyhow::Result<Self> {
        let env = PASSWORDS.map(|name| (OsString::from(name), OsString::from(PASSWORD)));
        let options = NatsOptions {
            mqtt: true,
            extra: std::fs::read_to_string(in_repository(ACCOUNTS))?,
            env: env.to_vec(),
            log: std::env::var_os("FLUTECAST_TEST_NATS_LOG").map(PathBuf::from),
            ..NatsOptions::default()
        };
        let nats = NatsServer::start_with(options).await?;
        let at = nats.url().replace("nats://", "");
        // The release name is the same on purpose, so that only the account separates them.
        let start = async |name: &'static str| {
            let url = |user: &str| format!("nats://{name}-{user}:{PASSWORD}@{at}");
            Factory::start(name, url, &["--release", "factory"]).await
        };
        let (first, second) = tokio::try_join!(start("plant-1"), start("plant-2"))?;
        let mut logins = Vec::new();
        for user in USERS {
            logins.push((user, connect(&nats, &format!("plant-1-{user}")).await?));
        }
        let second_devices = connect(&nats, "plant-2-devices").await?;
        Ok(Self { nats, first, second, logins, second_devices })
    }

    /// The clients of the first factory's operator, data plane and devices.
    fn clients(&self) -> [&Client; 3] {
        [0, 1, 2].map(|at| &self.logins[at].1)
    }
}

async fn connect(nats: &NatsServer, user: &str) -> anyhow::Result<Client> {
    let login = ConnectOptions::with_user_and_password(user.to_owned(), PASSWORD.to_owned());
    Ok(login.connect(nats.url()).await?)
}

/// An enrollment request to the other factory has no responder, while the own factory answers.
async fn enrollment_stays_in_the_account(accounts: &Accounts) -> anyhow::Result<()> {
    let [.., devices] = accounts.clients();
    let own = devices.request("flutecast.plant-1.enroll", "A-1".into()).await?;
    assert!(own.payload.windows(4).any(|part| part == b"iot."), "{own:?}");
    let foreign = devices.request("flutecast.plant-2.enroll", "A-1".into()).await.unwrap_err();
    assert_eq!(foreign.kind(), RequestErrorKind::NoResponders);
    Ok(())
}

/// Both factories have tenant `acme` with device A-1, so they use the same subjects; each screen receives
/// values of its own factory only. Returns a screen of the second factory's own tenant.
async fn screens_see_their_own_factory(accounts: &Accounts) -> anyhow::Result<SseClient> {
    let Accounts { nats, first, second, second_devices, .. } = accounts;
    let [.., devices] = accounts.clients();
    let mut screens = (first.screen("acme").await?, second.screen("acme").await?);
    let mut secret = second.screen("plant-2").await?;
    publish(second_devices, &stored("acme")?, 2_001).await?;
    publish(second_devices, &stored("plant-2")?, 2_002).await?;
    publish(devices, &stored("acme")?, 1_001).await?;
    expect(&mut screens.0, 1_001).await?;
    expect(&mut screens.1, 2_001).await?;
    expect(&mut secret, 2_002).await?;
    // The MES has its own account and exports each factory's subjects only to that factory's account.
    let mes = connect(nats, "mes").await?;
    for (plant, n) in [("plant-1", 1_003), ("plant-2", 2_003)] {
        publish(&mes, &format!("mes.{plant}.acme.{}.state", id("acme")?), n).await?;
    }
    expect(&mut screens.0, 1_003).await?;
    expect(&mut screens.1, 2_003).await?;
    Ok(secret)
}

/// Asserts that even the login with the most rights can't access the other factory's streams.
async fn streams_of_the_other_factory_are_unreachable(accounts: &Accounts) -> anyhow::Result<()> {
    let [operator, dataplane, _] = accounts.clients();
    let own = ["IOT_acme", "IOT_plant-1", "LAST_acme", "LAST_plant-1", "SRC_acme_mes", "SRC_plant-1_mes"];
    assert_eq!(streams(operator).await?, own);
    let calls = [
        ("STREAM.INFO", ""),
        ("STREAM.DELETE", ""),
        ("STREAM.PURGE", ""),
        ("STREAM.MSG.GET", r#"{"seq": 1}"#),
    ];
    for (call, body) in calls {
        for stream in ["IOT_plant-2", "LAST_plant-2"] {
            let answer = operator.request(format!("$JS.API.{call}.{stream}"), body.into()).await?;
            let answer: Value = serde_json::from_slice(&answer.payload)?;
            assert_eq!(answer["error"]["code"], 404, "{call} of {stream}: {answer}");
        }
    }
    // A direct get of an unknown stream has no responder. Any response would be among the received messages.
    for user in [operator, dataplane] {
        let subject = format!("$JS.API.DIRECT.GET.IOT_plant-2.{}", stored("plant-2")?);
        user.publish_with_reply(subject, user.new_inbox(), "".into()).await?;
    }
    Ok(())
}

/// Creates a stream with other streams as sources, which needs no rights on them. It finds only streams of
/// its own account.
async fn stream_that_reads_from_others(operator: &Client) -> anyhow::Result<stream::Stream> {
    let source = |name: &str| stream::Source { name: name.to_owned(), ..Default::default() };
    let config = stream::Config {
        name: "MIRROR".to_owned(),
        sources: Some(["IOT_plant-2", "IOT_acme"].map(source).to_vec()),
        ..Default::default()
    };
    Ok(jetstream::new(operator.clone()).create_stream(config).await?)
}

/// Publishes a last message of the first factory and returns all messages received up to it.
async fn receive_up_to_a_last_message(
    devices: &Client,
    heard: impl futures_util::Stream<Item = String>,
) -> anyhow::Result<Vec<String>> {
    publish(devices, &stored("plant-1")?, 1_999).await?;
    let (mut heard, mut all) = (Box::pin(heard), Vec::new());
    let listening = async {
        while let Some(text) = heard.next().await {
            let last = text.starts_with("live.plant-1.") && text.contains("1999");
            all.push(text);
            if last {
                break;
            }
        }
    };
    let heard_it = tokio::time::timeout(SOON, listening).await;
    assert!(heard_it.is_ok(), "the factory's own last message didn't arrive: {all:#?}");
    Ok(all)
}

#[tokio::test(flavor = "multi_thread")]
async fn factories_with_an_account_each_are_isolated() -> anyhow::Result<()> {
    let accounts = Accounts::start().await?;
    let [operator, dataplane, devices] = accounts.clients();
    enrollment_stays_in_the_account(&accounts).await?;
    let heard = subscribe_to_everything(&accounts.logins).await?;
    let mut secret = screens_see_their_own_factory(&accounts).await?;
    streams_of_the_other_factory_are_unreachable(&accounts).await?;
    let mirror = stream_that_reads_from_others(operator).await?;
    // Messages on the other factory's subjects stay in this account, without a consumer.
    for user in [devices, dataplane] {
        publish(user, &stored("plant-2")?, 1_666).await?;
    }
    // No pod of the other factory responds to the query.
    operator.publish("flutecast.serving.factory.query", "".into()).await?;
    operator.flush().await?;

    publish(&accounts.second_devices, &stored("plant-2")?, 2_004).await?;
    expect(&mut secret, 2_004).await?;
    wait_until("messages of the own account in the stream with both sources", SOON, async || {
        let info = mirror.get_info().await.map_err(|error| error.to_string())?;
        if info.state.messages >= 2 { Ok(()) } else { Err(format!("{:?}", info.state)) }
    })
    .await?;
    // By now all messages that the second factory has sent are delivered.
    let all = receive_up_to_a_last_message(devices, heard).await?;
    for own in ["live.acme.", "plant-1-pod"] {
        assert!(all.iter().any(|text| text.contains(own)), "no message of the own factory ({own}): {all:#?}");
    }
    for text in &all {
        let foreign =
            text.contains("\"n\":2") || text.contains("plant-2-pod") || text.contains("SRC_plant-2");
        assert!(!foreign, "a message of the other factory: {text}");
    }
    let mirrored = mirror.get_info().await?;
    assert_eq!(mirrored.state.messages, 2, "messages of another account: {:?}", mirrored.state);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn in_one_account_the_second_owner_of_a_stream_is_refused() -> anyhow::Result<()> {
    let nats = NatsServer::start().await?;
    let first = Factory::start("plant-1", |_| nats.url(), &["--release", "plant-1"]).await?;
    let client = nats.client().await?;
    let mut screen = first.screen("acme").await?;
    publish(&client, &stored("acme")?, 1_001).await?;
    expect(&mut screen, 1_001).await?;

    let second = Factory::start("plant-2", |_| nats.url(), &["--release", "plant-2"]).await?;
    let told = wait_until("the second owner's verdict", SOON, async || {
        let said = second.operator.verdicts();
        let told = said.iter().find(|line| line.contains("StreamOwnedByOther")).cloned();
        told.ok_or_else(|| said.join("\n"))
    })
    .await?;
    assert!(told.contains("stream IOT_acme exists and belongs to Tenant/plant-1/acme"), "{told}");
    // The second factory's clients learn nothing of the stream, not even that the device exists.
    for path in ["acme/events?device=A-1", "acme/devices", "acme/devices/A-1"] {
        let answer = http_client::get(&format!("{}/v1/{path}", second.dataplane.url)).await?;
        assert_eq!(answer.status.as_u16(), 401, "{path}: {}", answer.text());
        assert!(!answer.text().contains("1001"), "{path}: {}", answer.text());
    }
    // The second factory's own tenant works, and the first owner's stream is unchanged.
    let mut own = second.screen(second.name).await?;
    publish(&client, &stored("plant-2")?, 2_001).await?;
    expect(&mut own, 2_001).await?;
    publish(&client, &stored("acme")?, 1_002).await?;
    expect(&mut screen, 1_002).await?;
    let stream = jetstream::new(client.clone()).get_stream("IOT_acme").await?;
    let owner = &stream.cached_info().config.metadata;
    assert_eq!(owner.get("flutecast.io/owner-namespace").map(String::as_str), Some("plant-1"), "{owner:?}");
    Ok(())
}
