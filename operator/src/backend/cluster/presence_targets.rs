//! Decides who is tracked: Devices with an iotId, of a tenant that has a stream of its own.

use std::collections::BTreeSet;
use std::time::Duration;

use flutecast_contract::name::{ChannelName, IotId, TenantName};
use flutecast_crds::{Device, DeviceSpec};

use crate::backend::cluster::status::wanted::WantedStatuses;
use crate::finding::Reason;
use crate::index::Entry;
use crate::object::Key;
use crate::presence::{Observation, PresenceTable, Target, TargetVersion};

/// The lookup of a Device's messages.
enum Reach<'a> {
    Yes(TenantName, &'a IotId, &'a DeviceSpec),
    /// Not possible at the moment, or not known yet. All stays as it is.
    Later,
    No,
}

/// Enters these Devices into the table, or removes them from it.
pub(super) fn track(table: &PresenceTable, wanted: &WantedStatuses<'_>, devices: &BTreeSet<Key>) {
    for key in devices {
        let Some(entry) = wanted.index.devices.get(key) else {
            table.remove(key);
            continue;
        };
        let reach = reach(wanted, key, entry);
        let iot_id = match &reach {
            Reach::Yes(_, iot_id, _) => Some((*iot_id).clone()),
            Reach::Later => continue,
            Reach::No => None,
        };
        let version = TargetVersion { uid: entry.uid.clone(), generation: entry.generation, iot_id };
        table.set(key, &version, Observation::from(&entry.status), wanted.now, |_| match reach {
            Reach::Yes(tenant, iot_id, spec) => Some(target(tenant, iot_id, spec)),
            Reach::Later | Reach::No => None,
        });
    }
}

fn reach<'a>(wanted: &WantedStatuses<'a>, key: &Key, entry: &'a Entry<Device>) -> Reach<'a> {
    let spec = entry.object.as_ref().ok().map(|device| &device.spec);
    let tenant = spec.and_then(|spec| TenantName::new(&spec.tenant).ok());
    let (Some(spec), Some(tenant), Some(iot_id)) = (spec, tenant, wanted.reconciled.built.iot_ids.get(key))
    else {
        return Reach::No;
    };
    if !wanted.reconciled.built.tenants.contains_key(&tenant) {
        return Reach::No;
    }
    let Some(report) = wanted.reconciled.report.get(&tenant) else { return Reach::Later };
    if report.foreign {
        // The messages of a foreign stream are not this tenant's.
        return Reach::No;
    }
    if report.has_stream {
        return Reach::Yes(tenant, iot_id, spec);
    }
    let is_away = report.findings.iter().any(|finding| finding.reason == Reason::BrokerAway);
    if is_away { Reach::Later } else { Reach::No }
}

fn target(tenant: TenantName, iot_id: &IotId, spec: &DeviceSpec) -> Target {
    let channels = spec.channels.iter().filter_map(|channel| {
        let stale_after = Duration::from_millis(channel.stale_after?.as_millis());
        Some((ChannelName::new(&channel.name).ok()?, stale_after))
    });
    Target { tenant, iot_id: iot_id.clone(), channels: channels.collect() }
}
