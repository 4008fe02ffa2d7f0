//! `make demo` itself, for a limited time.

use std::path::Path;
use std::time::Duration;

use flutecast_testkit::{Process, http_client, in_repository, program};

use crate::factory::SOON;

fn arguments<'a>(state: &'a Path, manifests: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let state = state.to_str().expect("a path in UTF-8");
    [&["--free-ports", "--state", state, "--manifests", manifests], more].concat()
}

#[tokio::test]
async fn demo_serves_the_dashboard_and_exits_cleanly() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let manifests = in_repository("manifests/demo").display().to_string();
    let arguments = arguments(state.path(), &manifests, &["--check-seconds", "8"]);
    let mut demo = Process::spawn(program("flutecast-demo")?, arguments)?;
    let line =
        demo.wait_for_line("the dashboard's address", SOON * 3, |line| line.contains("dashboard  ")).await?;
    let dashboard = line.split_whitespace().last().expect("an address").to_owned();
    let page = http_client::get(&dashboard).await?;
    assert!(page.status.is_success() && page.text().contains("<html"), "{dashboard}: {page:?}");
    for what in ["curl -N", "mosquitto_pub", "iot.demo.", "live.demo."] {
        demo.wait_for_line(what, SOON, |line| line.contains(what)).await?;
    }
    let status = demo.wait(SOON * 3).await?;
    assert!(status.success(), "{status}: {}", demo.tail());
    assert!(http_client::get(&dashboard).await.is_err(), "the dashboard still responds");
    for log in ["nats-server.log", "operator.log", "dataplane.log", "line.log"] {
        assert!(state.path().join("logs").join(log).is_file(), "{log}");
    }
    Ok(())
}

#[tokio::test]
async fn sigterm_stops_all_processes() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let manifests = in_repository("manifests/demo").display().to_string();
    let mut demo = Process::spawn(program("flutecast-demo")?, arguments(state.path(), &manifests, &[]))?;
    let line =
        demo.wait_for_line("the dashboard's address", SOON * 3, |line| line.contains("dashboard  ")).await?;
    let dashboard = line.split_whitespace().last().expect("an address").to_owned();
    let status = demo.terminate(SOON * 2).await?;
    assert!(status.success(), "{status}: {}", demo.tail());
    assert!(http_client::get(&dashboard).await.is_err(), "the dashboard still responds");
    Ok(())
}

#[tokio::test]
async fn port_in_use_is_reported_with_its_holder_and_a_remedy() -> anyhow::Result<()> {
    let state = tempfile::tempdir()?;
    let manifests = in_repository("manifests/demo").display().to_string();
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port().to_string();
    let state = state.path().to_str().expect("a path in UTF-8");
    let arguments = ["--state", state, "--manifests", &manifests, "--http-port", &port];
    let mut demo = Process::spawn(program("flutecast-demo")?, arguments)?;
    assert!(!demo.wait(SOON).await?.success());
    let own = format!("(process {})", std::process::id());
    let told =
        |line: &str| line.contains(&port) && line.contains(&own) && line.contains("FLUTECAST_DEMO_HTTP_PORT");
    demo.wait_for_line("the message about the port", Duration::from_secs(5), told).await?;
    Ok(())
}
