//! Access: clients may read only what the Tenant grants. A token grants one tenant, optionally limited to
//! some of its devices.

use std::os::unix::fs::PermissionsExt;

use flutecast_testkit::{Dataplane, LocalStack, SseClient, http_client, wait_until};
use http::Method;

use crate::factory::{FORMATS, SOON, device, events, switch, value};

const WALL: &str = "wall-display-token-0123456789abcdef";
const CELL: &str = "cell-display-token-0123456789abcdef";

const TENANT: &str = "
apiVersion: flutecast.io/v1alpha1
kind: Tenant
metadata: {name: acme}
spec:
  retention: {maxAge: 1h, maxBytes: 64Mi}
  access:
    tokens:
      secretName: dashboards
      restricted:
      - {name: cell, devices: [B-1]}
    allowedOrigins: [https://screens.acme.example]
---
apiVersion: flutecast.io/v1alpha1
kind: Tenant
metadata: {name: other}
spec:
  retention: {maxAge: 1h, maxBytes: 64Mi}
";

fn secret() -> String {
    format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: dashboards}}\nstringData: {{wall: {WALL}, cell: \
         {CELL}}}\n"
    )
}

async fn closed_stack() -> anyhow::Result<LocalStack> {
    let (a, b, secret) = (device("a", "A-1"), device("b", "B-1"), secret());
    let files = [
        ("tenant.yaml", TENANT),
        ("formats.yaml", FORMATS),
        ("a.yaml", &a),
        ("b.yaml", &b),
        ("secret.yaml", &secret),
    ];
    LocalStack::with("acme", &files).await
}

