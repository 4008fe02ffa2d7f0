//! Claims: the name of a tenant, a subject, a device code or an iotId can belong to one object only, the
//! oldest.

use std::collections::{BTreeMap, BTreeSet};

use flutecast_contract::iot_id::{self, IdClaim, IdConflict};
use flutecast_contract::name::{IotId, TenantName};

use crate::controller::validate::device::ValidDevice;
use crate::controller::validate::tenant::ValidTenant;
use crate::finding::{Finding, Outcomes, Reason};
use crate::jetstream::subject_pattern::SubjectPattern;
use crate::object::{Kind, ObjectRef};

/// A device whose claims of its code and its iotId hold.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ClaimedDevice {
    pub(super) device: ValidDevice,
    pub(super) iot_id: IotId,
}

impl ClaimedDevice {
    pub(super) fn object_ref(&self) -> ObjectRef {
        self.device.meta.object_ref(Kind::Device)
    }
}

/// Gives each tenant name to its oldest Tenant: streams and addresses have no namespaces.
pub(super) fn tenant_names(
    tenants: Vec<ValidTenant>,
    outcomes: &mut Outcomes,
) -> BTreeMap<TenantName, ValidTenant> {
    let mut holders: BTreeMap<TenantName, ValidTenant> = BTreeMap::new();
    for tenant in tenants {
        if let Some(holder) = holders.get(&tenant.name) {
            let message = format!(
                "{:?} is taken by {} in namespace {}, which is older; tenants need different names also \
                 across namespaces",
                tenant.name.as_str(),
                holder.meta.object_ref(Kind::Tenant),
                holder.meta.namespace
            );
            let finding = Finding::new(Reason::TenantNameTaken, "metadata.name", message);
            outcomes.refuse(&tenant.meta.object_ref(Kind::Tenant), finding);
        } else {
            holders.insert(tenant.name.clone(), tenant);
        }
    }
    holders
}

/// Subjects that no source may capture: those of Flutecast, and those of NATS.
const RESERVED: [(&str, &str); 6] = [
    ("iot.>", "the messages of devices are stored from there"),
    ("live.>", "stored messages are republished there"),
    ("last.>", "last values are kept there"),
    ("flutecast.>", "the parts of Flutecast talk there"),
    ("$JS.>", "it belongs to JetStream"),
    ("_INBOX.>", "answers to requests arrive there"),
];

/// Removes the sources whose subject is claimed by another one: NATS refuses two streams for one subject.
pub(super) fn source_subjects(tenants: &mut BTreeMap<TenantName, ValidTenant>, outcomes: &mut Outcomes) {
    let mut oldest_first: Vec<&mut ValidTenant> = tenants.values_mut().collect();
    oldest_first.sort_by(|one, other| one.meta.age().cmp(&other.meta.age()));
    let mut claimed: Vec<(SubjectPattern, String)> = Vec::new();
    for tenant in oldest_first {
        let object = tenant.meta.object_ref(Kind::Tenant);
        tenant.sources.retain(|source| {
            let conflict = reserved(&source.subject).or_else(|| {
                claimed.iter().find(|(subject, _)| subject.overlaps(&source.subject)).map(
                    |(subject, holder)| {
                        format!("overlaps {:?}, which is claimed by {holder}", subject.to_string())
                    },
                )
            });
            match conflict {
                Some(conflict) => {
                    let message =
                        format!("{:?} {conflict}; capture something else", source.subject.to_string());
                    outcomes.degrade(
                        &object,
                        Finding::new(Reason::SourceConflict, format!("{}.subject", source.field), message),
                    );
                    false
                }
                None => {
                    claimed.push((source.subject.clone(), format!("source {} of {object}", source.name)));
                    true
                }
            }
        });
    }
}

