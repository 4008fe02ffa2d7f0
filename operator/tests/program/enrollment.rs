//! Enrollment over a real nats-server, with NATS and with MQTT clients; the Devices come from a folder.

use std::fs;
use std::time::Duration;

use async_nats::Client;
use flutecast_testkit::{
    NatsOptions, NatsServer, Process, ProcessOptions, free_port, http_client, wait_until,
};
use futures_util::StreamExt;
use serde_json::Value;

use crate::manifests::{device, format, tenant};

const SOON: Duration = Duration::from_secs(20);

struct Plant {
    nats: NatsServer,
    client: Client,
    operator: Process,
    admin: String,
    _folder: tempfile::TempDir,
}

impl Plant {
    /// Starts an operator over these manifests.
    async fn with(manifests: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        fs::create_dir(path("manifests")).unwrap();
        fs::write(path("manifests/all.yaml"), manifests).unwrap();
        let nats =
            NatsServer::start_with(NatsOptions { mqtt: true, ..NatsOptions::default() }).await.unwrap();
        let admin = format!("127.0.0.1:{}", free_port().unwrap());
        let (input, output, url) = (path("manifests"), path("mapping"), nats.url());
        let args = ["--manifests", &input, "--mapping-out", &output, "--nats", &url, "--admin", &admin];
        let program = env!("CARGO_BIN_EXE_flutecast-operator");
        let operator = Process::spawn_with(program, args, ProcessOptions::default()).unwrap();
        let client = nats.client().await.unwrap();
        Self { nats, client, operator, admin: format!("http://{admin}"), _folder: folder }
    }

    async fn ask(&self, tenant: &str, request: &str) -> Result<Value, String> {
        let asked = self.client.request(format!("flutecast.{tenant}.enroll"), request.to_owned().into());
        let message = tokio::time::timeout(SOON, asked).await.map_err(|_| "no answer")?;
        serde_json::from_slice(&message.map_err(|error| error.to_string())?.payload)
            .map_err(|error| error.to_string())
    }

    /// Repeats a request until the reply has `expected` at `pointer`.
    async fn until(&self, tenant: &str, request: &str, pointer: &str, expected: &str) -> Value {
        wait_until(&format!("{pointer} of {request} to be {expected}"), SOON, async || {
            let answer = self.ask(tenant, request).await?;
            if answer.pointer(pointer).and_then(Value::as_str) == Some(expected) {
                Ok(answer)
            } else {
                Err(answer.to_string())
            }
        })
        .await
        .unwrap_or_else(|error| panic!("{error:#}\n{}", self.operator.tail()))
    }

    async fn metric(&self, result: &str) -> f64 {
        let text = http_client::get_text(&format!("{}/metrics", self.admin)).await.unwrap();
        let name = format!("flutecast_operator_enrolment_requests_total{{result=\"{result}\"}} ");
        text.lines().find_map(|line| line.strip_prefix(&name)).map_or(0.0, |value| value.parse().unwrap())
    }

    /// Returns the sequence of the last message that the tenant's stream holds on a subject.
    async fn stored(&self, tenant: &str, subject: &str) -> Option<u64> {
        let api = flutecast_nats::JetStreamApi::new(self.client.clone());
        api.last_sequence_on(&format!("IOT_{tenant}"), subject).await.unwrap()
    }
}

