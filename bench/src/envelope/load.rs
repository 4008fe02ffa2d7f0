//! The objects of the benchmark, and their creation: many at once, so that the API server is the limit and
//! not the sender.

use std::time::Duration;

use anyhow::Context as _;
use futures_util::{TryStreamExt as _, stream};
use kube::Api;
use kube::api::{DynamicObject, PostParams};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::Size;
use super::plant::{NAMESPACE, Plant};

/// Longest time that one creation may take.
const DEADLINE: Duration = Duration::from_secs(30);

/// The result of the creation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Created {
    pub(super) devices: u32,
    pub(super) took: Duration,
}

impl Created {
    /// Devices created a second.
    pub(super) fn rate(&self) -> f64 {
        f64::from(self.devices) / self.took.as_secs_f64()
    }
}

/// The name of the tenant with this number.
pub(super) fn tenant_name(number: u32) -> String {
    format!("plant-{number}")
}

/// The name of the device with this number; its code is the same in capital letters.
pub(super) fn device_name(number: u32) -> String {
    format!("machine-{number:05}")
}

/// The tenant of the device with this number.
pub(super) fn tenant_of(size: Size, device: u32) -> String {
    tenant_name(device % size.tenants)
}

/// Everything but the devices.
pub(super) fn tenants_and_formats(size: Size) -> String {
    let tenant = |number| {
        json!({
            "apiVersion": "flutecast.io/v1alpha1", "kind": "Tenant",
            "metadata": {"name": tenant_name(number), "namespace": NAMESPACE},
            "spec": {
                "displayName": format!("Plant {number}"),
                "retention": {"maxAge": "5m", "maxBytes": "16Mi"},
                "access": {"anonymous": true},
            },
        })
    };
    let format = |name: &str, fields: Value| {
        json!({
            "apiVersion": "flutecast.io/v1alpha1", "kind": "PushFormat",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {"fields": fields},
        })
    };
    let telemetry = format(
        "machine-telemetry",
        json!([
            {"name": "speed", "pointer": "/d/v", "type": "Number", "scale": 0.1, "decimals": 1,
             "unit": "m/min"},
            {"name": "pressure", "pointer": "/d/p", "type": "Number", "scale": 0.01, "decimals": 2,
             "unit": "bar"},
            {"name": "temperature", "pointer": "/d/t", "type": "Number", "decimals": 1, "unit": "°C"},
            {"name": "state", "pointer": "/d/st", "type": "Enum", "values": {"0": "stopped", "1": "running"}},
        ]),
    );
    let power = format("on-off", json!([{"name": "on", "pointer": "/on", "type": "Bool"}]));
    let objects: Vec<Value> = (0..size.tenants).map(tenant).chain([telemetry, power]).collect();
    objects.iter().map(|object| format!("---\n{object}\n")).collect()
}

/// The channels of every device.
pub(super) fn channels(stale_after_s: u32) -> Value {
    json!([
        {"name": "telemetry", "format": "machine-telemetry", "staleAfter": format!("{stale_after_s}s")},
        {"name": "power", "format": "on-off"},
    ])
}

fn device(size: Size, number: u32) -> Value {
    let name = device_name(number);
    json!({
        "apiVersion": "flutecast.io/v1alpha1", "kind": "Device",
        "metadata": {"name": name, "labels": {"line": format!("l{}", number % 40), "type": "machine"}},
        "spec": {
            "tenant": tenant_of(size, number),
            "deviceCode": name.to_uppercase(),
            "channels": channels(10),
        },
    })
}

/// Creates all devices, `at_once` at the same time.
pub(super) async fn create_devices(plant: &Plant, at_once: usize) -> anyhow::Result<Created> {
    let api: Api<DynamicObject> = plant.devices();
    let size = plant.size();
    let begun = Instant::now();
    stream::iter((0..size.devices).map(anyhow::Ok))
        .try_for_each_concurrent(at_once, async |number| {
            let object: DynamicObject = serde_json::from_value(device(size, number))?;
            let parameters = PostParams::default();
            let create = api.create(&parameters, &object);
            tokio::time::timeout(DEADLINE, create)
                .await
                .with_context(|| format!("device {number}: no answer within {DEADLINE:?}"))?
                .with_context(|| format!("device {number}"))?;
            anyhow::Ok(())
        })
        .await?;
    Ok(Created { devices: size.devices, took: begun.elapsed() })
}
