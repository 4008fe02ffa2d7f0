//! Debian's headless Chromium, driven through chromedriver.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Context;
use fantoccini::{Client, ClientBuilder};
use flutecast_testkit::{Process, ProcessOptions, free_port, http_client, wait_until};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};

/// Time limit for a start on a busy machine.
const START: Duration = Duration::from_secs(60);

/// Headless, without a sandbox (tests run as root), and without background network traffic.
const ARGUMENTS: [&str; 14] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--hide-scrollbars",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-sync",
    "--disable-domain-reliability",
    "--metrics-recording-only",
];

/// Returns the selector of a value on the dashboard.
pub(crate) fn value(device: &str, channel: &str, field: &str) -> String {
    format!(r#"[data-device="{device}"] [data-channel="{channel}"] [data-field="{field}"]"#)
}

/// A browser with one page. Dropping it kills driver and browser.
pub(crate) struct Chromium {
    pub(crate) page: Client,
    // Declared before its folder, so that it is killed before the folder is removed.
    _driver: Process,
    _profile: tempfile::TempDir,
}

impl Chromium {
    /// Opens `url` in a window of this size in pixels.
    pub(crate) async fn open(url: &str, width: u32, height: u32) -> anyhow::Result<Self> {
        Self::open_with(url, width, height, &[]).await
    }

    /// Opens `url` without verifying the server's certificate.
    #[allow(dead_code, reason = "not every program that includes this file has such a server")]
    pub(crate) async fn open_unverified(url: &str, width: u32, height: u32) -> anyhow::Result<Self> {
        Self::open_with(url, width, height, &["--ignore-certificate-errors"]).await
    }

    async fn open_with(url: &str, width: u32, height: u32, more: &[&str]) -> anyhow::Result<Self> {
        let profile = tempfile::Builder::new().prefix("flutecast-chromium-").tempdir()?;
        let port = free_port()?;
        let driver = Process::spawn_with(
            "chromedriver",
            [format!("--port={port}"), "--allowed-ips=127.0.0.1".to_owned()],
            // A separate home folder isolates the browser from the user's settings and caches.
            ProcessOptions {
                own_group: true,
                env: vec![("HOME".into(), profile.path().into()), ("TMPDIR".into(), profile.path().into())],
                log: None,
            },
        )
        .context("install chromium-driver, or run make tools")?;
        let address = format!("http://127.0.0.1:{port}");
        wait_until("chromedriver", START, async || {
            match http_client::get_json(&format!("{address}/status")).await {
                Ok(status) if status["value"]["ready"] == true => Ok(()),
                Ok(status) => Err(status.to_string()),
                Err(error) => Err(format!("{error:#}")),
            }
        })
        .await?;
        let data = profile.path().join("data");
        let mut arguments = ARGUMENTS.map(str::to_owned).to_vec();
        arguments.extend(more.iter().copied().map(str::to_owned));
        arguments.push(format!("--user-data-dir={}", data.display()));
        arguments.push(format!("--window-size={width},{height}"));
        let Value::Object(capabilities) = json!({
            "browserName": "chrome",
            "goog:chromeOptions": {"args": arguments},
            "goog:loggingPrefs": {"browser": "ALL"},
            "pageLoadStrategy": "normal",
        }) else {
            anyhow::bail!("an object");
        };
        let page =
            ClientBuilder::new(HttpConnector::new()).capabilities(capabilities).connect(&address).await;
        let page = page.with_context(|| format!("chromedriver wrote:\n{}", driver.tail()))?;
        page.goto(url).await?;
        Ok(Self { page, _driver: driver, _profile: profile })
    }

    /// Runs a script in the page. Returns the value of its `return` statement.
    pub(crate) async fn script(&self, script: &str) -> anyhow::Result<Value> {
        Ok(self.page.execute(script, Vec::new()).await?)
    }

    /// Returns the text of the first element that matches the selector; `None` if there is none.
    pub(crate) async fn text(&self, selector: &str) -> anyhow::Result<Option<String>> {
        let script = format!("return document.querySelector({})?.textContent ?? null", json!(selector));
        Ok(self.script(&script).await?.as_str().map(str::to_owned))
    }

    /// Waits until the first element that matches the selector has shown `count` different texts with a
    /// digit.
    pub(crate) async fn changes(
        &self,
        selector: &str,
        count: usize,
        deadline: Duration,
    ) -> anyhow::Result<()> {
        let mut seen = BTreeSet::new();
        wait_until(&format!("{count} different values of {selector}"), deadline, async || {
            let text = self.text(selector).await.map_err(|error| format!("{error:#}"))?;
            seen.extend(text.filter(|text| text.contains(|c: char| c.is_ascii_digit())));
            if seen.len() >= count { Ok(()) } else { Err(format!("{seen:?}")) }
        })
        .await
    }

    /// Closes the browser gracefully.
    pub(crate) async fn close(self) -> anyhow::Result<()> {
        self.page.clone().close().await.context("closing the browser")
    }
}
