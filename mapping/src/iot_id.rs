//! The generated id of a device.

use crate::name::{DeviceCode, IotId, TenantName};

/// The id of the device with this code: the first 80 bits of a SHA-256 over tenant and code, as 16 characters of lower-case
/// base32. The same code gives the same id for ever, so that deleting and re-applying a manifest changes no topic.
#[must_use]
pub fn generate(tenant: &TenantName, code: &DeviceCode) -> IotId {
    use sha2::{Digest, Sha256};
    let mut hasher = Sha256::new();
    hasher.update(b"flutecast/iotId/v1\0");
    hasher.update(tenant.as_str());
    hasher.update(b"\0");
    hasher.update(code.as_str());
    let digest = hasher.finalize();
    let text = data_encoding::BASE32_NOPAD.encode(&digest[..10]).to_ascii_lowercase();
    // Sixteen characters of a-z and 2-7 are always a valid id.
    IotId::new(&text).unwrap_or_else(|_| unreachable!("base32 is a valid iotId"))
}
