//! Errors in a manifest are reported with object and field, and don't affect other objects.

use std::time::{Duration, Instant};

use flutecast_testkit::{Dataplane, LocalStack, SseClient, wait_until};

use crate::factory::{SOON, device, events, numbers_until, stack, switch, watch};

/// Waits for a verdict that contains all of `words`.
async fn verdict(stack: &LocalStack, words: &[&str]) -> anyhow::Result<String> {
    wait_until(&format!("a verdict with {words:?}"), SOON, async || {
        let verdicts = stack.operator.verdicts();
        let found = verdicts.iter().find(|line| words.iter().all(|word| line.contains(word)));
        found.cloned().ok_or_else(|| verdicts.join("\n"))
    })
    .await
}

/// Asserts that messages of A-1 still reach clients.
async fn a_is_still_served(stack: &LocalStack, dataplane: &Dataplane, n: u64) -> anyhow::Result<()> {
    let mut client = watch(dataplane, "device=A-1&channel=switch").await?;
    stack.publisher().await?.publish(&stack.subject("A-1", "switch")?, switch(n)).await?;
    numbers_until(&mut client, "switch", n).await.map(drop)
}

/// Returns the device codes in the `hello` of a client of all devices.
async fn devices(dataplane: &Dataplane) -> anyhow::Result<Vec<String>> {
    let mut client = SseClient::connect(&events(dataplane, "device=*"), &[]).await?;
    let hello = client.next_named("hello", SOON).await?.json()?;
    let devices = hello["devices"].as_array().cloned().unwrap_or_default();
    Ok(devices.iter().filter_map(|device| device["device"].as_str()).map(str::to_owned).collect())
}

async fn wait_for_devices(dataplane: &Dataplane, wanted: &[&str]) -> anyhow::Result<()> {
    wait_until(&format!("the devices {wanted:?}"), SOON, async || match devices(dataplane).await {
        Ok(seen) if seen == wanted => Ok(()),
        Ok(seen) => Err(format!("{seen:?}")),
        Err(error) => Err(format!("{error:#}")),
    })
    .await
}

#[tokio::test]
async fn a_pointer_of_the_wrong_type_is_reported_until_fixed() -> anyhow::Result<()> {
    let stack = stack().await?;
    let dataplane = stack.dataplane().await?;
    let format = "
apiVersion: flutecast.io/v1alpha1
kind: PushFormat
metadata: {name: broken}
spec:
  fields:
  - {name: 'n', pointer: 17, type: Number}
";
    stack.write_manifest("broken.yaml", format)?;
    verdict(&stack, &["broken", "fields[0].pointer"]).await?;
    let c = device("c", "C-1").replace("format: switch", "format: broken");
    stack.write_manifest("c.yaml", &c)?;
    a_is_still_served(&stack, &dataplane, 1).await?;
    stack.write_manifest("broken.yaml", &format.replace("17", "/n"))?;
    wait_for_devices(&dataplane, &["A-1", "B-1", "C-1"]).await?;
    let mut client = watch(&dataplane, "device=C-1&channel=switch").await?;
    stack.publisher().await?.publish(&stack.subject("C-1", "switch")?, switch(5)).await?;
    numbers_until(&mut client, "switch", 5).await.map(drop)
}

#[tokio::test]
async fn a_bad_field_of_a_format_is_reported() -> anyhow::Result<()> {
    let stack = stack().await?;
    let dataplane = stack.dataplane().await?;
    // The pointer lacks its leading slash.
    stack.edit_manifest(
        "formats.yaml",
        "{name: 'n', pointer: /n, type: Number}",
        "{name: 'n', pointer: n, type: Number}",
    )?;
    verdict(&stack, &["level", "fields[0].pointer"]).await?;
    verdict(&stack, &["switch", "fields[0].pointer"]).await?;
    stack.edit_manifest("a.yaml", "deviceCode:", "devicecode:")?;
    verdict(&stack, &["a", "deviceCode"]).await?;
    // The last valid mapping stays in use.
    a_is_still_served(&stack, &dataplane, 1).await
}

