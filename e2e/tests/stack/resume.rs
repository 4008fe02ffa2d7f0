//! Resuming a stream: missed messages of an `Every` channel are replayed, and a possible loss is announced by
//! `gap`.

use flutecast_testkit::{LocalStack, SseClient};

use crate::factory::{
    FORMATS, SOON, TENANT, device, events, level, now_ms, numbers_until, resume, stack, switch, value, watch,
};

/// Reads until the event whose id has this sequence. Returns the id.
async fn id_at(client: &mut SseClient, sequence: u64) -> anyhow::Result<String> {
    let suffix = format!("-{sequence}");
    if let Some(id) = client.last_event_id().filter(|id| id.ends_with(&suffix)) {
        return Ok(id.to_owned());
    }
    let wanted =
        |event: &flutecast_testkit::SseEvent| event.id.as_deref().is_some_and(|id| id.ends_with(&suffix));
    Ok(client.next_where(&suffix, SOON, wanted).await?.id.expect("an id"))
}

#[tokio::test]
async fn missed_messages_are_replayed_once_and_in_order() -> anyhow::Result<()> {
    let stack = stack().await?;
    let dataplane = stack.dataplane().await?;
    let publisher = stack.publisher().await?;
    let (a, b) = (stack.subject("A-1", "switch")?, stack.subject("B-1", "switch")?);
    let mut client = watch(&dataplane, "device=A-1").await?;
    for n in 1..=10 {
        publisher.publish(&a, switch(n)).await?;
    }
    let id = id_at(&mut client, 10).await?;
    drop(client);
    // Published while the client is disconnected: messages of its device, of another device, and values of a
    // `Latest` channel.
    for n in 11..=60 {
        publisher.publish(&a, switch(n)).await?;
        publisher.publish(&b, switch(1_000 + n)).await?;
        publisher.publish(&stack.subject("A-1", "level")?, level(now_ms() + n, n)).await?;
    }
    let mut client = SseClient::connect(&events(&dataplane, "device=A-1"), &[("last-event-id", &id)]).await?;
    assert_eq!(client.next_named("hello", SOON).await?.json()?["resumed"], true);
    let mut switches = Vec::new();
    let mut levels = Vec::new();
    while switches.last() != Some(&60) || levels.last() != Some(&60) {
        let event = client.next_where("data", SOON, |event| event.is_data() || event.name() == "gap").await?;
        let (device, channel, n) = value(&event).unwrap_or_else(|| panic!("an unexpected gap: {event:?}"));
        assert_eq!(device, "A-1");
        if channel == "switch" { switches.push(n) } else { levels.push(n) }
    }
    assert_eq!(switches, (11..=60).collect::<Vec<_>>());
    // The newest value comes, and perhaps one or two that were still in flight; the 50 missed values are not
    // replayed.
    assert!(levels.len() < 10, "values of a Latest channel were replayed: {levels:?}");

    // The id also works in the query, for clients that can't set headers, and for a device that this client
    // never watched.
    let url = events(&dataplane, &format!("device=B-1&channel=switch&lastEventId={id}"));
    let mut other = SseClient::connect(&url, &[]).await?;
    assert_eq!(numbers_until(&mut other, "switch", 1_060).await?, (1_011..=1_060).collect::<Vec<_>>());
    Ok(())
}

#[tokio::test]
async fn messages_removed_by_retention_are_announced_as_a_gap() -> anyhow::Result<()> {
    let (tenant, a) = (TENANT.replace("100000", "10"), device("a", "A-1"));
    let stack =
        LocalStack::with("acme", &[("tenant.yaml", &tenant), ("formats.yaml", FORMATS), ("a.yaml", &a)])
            .await?;
    let dataplane = stack.dataplane().await?;
    let publisher = stack.publisher().await?;
    let subject = stack.subject("A-1", "switch")?;
    let mut client = watch(&dataplane, "device=A-1&channel=switch").await?;
    publisher.publish(&subject, switch(1)).await?;
    let id = id_at(&mut client, 1).await?;
    drop(client);
    for n in 2..=30 {
        publisher.publish(&subject, switch(n)).await?;
    }
    // Neither the data plane that has seen all messages nor a new one can prove completeness, because removed
    // messages may be missing for any client that was away.
    for dataplane in [dataplane, stack.dataplane().await?] {
        let mut client = resume(&dataplane, "device=A-1&channel=switch", &id).await?;
        // The remaining messages and the gap come before the first id.
        let mut numbers = Vec::new();
        let mut gap = None;
        loop {
            let event = client.next(SOON).await?;
            if event.name() == "gap" {
                gap = Some(event.json()?);
            }
            numbers.extend(value(&event).map(|(.., n)| n));
            if event.id.is_some() {
                break;
            }
        }
        let gap = gap.expect("a gap before the first id");
        assert_eq!((&gap["device"], &gap["channel"]), (&"A-1".into(), &"switch".into()));
        assert_eq!(gap["reason"], "Retention");
        assert_eq!(numbers, (21..=30).collect::<Vec<_>>());
    }
    Ok(())
}

#[tokio::test]
async fn an_unknown_event_id_leads_to_a_gap() -> anyhow::Result<()> {
    let stack = stack().await?;
    let dataplane = stack.dataplane().await?;
    let publisher = stack.publisher().await?;
    let subject = stack.subject("A-1", "switch")?;
    publisher.publish(&subject, switch(1)).await?;
    let mut client = watch(&dataplane, "device=A-1&channel=switch").await?;
    let id = id_at(&mut client, 1).await?;
    let (epoch, _) = id.split_once('-').expect("epoch and sequence");
    // An id of another stream, and ids beyond the end of this one.
    for foreign in ["00000000-1", "ffffffff-99999", &format!("{epoch}-4000000000")] {
        let mut client = SseClient::connect(
            &events(&dataplane, "device=A-1&channel=switch"),
            &[("last-event-id", foreign)],
        )
        .await?;
        client.next_named("hello", SOON).await?;
        let gap = client.next_where("gap", SOON, |event| event.name() == "gap").await?.json()?;
        assert_eq!(gap["device"], "A-1", "{foreign}: {gap}");
    }
    // Malformed ids are refused or ignored.
    for nonsense in ["x", "-", "1", "zzzzzzzz-1", &format!("{epoch}-99999999999999999999999999")] {
        let url = events(&dataplane, "device=A-1&channel=switch");
        match SseClient::connect(&url, &[("last-event-id", nonsense)]).await {
            Ok(mut client) => {
                assert_eq!(client.next_named("hello", SOON).await?.json()?["resumed"], false, "{nonsense}")
            }
            Err(error) => assert!(error.to_string().contains("400"), "{nonsense}: {error}"),
        }
    }
    Ok(())
}
