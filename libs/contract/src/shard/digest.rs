//! Digests of documents and of iotIds.

use sha2::{Digest, Sha256};

use crate::document::ShardDocument;
use crate::name::IotId;

/// Returns the revision of a document: the first 64 bits of a SHA-256 over its content, as 16 hexadecimal
/// digits. The field `revision` is left out, so that a document is verified by comparing the two.
#[must_use]
pub fn revision(document: &ShardDocument) -> String {
    if !document.revision.is_empty() {
        return revision(&ShardDocument { revision: String::new(), ..document.clone() });
    }
    // JSON writes each document in one way, since maps are ordered and all keys are strings. Serializing
    // can't fail.
    let json = serde_json::to_vec(document).unwrap_or_default();
    let mut hasher = Sha256::new();
    hasher.update(b"flutecast/revision/v1\0");
    hasher.update(&json);
    data_encoding::HEXLOWER.encode(&hasher.finalize()[..8])
}

/// Returns the hash by which a device is assigned to a document of its tenant.
pub(super) fn hash(iot_id: &IotId) -> u32 {
    let mut hasher = Sha256::new();
    hasher.update(b"flutecast/shard/v1\0");
    hasher.update(iot_id.as_str());
    let digest = hasher.finalize();
    u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]])
}
