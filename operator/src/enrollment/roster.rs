//! What is known of each tenant's devices: what enrollment answers from.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use flutecast_contract::name::{ChannelName, DeviceCode, IotId, TenantName};
use flutecast_crds::DeviceSpec;

use crate::enrollment::policy::Enrollment;
use crate::controller::build::{Built, BuiltTenant};
use crate::object::Object;
use crate::object::Kind;
use crate::finding::Outcome;

/// All tenants in force.
pub type Roster = BTreeMap<TenantName, Arc<Roll>>;

/// One tenant.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Roll {
    /// Where its objects are.
    pub namespace: String,
    /// Whether its stream is there: until then, what a device publishes is lost.
    pub has_stream: bool,
    /// How its devices enrol.
    pub enrollment: Enrollment,
    /// Its devices, by code.
    pub devices: BTreeMap<DeviceCode, Standing>,
}

/// How it stands with a device.
#[derive(Debug, Clone, PartialEq)]
pub enum Standing {
    /// It is in the stored mapping.
    Mapped {
        /// Its id.
        iot_id: IotId,
        /// Its channels that are served.
        channels: Arc<[ChannelName]>,
    },
    /// There is such an object, and it isn't in the mapping.
    Waiting {
        /// The object.
        object: String,
        /// Why, if anything is wrong with it; none: it is about to be.
        why: Option<String>,
    },
}

/// What the roll of a tenant is made from.
#[derive(Debug)]
pub struct Sources<'a> {
    /// Everything that was built.
    pub built: &'a Built,
    /// Whether its mapping is stored as it was built.
    pub is_stored: bool,
    /// Whether its stream is there.
    pub has_stream: bool,
    /// The roll before.
    pub before: Option<&'a Roll>,
}

/// The roll of a tenant; `devices` are the objects that name it, in whatever namespace.
#[must_use]
pub fn roll<'a>(
    tenant: &BuiltTenant,
    devices: impl Iterator<Item = &'a Object<DeviceSpec>>,
    sources: &Sources<'_>,
) -> Roll {
    let Sources { built, is_stored, has_stream, before } = sources;
    let namespace = &tenant.streams.owner.namespace;
    let mut roll = Roll {
        namespace: namespace.clone(),
        has_stream: *has_stream,
        enrollment: tenant.enrollment.clone(),
        devices: BTreeMap::new(),
    };
    // Many devices have the same channels.
    let mut lists: BTreeSet<Arc<[ChannelName]>> = BTreeSet::new();
    for (iot_id, device) in tenant.shards.iter().flat_map(|shard| &shard.devices) {
        let channels: Arc<[ChannelName]> = device.channels.keys().cloned().collect();
        let channels = lists.get(&channels).cloned().unwrap_or(channels);
        lists.insert(channels.clone());
        let mapped = Standing::Mapped { iot_id: iot_id.clone(), channels };
        // What isn't stored yet may still be refused; what was stored before still is.
        let was = before.and_then(|before| before.devices.get(&device.code));
        if *is_stored || was == Some(&mapped) {
            roll.devices.insert(device.code.clone(), mapped);
        }
    }
    // Whatever else is there waits; of two with one code the first is told.
    for device in devices.filter(|device| device.meta.namespace == *namespace) {
        let Ok(code) = DeviceCode::new(&device.spec.device_code) else { continue };
        if roll.devices.contains_key(&code) {
            continue;
        }
        let object = device.meta.object_ref(Kind::Device);
        let refused = |outcome: &&Outcome| matches!(outcome, Outcome::Refused(_));
        let finding =
            built.verdicts.get(&object).filter(refused).and_then(|outcome| outcome.findings().first());
        let standing =
            Standing::Waiting { object: object.to_string(), why: finding.map(ToString::to_string) };
        roll.devices.insert(code, standing);
    }
    roll
}
