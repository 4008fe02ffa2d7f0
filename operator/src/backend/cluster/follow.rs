//! Which Devices' presence is followed: those with an iotId, of a tenant whose stream is there and its own.

use std::collections::BTreeSet;
use std::time::Duration;

use flutecast_contract::name::{ChannelName, IotId, TenantName};
use flutecast_crds::{Device, DeviceSpec};

use crate::object::Key;
use crate::index::Entry;
use crate::controller::status::judge::Judge;
use crate::presence::Told;
use crate::presence::board::{Board, Followed, Version};
use crate::finding::Reason;

/// Whether a Device's messages can be looked up.
enum Reach<'a> {
    /// They can.
    Yes(TenantName, &'a IotId, &'a DeviceSpec),
    /// Not at the moment, or nobody knows yet: what was said holds.
    Later,
    /// There is nothing to look up.
    No,
}

/// Tells the board of these Devices.
pub(super) fn note(board: &Board, judge: &Judge<'_>, devices: &BTreeSet<Key>) {
    for key in devices {
        let Some(entry) = judge.index.devices.get(key) else {
            board.forget(key);
            continue;
        };
        let reach = reach(judge, key, entry);
        let iot_id = match &reach {
            Reach::Yes(_, iot_id, _) => Some((*iot_id).clone()),
            Reach::Later => continue,
            Reach::No => None,
        };
        let version = Version { uid: entry.uid.clone(), generation: entry.generation, iot_id };
        board.note(key, &version, Told::by(&entry.status), judge.now, |_| match reach {
            Reach::Yes(tenant, iot_id, spec) => followed(tenant, iot_id, spec),
            Reach::Later | Reach::No => None,
        });
    }
}

fn reach<'a>(judge: &Judge<'a>, key: &Key, entry: &'a Entry<Device>) -> Reach<'a> {
    let spec = entry.object.as_ref().ok().map(|device| &device.spec);
    let tenant = spec.and_then(|spec| TenantName::new(&spec.tenant).ok());
    let (Some(spec), Some(tenant), Some(iot_id)) = (spec, tenant, judge.built.iot_ids.get(key)) else {
        return Reach::No;
    };
    if !judge.built.tenants.contains_key(&tenant) {
        return Reach::No;
    }
    let Some(report) = judge.report.get(&tenant) else { return Reach::Later };
    if report.foreign {
        // Messages of somebody else are none of this tenant's business.
        return Reach::No;
    }
    if report.has_stream {
        return Reach::Yes(tenant, iot_id, spec);
    }
    let is_away = report.findings.iter().any(|finding| finding.reason == Reason::BrokerAway);
    if is_away { Reach::Later } else { Reach::No }
}

fn followed(tenant: TenantName, iot_id: &IotId, spec: &DeviceSpec) -> Option<Followed> {
    let channels: Vec<_> = spec
        .channels
        .iter()
        .filter_map(|channel| {
            let stale_after = Duration::from_millis(channel.stale_after?.as_millis());
            Some((ChannelName::new(&channel.name).ok()?, stale_after))
        })
        .collect();
    (!channels.is_empty()).then(|| Followed { tenant, iot_id: iot_id.clone(), channels })
}
