//! The manifests of the benchmarks' tenant: many devices that all send the same kind of message.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context as _;
use flutecast_contract::name::{ChannelName, DeviceCode, InvalidName, IotId, TenantName};
use flutecast_contract::{iot_id, subject};

/// The channel of the benchmarks.
pub const CHANNEL: &str = "telemetry";
/// The most devices: their numbers have four digits.
pub const MOST_DEVICES: u32 = 9999;

/// The device code of the device with this number, from 1.
///
/// # Errors
/// Never for numbers up to [`MOST_DEVICES`].
pub fn device_code(number: u32) -> Result<DeviceCode, InvalidName> {
    DeviceCode::new(&format!("bench-{number:04}"))
}

/// One device of the benchmarks, as the message side knows it.
#[derive(Debug, Clone)]
pub struct BenchDevice {
    /// Its code.
    pub code: DeviceCode,
    /// Its generated id.
    pub iot_id: IotId,
    pub stored: String,
}

/// The devices with the numbers 1 to `count`.
///
/// # Errors
/// Never for numbers up to [`MOST_DEVICES`].
pub fn devices(tenant: &TenantName, count: u32) -> Result<Vec<BenchDevice>, InvalidName> {
    let channel = ChannelName::new(CHANNEL)?;
    (1..=count)
        .map(|number| {
            let code = device_code(number)?;
            let iot_id = iot_id::generate(tenant, &code);
            Ok(BenchDevice { stored: subject::stored(tenant, &iot_id, &channel), code, iot_id })
        })
        .collect()
}

/// Writes `tenant.yaml`, `format.yaml` and `devices.yaml` into `folder`, which is made if it isn't there.
///
/// # Errors
/// Returns an error if a file can't be written.
pub fn write(tenant: &TenantName, count: u32, folder: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let put = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).with_context(|| path.display().to_string())
    };
    put("tenant.yaml", &tenant_manifest(tenant, count))?;
    put("format.yaml", FORMAT)?;
    put("devices.yaml", &device_manifests(tenant, count)?)
}

fn tenant_manifest(tenant: &TenantName, count: u32) -> String {
    format!(
        "\
# The tenant of the benchmarks. Its stream stays small: only what is on its way matters.
apiVersion: flutecast.io/v1alpha1
kind: Tenant
metadata:
  name: {tenant}
spec:
  displayName: Benchmarks
  retention:
    maxAge: 5m
    maxMessagesPerSubject: 256
    maxBytes: 512Mi
    storage: File
  access:
    anonymous: true
  quota:
    maxDevices: {count}
    maxClients: 20000
"
    )
}

/// The format: as many fields as a machine's telemetry has. `Every`, so that each message that was sent can
/// be waited for; without `timestamp`, so that nothing is dropped for its time.
const FORMAT: &str = "\
# {\"sent\": <µs since 1970>, \"seq\": 17, \"d\": {\"speed\": 1824, …}}; `sent` comes back to the sender, \
which knows then how long it took.
apiVersion: flutecast.io/v1alpha1
kind: PushFormat
metadata:
  name: bench-telemetry
spec:
  delivery: {policy: Every}
  fields:
    - {name: sent, pointer: /sent, type: Number, decimals: 0, unit: µs}
    - {name: seq, pointer: /seq, type: Number, decimals: 0}
    - {name: speed, pointer: /d/speed, type: Number, scale: 0.1, decimals: 1, unit: m/min}
    - {name: pressure, pointer: /d/pressure, type: Number, scale: 0.01, decimals: 2, unit: bar}
    - {name: temperature, pointer: /d/temperature, type: Number, scale: 0.1, decimals: 1, unit: °C}
    - {name: tension, pointer: /d/tension, type: Number, decimals: 0, unit: \"N\"}
    - {name: state, pointer: /d/st, type: Enum, values: {\"0\": stopped, \"1\": running}}
";

fn device_manifests(tenant: &TenantName, count: u32) -> Result<String, InvalidName> {
    let mut text = String::new();
    for number in 1..=count {
        let code = device_code(number)?;
        // Writing to a string can't fail.
        let _ = write!(
            text,
            "\
---
apiVersion: flutecast.io/v1alpha1
kind: Device
metadata:
  name: {code}
  labels: {{line: bench}}
spec:
  tenant: {tenant}
  deviceCode: {code}
  channels:
    - {{name: {CHANNEL}, format: bench-telemetry}}
"
        );
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_are_written_and_name_each_device_once() {
        let folder = tempfile::tempdir().unwrap();
        let tenant = TenantName::new("bench").unwrap();
        write(&tenant, 12, folder.path()).unwrap();
        let devices = std::fs::read_to_string(folder.path().join("devices.yaml")).unwrap();
        assert_eq!(devices.matches("kind: Device").count(), 12);
        assert!(devices.contains("deviceCode: bench-0001\n") && devices.contains("deviceCode: bench-0012\n"));
        for name in ["tenant.yaml", "format.yaml"] {
            let text = std::fs::read_to_string(folder.path().join(name)).unwrap();
            assert!(serde_yaml::from_str::<serde_json::Value>(&text).is_ok(), "{text}");
        }
    }

    #[test]
    fn devices_have_subjects_of_their_own() {
        let devices = devices(&TenantName::new("bench").unwrap(), 50).unwrap();
        let subjects: std::collections::BTreeSet<_> = devices.iter().map(|device| &device.stored).collect();
        assert_eq!(subjects.len(), 50);
        assert!(devices[0].stored.starts_with("iot.bench.") && devices[0].stored.ends_with(".telemetry"));
    }
}
