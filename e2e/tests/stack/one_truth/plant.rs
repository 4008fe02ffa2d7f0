//! Two pods of one plant, and a row of a table: a device, a screen that was there from the start, and all
//! other places at which it can be looked at.

use std::fmt::Write as _;

use anyhow::{Context, ensure};
use flutecast_contract::name::{ChannelName, DeviceCode, TenantName};
use flutecast_contract::{iot_id, subject};
use flutecast_testkit::{Dataplane, LocalStack, Publisher, wait_until};
use serde_json::Value;

use super::screen::{Screen, Shown, as_json};
use crate::factory::SOON;

/// The channel that the tests look at.
pub(super) const CHANNEL: &str = "x";
/// A channel whose events say that everything before them has been seen.
const MARK: &str = "mark";

/// The tenant whose messages stay, and the one whose messages go after 10 s.
pub(super) const LASTING: &str = "acme";
pub(super) const BRIEF: &str = "brief";

const TENANTS: &str = "
apiVersion: flutecast.io/v1alpha1
kind: Tenant
metadata: {name: acme}
spec:
  retention: {maxAge: 1h}
  access: {anonymous: true}
---
apiVersion: flutecast.io/v1alpha1
kind: Tenant
metadata: {name: brief}
spec:
  retention: {maxAge: 10s}
  access: {anonymous: true}
---
apiVersion: flutecast.io/v1alpha1
kind: PushFormat
metadata: {name: mark}
spec:
  delivery: {policy: Every}
  fields:
  - {name: 'n', pointer: /n, type: Number}
";

/// A device with a format of its own: its code, its tenant, and the format's `spec` as YAML that stands in
/// braces.
pub(super) struct Fixture {
    pub(super) device: String,
    pub(super) tenant: &'static str,
    pub(super) format: String,
    /// More properties of the channel, such as `, staleAfter: 2s`.
    channel: &'static str,
}

impl Fixture {
    pub(super) fn new(device: &str, format: &str) -> Self {
        Self { device: device.to_owned(), tenant: LASTING, format: format.to_owned(), channel: "" }
    }

    pub(super) fn of(self, tenant: &'static str) -> Self {
        Self { tenant, ..self }
    }

    /// The same with more properties of the channel.
    pub(super) fn channel(self, channel: &'static str) -> Self {
        Self { channel, ..self }
    }
}

/// A stack with two pods.
pub(super) struct Plant {
    pub(super) stack: LocalStack,
    pub(super) one: Dataplane,
    pub(super) two: Dataplane,
    pub(super) publisher: Publisher,
}

impl Plant {
    pub(super) async fn start(fixtures: &[Fixture]) -> anyhow::Result<Self> {
        let stack = stack_of(fixtures).await?;
        let (one, two) = tokio::try_join!(stack.dataplane(), stack.dataplane())?;
        let publisher = stack.publisher().await?;
        Ok(Self { stack, one, two, publisher })
    }

    /// Publishes on a channel of a device. Returns the message's place in the stream.
    pub(super) async fn publish(
        &self,
        fixture: &Fixture,
        channel: &str,
        payload: &str,
    ) -> anyhow::Result<u64> {
        self.publisher.publish(&stored_subject(fixture, channel)?, payload).await
    }
}

/// Returns the subject of a channel of a device.
pub(super) fn stored_subject(fixture: &Fixture, channel: &str) -> anyhow::Result<String> {
    let tenant = TenantName::new(fixture.tenant)?;
    let iot_id = iot_id::generate(&tenant, &DeviceCode::new(&fixture.device)?);
    Ok(subject::stored(&tenant, &iot_id, &ChannelName::new(channel)?))
}

/// Starts a stack with these devices, without a pod.
pub(super) async fn stack_of(fixtures: &[Fixture]) -> anyhow::Result<LocalStack> {
    let mut manifests = TENANTS.to_owned();
    for Fixture { device, tenant, format, channel } in fixtures {
        let name = device.to_lowercase();
        write!(
            manifests,
            "---
apiVersion: flutecast.io/v1alpha1
kind: PushFormat
metadata: {{name: {name}}}
spec: {{{format}}}
---
apiVersion: flutecast.io/v1alpha1
kind: Device
metadata: {{name: {name}}}
spec:
  tenant: {tenant}
  deviceCode: {device}
  channels:
  - {{name: {CHANNEL}, format: {name}{channel}}}
  - {{name: {MARK}, format: mark}}
"
        )?;
    }
    LocalStack::with(LASTING, &[("plant.yaml", &manifests)]).await
}

/// A device, and the screen that was there on pod one before its first message.
pub(super) struct Row<'a> {
    plant: &'a Plant,
    pub(super) fixture: &'a Fixture,
    pub(super) screen: Screen,
    marks: u64,
}

impl<'a> Row<'a> {
    pub(super) async fn begin(plant: &'a Plant, fixture: &'a Fixture) -> anyhow::Result<Self> {
        let screen = Screen::open(&plant.one, fixture.tenant, &fixture.device).await?;
        Ok(Self { plant, fixture, screen, marks: 0 })
    }

    /// Sends messages, and waits until the screen that was there has seen all of them. Returns their places
    /// in the stream.
    pub(super) async fn send<const COUNT: usize>(
        &mut self,
        payloads: [impl AsRef<str>; COUNT],
    ) -> anyhow::Result<[u64; COUNT]> {
        let mut places = [0; COUNT];
        for (place, payload) in places.iter_mut().zip(payloads) {
            *place = self.plant.publish(self.fixture, CHANNEL, payload.as_ref()).await?;
        }
        self.settle().await?;
        Ok(places)
    }

