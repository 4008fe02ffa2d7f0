//! The second step: checks each object alone, and turns it into a type that needs no further checks.
//!
//! There is one file per kind. An object that is usable in part comes with findings on the rest.

pub(crate) mod device;
pub(crate) mod enrollment;
pub(crate) mod push_format;
pub(crate) mod secret;
pub(crate) mod tenant;

use std::collections::{BTreeMap, BTreeSet};

use self::device::ValidDevice;
use self::push_format::CheckedFormat;
use self::tenant::ValidTenant;
use crate::finding::{Finding, Outcomes, Reason};
use crate::object::{Key, Kind, Object, Objects};

/// All objects that are usable, and the outcomes of all.
#[derive(Debug, Default)]
pub(crate) struct Valid {
    pub(super) tenants: Vec<ValidTenant>,
    pub(super) devices: Vec<ValidDevice>,
    pub(super) formats: BTreeMap<Key, CheckedFormat>,
    pub(super) existing: BTreeSet<Key>,
    pub(super) outcomes: Outcomes,
}

/// Validates all objects but Secrets, which the build step validates for the Tenants that name them.
pub(crate) fn validate(objects: &Objects) -> Valid {
    let mut valid = Valid::default();
    for tenant in &objects.tenants {
        valid.existing.insert(tenant.meta.key());
        let validated = tenant::validate(tenant);
        valid.tenants.extend(record_outcome(&mut valid.outcomes, Kind::Tenant, tenant, validated));
    }
    for device in &objects.devices {
        let validated = device::validate(device);
        valid.devices.extend(record_outcome(&mut valid.outcomes, Kind::Device, device, validated));
    }
    for format in &objects.formats {
        let document =
            record_outcome(&mut valid.outcomes, Kind::PushFormat, format, push_format::validate(format));
        let checked = CheckedFormat { meta: Some(format.meta.clone()), document };
        valid.formats.insert(format.meta.key(), checked);
    }
    for (kind, key) in &objects.unreadable {
        match kind {
            Kind::Tenant => drop(valid.existing.insert(key.clone())),
            Kind::PushFormat => drop(valid.formats.entry(key.clone()).or_default()),
            Kind::Device | Kind::Secret | Kind::File => {}
        }
    }
    // From here on the objects are sorted from the oldest to the youngest.
    valid.tenants.sort_by(|one, other| one.meta.age().cmp(&other.meta.age()));
    valid.devices.sort_by(|one, other| one.meta.age().cmp(&other.meta.age()));
    valid
}

/// Records the outcome of an object. Returns what is usable of it.
pub(super) fn record_outcome<S, T>(
    outcomes: &mut Outcomes,
    kind: Kind,
    object: &Object<S>,
    validated: Validated<T>,
) -> Option<T> {
    let object = object.meta.object_ref(kind);
    outcomes.accept(&object);
    match validated {
        Ok(Checked { value, findings }) => {
            findings.into_iter().for_each(|finding| outcomes.degrade(&object, finding));
            Some(value)
        }
        Err(findings) => {
            findings.into_iter().for_each(|finding| outcomes.refuse(&object, finding));
            None
        }
    }
}

/// A usable object, and the findings on what had to be left out of it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Checked<T> {
    pub(crate) value: T,
    pub(crate) findings: Vec<Finding>,
}

/// A validated object, or the findings for which none of it can be used.
pub(crate) type Validated<T> = Result<Checked<T>, Vec<Finding>>;

fn name<T>(field: &str, parsed: Result<T, flutecast_contract::name::InvalidName>) -> Result<T, Finding> {
    parsed.map_err(|error| Finding::new(Reason::InvalidName, field, error.to_string()))
}
