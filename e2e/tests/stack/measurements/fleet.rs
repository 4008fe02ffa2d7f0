//! `flutecast-bench fleet` against a real data plane: the reports that it prints.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use flutecast_testkit::fleet::FleetReport;
use flutecast_testkit::{LocalStack, Process, program};

const SOON: Duration = Duration::from_secs(30);

#[tokio::test]
async fn fleet_prints_reports_and_exits_cleanly() -> anyhow::Result<()> {
    let stack = LocalStack::demo().await?;
    let dataplane = stack.dataplane().await?;
    let publisher = stack.publisher().await?;
    let subject = stack.subject("CORR-01", "power")?;
    let url = format!("{}/v1/demo/events?device=CORR-01&channel=power", dataplane.url);
    let arguments = ["fleet", "--url", &url, "--clients", "50", "--number-field", "on", "--every", "100ms"];
    let mut fleet = Process::spawn(program("flutecast-bench")?, arguments)?;
    let report = |line: &str| serde_json::from_str::<FleetReport>(line).ok();
    fleet
        .wait_for_line("50 clients", SOON, |line| report(line).is_some_and(|report| report.connected == 50))
        .await?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
    publisher.publish(&subject, format!(r#"{{"ts": {now}, "on": 1}}"#)).await?;
    fleet
        .wait_for_line("50 events", SOON, |line| report(line).is_some_and(|report| report.events == 50))
        .await?;
    let status = fleet.terminate(SOON).await?;
    assert!(status.success(), "{status}: {}", fleet.tail());
    let last = fleet.output().iter().rev().find_map(|line| report(line)).unwrap();
    assert_eq!((last.clients, last.connected, last.welcomes, last.failed), (50, 50, 50, 0), "{last:?}");
    assert_eq!(last.servers.values().sum::<usize>(), 50, "{last:?}");
    Ok(())
}