#[tokio::test]
async fn a_format_that_breaks_takes_nothing_from_a_screen() -> anyhow::Result<()> {
    let stack = stack().await?;
    let dataplane = stack.dataplane().await?;
    let mut client = watch(&dataplane, "device=A-1&channel=switch").await?;
    let (well, broken) = ("policy: Every}", "policy: Every}\n  when: values.n >");
    stack.edit_manifest("formats.yaml", well, broken)?;
    verdict(&stack, &["PushFormat/switch Degraded FormatInvalid: spec.when", "; the version of "]).await?;
    // The same connection gets the next value, and a device that comes later is there.
    stack.publisher().await?.publish(&stack.subject("A-1", "switch")?, switch(1)).await?;
    numbers_until(&mut client, "switch", 1).await?;
    stack.write_manifest("c.yaml", &device("c", "C-1"))?;
    wait_for_devices(&dataplane, &["A-1", "B-1", "C-1"]).await?;
    stack.edit_manifest("formats.yaml", broken, "policy: Every}\n  when: values.n > 1")?;
    let mut later = watch(&dataplane, "device=C-1&channel=switch").await?;
    let publisher = stack.publisher().await?;
    let subject = stack.subject("C-1", "switch")?;
    wait_until("the new version to hold an event back", SOON, async || {
        let shown = async {
            publisher.publish(&subject, switch(1)).await?;
            publisher.publish(&subject, switch(2)).await?;
            numbers_until(&mut later, "switch", 2).await
        };
        let shown = shown.await.map_err(|error| format!("{error:#}"))?;
        if shown == [2] { Ok(()) } else { Err(format!("{shown:?}")) }
    })
    .await
}

#[tokio::test]
async fn a_duplicate_device_code_names_its_holder() -> anyhow::Result<()> {
    let stack = stack().await?;
    let dataplane = stack.dataplane().await?;
    stack.write_manifest("z.yaml", &device("zwilling", "A-1"))?;
    verdict(&stack, &["Device/zwilling", "spec.deviceCode", "A-1", "Device/a"]).await?;
    a_is_still_served(&stack, &dataplane, 1).await?;
    stack.write_manifest("z.yaml", &device("zwilling", "Z-1"))?;
    wait_for_devices(&dataplane, &["A-1", "B-1", "Z-1"]).await
}

#[tokio::test]
async fn a_missing_format_is_named() -> anyhow::Result<()> {
    let stack = stack().await?;
    let dataplane = stack.dataplane().await?;
    stack.write_manifest("c.yaml", &device("c", "C-1").replace("format: level", "format: nowhere"))?;
    verdict(&stack, &["c", "nowhere"]).await?;
    a_is_still_served(&stack, &dataplane, 1).await
}

#[tokio::test]
async fn a_broken_yaml_file_is_reported_and_the_last_good_one_stays() -> anyhow::Result<()> {
    let stack = stack().await?;
    let dataplane = stack.dataplane().await?;
    stack.write_manifest("b.yaml", "kind: Device\n  spec: [oh no")?;
    verdict(&stack, &["b.yaml"]).await?;
    a_is_still_served(&stack, &dataplane, 1).await?;
    stack.write_manifest("b.yaml", &device("b", "B-2"))?;
    wait_for_devices(&dataplane, &["A-1", "B-2"]).await
}

#[tokio::test]
async fn editing_a_manifest_changes_the_running_system() -> anyhow::Result<()> {
    let stack = stack().await?;
    let dataplane = stack.dataplane().await?;
    let mut client = watch(&dataplane, "device=*").await?;
    let start = Instant::now();
    stack.write_manifest("c.yaml", &device("c", "C-1"))?;
    let event = client.next_named("devices", SOON).await?.json()?;
    let elapsed = start.elapsed();
    eprintln!("from the file to the client: {elapsed:?}");
    assert_eq!(event["added"][0]["device"], "C-1", "{event}");
    assert_eq!(event["removed"], serde_json::json!([]));
    // The promise is one second. A busy test machine gets more time, but less than a poll every few seconds
    // would take.
    assert!(elapsed < Duration::from_secs(3), "{elapsed:?}");

    let start = Instant::now();
    std::fs::remove_file(stack.manifests().join("c.yaml"))?;
    let event = client.next_named("devices", SOON).await?.json()?;
    eprintln!("from the removal to the client: {:?}", start.elapsed());
    assert_eq!(event["removed"], serde_json::json!(["C-1"]), "{event}");

    // New clients see an edited unit at once.
    stack.edit_manifest("formats.yaml", "type: Number}", "type: Number, unit: bar}")?;
    wait_until("the new unit", SOON, async || {
        let hello = async {
            let mut client = SseClient::connect(&events(&dataplane, "device=A-1"), &[]).await?;
            client.next_named("hello", SOON).await?.json()
        };
        let hello = hello.await.map_err(|error| format!("{error:#}"))?;
        let unit = &hello["devices"][0]["channels"][0]["fields"][0]["unit"];
        if unit == "bar" { Ok(()) } else { Err(hello.to_string()) }
    })
    .await
}