    /// Sends any number of messages. The screen has got each that is an event, by index, before the next one
    /// is sent: on a `Latest` channel it may replace the one before while that waits for the screen.
    pub(super) async fn send_all(
        &mut self,
        payloads: &[String],
        events: &[usize],
    ) -> anyhow::Result<Vec<u64>> {
        let mut places = Vec::with_capacity(payloads.len());
        for (index, payload) in payloads.iter().enumerate() {
            let place = self.plant.publish(self.fixture, CHANNEL, payload).await?;
            places.push(place);
            if events.contains(&index) {
                let came = |screen: &Screen| {
                    let last = screen.events(CHANNEL).last();
                    last.is_some_and(|event| event["seq"] == place).then_some(())
                };
                self.screen.read_until("the event", came).await?;
            }
        }
        self.settle().await?;
        Ok(places)
    }

    /// Waits until the screen that was there has got everything that is stored. A connection gets its
    /// messages in the order of the stream, so a mark comes last.
    async fn settle(&mut self) -> anyhow::Result<()> {
        self.marks += 1;
        let n = self.marks as f64;
        self.plant.publish(self.fixture, MARK, &format!("{{\"n\":{n}}}")).await?;
        let marked = |screen: &Screen| {
            let last = screen.events(MARK).last();
            last.is_some_and(|event| event["values"]["n"].as_f64() == Some(n)).then_some(())
        };
        self.screen.read_until("the mark", marked).await
    }

    /// Waits until a pod that watches the device has seen everything, too.
    pub(super) async fn settle_on(&self, pod: &Dataplane) -> anyhow::Result<()> {
        let Fixture { tenant, device, .. } = self.fixture;
        let n = self.marks as f64;
        wait_until("the mark on the other pod", SOON, async || {
            let Shown(mark) =
                as_json(pod, tenant, device, MARK).await.map_err(|error| format!("{error:#}"))?;
            if mark["values"]["n"].as_f64() == Some(n) { Ok(()) } else { Err(mark.to_string()) }
        })
        .await
    }

    /// Checks that all places show this: the screen that was there, the JSON API of both pods, and screens
    /// that come now, on either pod. They must also agree in what `expected` doesn't say (place, time).
    pub(super) async fn all_show(&mut self, expected: &Value) -> anyhow::Result<Shown> {
        let (tenant, device) = (self.fixture.tenant, &self.fixture.device);
        let fits = |screen: &Screen| screen.shows(CHANNEL).must_be(expected).ok();
        let what = format!("the screen that was there to show {expected}");
        self.screen.read_until(&what, fits).await?;
        let there = self.screen.shows(CHANNEL);
        let Plant { one, two, .. } = self.plant;
        // The second pod doesn't watch the device yet, or still does for a screen that has gone.
        if self.fixture.tenant == LASTING {
            self.settle_on(two).await?;
        }
        for (place, pod) in [("JSON of the other pod", two), ("JSON of the same pod", one)] {
            same(place, &there, &as_json(pod, tenant, device, CHANNEL).await?, expected)?;
        }
        for (place, pod) in [("a new screen on the other pod", two), ("a new screen on the same pod", one)] {
            let mut screen = Screen::open(pod, tenant, device).await?;
            if !expected["reason"].is_null() {
                // A problem comes behind the values.
                let told = |screen: &Screen| (!screen.problem(CHANNEL).is_null()).then_some(());
                screen.read_until("a problem", told).await.context(place)?;
            }
            same(place, &there, &screen.shows(CHANNEL), expected)?;
            ensure!(screen.events(CHANNEL).len() <= 1, "{place}: {:?}", screen.events(CHANNEL));
        }
        Ok(there)
    }
}

fn same(place: &str, there: &Shown, here: &Shown, expected: &Value) -> anyhow::Result<()> {
    here.must_be(expected).map_err(|difference| anyhow::anyhow!("{place}: {difference}"))?;
    ensure!(here == there, "{place} shows {here:?}, the screen that was there {there:?}");
    Ok(())
}

/// Checks that a pod that has just started shows what the others show, by JSON and to a screen. Problems are
/// left out: they end by themselves.
pub(super) async fn shows_the_same(pod: &Dataplane, fixture: &Fixture, others: &Shown) -> anyhow::Result<()> {
    let (tenant, device, others) = (fixture.tenant, &fixture.device, others.without_problem());
    let shown = as_json(pod, tenant, device, CHANNEL).await?.without_problem();
    ensure!(shown == others, "{device}: JSON of a new pod shows {shown:?}, the others {others:?}");
    let screen = Screen::open(pod, tenant, device).await?;
    let shown = screen.shows(CHANNEL).without_problem();
    ensure!(shown == others, "{device}: a screen of a new pod shows {shown:?}, the others {others:?}");
    Ok(())
}

/// Waits until the tenant's stream holds no message of the channel any more.
pub(super) async fn wait_until_dropped(plant: &Plant, fixture: &Fixture) -> anyhow::Result<()> {
    let stream = plant.publisher.jetstream().get_stream(format!("IOT_{}", fixture.tenant)).await?;
    let subject = stored_subject(fixture, CHANNEL)?;
    wait_until("the stream to drop the message", SOON + SOON, async || {
        match stream.get_last_raw_message_by_subject(&subject).await {
            Ok(message) => Err(format!("it holds message {}", message.sequence)),
            Err(error) if error.to_string().contains("no message found") => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    })
    .await
}