fn reserved(subject: &SubjectPattern) -> Option<String> {
    RESERVED.iter().find_map(|(pattern, why)| {
        let overlaps = SubjectPattern::new(pattern).is_ok_and(|pattern| pattern.overlaps(subject));
        overlaps.then(|| format!("overlaps {pattern:?}, which is reserved: {why}"))
    })
}

/// Gives each device its tenant, its code and its iotId. `devices` are sorted from the oldest to the
/// youngest, and so are those that are returned.
pub(super) fn devices(
    devices: Vec<ValidDevice>,
    tenants: &BTreeMap<TenantName, ValidTenant>,
    existing: &BTreeSet<(String, String)>,
    outcomes: &mut Outcomes,
) -> BTreeMap<TenantName, Vec<ClaimedDevice>> {
    let mut by_tenant: BTreeMap<TenantName, Vec<ValidDevice>> = BTreeMap::new();
    for device in devices {
        match tenant_of(&device, tenants, existing) {
            Ok(tenant) => by_tenant.entry(tenant.name.clone()).or_default().push(device),
            Err(finding) => outcomes.refuse(&device.meta.object_ref(Kind::Device), finding),
        }
    }
    by_tenant
        .into_iter()
        .map(|(tenant, devices)| {
            let claimed = claim(&tenant, devices, outcomes);
            (tenant, claimed)
        })
        .collect()
}

/// Gives the devices of one tenant their codes and iotIds.
fn claim(tenant: &TenantName, devices: Vec<ValidDevice>, outcomes: &mut Outcomes) -> Vec<ClaimedDevice> {
    let candidates: Vec<IdClaim> = devices
        .iter()
        .map(|device| IdClaim {
            object: device.meta.object_ref(Kind::Device).to_string(),
            code: device.code.clone(),
            pin: device.pin.clone(),
        })
        .collect();
    let mut claimed = Vec::with_capacity(devices.len());
    for (device, assigned) in devices.into_iter().zip(iot_id::assign(tenant, &candidates)) {
        match assigned {
            Ok(iot_id) => claimed.push(ClaimedDevice { device, iot_id }),
            Err(refusal) => outcomes.refuse(&device.meta.object_ref(Kind::Device), refused(refusal, &device)),
        }
    }
    claimed
}

fn refused(refusal: IdConflict, device: &ValidDevice) -> Finding {
    match refusal {
        IdConflict::CodeTaken { code, holder } => {
            let message = format!(
                "{:?} is taken by {holder}, which is older; give this device another code",
                code.as_str()
            );
            Finding::new(Reason::DuplicateDeviceCode, "spec.deviceCode", message)
        }
        IdConflict::IdTaken { iot_id, holder } => {
            let remedy = match &device.pin {
                Some(_) => "pin another one, or none",
                None => "it was generated from the code; pin another one for this device",
            };
            let message = format!("{:?} is taken by {holder}, which is older; {remedy}", iot_id.as_str());
            Finding::new(Reason::IotIdTaken, "spec.iotId", message)
        }
    }
}

fn tenant_of<'a>(
    device: &ValidDevice,
    tenants: &'a BTreeMap<TenantName, ValidTenant>,
    existing: &BTreeSet<(String, String)>,
) -> Result<&'a ValidTenant, Finding> {
    let namespace = &device.meta.namespace;
    let finding = |reason, message| Finding::new(reason, "spec.tenant", message);
    match tenants.get(device.tenant.as_str()) {
        Some(tenant) if tenant.meta.namespace == *namespace => Ok(tenant),
        _ if existing.contains(&(namespace.clone(), device.tenant.clone())) => Err(finding(
            Reason::TenantRefused,
            format!(
                "{} is refused itself; see its verdict",
                ObjectRef::new(Kind::Tenant, namespace, &device.tenant)
            ),
        )),
        _ => Err(finding(
            Reason::TenantMissing,
            format!(
                "there is no Tenant {:?} in namespace {namespace}; a device belongs to a Tenant of its own \
                 namespace",
                device.tenant
            ),
        )),
    }
}
