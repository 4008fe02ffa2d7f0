//! The latency measurement with real components: nats-server, operator and data plane.

use std::time::Duration;

use flutecast_bench::latency::{LatencyOptions, run};
use flutecast_bench::manifests;
use flutecast_contract::name::TenantName;
use flutecast_testkit::{LocalStack, wait_until};
use tokio_util::sync::CancellationToken;

const DEVICES: u32 = 6;

/// Starts a stack with the manifests of the benchmarks.
async fn stack() -> LocalStack {
    let folder = tempfile::tempdir().unwrap();
    manifests::write(&TenantName::new("bench").unwrap(), DEVICES, folder.path()).unwrap();
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    let files = ["tenant.yaml", "format.yaml", "devices.yaml"].map(|name| (name, read(name)));
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
    LocalStack::with("bench", &files).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn operator_accepts_the_manifests_of_the_benchmarks() {
    let stack = stack().await;
    let objects = 2 + usize::try_from(DEVICES).unwrap();
    let verdicts = wait_until("a verdict on each object", Duration::from_secs(20), async || {
        let verdicts = stack.operator.verdicts();
        if verdicts.len() < objects { Err(format!("{verdicts:?}")) } else { Ok(verdicts) }
    });
    for verdict in verdicts.await.unwrap() {
        assert!(verdict.ends_with(" Accepted"), "{verdict}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_message_reaches_every_client_that_watches_its_device() {
    let stack = stack().await;
    let dataplane = stack.dataplane().await.unwrap();
    let options = |clients, per_client| LatencyOptions {
        nats: stack.nats.url(),
        http: dataplane.url.clone(),
        tenant: TenantName::new("bench").unwrap(),
        devices: DEVICES,
        rate: 120,
        warm_up: Duration::from_millis(500),
        duration: Duration::from_secs(1),
        clients,
        per_client,
        pids: vec![dataplane.process.pid()],
    };
    let all = run(&options(3, None), &CancellationToken::new()).await.unwrap();
    assert!(all.complete() && all.strange_events == 0, "{all}");
    assert_eq!(all.sse.expected, 3 * all.broker.expected, "{all}");
    // Each of three clients watches two of six devices, so together they receive each message once.
    let some = run(&options(3, Some(2)), &CancellationToken::new()).await.unwrap();
    assert!(some.complete() && some.strange_events == 0, "{some}");
    assert_eq!(some.sse.expected, some.broker.expected, "{some}");
}
