//! Graceful shutdown of each program on SIGTERM.

use std::time::Duration;

use flutecast_testkit::{LocalStack, Process, program};

use crate::factory::{SOON, stack, watch};

#[tokio::test]
async fn draining_data_plane_sends_bye_with_spread_retry_delays() -> anyhow::Result<()> {
    let stack = stack().await?;
    let mut dataplane = stack.dataplane().await?;
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(watch(&dataplane, "device=A-1").await?);
    }
    dataplane.process.signal_term()?;
    let mut retries = Vec::new();
    for client in &mut clients {
        let bye = client.next_named("bye", SOON).await?;
        let json = bye.json()?;
        assert_eq!(json["reason"], "Draining");
        let retry = json["retryMs"].as_u64().unwrap();
        assert_eq!(client.retry(), Some(Duration::from_millis(retry)), "the retry field has the same delay");
        retries.push(retry);
        assert_eq!(client.next_or_end(SOON).await?, None, "the stream ends after bye");
    }
    retries.sort_unstable();
    retries.dedup();
    assert!(retries.len() > 5, "reconnects are spread in time: {retries:?}");
    let status = dataplane.process.wait(SOON).await?;
    assert!(status.success(), "{status}: {}", dataplane.process.tail());
    Ok(())
}

#[tokio::test]
async fn operator_exits_cleanly_on_sigterm() -> anyhow::Result<()> {
    let mut stack = stack().await?;
    let status = stack.operator.process.terminate(SOON).await?;
    assert!(status.success(), "{status}: {}", stack.operator.process.tail());
    Ok(())
}

#[tokio::test]
async fn line_exits_cleanly_on_sigterm() -> anyhow::Result<()> {
    let stack = LocalStack::demo().await?;
    let client = stack.nats.client().await?;
    let mut messages = client.subscribe(stack.subject("CORR-01", "telemetry")?).await?;
    client.flush().await?;
    let mqtt = format!("127.0.0.1:{}", stack.nats.mqtt_port());
    let arguments = ["line", "--nats", &stack.nats.url(), "--mqtt", &mqtt, "--seed", "7"].map(str::to_owned);
    let mut line = Process::spawn(program("flutecast-demo")?, arguments)?;
    let first = tokio::time::timeout(SOON, futures_util::StreamExt::next(&mut messages)).await;
    assert!(
        first.is_ok_and(|message| message.is_some()),
        "the line published nothing; it wrote:\n{}",
        line.tail()
    );
    let status = line.terminate(SOON).await?;
    assert!(status.success(), "{status}: {}", line.tail());
    Ok(())
}
