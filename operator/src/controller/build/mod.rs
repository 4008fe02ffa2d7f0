//! The third step, and the heart of the operator: a pure function from all objects to streams, mapping
//! documents, the access document and outcomes. It does no I/O, reads no clock, and does not depend on the
//! order of the objects. Of what was before it knows only the [`formats`] that were in force.
//!
//! The name of a tenant, a device code, an iotId and a subject belong to the oldest object that claims them.
//! One bad object never stops another.

mod access;
pub(crate) mod cache;
mod claims;
mod devices;
pub(crate) mod enrollment;
pub(crate) mod formats;
mod plan;
mod records;
mod shards;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use flutecast_contract::document::{AccessDocument, ShardDocument};
use flutecast_contract::name::{IotId, TenantName};

use self::devices::Before;
use self::formats::{FormatInForce, FormatsInForce};
use crate::controller::validate::Valid;
use crate::enrollment::policy::Enrollment;
use crate::finding::Outcomes;
use crate::jetstream::streams::TenantStreams;
use crate::last_messages::LeftOut;
use crate::object::{Key, Object, Objects, SecretData};

/// Everything that is built from the objects.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Built {
    /// The tenants in force.
    pub(crate) tenants: BTreeMap<TenantName, BuiltTenant>,
    /// The namespace and name of every Tenant that exists, in force or not.
    pub(crate) existing: BTreeSet<Key>,
    /// The iotId of each Device that has one, by namespace and name; also of those that are not served.
    pub(crate) iot_ids: BTreeMap<Key, IotId>,
    pub(crate) formats: FormatsInForce,
    pub(crate) access: AccessDocument,
    pub(crate) outcomes: Outcomes,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct BuiltTenant {
    pub(crate) streams: TenantStreams,
    pub(crate) shards: Vec<Arc<ShardDocument>>,
    /// The channels that Devices declare and that the shards don't have.
    pub(crate) left_out: Arc<LeftOut>,
    pub(crate) enrollment: Enrollment,
}

/// Builds from nothing.
#[cfg(test)]
pub(crate) fn build(valid: Valid, objects: &Objects) -> Built {
    build_upon(&Built::default(), valid, objects)
}

/// The third step. A format that doesn't compile has the version that was in force `before`. Documents that
/// are equal to those built before are shared with them, which saves memory and changes nothing else.
pub(crate) fn build_upon(before: &Built, valid: Valid, objects: &Objects) -> Built {
    let Valid { tenants, devices, formats, existing, mut outcomes } = valid;
    let formats = formats::in_force(formats, &before.formats);
    let secrets = objects.secrets.iter().map(|secret| (secret.meta.key(), &**secret)).collect();
    let mut tenants = claims::tenant_names(tenants, &mut outcomes);
    claims::source_subjects(&mut tenants, &mut outcomes);
    let devices = claims::devices(devices, &tenants, &existing, &mut outcomes);
    let iot_ids = devices
        .values()
        .flatten()
        .map(|claimed| (claimed.device.meta.key(), claimed.iot_id.clone()))
        .collect();
    let access = access::document(&tenants, &secrets, &mut outcomes);
    let tenants = tenants
        .into_iter()
        .map(|(name, tenant)| {
            let devices = devices.get(&name).map(Vec::as_slice).unwrap_or_default();
            let before =
                before.tenants.get(&name).map(|tenant| Before::of(&tenant.shards)).unwrap_or_default();
            let documents = devices::documents(&tenant, devices, &formats, &before, &mut outcomes);
            let shards = shards::documents(&tenant, &documents, devices, &mut outcomes);
            let enrollment = enrollment::plan(&tenant, &formats, &mut outcomes);
            let left_out = Arc::new(devices::left_out(devices, &shards));
            (name, BuiltTenant { streams: plan::tenant_streams(&tenant), shards, left_out, enrollment })
        })
        .collect();
    let formats = formats.into_iter().filter_map(|(key, version)| Some((key, version?)));
    let formats = FormatsInForce(formats.collect());
    Built { tenants, existing, iot_ids, formats, access, outcomes }
}

type Secrets<'a> = BTreeMap<Key, &'a Object<SecretData>>;
/// The formats that exist, and the version of each that is in force.
type Formats = BTreeMap<Key, Option<FormatInForce>>;
