//! A source with the id in the subject: NATS itself maps its messages to the devices' subjects.

use flutecast_testkit::LocalStack;

use crate::factory::{FORMATS, SOON, device, switch, value, watch};

const TENANT: &str = "
apiVersion: flutecast.io/v1alpha1
kind: Tenant
metadata: {name: acme}
spec:
  retention: {maxAge: 1h, maxMessagesPerSubject: 1000, maxBytes: 64Mi}
  sources:
  - {name: gw1, subject: plant.gw1.*.state, channel: switch, iotId: {subjectToken: 3}}
  access: {anonymous: true}
";

#[tokio::test]
async fn a_gateways_messages_reach_the_device_in_order() -> anyhow::Result<()> {
    let (a, b) = (device("a", "A-1"), device("b", "B-1"));
    let files = [("tenant.yaml", TENANT), ("formats.yaml", FORMATS), ("a.yaml", &a), ("b.yaml", &b)];
    let stack = LocalStack::with("acme", &files).await?;
    let dataplane = stack.dataplane().await?;
    let mut client = watch(&dataplane, "device=A-1&device=B-1").await?;
    let publisher = stack.publisher().await?;
    let (a, b) = (stack.iot_id("A-1")?, stack.iot_id("B-1")?);
    for n in 1..=20 {
        let id = if n % 2 == 0 { &a } else { &b };
        publisher.publish(&format!("plant.gw1.{id}.state"), switch(n)).await?;
    }
    for n in 1..=20 {
        let event = client.next_named("message", SOON).await?;
        let device = if n % 2 == 0 { "A-1" } else { "B-1" };
        assert_eq!(value(&event), Some((device.into(), "switch".into(), n)));
    }
    Ok(())
}
