//! Whether messages are understood, of Devices from a folder: the log says it, for there is no status.

use std::fs;
use std::time::Duration;

use flutecast_contract::iot_id::generate;
use flutecast_testkit::{NatsServer, Process, ProcessOptions, wait_until};

use crate::manifests::{device, format, tenant};

const SOON: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn a_payload_that_is_cut_off_is_named_in_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    fs::create_dir(path("manifests")).unwrap();
    let all = [tenant("acme", ""), format("on-off"), device("press", "acme", "PRESS-01", "on-off")];
    fs::write(path("manifests/all.yaml"), all.join("---\n")).unwrap();
    let nats = NatsServer::start().await.unwrap();
    let (input, output, url) = (path("manifests"), path("mapping"), nats.url());
    let start = || {
        let args = ["--manifests", &input, "--mapping-out", &output, "--nats", &url];
        Process::spawn_with(env!("CARGO_BIN_EXE_flutecast-operator"), args, ProcessOptions::default())
            .unwrap()
    };
    let mut operator = start();
    let client = nats.client().await.unwrap();
    let stream = async_nats::jetstream::new(client.clone());
    let id = generate(&"acme".parse().unwrap(), &"PRESS-01".parse().unwrap());
    // Acknowledged once the stream is there.
    wait_until("a stored message", SOON, async || {
        let sent = stream.publish(format!("iot.acme.{id}.power"), r#"{"on":tr"#.into()).await;
        let stored = sent.map_err(|error| error.to_string())?.await;
        stored.map_err(|error| error.to_string())
    })
    .await
    .unwrap();
    // Whatever it looked at before, the next one looks soon after its start.
    operator.terminate(SOON).await.unwrap();
    let mut operator = start();
    let is_it = |line: &str| {
        ["WARN", "tenant=acme", "device=\"press\"", "reason=Malformed", "channel power: at byte 6"]
            .iter()
            .all(|word| line.contains(word))
    };
    operator.wait_for_line("the reason in the log", SOON, is_it).await.unwrap();
    operator.terminate(SOON).await.unwrap();
}
