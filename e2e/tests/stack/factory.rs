//! A small factory for tests: tenant `acme`, its formats, and functions that many tests need.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use flutecast_testkit::{Dataplane, LocalStack, SseClient, SseEvent};

/// Time limit for any step on a busy machine. Tests wait for conditions, which usually hold much sooner.
pub(crate) const SOON: Duration = Duration::from_secs(20);

pub(crate) const TENANT: &str = "
apiVersion: flutecast.io/v1alpha1
kind: Tenant
metadata: {name: acme}
spec:
  displayName: Acme Packaging
  retention: {maxAge: 1h, maxMessagesPerSubject: 100000, maxBytes: 256Mi}
  access: {anonymous: true}
";

/// `level`: the newest number is enough (`Latest`). `switch`: every event matters (`Every`).
pub(crate) const FORMATS: &str = "
apiVersion: flutecast.io/v1alpha1
kind: PushFormat
metadata: {name: level}
spec:
  timestamp: {pointer: /ts, unit: Milliseconds, maxAge: 30s, maxAhead: 5s}
  fields:
  - {name: 'n', pointer: /n, type: Number}
---
apiVersion: flutecast.io/v1alpha1
kind: PushFormat
metadata: {name: switch}
spec:
  delivery: {policy: Every}
  fields:
  - {name: 'n', pointer: /n, type: Number}
";

/// Returns a device with the channels `level` and `switch`.
pub(crate) fn device(name: &str, code: &str) -> String {
    format!(
        "
apiVersion: flutecast.io/v1alpha1
kind: Device
metadata: {{name: {name}, labels: {{line: l1}}}}
spec:
  tenant: acme
  deviceCode: {code}
  channels:
  - {{name: level, format: level}}
  - {{name: switch, format: switch}}
"
    )
}

/// Starts a stack with the devices A-1 and B-1.
pub(crate) async fn stack() -> anyhow::Result<LocalStack> {
    let (a, b) = (device("a", "A-1"), device("b", "B-1"));
    LocalStack::with(
        "acme",
        &[("tenant.yaml", TENANT), ("formats.yaml", FORMATS), ("a.yaml", &a), ("b.yaml", &b)],
    )
    .await
}

/// Returns the URL of an event stream of tenant `acme`.
pub(crate) fn events(dataplane: &Dataplane, query: &str) -> String {
    format!("{}/v1/acme/events?{query}", dataplane.url)
}

/// Opens an event stream and reads its `hello`.
pub(crate) async fn watch(dataplane: &Dataplane, query: &str) -> anyhow::Result<SseClient> {
    watch_from(dataplane, query, &[]).await
}

/// Opens an event stream after the event with this id.
pub(crate) async fn resume(dataplane: &Dataplane, query: &str, id: &str) -> anyhow::Result<SseClient> {
    watch_from(dataplane, query, &[("last-event-id", id)]).await
}

async fn watch_from(
    dataplane: &Dataplane,
    query: &str,
    headers: &[(&str, &str)],
) -> anyhow::Result<SseClient> {
    let mut client = SseClient::connect(&events(dataplane, query), headers).await?;
    client.next_named("hello", SOON).await?;
    Ok(client)
}

/// Returns the current time in milliseconds, as devices send it.
pub(crate) fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    u64::try_from(now.as_millis()).expect("before the year 500 million")
}

/// Returns a payload of format `level`.
pub(crate) fn level(ts: u64, n: u64) -> String {
    format!(r#"{{"ts":{ts},"n":{n}}}"#)
}

/// Returns a payload of format `switch`.
pub(crate) fn switch(n: u64) -> String {
    format!(r#"{{"n":{n}}}"#)
}

/// Returns device, channel and `n` of a data event; `None` for other events.
pub(crate) fn value(event: &SseEvent) -> Option<(String, String, u64)> {
    let json = event.is_data().then(|| event.json().expect("data is JSON"))?;
    let text = |name: &str| json[name].as_str().map(str::to_owned);
    let n = json["values"]["n"].as_f64()?;
    Some((text("device")?, text("channel")?, n as u64))
}

/// Reads data events until number `n` arrives. Returns all numbers of the channel, `n` included.
pub(crate) async fn numbers_until(client: &mut SseClient, channel: &str, n: u64) -> anyhow::Result<Vec<u64>> {
    let end = Instant::now() + SOON;
    let mut numbers = Vec::new();
    while numbers.last() != Some(&n) {
        // Pings arrive even without data, so the deadline must cover all events together.
        match client.next(end.saturating_duration_since(Instant::now())).await {
            Ok(event) => numbers.extend(value(&event).filter(|(_, of, _)| of == channel).map(|(.., n)| n)),
            Err(error) => anyhow::bail!("waiting for {n} on {channel}: {error}; so far: {numbers:?}"),
        }
    }
    Ok(numbers)
}
