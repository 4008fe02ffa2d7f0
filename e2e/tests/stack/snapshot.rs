//! No message is lost between the snapshot and the live messages.

use crate::factory::{level, now_ms, numbers_until, stack, switch, watch};

#[tokio::test]
async fn a_message_at_the_moment_of_subscribing_is_not_lost() -> anyhow::Result<()> {
    let stack = stack().await?;
    let publisher = stack.publisher().await?;
    let (latest, every) = (stack.subject("A-1", "level")?, stack.subject("A-1", "switch")?);
    let mut n = 0;
    for _ in 0..5 {
        // The first client of a new data plane makes it read everything. For later clients the channel is
        // watched already or was watched just before.
        let dataplane = stack.dataplane().await?;
        for _ in 0..10 {
            n += 1;
            let mut client = watch(&dataplane, "device=A-1").await?;
            publisher.publish(&latest, level(now_ms(), n)).await?;
            publisher.publish(&every, switch(n)).await?;
            // Values of the round before may come first on either channel.
            let mut wanted = vec!["level", "switch"];
            while let Some(channel) = wanted.first() {
                let event = client.next_named("message", crate::factory::SOON).await;
                let event =
                    event.map_err(|error| anyhow::anyhow!("round {n}, waiting for {channel}: {error}"))?;
                let (_, channel, number) = crate::factory::value(&event).expect("data");
                if number == n {
                    wanted.retain(|wanted| *wanted != channel);
                }
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn joining_clients_receive_every_later_event() -> anyhow::Result<()> {
    let stack = stack().await?;
    let dataplane = stack.dataplane().await?;
    let publisher = stack.publisher().await?;
    let subject = stack.subject("A-1", "switch")?;
    let last = 400;
    let publishing = tokio::spawn(async move {
        for n in 1..=last {
            publisher.publish(&subject, switch(n)).await?;
        }
        anyhow::Ok(())
    });
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(watch(&dataplane, "device=A-1&channel=switch").await?);
        tokio::time::sleep(std::time::Duration::from_millis(3)).await;
    }
    publishing.await??;
    for (index, client) in clients.iter_mut().enumerate() {
        let numbers = numbers_until(client, "switch", last).await?;
        let first = numbers[0];
        assert_eq!(numbers, (first..=last).collect::<Vec<_>>(), "client {index}");
    }
    Ok(())
}
