//! The dashboard in a real browser.

use anyhow::Context;
use flutecast_testkit::{Dataplane, LocalStack, Process, ProcessOptions, in_repository, program, wait_until};

use crate::chromium::{Chromium, value};
use crate::factory::SOON;

fn start_line(stack: &LocalStack) -> anyhow::Result<Process> {
    let mqtt = format!("127.0.0.1:{}", stack.nats.mqtt_port());
    Process::spawn(
        program("flutecast-demo")?,
        ["line", "--nats", &stack.nats.url(), "--mqtt", &mqtt, "--seed", "7"],
    )
}

/// Waits until a script returns `wanted`.
async fn wait_for(browser: &Chromium, what: &str, script: &str, wanted: &str) -> anyhow::Result<()> {
    wait_until(what, SOON * 2, async || match browser.script(script).await {
        Ok(value) if value == wanted => Ok(()),
        Ok(value) => Err(format!("{value} instead of {wanted}")),
        Err(error) => Err(format!("{error:#}")),
    })
    .await
}

const CONNECTION: &str = "return document.body.dataset.connection";

/// Returns the page's console messages at level SEVERE, without requests that failed while the server was
/// away.
async fn faults(browser: &Chromium) -> anyhow::Result<Vec<String>> {
    let script = "return window.__faults ?? []";
    let list = browser.script(script).await?;
    Ok(list.as_array().into_iter().flatten().map(ToString::to_string).collect())
}

#[tokio::test]
async fn dashboard_shows_live_values_and_survives_data_plane_restarts() -> anyhow::Result<()> {
    let stack = LocalStack::demo().await?;
    let mut dataplane = stack.dataplane().await?;
    let mut line = start_line(&stack)?;
    let browser = Chromium::open(&format!("{}/", dataplane.url), 1600, 1000).await?;
    let listen = "window.__faults = []; addEventListener('error', (e) => __faults.push(String(e.message))); \
                  addEventListener('unhandledrejection', (e) => __faults.push(String(e.reason)))";
    browser.script(listen).await?;

    wait_for(&browser, "the connection", CONNECTION, "live").await?;
    for (device, field) in [("CORR-01", "speed"), ("FLEX-01", "registerError"), ("CORR-01", "webTension")] {
        browser.changes(&value(device, "telemetry", field), 3, SOON).await?;
    }
    for device in ["CORR-01", "SLIT-01", "FLEX-01", "DIE-01", "STACK-01"] {
        let power = format!("return document.querySelector('[data-device=\"{device}\"]')?.dataset.power");
        let on_or_off =
            format!("return ['on','off'].includes((() => {{ {power} }})()) ? 'known' : 'unknown'");
        wait_for(&browser, &format!("the power of {device}"), &on_or_off, "known").await?;
    }

    // The page shows the lost connection, and reconnects by itself.
    dataplane.process.kill().await?;
    wait_for(&browser, "the lost connection", CONNECTION, "reconnecting").await?;
    dataplane = Dataplane::start(dataplane.options.clone()).await?;
    wait_for(&browser, "the connection after a crash", CONNECTION, "live").await?;
    browser.changes(&value("CORR-01", "telemetry", "speed"), 2, SOON).await?;
    // The same after a graceful shutdown.
    assert!(dataplane.process.terminate(SOON).await?.success());
    wait_for(&browser, "the lost connection", CONNECTION, "reconnecting").await?;
    let dataplane = Dataplane::start(dataplane.options.clone()).await?;
    wait_for(&browser, "the connection after a drain", CONNECTION, "live").await?;
    browser.changes(&value("FLEX-01", "telemetry", "registerError"), 2, SOON).await?;

    // Without new messages, values are greyed and show their age.
    line.kill().await?;
    let stale = "return document.querySelector('[data-device=\"FLEX-01\"] \
     [data-channel=\"telemetry\"]')?.dataset.stale";
    wait_for(&browser, "FLEX-01's telemetry to be stale", stale, "true").await?;
    let colours = format!(
        "const at = (s) => getComputedStyle(document.querySelector(s)).color; \
         const stale = document.querySelector({0}), before = at({0}); stale.dataset.stale = 'false'; \
         const fresh = at({0}); stale.dataset.stale = 'true'; return before === fresh ? 'the same' : \
         'greyed'",
        serde_json::json!(value("FLEX-01", "telemetry", "registerError"))
    );
    wait_for(&browser, "the stale value to look different", &colours, "greyed").await?;
    let age =
        browser.text(r#"[data-device="FLEX-01"] [data-channel="telemetry"] .age"#).await?.unwrap_or_default();
    assert!(
        age.contains("old") && age.contains(|c: char| c.is_ascii_digit()),
        "the age of a stale value: {age:?}"
    );

    assert_eq!(faults(&browser).await?, Vec::<String>::new(), "errors on the page");
    drop(dataplane);
    browser.close().await
}

#[tokio::test]
async fn html_from_a_device_is_shown_as_text() -> anyhow::Result<()> {
    let stack = LocalStack::demo().await?;
    let dataplane = stack.dataplane().await?;
    let browser = Chromium::open(&format!("{}/", dataplane.url), 1600, 1000).await?;
    wait_for(&browser, "the connection", CONNECTION, "live").await?;
    let publisher = stack.publisher().await?;
    let text = "<img src=x onerror=\"document.title='broken in'\"><b>bold</b>";
    let alarm =
        serde_json::json!({"ts": "2026-11-22T10:00:00Z", "code": 1, "severity": "critical", "text": text});
    publisher.publish(&stack.subject("FLEX-01", "alarms")?, alarm.to_string()).await?;
    wait_until("the alarm on the card", SOON, async || {
        let seen =
            browser.text(&value("FLEX-01", "alarms", "text")).await.map_err(|error| format!("{error:#}"))?;
        if seen.as_deref() == Some(text) { Ok(()) } else { Err(format!("{seen:?}")) }
    })
    .await?;
    let foreign = browser
        .script("return document.querySelectorAll('main img, main b, footer img, footer b').length")
        .await?;
    assert_eq!(foreign, 0, "the text was parsed as HTML");
    assert_ne!(browser.script("return document.title").await?, "broken in");
    browser.close().await
}

#[tokio::test]
async fn the_dashboards_own_tests_pass() -> anyhow::Result<()> {
    let tests = in_repository("dataplane/dashboard/tests").display().to_string() + "/";
    let mut node = Process::spawn_with(
        "node",
        ["--test", &tests],
        ProcessOptions { own_group: true, ..Default::default() },
    )
    .context("install nodejs, or run make tools")?;
    let status = node.wait(SOON * 10).await?;
    let failed = |line: &String| line.trim_start().starts_with("not ok") || line.contains("error:");
    let problems: Vec<_> = node.output().into_iter().filter(failed).collect();
    assert!(status.success(), "{status}: {problems:#?}\n{}", node.tail());
    // An empty folder would also succeed, so the number of tests is checked.
    let passed = node.output().iter().find_map(|line| line.strip_prefix("# pass ")?.parse::<u32>().ok());
    assert!(passed.is_some_and(|passed| passed > 100), "{passed:?} tests passed");
    Ok(())
}
