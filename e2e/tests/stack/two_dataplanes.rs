//! Two data planes serve one tenant: each client receives every message of its device from either pod.

use crate::factory::{numbers_until, stack, switch, value, watch};

#[tokio::test]
async fn clients_on_both_pods_get_every_message_of_their_device_only() -> anyhow::Result<()> {
    let stack = stack().await?;
    let (one, two) = tokio::try_join!(stack.dataplane(), stack.dataplane())?;
    let mut on_one = watch(&one, "device=A-1").await?;
    let mut on_two = watch(&two, "device=A-1").await?;
    let mut other = watch(&two, "device=B-1").await?;
    let publisher = stack.publisher().await?;
    let subject = stack.subject("A-1", "switch")?;
    for n in 1..=500 {
        publisher.publish(&subject, switch(n)).await?;
    }
    let all: Vec<u64> = (1..=500).collect();
    assert_eq!(numbers_until(&mut on_one, "switch", 500).await?, all);
    assert_eq!(numbers_until(&mut on_two, "switch", 500).await?, all);
    // Messages of a connection are in stream order, so if B-1's first event is its own message, none of A-1's
    // were sent to it.
    publisher.publish(&stack.subject("B-1", "switch")?, switch(1)).await?;
    let event = other.next_named("message", crate::factory::SOON).await?;
    assert_eq!(value(&event), Some(("B-1".into(), "switch".into(), 1)));
    Ok(())
}
