//! Each JSON example of docs/protocol.md has the same keys and types as what a running system sends.

use std::collections::BTreeMap;

use flutecast_testkit::{Dataplane, LocalStack, SseClient, http_client};
use serde_json::Value;

use crate::factory::{SOON, device, events, level, now_ms, resume, switch};

const PROTOCOL: &str = include_str!("../../../docs/protocol.md");

/// Keys of objects whose own keys are chosen by the user. Only the types of their values are compared.
const FREE_NAMES: [&str; 3] = ["labels", "values", "channels"];
/// Keys that may be missing.
const OPTIONAL: [&str; 3] = ["unit", "decimals", "device"];
/// Keys whose value may be `null`, as documented.
const NULLABLE: [&str; 11] =
    ["since", "lost", "staleAfterMs", "seq", "time", "values", "name", "epoch", "problem", "field", "found"];

/// Collects the differences in shape between an example and the real value.
fn differences(example: &Value, real: &Value, path: &str, found: &mut Vec<String>) {
    let key = path.rsplit('.').next().unwrap_or(path).trim_end_matches("[]");
    match (example, real) {
        (Value::Object(example), Value::Object(real)) if FREE_NAMES.contains(&key) => {
            if let Some(example) = example.values().next().filter(|value| value.is_object()) {
                for (name, real) in real {
                    differences(example, real, &format!("{path}.{name}"), found);
                }
            }
        }
        (Value::Object(example), Value::Object(real)) => {
            for (name, value) in example {
                match real.get(name) {
                    Some(real) => differences(value, real, &format!("{path}.{name}"), found),
                    None if OPTIONAL.contains(&name.as_str()) => {}
                    None => found.push(format!("{path}.{name} is in the text but was not sent")),
                }
            }
            for name in real.keys().filter(|name| !example.contains_key(*name)) {
                found.push(format!("{path}.{name} was sent but is not in the text"));
            }
        }
        (Value::Array(example), Value::Array(real)) => {
            if let Some(example) = example.first() {
                for real in real {
                    differences(example, real, &format!("{path}[]"), found);
                }
            }
        }
        (Value::Null, _) | (_, Value::Null) if NULLABLE.contains(&key) => {}
        (example, real) => {
            if std::mem::discriminant(example) != std::mem::discriminant(real) {
                found.push(format!("{path}: {example} in the text, {real} was sent"));
            }
        }
    }
}

fn assert_same_shape(what: &str, example: &Value, real: &Value) {
    let mut found = Vec::new();
    differences(example, real, what, &mut found);
    assert!(found.is_empty(), "{found:#?}\nthe text: {example}\nreal: {real}");
}

fn json(text: &str) -> Value {
    let text = text.replace("[…]", "[]");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("docs/protocol.md: {error}: {text}"))
}

/// Returns the examples in the table of named events, by name.
fn examples_of_events() -> BTreeMap<String, Value> {
    let rows = PROTOCOL.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `")?.split(" | ");
        let name = cells.next()?.trim_end_matches('`');
        let data = cells.next()?.trim().trim_matches('`');
        data.starts_with('{').then(|| (name.to_owned(), json(data)))
    });
    rows.collect()
}

/// Returns the JSON of the first code block after `words`.
fn block_after(words: &str) -> Value {
    let (_, rest) = PROTOCOL.split_once(words).unwrap_or_else(|| panic!("docs/protocol.md lacks {words:?}"));
    let block = rest.split("```").nth(1).expect("a code block");
    let text = block.split_once("data: ").map_or_else(|| block.trim_start_matches("json"), |(_, data)| data);
    json(text.trim())
}

const TENANT: &str = crate::factory::TENANT;
const FORMATS: &str = crate::factory::FORMATS;

/// Starts a stack whose device A-1 has all optional properties: a unit, decimals, `staleAfter`.
async fn complete_stack() -> anyhow::Result<LocalStack> {
    let formats = FORMATS.replace("type: Number}", "type: Number, unit: bar, decimals: 1}");
    let a = device("a", "A-1").replace("format: level}", "format: level, staleAfter: 1s}");
    LocalStack::with("acme", &[("tenant.yaml", TENANT), ("formats.yaml", &formats), ("a.yaml", &a)]).await
}

async fn next_json(client: &mut SseClient, name: &str) -> anyhow::Result<Value> {
    client.next_named(name, SOON).await?.json()
}

#[test]
fn the_examples_are_found() {
    let names: Vec<_> = examples_of_events().into_keys().collect();
    assert_eq!(names, ["bye", "devices", "fresh", "gap", "ping", "problem", "refused", "stale"]);
    assert_eq!(block_after("`hello`:")["protocol"], 1);
    assert!(block_after("### Data").get("values").is_some());
}

