//! The Devices that are pending for the rollout: those in the mapping that are not Ready for their
//! generation.

use flutecast_contract::name::TenantName;
use flutecast_contract::shard::{MAX_SHARDS, shard_of};
use flutecast_crds::Device;
use tokio::time::Instant;

use crate::controller::build::Built;
use crate::controller::dereference::DirtySet;
use crate::controller::status::conditions::is_ready;
use crate::finding::Reason;
use crate::index::{Entry, Index};
use crate::object::{Key, Kind, ObjectRef};
use crate::rollout::{PendingDevice, Rollout};

pub(crate) fn update(rollout: &mut Rollout, index: &Index, built: &Built, dirty: &DirtySet, now: Instant) {
    if !rollout.asks_pods() {
        return;
    }
    if dirty.all {
        rollout.retain(|key| index.devices.get(key).is_some());
        for (key, entry) in index.devices.iter() {
            rollout.set_pending(key, pending_device(key, entry, built), now);
        }
        return;
    }
    let touched = dirty.touched.iter().filter(|(kind, _)| *kind == Kind::Device);
    for (_, key) in touched {
        let device = index.devices.get(key).and_then(|entry| pending_device(key, entry, built));
        rollout.set_pending(key, device, now);
    }
}

fn pending_device(key: &Key, entry: &Entry<Device>, built: &Built) -> Option<PendingDevice> {
    if is_ready(&entry.status.conditions, entry.generation) {
        return None;
    }
    let device = entry.object.as_ref().ok()?;
    let tenant = TenantName::new(&device.spec.tenant).ok()?;
    let iot_id = built.iot_ids.get(key)?;
    let outcome = built.outcomes.get(&ObjectRef::new(Kind::Device, &key.0, &key.1))?;
    if !outcome.findings().is_empty() || !built.tenants.contains_key(&tenant) {
        return None;
    }
    let not_served = Reason::NotServed.to_string();
    let message = entry.status.conditions.iter().find(|condition| {
        condition.reason == not_served && condition.observed_generation == Some(entry.generation)
    });
    Some(PendingDevice {
        uid: entry.uid.clone(),
        generation: entry.generation,
        tenant,
        slot: shard_of(iot_id, MAX_SHARDS),
        message: message.map(|condition| condition.message.as_str().into()),
    })
}
