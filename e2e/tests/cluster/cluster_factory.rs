//! A factory as people get one: the charts on a real cluster, the demo's manifests, the simulated line, and a
//! browser.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Context;
use flutecast_testbed::cluster::Cluster;
use flutecast_testbed::release::{Images, Pod, Release};
use flutecast_testkit::{Process, program, wait_until};

use crate::chromium::{Chromium, value};

const SOON: Duration = Duration::from_secs(60);
/// A picture of the page at the end, if this is set.
const SCREENSHOT: &str = "FLUTECAST_SCREENSHOT";

/// The pod that serves the page, as soon as the page is live.
async fn server(browser: &Chromium) -> anyhow::Result<String> {
    let script = "return [document.body.dataset.connection, document.querySelector('#server')?.textContent]";
    wait_until("the page to be live", SOON, async || match browser.script(script).await {
        Ok(state) if state[0] == "live" && state[1] != "–" => {
            Ok(state[1].as_str().unwrap_or("").to_owned())
        }
        Ok(state) => Err(state.to_string()),
        Err(error) => Err(format!("{error:#}")),
    })
    .await
}

#[tokio::test]
async fn a_browser_sees_the_line_through_both_pods() {
    let cluster = Cluster::shared().await.unwrap();
    // On this machine's own cluster Services are reached through kube-proxy; on an existing one a
    // port-forward leads to one pod.
    let own = cluster.node().is_ok();
    let namespace = cluster.namespace("browser").await.unwrap();
    let images = Images::of_workspace().unwrap();
    let mut factory = Release::install(&cluster, &namespace, "factory", &images, "").await.unwrap();
    factory.apply_folder("manifests/demo").await.unwrap();
    factory.wait_ready().await.unwrap();
    let pods = factory.wait_for_pods("dataplane", 2).await.unwrap();
    let names: BTreeSet<_> = pods.iter().map(|pod| pod.name.clone()).collect();

    let (nats, dataplane) = (factory.nats().await.unwrap(), factory.dataplane().await.unwrap());
    let (client, mqtt) = (nats.url("devices"), nats.mqtt_url("devices"));
    let args = ["line", "--seed", "7", "--nats", &client, "--mqtt", &mqtt];
    let line = Process::spawn(program("flutecast-demo").unwrap(), args).unwrap();

    let url = format!("http://{}/", dataplane.address);
    let browser = Chromium::open(&url, 1600, 1000).await.unwrap();
    server(&browser).await.unwrap();
    let mut servers = BTreeSet::new();
    // kube-proxy leads each new connection to a pod by chance: the page is loaded until it has come from
    // both.
    for _ in 0..40 {
        if servers.insert(server(&browser).await.unwrap()) {
            values_change(&browser, &line).await;
        }
        if servers == names || !own {
            break;
        }
        browser.page.goto(&url).await.unwrap();
    }
    assert!(
        servers == names || (!own && servers.is_subset(&names)),
        "{servers:?} of {names:?} served the page"
    );
    if own {
        goes_on_without(&factory, &pods, &browser).await;
        values_change(&browser, &line).await;
    }

    if let Some(file) = std::env::var_os(SCREENSHOT) {
        let picture = browser.page.screenshot().await.unwrap();
        std::fs::write(&file, picture).with_context(|| file.display().to_string()).unwrap();
    }
    browser.close().await.unwrap();
    drop(line);
    factory.uninstall().await.unwrap();
}

/// The printer speaks MQTT, its counts come from the MES and are split by a data-plane pod.
async fn values_change(browser: &Chromium, line: &Process) {
    for (device, channel, field) in [
        ("CORR-01", "telemetry", "speed"),
        ("FLEX-01", "telemetry", "registerError"),
        ("FLEX-01", "counters", "good"),
    ] {
        browser.changes(&value(device, channel, field), 2, SOON).await.unwrap();
    }
    // The die cutter's drive is wired to a gateway with subjects of its own.
    let power = "return document.querySelector('[data-device=\"DIE-01\"]')?.dataset.power";
    wait_until("the power of DIE-01", SOON, async || match browser.script(power).await {
        Ok(state) if state == "on" || state == "off" => Ok(()),
        Ok(state) => Err(state.to_string()),
        Err(error) => Err(format!("{error:#}")),
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}; the line wrote:\n{}", line.tail()));
}

/// The page's pod dies; the page goes on by itself, from the other one until the first is back.
async fn goes_on_without(factory: &Release<'_>, pods: &[Pod], browser: &Chromium) {
    let current = server(browser).await.unwrap();
    let victim = pods.iter().find(|pod| pod.name == current).unwrap();
    browser.script("window.__loaded = 'once'").await.unwrap();
    factory.kill(victim).await.unwrap();
    wait_until("the page to go on", SOON, async || {
        let script = "return document.querySelector('#notice-list')?.textContent ?? ''";
        match browser.script(script).await {
            Ok(text) if text.as_str().is_some_and(|text| text.contains("Live again")) => Ok(()),
            Ok(text) => Err(text.to_string()),
            Err(error) => Err(format!("{error:#}")),
        }
    })
    .await
    .unwrap();
    server(browser).await.unwrap();
    assert_eq!(browser.script("return window.__loaded").await.unwrap(), "once", "nobody reloaded the page");
}
