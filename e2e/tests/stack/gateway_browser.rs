//! `EventSource`s of a real browser behind a real nginx with TLS and HTTP/2, while a pod dies.

use std::net::SocketAddr;

use flutecast_testkit::{Gateway, ServiceProxy, wait_until};

use crate::chromium::Chromium;
use crate::factory::{SOON, stack, switch};

/// More than the six connections that a browser opens to one host over HTTP/1.1.
const STREAMS: usize = 10;

#[tokio::test]
async fn ten_event_sources_of_a_page_survive_a_pod_crash() -> anyhow::Result<()> {
    let stack = stack().await?;
    let (first, second) = tokio::try_join!(stack.dataplane(), stack.dataplane())?;
    let address = |url: &str| url.trim_start_matches("http://").parse::<SocketAddr>();
    let service = ServiceProxy::start().await?;
    service.set_ready(vec![address(&first.url)?]);
    let gateway = Gateway::nginx(service.address, &[]).await?;
    // Any page of the gateway's origin will do, such as the JSON list of devices.
    let page = format!("{}/v1/acme/devices", gateway.tls_url);
    let browser = Chromium::open_unverified(&page, 400, 300).await?;
    let script = format!(
        "window.seen = Array.from({{length: {STREAMS}}}, () => []);
         window.sources = window.seen.map((seen) => {{
           const source = new EventSource('/v1/acme/events?device=A-1&channel=switch');
           source.onmessage = ({{ data }}) => seen.push(JSON.parse(data).values.n);
           return source;
         }});"
    );
    browser.script(&script).await?;
    let publisher = stack.publisher().await?;
    let subject = stack.subject("A-1", "switch")?;
    let all_have = async |n: u64| {
        wait_until(&format!("message {n} in all streams"), SOON, async || {
            let seen = browser.script("return window.seen").await.map_err(|error| format!("{error:#}"))?;
            let all = seen.as_array().is_some_and(|all| {
                all.iter().all(|one| one.as_array().and_then(|one| one.last()) == Some(&n.into()))
            });
            if all { Ok(seen) } else { Err(seen.to_string()) }
        })
        .await
    };
    publisher.publish(&subject, switch(1)).await?;
    all_have(1).await?;
    let protocol = "return performance.getEntriesByType('navigation')[0].nextHopProtocol";
    assert_eq!(browser.script(protocol).await?, "h2");

    // The Service removes the dead pod only after the first clients have reconnected.
    service.set_ready(vec![address(&first.url)?, address(&second.url)?]);
    drop(first);
    for n in 2..=20 {
        publisher.publish(&subject, switch(n)).await?;
    }
    service.set_ready(vec![address(&second.url)?]);
    let seen = all_have(20).await?;
    let expected: Vec<u64> = (1..=20).collect();
    for one in seen.as_array().into_iter().flatten() {
        // `EventSource` doesn't merge, so an event may arrive twice, but none is missing.
        let mut numbers: Vec<u64> = serde_json::from_value(one.clone())?;
        numbers.dedup();
        assert_eq!(numbers, expected);
    }
    let states = browser.script("return window.sources.map((source) => source.readyState)").await?;
    assert_eq!(states, serde_json::json!(vec![1; STREAMS]), "all are open");
    browser.close().await
}
