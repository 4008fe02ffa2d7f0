//! The time of one change, from the request to the API server until a data plane serves it.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use async_nats::Subscriber;
use flutecast_testkit::http_client;
use futures_util::StreamExt as _;
use hdrhistogram::Histogram;
use kube::api::{Patch, PatchParams};
use rand::RngExt as _;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use super::load::{channels, device_name, tenant_of};
use super::plant::Plant;

/// Longest time that one change may take before the measurement is given up.
const DEADLINE: Duration = Duration::from_secs(30);
/// The least and the longest pause between two changes, so that each meets the programs at another moment.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(400));
/// The label that each change sets.
const LABEL: &str = "change";

/// The times of all changes.
pub(super) struct Changes(Histogram<u64>);

impl fmt::Debug for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "median {:?}, p99 {:?}, longest {:?}", self.median(), self.p99(), self.longest())
    }
}

impl Changes {
    pub(super) fn median(&self) -> Duration {
        Duration::from_micros(self.0.value_at_quantile(0.5))
    }

    pub(super) fn p99(&self) -> Duration {
        Duration::from_micros(self.0.value_at_quantile(0.99))
    }

    pub(super) fn longest(&self) -> Duration {
        Duration::from_micros(self.0.max())
    }
}

/// Makes `count` changes, one after the other, spread over all devices. Each changes the spec and a label of
/// one Device.
///
/// A data plane announces the revisions that it serves as soon as they are in force, so an announcement with
/// another revision of the tenant is the change that was made: nothing else changes meanwhile. That it is
/// indeed this one is asked of the data plane.
pub(super) async fn measure(plant: &Plant, count: u32) -> anyhow::Result<Changes> {
    let mut announcements = plant.announcements().await?;
    let mut served = next(&mut announcements).await?;
    let mut times = Histogram::<u64>::new(3)?;
    let size = plant.size();
    for number in 1..=count {
        let device = (u64::from(number) * 7919 % u64::from(size.devices)) as u32;
        let patch = json!({
            "metadata": {"labels": {LABEL: number.to_string()}},
            "spec": {"channels": channels(10 + number)},
        });
        sleep(rand::rng().random_range(PAUSE.0..PAUSE.1)).await;
        // What was announced in between is what was served before.
        while let Ok(Some(message)) = timeout(Duration::ZERO, announcements.next()).await {
            served = revisions(&message.payload)?;
        }
        let begun = Instant::now();
        let (devices, name) = (plant.devices(), device_name(device));
        let parameters = PatchParams::default();
        timeout(DEADLINE, devices.patch(&name, &parameters, &Patch::Merge(&patch)))
            .await
            .context("a change")??;
        let tenant = tenant_of(size, device);
        served = loop {
            let announced = next(&mut announcements).await?;
            if announced.get(&tenant) != served.get(&tenant) {
                break announced;
            }
            ensure!(begun.elapsed() < DEADLINE, "change {number} is not served after {DEADLINE:?}");
        };
        times.record(u64::try_from(begun.elapsed().as_micros())?)?;
        check(plant, &tenant, number, &name.to_uppercase()).await?;
    }
    Ok(Changes(times))
}

type Revisions = BTreeMap<String, Value>;

async fn next(announcements: &mut Subscriber) -> anyhow::Result<Revisions> {
    match timeout(DEADLINE, announcements.next()).await {
        Ok(Some(message)) => revisions(&message.payload),
        Ok(None) => bail!("the connection to NATS has ended"),
        Err(_) => bail!("the data plane announced nothing for {DEADLINE:?}"),
    }
}

/// The revisions of each tenant in an announcement (docs/protocol-internal.md).
fn revisions(payload: &[u8]) -> anyhow::Result<Revisions> {
    let mut announcement: Value = serde_json::from_slice(payload).context("an announcement")?;
    serde_json::from_value(announcement["tenants"].take()).context("an announcement's tenants")
}

/// The data plane finds the device by the label that this change has set.
async fn check(plant: &Plant, tenant: &str, change: u32, code: &str) -> anyhow::Result<()> {
    let url = format!("{}/v1/{tenant}/devices?selector={LABEL}%3D{change}", plant.dataplane_url());
    let found = http_client::get(&url).await?.json()?;
    ensure!(
        found["devices"][0]["device"] == code
            && found["devices"].as_array().is_some_and(|all| all.len() == 1),
        "change {change} of {code} isn't what is served: {found}"
    );
    Ok(())
}