/// Sends a GET with these headers. Returns the status.
async fn status(url: &str, headers: &[(&str, &str)]) -> anyhow::Result<u16> {
    let answer = http_client::request(Method::GET, url, headers, "").await?;
    let text = answer.text();
    anyhow::ensure!(!text.contains(WALL) && !text.contains(CELL), "a response contains a token: {text}");
    Ok(answer.status.as_u16())
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

#[tokio::test]
async fn reading_requires_a_token_of_the_tenant() -> anyhow::Result<()> {
    let stack = closed_stack().await?;
    let dataplane = stack.dataplane().await?;
    let (wall, wrong, shorter) =
        (bearer(WALL), bearer("wall-display-token-0123456789abcdeg"), bearer(&WALL[1..]));
    for path in ["events?device=A-1", "devices", "devices/A-1", "devices/NO-1"] {
        let (acme, other) =
            (format!("{}/v1/acme/{path}", dataplane.url), format!("{}/v1/other/{path}", dataplane.url));
        assert_eq!(status(&acme, &[]).await?, 401, "{path} without a token");
        assert_eq!(status(&acme, &[("authorization", &wrong)]).await?, 401, "{path} with a wrong token");
        assert_eq!(
            status(&acme, &[("authorization", &shorter)]).await?,
            401,
            "{path} with a part of the token"
        );
        assert_eq!(
            status(&other, &[("authorization", &wall)]).await?,
            401,
            "{path} of a tenant without access"
        );
    }
    let url = format!("{}/v1/acme/devices/A-1", dataplane.url);
    assert_eq!(status(&url, &[("authorization", &wall)]).await?, 200);
    assert_eq!(status(&format!("{url}?access_token={WALL}"), &[]).await?, 200);
    let mut client =
        SseClient::connect(&events(&dataplane, "device=A-1"), &[("authorization", &wall)]).await?;
    client.next_named("hello", SOON).await?;
    Ok(())
}

#[tokio::test]
async fn a_restricted_token_grants_only_its_devices() -> anyhow::Result<()> {
    let stack = closed_stack().await?;
    let dataplane = stack.dataplane().await?;
    let cell = bearer(CELL);
    let cell = [("authorization", cell.as_str())];
    assert_eq!(status(&events(&dataplane, "device=A-1"), &cell).await?, 403);
    assert_eq!(status(&events(&dataplane, "device=B-1&device=A-1"), &cell).await?, 403);
    assert_ne!(status(&format!("{}/v1/acme/devices/A-1", dataplane.url), &cell).await?, 200);
    let list = http_client::request(Method::GET, &format!("{}/v1/acme/devices", dataplane.url), &cell, "")
        .await?
        .json()?;
    let codes: Vec<_> =
        list["devices"].as_array().into_iter().flatten().map(|one| one["device"].clone()).collect();
    assert_eq!(codes, ["B-1"]);

    // Wildcards and selectors cover only the devices that the token grants.
    let publisher = stack.publisher().await?;
    for query in ["device=*", "selector=line%3Dl1"] {
        let mut client = SseClient::connect(&events(&dataplane, query), &cell).await?;
        let hello = client.next_named("hello", SOON).await?.json()?;
        assert_eq!(hello["devices"].as_array().map(Vec::len), Some(1), "{query}: {hello}");
        publisher.publish(&stack.subject("A-1", "switch")?, switch(1)).await?;
        publisher.publish(&stack.subject("B-1", "switch")?, switch(2)).await?;
        let event = client.next_where("B-1's new value", SOON, |event| value(event).is_some()).await?;
        assert_eq!(value(&event).expect("data").0, "B-1", "{query}");
    }
    Ok(())
}

#[tokio::test]
async fn revoking_a_token_closes_its_streams() -> anyhow::Result<()> {
    let stack = closed_stack().await?;
    let dataplane = stack.dataplane().await?;
    let wall = bearer(WALL);
    let mut client =
        SseClient::connect(&events(&dataplane, "device=A-1"), &[("authorization", &wall)]).await?;
    client.next_named("hello", SOON).await?;
    stack.write_manifest("secret.yaml", &secret().replace(WALL, "another-display-token-0123456789abcdef"))?;
    let bye = client.next_named("bye", SOON).await?.json()?;
    assert_eq!(bye["reason"], "AccessRevoked");
    wait_for_status(&dataplane, &wall, 401).await
}

async fn wait_for_status(dataplane: &Dataplane, bearer: &str, wanted: u16) -> anyhow::Result<()> {
    let url = format!("{}/v1/acme/devices", dataplane.url);
    wait_until(&format!("status {wanted}"), SOON, async || {
        match status(&url, &[("authorization", bearer)]).await {
            Ok(seen) if seen == wanted => Ok(()),
            Ok(seen) => Err(seen.to_string()),
            Err(error) => Err(format!("{error:#}")),
        }
    })
    .await
}

#[tokio::test]
async fn foreign_pages_are_refused() -> anyhow::Result<()> {
    let stack = closed_stack().await?;
    let dataplane = stack.dataplane().await?;
    let wall = bearer(WALL);
    let url = format!("{}/v1/acme/devices", dataplane.url);
    let with = async |origin: &str| status(&url, &[("authorization", &wall), ("origin", origin)]).await;
    assert_eq!(with("https://screens.acme.example").await?, 200);
    assert_eq!(with("https://screens.acme.example.evil.example").await?, 403);
    assert_eq!(with("null").await?, 403);
    assert_eq!(with(&dataplane.url).await?, 200, "the page that the data plane serves itself");
    Ok(())
}

#[tokio::test]
async fn tokens_are_in_no_file_that_the_operator_writes_and_in_no_log() -> anyhow::Result<()> {
    let stack = closed_stack().await?;
    let dataplane = stack.dataplane().await?;
    let url = format!("{}/v1/acme/devices?access_token={WALL}", dataplane.url);
    assert_eq!(http_client::get(&url).await?.status.as_u16(), 200);
    for entry in std::fs::read_dir(stack.mapping())? {
        let path = entry?.path();
        let text = std::fs::read_to_string(&path)?;
        assert!(!text.contains(WALL) && !text.contains(CELL), "{} holds a token", path.display());
        if path.ends_with("flutecast-access.yaml") {
            let mode = path.metadata()?.permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{} is {mode:o}", path.display());
        }
    }
    for line in [stack.operator.process.output(), dataplane.process.output()].concat() {
        assert!(!line.contains(WALL) && !line.contains(CELL), "a log shows a token: {line}");
    }
    Ok(())
}
