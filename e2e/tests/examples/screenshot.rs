//! `make screenshot`: takes a PNG of the dashboard of a running demo.

#[path = "../stack/chromium.rs"]
#[allow(dead_code, reason = "tests need all of it")]
mod chromium;

use std::time::Duration;

use anyhow::Context;
use flutecast_testkit::{Process, program};

/// The size of the window in pixels, chosen for a README.
const SIZE: (u32, u32) = (1600, 1000);
/// Time for the line to run before the screenshot, so that the plots show a shape.
const RUN: Duration = Duration::from_secs(195);
const START: Duration = Duration::from_secs(120);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let file = std::env::args().nth(1).context("the name of the picture, such as docs/dashboard.png")?;
    let state = tempfile::tempdir()?;
    let folder = state.path().to_str().context("a path in UTF-8")?;
    // An example runs in target/<profile>/examples; `program` finds programs from there as from a test.
    let mut demo = Process::spawn(program("flutecast-demo")?, ["--free-ports", "--state", folder])?;
    let line =
        demo.wait_for_line("the dashboard's address", START, |line| line.contains("dashboard  ")).await?;
    let browser =
        chromium::Chromium::open(line.split_whitespace().last().unwrap_or_default(), SIZE.0, SIZE.1).await?;
    tokio::time::sleep(RUN).await;
    let height =
        browser.script("return document.documentElement.scrollHeight").await?.as_u64().unwrap_or(1000);
    let texts = browser.text("#connection-state").await?.unwrap_or_default();
    browser.page.set_window_size(SIZE.0, u32::try_from(height.clamp(600, 2400))?).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    std::fs::write(&file, browser.page.screenshot().await?).with_context(|| file.clone())?;
    browser.close().await?;
    demo.terminate(START).await?;
    eprintln!("{file}: {height} pixels high, connection: {texts}");
    Ok(())
}
