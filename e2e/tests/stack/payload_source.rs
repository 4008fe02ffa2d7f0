//! A source with the device's id in the payload: arrays are split, the order per device is kept, and
//! malformed items are skipped and counted.

use std::collections::BTreeMap;

use flutecast_testkit::{Dataplane, LocalStack, wait_until};

use crate::factory::{FORMATS, SOON, device, value, watch};

const TENANT: &str = "
apiVersion: flutecast.io/v1alpha1
kind: Tenant
metadata: {name: acme}
spec:
  retention: {maxAge: 1h, maxMessagesPerSubject: 10000, maxBytes: 64Mi}
  sources:
  - {name: mes, subject: mes.out, channel: switch, iotId: {pointer: /deviceId}, items: /readings}
  access: {anonymous: true}
";

#[tokio::test]
async fn arrays_are_split_in_order_and_malformed_items_skipped() -> anyhow::Result<()> {
    let (a, b) = (device("a", "A-1"), device("b", "B-1"));
    let files = [("tenant.yaml", TENANT), ("formats.yaml", FORMATS), ("a.yaml", &a), ("b.yaml", &b)];
    let stack = LocalStack::with("acme", &files).await?;
    // Two pods share the work, which must not change the order of a device's messages.
    let (one, two) = tokio::try_join!(stack.dataplane(), stack.dataplane())?;
    let mut client = watch(&one, "device=A-1&device=B-1").await?;
    let publisher = stack.publisher().await?;
    let (a, b) = (stack.iot_id("A-1")?, stack.iot_id("B-1")?);
    let mut n = 0;
    for _ in 0..50 {
        let mut items = Vec::new();
        for id in [&a, &b, &a] {
            n += 1;
            items.push(format!(r#"{{"deviceId":"{id}","n":{n}}}"#));
        }
        // An unknown device, no id, not an object, and an id of another type.
        items.insert(1, r#"{"deviceId":"nosuchdevice","n":0}"#.to_owned());
        items.insert(2, r#"{"n":0}"#.to_owned());
        items.insert(3, "17".to_owned());
        items.insert(4, r#"{"deviceId":{"a":1},"n":0}"#.to_owned());
        publisher.publish("mes.out", format!(r#"{{"sentAt":1,"readings":[{}]}}"#, items.join(","))).await?;
    }
    // A message that isn't JSON, and one without the items, don't stop the source either.
    publisher.publish("mes.out", "no json").await?;
    publisher.publish("mes.out", r#"{"readings":5}"#).await?;
    publisher.publish("mes.out", format!(r#"{{"readings":[{{"deviceId":"{b}","n":{}}}]}}"#, n + 1)).await?;

    // The order between devices isn't guaranteed, so each is compared on its own.
    let wanted = |remainders: &[u64]| (1..=n).filter(|n| remainders.contains(&(n % 3))).collect::<Vec<_>>();
    let (of_a, of_b) = (wanted(&[1, 0]), [wanted(&[2]), vec![n + 1]].concat());
    let mut seen = BTreeMap::<String, Vec<u64>>::new();
    while seen.values().map(Vec::len).sum::<usize>() < of_a.len() + of_b.len() {
        let event = client.next_named("message", SOON).await.map_err(|error| {
            anyhow::anyhow!("{error}; so far {seen:?}; the data plane wrote:\n{}", one.process.tail())
        })?;
        let (device, _, n) = value(&event).expect("data");
        seen.entry(device).or_default().push(n);
    }
    assert_eq!(seen["A-1"], of_a, "A-1's items are the first and third of each message");
    assert_eq!(seen["B-1"], of_b, "B-1's items are the second of each message, and one more");

    wait_for_skipped_counts(&one, &two).await
}

/// Asserts the number of skipped items. Either pod may have split a message, so their counts are added.
async fn wait_for_skipped_counts(one: &Dataplane, two: &Dataplane) -> anyhow::Result<()> {
    wait_until("the counts of skipped items", SOON, async || {
        let count = async |reason: &str| {
            let name = format!("flutecast_split_skipped_total{{reason=\"{reason}\"}}");
            anyhow::Ok(one.metric(&name).await? + two.metric(&name).await?)
        };
        let counts = async {
            let items = count("UnknownDevice").await?;
            let others = count("NoId").await? + count("Malformed").await? + count("NoItems").await?;
            anyhow::Ok((items as u64, others as u64))
        };
        match counts.await {
            Ok((50, 152)) => Ok(()),
            Ok(other) => Err(format!("(unknown devices, others) is {other:?} instead of (50, 152)")),
            Err(error) => Err(format!("{error:#}")),
        }
    })
    .await
}

#[tokio::test]
async fn another_pod_takes_over_when_the_splitting_pod_crashes() -> anyhow::Result<()> {
    let a = device("a", "A-1");
    let stack =
        LocalStack::with("acme", &[("tenant.yaml", TENANT), ("formats.yaml", FORMATS), ("a.yaml", &a)])
            .await?;
    let mut pods = vec![stack.dataplane().await?, stack.dataplane().await?, stack.dataplane().await?];
    let publisher = stack.publisher().await?;
    let id = stack.iot_id("A-1")?;
    let stays = pods.remove(2);
    let mut client = watch(&stays, "device=A-1&channel=switch").await?;
    let last = 300;
    for n in 1..=last {
        publisher.publish("mes.out", format!(r#"{{"readings":[{{"deviceId":"{id}","n":{n}}}]}}"#)).await?;
        // Both other pods crash during the run, so one of them may be the pod that splits.
        if n % 100 == 0
            && let Some(mut pod) = pods.pop()
        {
            pod.process.kill().await?;
        }
    }
    // The broker redelivers a crashed pod's messages only after the acknowledgement is overdue, so this takes
    // a while.
    let mut seen = Vec::new();
    let end = std::time::Instant::now() + SOON * 4;
    while seen.last() != Some(&last) {
        let left = end.saturating_duration_since(std::time::Instant::now());
        let event = client.next_named("message", left).await;
        let event =
            event.map_err(|error| anyhow::anyhow!("{error}; so far {} items: {seen:?}", seen.len()))?;
        seen.push(value(&event).expect("data").2);
    }
    assert_eq!(seen, (1..=last).collect::<Vec<_>>());
    Ok(())
}