#[test]
fn differences_are_found() {
    let mut found = Vec::new();
    let (example, real) =
        (json(r#"{"a":1,"b":[{"c":"x"}],"since":null}"#), json(r#"{"b":[{"c":1}],"since":"x","d":0}"#));
    differences(&example, &real, "x", &mut found);
    assert_eq!(found.len(), 3, "{found:?}");
}

#[tokio::test]
async fn named_events_look_as_documented() -> anyhow::Result<()> {
    let stack = complete_stack().await?;
    let dataplane = stack.dataplane().await?;
    let publisher = stack.publisher().await?;
    let examples = examples_of_events();
    let check = |name: &str, real: &Value| assert_same_shape(name, &examples[name], real);

    let mut client = SseClient::connect(&events(&dataplane, "device=A-1&device=NO-1"), &[]).await?;
    let hello = block_after("`hello`:");
    // Unit and decimals are optional in general, but this device has them.
    let real = next_json(&mut client, "hello").await?;
    for field in ["unit", "decimals"] {
        assert!(real["devices"][0]["channels"][0]["fields"][0].get(field).is_some(), "{real}");
    }
    assert_eq!(hello["protocol"], real["protocol"]);
    assert_same_shape("hello", &hello, &real);
    check("refused", &next_json(&mut client, "refused").await?);

    check("stale", &next_json(&mut client, "stale").await?);
    publisher.publish(&stack.subject("A-1", "level")?, level(now_ms(), 1)).await?;
    check("fresh", &next_json(&mut client, "fresh").await?);
    let data = client.next_named("message", SOON).await?;
    assert_same_shape("data", &block_after("### Data"), &data.json()?);
    check("stale", &next_json(&mut client, "stale").await?);

    let mut all = SseClient::connect(&events(&dataplane, "device=*"), &[]).await?;
    all.next_named("hello", SOON).await?;
    stack.write_manifest("d.yaml", &device("d", "D-1"))?;
    let real = next_json(&mut all, "devices").await?;
    check("devices", &real);
    assert_same_shape("devices.added[]", &hello["devices"][0], &real["added"][0]);

    publisher.publish(&stack.subject("A-1", "switch")?, switch(1)).await?;
    let mut resumed = resume(&dataplane, "device=A-1&channel=switch", "00000000-1").await?;
    let gap = next_json(&mut resumed, "gap").await?;
    check("gap", &gap);
    assert_eq!(gap["reason"], "Epoch");

    check("ping", &next_json(&mut resumed, "ping").await?);
    dataplane.process.signal_term()?;
    check("bye", &next_json(&mut all, "bye").await?);
    Ok(())
}

#[tokio::test]
async fn problems_look_as_documented() -> anyhow::Result<()> {
    let stack = complete_stack().await?;
    let dataplane = stack.dataplane().await?;
    let publisher = stack.publisher().await?;
    let example = &examples_of_events()["problem"];
    let mut client = SseClient::connect(&events(&dataplane, "device=A-1&problems=true"), &[]).await?;
    client.next_named("hello", SOON).await?;
    let unreadable = format!("{{\"ts\":{},\"n\":\"one\"}}", now_ms());
    for bad in [unreadable, "{\"n\":".to_owned()] {
        publisher.publish(&stack.subject("A-1", "level")?, bad).await?;
        let real = next_json(&mut client, "problem").await?;
        assert_same_shape("problem", example, &real);
        let one = http_client::get_json(&format!("{}/v1/acme/devices/A-1", dataplane.url)).await?;
        assert_same_shape("problem", &example["problem"], &one["channels"]["level"]["problem"]);
    }
    Ok(())
}

#[tokio::test]
async fn answers_look_as_documented() -> anyhow::Result<()> {
    let stack = complete_stack().await?;
    let dataplane = stack.dataplane().await?;
    stack.publisher().await?.publish(&stack.subject("A-1", "level")?, level(now_ms(), 1)).await?;

    let one = http_client::get(&format!("{}/v1/acme/devices/A-1", dataplane.url)).await?;
    assert!(one.status.is_success(), "{}: {}", one.status, one.text());
    let one = one.json()?;
    let example = block_after("`GET /v1/demo/devices/CORR-01`:");
    assert_same_shape("device", &example, &one);
    assert_eq!(one["channels"]["level"]["values"]["n"], 1.0);
    assert_eq!(one["channels"]["level"]["problem"], Value::Null);
    assert_eq!(one["channels"]["switch"]["seq"], Value::Null, "the channel has no message yet: {one}");
    assert_eq!(one["channels"]["switch"]["time"], Value::Null, "the channel has no message yet: {one}");
    assert_eq!(one["channels"]["switch"]["values"], Value::Null, "the channel has no message yet: {one}");

    let all = http_client::get_json(&format!("{}/v1/acme/devices", dataplane.url)).await?;
    assert_eq!(all["devices"].as_array().map(Vec::len), Some(1), "{all}");
    assert_same_shape("devices[]", &example, &all["devices"][0]);
    errors_look_as_documented(&dataplane).await
}

async fn errors_look_as_documented(dataplane: &Dataplane) -> anyhow::Result<()> {
    let text = PROTOCOL
        .split_once("Errors are JSON: `")
        .and_then(|(_, rest)| rest.split_once("`."))
        .expect("an example")
        .0;
    let example = json(text);
    // The same request as in the example.
    let answer = http_client::get(&events(dataplane, "device=A-1&interval=5%20parsecs")).await?;
    assert_eq!(answer.status.as_u16(), 400, "{}", answer.text());
    assert_same_shape("error", &example, &answer.json()?);
    assert_eq!(answer.json()?, example, "the error must equal the example");
    for (path, status) in [
        ("/v1/acme/events", 400),
        ("/v1/acme/events?device=A-1&divice=B-1", 400),
        ("/v1/acme/events?selector=line%3D%3D%3D", 400),
        ("/v1/acme/devices/NO-1", 404),
        ("/v1/nobody/events?device=A-1", 401),
        ("/v2/acme/events", 404),
    ] {
        let answer = http_client::get(&format!("{}{path}", dataplane.url)).await?;
        assert_eq!(answer.status.as_u16(), status, "{path}: {}", answer.text());
        assert_same_shape(path, &example, &answer.json()?);
    }
    let answer =
        http_client::request(http::Method::DELETE, &events(dataplane, "device=A-1"), &[], "").await?;
    assert_eq!(answer.status.as_u16(), 405, "{}", answer.text());
    Ok(())
}
