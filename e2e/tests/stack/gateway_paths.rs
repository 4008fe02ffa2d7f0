//! The dashboard in a real browser below a path of a real gateway, as the chart's `ingress.path` sets it up.

use std::net::SocketAddr;

use flutecast_testkit::{Dataplane, Gateway, GatewayPod, LocalStack, ServiceProxy, wait_until};
use http::StatusCode;

use crate::chromium::{Chromium, value};
use crate::factory::{SOON, level, now_ms, stack};

fn address(url: &str) -> SocketAddr {
    url.trim_start_matches("http://").parse().unwrap()
}

async fn plant() -> anyhow::Result<(LocalStack, Dataplane)> {
    let stack = stack().await?;
    let pod = stack.dataplane_with(&["--path-prefix=/plant-1"]).await?;
    Ok((stack, pod))
}

/// Opens the page without the slash at the end, and waits until it shows a value that is published then.
async fn dashboard_is_live_below_the_path(stack: &LocalStack, gateway: &Gateway) -> anyhow::Result<()> {
    let page = format!("{}/plant-1?tenant=acme&device=A-1#token=unused", gateway.url);
    wait_until("the page through the gateway", SOON, async || {
        let answer = flutecast_testkit::http_client::get(&page.replace('#', "&")).await;
        match answer {
            Ok(answer) if answer.status == StatusCode::TEMPORARY_REDIRECT => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await?;
    let browser = Chromium::open(&page, 800, 600).await?;
    let publisher = stack.publisher().await?;
    let subject = stack.subject("A-1", "level")?;
    let mut n = 0;
    wait_until("a live value on the page", SOON, async || {
        n += 1;
        publisher.publish(&subject, level(now_ms(), n)).await.map_err(|error| format!("{error:#}"))?;
        let seen = browser.text(&value("A-1", "level", "n")).await.map_err(|error| format!("{error:#}"))?;
        if seen.as_deref().is_some_and(|text| text.parse::<u64>().is_ok()) {
            return Ok(());
        }
        let state = "return location.href + ' ' + document.body.dataset.connection";
        Err(format!("{seen:?} {:?}", browser.script(state).await))
    })
    .await?;
    let address = browser.script("return location.pathname + location.search + location.hash").await?;
    assert_eq!(address, "/plant-1/?tenant=acme&device=A-1", "the token leaves the address");
    let token = browser.script("return Object.keys(sessionStorage)").await?;
    assert_eq!(token, serde_json::json!(["flutecast.token/plant-1.acme"]), "factories don't share it");
    // All that the page loaded came from below the path, and the stream through its own rule of the gateway.
    let script =
        "return performance.getEntriesByType('resource').map((entry) => new URL(entry.name).pathname)";
    let loaded: Vec<String> = serde_json::from_value(browser.script(script).await?)?;
    assert!(loaded.len() > 5 && loaded.iter().all(|path| path.starts_with("/plant-1/")), "{loaded:?}");
    browser.close().await
}

#[tokio::test]
async fn dashboard_is_live_below_a_path_of_nginx() -> anyhow::Result<()> {
    let (stack, pod) = plant().await?;
    let service = ServiceProxy::start().await?;
    service.set_ready(vec![address(&pod.url)]);
    let gateway = Gateway::nginx(service.address, &[]).await?;
    dashboard_is_live_below_the_path(&stack, &gateway).await?;
    // Without a pod the rule for event streams answers, below the path too.
    service.set_ready(Vec::new());
    stream_says_starting(&gateway).await
}

#[tokio::test]
async fn dashboard_is_live_below_a_path_of_haproxy() -> anyhow::Result<()> {
    let (stack, pod) = plant().await?;
    let seen = GatewayPod { clients: address(&pod.url), admin: address(&pod.admin_url) };
    let gateway = Gateway::haproxy(&[seen], &[]).await?;
    dashboard_is_live_below_the_path(&stack, &gateway).await?;
    drop(pod);
    stream_says_starting(&gateway).await
}

/// Waits until the gateway answers an event stream in place of the pods.
async fn stream_says_starting(gateway: &Gateway) -> anyhow::Result<()> {
    let url = format!("{}/plant-1/v1/acme/events?device=A-1", gateway.url);
    wait_until("the gateway's own answer", SOON, async || {
        let answer = flutecast_testkit::http_client::get(&url).await;
        match answer {
            Ok(answer) if answer.status == StatusCode::OK && answer.text().contains("Starting") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
}
