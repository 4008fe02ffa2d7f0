//! Formats that are read back from the mapping when this operator begins to work.

use flutecast_contract::name::TenantName;
use flutecast_crds::PushFormat;

use super::mapping::MappingWriter;
use crate::controller::build::formats::FormatsInForce;
use crate::controller::status::conditions::ready;
use crate::index::kind::ApiStatus;
use crate::index::{Entry, Index};

/// Returns the formats in the stored documents that are versions of PushFormats that exist.
pub(super) fn read_back(mapping: &MappingWriter, index: &Index) -> FormatsInForce {
    let mut formats = FormatsInForce::default();
    for shard in mapping.shards_without_devices() {
        let Some(namespace) = namespace_of(&shard.tenant, index) else { continue };
        for (name, document) in &shard.formats {
            let key = (namespace.to_owned(), name.to_string());
            if let Some(entry) = index.formats.get(&key).filter(|entry| was_in_force(entry)) {
                let meta = entry.object.as_ref().ok().map(|format| format.meta.clone());
                formats.read_back(key, meta, document);
            }
        }
    }
    formats
}

/// Returns the namespace of the Tenant that has the name. Of a namesake in another one these are no
/// documents.
fn namespace_of<'a>(tenant: &TenantName, index: &'a Index) -> Option<&'a str> {
    let mut named = index.tenants.iter().filter(|((_, name), _)| name == tenant.as_str());
    let holder = named.find(|(_, entry)| entry.status.holds_claim());
    holder.map(|((namespace, _), _)| namespace.as_str())
}

/// Returns whether a version of this very object was in force. One that was deleted and made again has
/// nothing in force, though the mapping may have the format of the one before.
fn was_in_force(entry: &Entry<PushFormat>) -> bool {
    let status = &entry.status;
    // An operator before this one wrote no `inForce`.
    let is_ready = ready(&status.conditions).is_some_and(|ready| ready.status == "True");
    status.in_force.is_some() || is_ready
}
