//! The third step of a reconcile, and the heart of the operator: all objects together, in; streams, mapping
//! documents, access document and verdicts, out. A pure function: no I/O, no clock, no order of its own. The
//! folder mode and a Kubernetes controller call the same one.
//!
//! Whoever is older wins: the name of a tenant, a device code, an iotId, a subject. One bad object never
//! stops another.

mod access;
pub mod cache;
mod claims;
mod devices;
pub mod enrollment;
mod plan;
mod shards;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use flutecast_contract::document::{AccessDocument, ShardDocument};
use flutecast_contract::name::{IotId, TenantName};

use self::devices::Before;
use crate::enrollment::policy::Enrollment;
use crate::jetstream::streams::TenantStreams;
use crate::object::{Meta, Object, Objects, SecretData};
use crate::controller::validate::device::ValidDevice;
use crate::controller::validate::push_format::ValidFormat;
use crate::controller::validate::tenant::ValidTenant;
use crate::controller::validate::{self, Checked, Validated};
use crate::object::Kind;
use crate::finding::Outcomes;

/// Everything that the objects turn into.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Built {
    /// The tenants in force.
    pub tenants: BTreeMap<TenantName, BuiltTenant>,
    /// The namespace and name of every Tenant that exists, in force or not.
    pub existing: BTreeSet<(String, String)>,
    /// The iotId of each Device that has one, by namespace and name; also of those that are not served.
    pub iot_ids: BTreeMap<(String, String), IotId>,
    /// Who may read what.
    pub access: AccessDocument,
    /// What is said about each object.
    pub verdicts: Outcomes,
}

/// What one tenant turns into.
#[derive(Debug, Clone, PartialEq)]
pub struct BuiltTenant {
    /// Its streams, sources and consumers.
    pub streams: TenantStreams,
    /// Its mapping.
    pub shards: Vec<Arc<ShardDocument>>,
    /// How its devices enrol.
    pub enrollment: Enrollment,
}

/// All objects, each validated alone, by namespace and name.
#[derive(Debug, Default)]
pub struct Valid {
    tenants: Vec<ValidTenant>,
    devices: Vec<ValidDevice>,
    formats: BTreeMap<(String, String), Option<ValidFormat>>,
    existing: BTreeSet<(String, String)>,
    verdicts: Outcomes,
}

/// The second step: validates each object alone. Secrets are left to the Tenants that name them.
#[must_use]
pub fn validate(objects: &Objects) -> Valid {
    let mut valid = Valid::default();
    for tenant in &objects.tenants {
        valid.existing.insert(key(&tenant.meta));
        valid.tenants.extend(noted(
            &mut valid.verdicts,
            Kind::Tenant,
            tenant,
            validate::tenant::validate(tenant),
        ));
    }
    for device in &objects.devices {
        valid.devices.extend(noted(
            &mut valid.verdicts,
            Kind::Device,
            device,
            validate::device::validate(device),
        ));
    }
    for format in &objects.formats {
        let checked =
            noted(&mut valid.verdicts, Kind::PushFormat, format, validate::push_format::validate(format));
        valid.formats.insert(key(&format.meta), checked);
    }
    // From here on everything goes from the oldest to the youngest, however the objects came.
    valid.tenants.sort_by(|one, other| one.meta.age().cmp(&other.meta.age()));
    valid.devices.sort_by(|one, other| one.meta.age().cmp(&other.meta.age()));
    valid
}

/// The third step: puts them together.
#[must_use]
pub fn build(valid: Valid, objects: &Objects) -> Built {
    build_upon(&Built::default(), valid, objects)
}

/// The same. What comes out as it was `before` is shared with it: that changes nothing but the memory that it
/// takes.
#[must_use]
pub fn build_upon(before: &Built, valid: Valid, objects: &Objects) -> Built {
    let Valid { tenants, devices, formats, existing, mut verdicts } = valid;
    let secrets = objects.secrets.iter().map(|secret| (key(&secret.meta), &**secret)).collect();
    let mut tenants = claims::tenant_names(tenants, &mut verdicts);
    claims::source_subjects(&mut tenants, &mut verdicts);
    let devices = claims::devices(devices, &tenants, &existing, &mut verdicts);
    let iot_ids = devices
        .values()
        .flatten()
        .map(|claimed| (key(&claimed.device.meta), claimed.iot_id.clone()))
        .collect();
    let access = access::document(&tenants, &secrets, &mut verdicts);
    let tenants = tenants
        .into_iter()
        .map(|(name, tenant)| {
            let devices = devices.get(&name).map(Vec::as_slice).unwrap_or_default();
            let before =
                before.tenants.get(&name).map(|tenant| Before::of(&tenant.shards)).unwrap_or_default();
            let mapped = devices::map(&tenant, devices, &formats, &before, &mut verdicts);
            let shards = shards::documents(&tenant, &mapped, devices, &mut verdicts);
            let enrollment = enrollment::plan(&tenant, &formats, &mut verdicts);
            (name, BuiltTenant { streams: plan::tenant_streams(&tenant), shards, enrollment })
        })
        .collect();
    Built { tenants, existing, iot_ids, access, verdicts }
}

type Secrets<'a> = BTreeMap<(String, String), &'a Object<SecretData>>;
type Formats = BTreeMap<(String, String), Option<ValidFormat>>;

fn key(meta: &Meta) -> (String, String) {
    (meta.namespace.clone(), meta.name.clone())
}

/// Notes the verdict on one object and passes on what is usable of it.
fn noted<S, T>(
    verdicts: &mut Outcomes,
    kind: Kind,
    object: &Object<S>,
    validated: Validated<T>,
) -> Option<T> {
    let object = object.meta.object_ref(kind);
    verdicts.accept(&object);
    match validated {
        Ok(Checked { value, findings }) => {
            findings.into_iter().for_each(|finding| verdicts.degrade(&object, finding));
            Some(value)
        }
        Err(findings) => {
            findings.into_iter().for_each(|finding| verdicts.refuse(&object, finding));
            None
        }
    }
}
