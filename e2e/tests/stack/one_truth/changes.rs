//! What changes around a channel: its format is edited, its source was behind, its stream has dropped it.

use std::time::Duration;

use flutecast_testkit::{LocalStack, SseClient, http_client, wait_until};
use serde_json::{Value, json};

use super::plant::{BRIEF, CHANNEL, Fixture, Plant, Row, shows_the_same, wait_until_dropped};
use super::screen::as_json;
use crate::factory::{FORMATS, SOON, TENANT, now_ms};

#[tokio::test]
async fn an_edited_format_shows_the_tail_under_the_new_one_in_all_places() -> anyhow::Result<()> {
    let number = "fields: [{name: v, pointer: /v, type: Number}]";
    let fixture = Fixture::new("EDIT-1", number);
    let plant = Plant::start(std::slice::from_ref(&fixture)).await?;
    let mut row = Row::begin(&plant, &fixture).await?;
    let [older, newest, _] = row.send([r#"{"v":5}"#, r#"{"v":-1}"#, "online"]).await?;
    row.all_show(&json!({"seq": newest, "values": {"v": -1}, "reason": "Malformed"})).await?;
    // The newest message that the new format shows is an older one.
    let edited = format!("when: values.v >= 0, {number}");
    plant.stack.edit_manifest("plant.yaml", &format!("{{{number}}}"), &format!("{{{edited}}}"))?;
    let shown = row.all_show(&json!({"seq": older, "values": {"v": 5}, "reason": "Malformed"})).await?;
    shows_the_same(&plant.stack.dataplane().await?, &fixture, &shown).await?;
    // The same message in another form.
    let scaled = edited.replace("type: Number", "type: Number, scale: 2");
    plant.stack.edit_manifest("plant.yaml", &edited, &scaled)?;
    row.all_show(&json!({"seq": older, "values": {"v": 10}, "reason": "Malformed"})).await?;
    Ok(())
}

/// A payload source keeps messages while no pod is there to split it. Their age and their time are those at
/// which the source's stream captured them.
#[tokio::test]
async fn messages_of_a_source_that_was_behind_have_the_time_of_their_capture() -> anyhow::Result<()> {
    let source = |name: &str, channel: &str| {
        format!(
            "  - {{name: {name}, subject: mes.{name}, channel: {channel}, iotId: {{pointer: /deviceId}}}}\n"
        )
    };
    let tenant = TENANT.replace(
        "  access:",
        &format!("  sources:\n{}{}  access:", source("levels", "level"), source("switches", "switch")),
    );
    // A message is too old after a second.
    let formats = FORMATS.replace("maxAge: 30s", "maxAge: 1s");
    let a = crate::factory::device("a", "A-1");
    let files = [("tenant.yaml", &*tenant), ("formats.yaml", &*formats), ("a.yaml", &*a)];
    let stack = LocalStack::with("acme", &files).await?;
    let (publisher, id) = (stack.publisher().await?, stack.iot_id("A-1")?);
    let captured = now_ms();
    publisher.publish("mes.levels", format!(r#"{{"deviceId":"{id}","ts":{captured},"n":1}}"#)).await?;
    publisher.publish("mes.switches", format!(r#"{{"deviceId":"{id}","n":2}}"#)).await?;
    // As long as it takes for the message to be too old, were it judged by its storing.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let pod = stack.dataplane().await?;
    let url = format!("{}/v1/acme/devices/A-1", pod.url);
    let channels = wait_until("both values", SOON, async || {
        let device = http_client::get_json(&url).await.map_err(|error| format!("{error:#}"))?;
        let channels = device["channels"].clone();
        let there = channels["level"]["values"]["n"] == 1 && channels["switch"]["values"]["n"] == 2;
        if there { Ok(channels) } else { Err(channels.to_string()) }
    })
    .await?;
    // Both were captured in the same second at the most, before the pod was there.
    let (level, switch) = (channels["level"]["time"].as_str(), channels["switch"]["time"].as_str());
    let later = stack.publisher().await?.publish(&stack.subject("A-1", "switch")?, "{\"n\":3}").await?;
    let mut client =
        SseClient::connect(&crate::factory::events(&pod, "device=A-1&channel=switch"), &[]).await?;
    let stored = client.next_where("the later one", SOON, |event| {
        event.is_data() && event.json().is_ok_and(|data| data["seq"] == later)
    });
    let stored = stored.await?.json()?;
    assert!(level <= switch && switch < stored["time"].as_str(), "{channels} before {stored}");
    let behind = millis(stored["time"].as_str()).saturating_sub(millis(switch));
    assert!(behind >= 1_500, "{behind} ms between {channels} and {stored}");
    Ok(())
}

/// Returns the milliseconds since midnight of a time such as `2026-11-22T10:00:00.123Z`.
fn millis(time: Option<&str>) -> u64 {
    let clock = time.and_then(|time| time.get(11..23)).unwrap_or_default();
    let part =
        |range: std::ops::Range<usize>| clock.get(range).and_then(|text| text.parse().ok()).unwrap_or(0);
    ((part(0..2) * 60 + part(3..5)) * 60 + part(6..8)) * 1_000 + part(9..12)
}

/// A value that outlived its stream is stale at once where the channel has a `staleAfter`, and has no id, as
/// nobody can resume at it.
#[tokio::test]
async fn a_value_that_outlived_its_stream_is_stale_and_has_no_id() -> anyhow::Result<()> {
    let fixture = Fixture::new("KEPT-1", "fields: [{name: v, pointer: /v, type: Number}]").of(BRIEF);
    let fixture = fixture.channel(", staleAfter: 2s");
    let plant = Plant::start(std::slice::from_ref(&fixture)).await?;
    let mut row = Row::begin(&plant, &fixture).await?;
    let [only] = row.send([r#"{"v":1}"#]).await?;
    wait_until_dropped(&plant, &fixture).await?;
    // A pod that has never seen it.
    let pod = plant.stack.dataplane().await?;
    let shown = as_json(&pod, BRIEF, "KEPT-1", CHANNEL).await?;
    shown.must_be(&json!({"seq": only, "values": {"v": 1}})).map_err(anyhow::Error::msg)?;
    let device = http_client::get_json(&format!("{}/v1/{BRIEF}/devices/KEPT-1", pod.url)).await?;
    assert_eq!(device["channels"][CHANNEL]["stale"], Value::Bool(true), "{device}");
    let url = format!("{}/v1/{BRIEF}/events?device=KEPT-1&channel={CHANNEL}", pod.url);
    let mut client = SseClient::connect(&url, &[]).await?;
    let value = client.next_named("message", SOON).await?;
    assert_eq!((&value.id, &value.json()?["seq"]), (&None, &json!(only)));
    client.next_named("stale", SOON).await?;
    Ok(())
}
