//! A complete factory: the charts on a real cluster, the demo's manifests, the simulated line and a browser.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Context;
use flutecast_testbed::cluster::Cluster;
use flutecast_testbed::release::{Images, Pod, Release};
use flutecast_testkit::{Process, program, wait_until};

use crate::chromium::{Chromium, value};
use crate::counting;

const SOON: Duration = Duration::from_secs(60);
/// By then a Device says whether its messages are understood; after a write the next one may wait for 10 s.
const LOOKED_AT: Duration = Duration::from_secs(70);
/// If this variable is set, a screenshot of the page is written to the file that it names.
const SCREENSHOT: &str = "FLUTECAST_SCREENSHOT";

/// Waits until the page is live. Returns the name of the pod that serves it.
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
    // On this machine's own cluster Services are reached through kube-proxy. On an existing one a
    // port-forward always leads to the same pod.
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
    // kube-proxy chooses a random pod for each new connection, so the page is loaded until both have served
    // it.
    for _ in 0..40 {
        if servers.insert(server(&browser).await.unwrap()) {
            wait_for_changing_values(&browser, &line).await;
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
        page_survives_pod_kill(&factory, &pods, &browser).await;
        wait_for_changing_values(&browser, &line).await;
    }

    if let Some(file) = std::env::var_os(SCREENSHOT) {
        let picture = browser.page.screenshot().await.unwrap();
        std::fs::write(&file, picture).with_context(|| file.display().to_string()).unwrap();
    }
    browser.close().await.unwrap();
    drop(line);
    a_fault_is_described_and_ends(&factory, &nats.connect("devices").await.unwrap()).await;
    factory.uninstall().await.unwrap();
}

/// Waits until values change that take different routes: the printer publishes over MQTT, and its counters
/// come from the MES in a source that a data-plane pod splits.
async fn wait_for_changing_values(browser: &Chromium, line: &Process) {
    for (device, channel, field) in [
        ("CORR-01", "telemetry", "speed"),
        ("FLEX-01", "telemetry", "registerError"),
        ("FLEX-01", "counters", "good"),
    ] {
        browser.changes(&value(device, channel, field), 2, SOON).await.unwrap();
    }
    // The die cutter's power comes from a gateway that publishes on its own subjects.
    let power = "return document.querySelector('[data-device=\"DIE-01\"]')?.dataset.power";
    wait_until("the power of DIE-01", SOON, async || match browser.script(power).await {
        Ok(state) if state == "on" || state == "off" => Ok(()),
        Ok(state) => Err(state.to_string()),
        Err(error) => Err(format!("{error:#}")),
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}; the line wrote:\n{}", line.tail()));
}

/// A device sends a state that its format doesn't know, and nobody watches: `kubectl describe` names it,
/// until the device sends a known one.
async fn a_fault_is_described_and_ends(factory: &Release<'_>, devices: &async_nats::Client) {
    let subject = format!("iot.demo.{}.telemetry", counting::iot_id("demo", "STACK-01"));
    let send = async |state: u32| {
        let ts = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
        let payload = format!(r#"{{"ts":{ts},"d":{{"height":312,"pileCount":7,"st":{state}}}}}"#);
        devices.publish(subject.clone(), payload.into()).await.unwrap();
        devices.flush().await.unwrap();
    };
    send(7).await;
    let wanted = ["BadField", "channel telemetry, field state at /d/st"];
    wait_until("kubectl describe to name the fault", LOOKED_AT, async || {
        let text = factory.kubectl(&["describe", "devices.flutecast.io", "stacker-1"]).await;
        let text = text.map_err(|error| format!("{error:#}"))?;
        if wanted.iter().all(|words| text.contains(words)) { Ok(()) } else { Err(text) }
    })
    .await
    .unwrap();
    send(1).await;
    let condition = "jsonpath={.status.conditions[?(@.type=='MessagesUnderstood')].reason}";
    wait_until("the fault to end", LOOKED_AT, async || {
        let reason = factory.kubectl(&["get", "devices.flutecast.io", "stacker-1", "-o", condition]).await;
        let reason = reason.map_err(|error| format!("{error:#}"))?;
        if reason.trim() == "Understood" { Ok(()) } else { Err(reason) }
    })
    .await
    .unwrap();
}

/// Kills the pod that serves the page and asserts that the page resumes without a reload.
async fn page_survives_pod_kill(factory: &Release<'_>, pods: &[Pod], browser: &Chromium) {
    let current = server(browser).await.unwrap();
    let victim = pods.iter().find(|pod| pod.name == current).unwrap();
    browser.script("window.__loaded = 'once'").await.unwrap();
    factory.kill(victim).await.unwrap();
    wait_until("the page to be live again", SOON, async || {
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
    assert_eq!(browser.script("return window.__loaded").await.unwrap(), "once", "the page was reloaded");
}