fn plant() -> String {
    let devices = [
        device("corrugator", "acme", "CORR-01", "on-off"),
        device("dotted", "acme", "L1.A/2", "on-off"),
        device("blind", "acme", "BLIND-1", "glasses"),
    ];
    let automatic = "enrollment: {policy: Automatic, template: {channels: [{name: power, format: on-off}]}}";
    [tenant("acme", ""), tenant("other", automatic), format("on-off"), device("o", "other", "O-1", "on-off")]
        .into_iter()
        .chain(devices)
        .collect::<Vec<_>>()
        .join("---\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn only_declared_devices_get_topics() {
    let plant = Plant::with(&plant()).await;
    let answer = plant.until("acme", "CORR-01", "/deviceCode", "CORR-01").await;
    let subject = answer["subjects"]["power"].as_str().unwrap().to_owned();
    assert_eq!(subject, format!("iot.acme.{}.power", answer["iotId"].as_str().unwrap()));
    assert_eq!(answer["mqttTopics"]["power"], subject.replace('.', "/"));
    assert_eq!(plant.ask("acme", r#"{"deviceCode":"CORR-01"}"#).await, Ok(answer));
    // The next message on it is stored.
    plant.client.publish(subject.clone(), r#"{"on":true}"#.into()).await.unwrap();
    wait_until("the message in the stream", SOON, async || {
        plant.stored("acme", &subject).await.ok_or("not there")
    })
    .await
    .unwrap();

    for (tenant, request, reason, tells) in [
        ("acme", "CORR-99", "UnknownDevice", "apply a Device"),
        ("acme", "CORR 01", "InvalidCode", "1 to 64 letters"),
        ("acme", "{\"deviceCode\":", "InvalidRequest", "deviceCode"),
        ("acme", "BLIND-1", "NotReady", "there is no PushFormat \\\"glasses\\\""),
        ("other", "CORR-01", "Unavailable", "the conditions of the Tenant say why"),
    ] {
        let answer = plant.ask(tenant, request).await.unwrap();
        assert_eq!(answer["error"]["reason"], reason, "{answer}");
        assert!(answer["error"]["message"].to_string().contains(tells), "{answer}");
        assert_eq!(answer["error"]["retryAfterMs"].is_u64(), !reason.starts_with("Invalid"), "{answer}");
    }
    assert!(plant.ask("nobody", "CORR-01").await.unwrap_err().contains("no responders"));
    // In a folder no Devices can be created; the existing ones get replies.
    plant.until("other", "O-1", "/tenant", "other").await;
    let verdict = |line: &str| line.contains("Tenant/other Degraded EnrollmentUnavailable");
    let mut operator = plant.operator;
    operator.wait_for_line("the verdict", SOON, verdict).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_enrolls_and_publishes_over_mqtt() {
    let plant = Plant::with(&plant()).await;
    plant.until("acme", "CORR-01", "/deviceCode", "CORR-01").await;
    for (request, token) in [
        ("CORR-01", "CORR-01"),
        ("L1.A/2", "L1=2EA=2F2"),
        (r#"{"deviceCode":"CORR-01","replyToken":"a:1"}"#, "a:1"),
        ("CORR 01", "CORR=2001"),
    ] {
        let answer = over_mqtt(&plant, request, token).await;
        if request.contains(' ') {
            assert_eq!(answer["error"]["reason"], "InvalidCode", "{answer}");
            continue;
        }
        let topic = answer["mqttTopics"]["power"].as_str().unwrap();
        let publish = mosquitto(&plant, "mosquitto_pub", &["-q", "1", "-t", topic, "-m", r#"{"on":true}"#]);
        assert!(wait(publish).await.success());
        let subject = topic.replace('/', ".");
        wait_until("the message in the stream", SOON, async || {
            plant.stored("acme", &subject).await.ok_or("not there")
        })
        .await
        .unwrap();
    }
}

fn mosquitto(plant: &Plant, program: &str, args: &[&str]) -> Process {
    let port = plant.nats.mqtt_port().to_string();
    // Writes line by line, also into a pipe.
    let args = ["-oL", program, "-h", "127.0.0.1", "-p", &port].into_iter().chain(args.iter().copied());
    Process::spawn("stdbuf", args).unwrap()
}

async fn wait(mut process: Process) -> std::process::ExitStatus {
    process.wait(SOON).await.unwrap()
}

async fn over_mqtt(plant: &Plant, request: &str, token: &str) -> Value {
    let topic = format!("flutecast/acme/enrolled/{token}");
    let mut ears = mosquitto(plant, "mosquitto_sub", &["-d", "-t", &topic, "-C", "1"]);
    ears.wait_for_line("the subscription", SOON, |line| line.contains("Subscribed")).await.unwrap();
    let publish = mosquitto(plant, "mosquitto_pub", &["-t", "flutecast/acme/enroll", "-m", request]);
    assert!(wait(publish).await.success());
    let line = ears.wait_for_line("the answer", SOON, |line| line.starts_with('{')).await;
    serde_json::from_str(&line.unwrap_or_else(|error| panic!("{error:#}\n{}", ears.tail()))).unwrap()
}

/// The operator may publish where a device may not; a request must not make it do so.
#[tokio::test(flavor = "multi_thread")]
async fn a_reply_goes_only_to_subjects_for_replies() {
    let plant = Plant::with(&plant()).await;
    let answer = plant.until("acme", "CORR-01", "/deviceCode", "CORR-01").await;
    let stolen = answer["subjects"]["power"].as_str().unwrap().to_owned();
    let mut heard = plant.client.subscribe("flutecast.acme.enrolled.CORR-01").await.unwrap();
    plant.client.flush().await.unwrap();
    let ask = plant.client.publish_with_reply("flutecast.acme.enroll", stolen.clone(), "CORR-01".into());
    ask.await.unwrap();
    let message = tokio::time::timeout(SOON, heard.next()).await.unwrap().unwrap();
    assert!(message.payload.starts_with(b"{\"tenant\""));
    assert_eq!(plant.stored("acme", &stolen).await, None, "the answer went into a stream");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_one_tenant_costs_another_nothing() {
    let plant = Plant::with(&plant()).await;
    plant.until("acme", "CORR-01", "/deviceCode", "CORR-01").await;
    plant.until("other", "O-1", "/deviceCode", "O-1").await;
    let flooder = plant.nats.client().await.unwrap();
    let flood = tokio::spawn(async move {
        for n in 0..u64::MAX {
            flooder
                .publish_with_reply("flutecast.acme.enroll", "_INBOX.flood", format!("C-{n}").into())
                .await
                .unwrap();
            if n % 1000 == 0 {
                tokio::task::yield_now().await;
            }
        }
    });
    wait_until("the flood to be dropped", SOON, async || match plant.metric("Dropped").await {
        dropped if dropped > 10_000.0 => Ok(()),
        dropped => Err(format!("{dropped} dropped")),
    })
    .await
    .unwrap();
    let mut slowest = Duration::ZERO;
    for _ in 0..10 {
        let began = std::time::Instant::now();
        let answer = plant.ask("other", "O-1").await.unwrap();
        assert_eq!(answer["deviceCode"], "O-1", "{answer}");
        slowest = slowest.max(began.elapsed());
    }
    flood.abort();
    let limited = plant.metric("RateLimited").await;
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    assert!((1.0..2000.0).contains(&limited), "{limited}");
    // After the flood the tenant gets replies again.
    plant.until("acme", "CORR-01", "/deviceCode", "CORR-01").await;
}
