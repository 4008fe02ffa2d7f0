//! The enrollment of each tenant's devices.

use super::devices::format_of;
use super::{Built, Formats};
use crate::controller::validate::enrollment::ValidEnrollment;
use crate::controller::validate::tenant::ValidTenant;
use crate::enrollment::policy::{CreationPolicy, Enrollment};
use crate::finding::{Finding, Outcomes, Reason};
use crate::object::{Kind, ObjectRef};

/// Returns how the devices of a tenant enroll. A Device whose channels can't be formatted would be of no use,
/// so none is created until all formats of the template exist.
pub(super) fn plan(tenant: &ValidTenant, formats: &Formats, outcomes: &mut Outcomes) -> Enrollment {
    let creation = match &tenant.enrollment {
        ValidEnrollment::Declared => CreationPolicy::Refuse,
        ValidEnrollment::Broken => CreationPolicy::Blocked,
        ValidEnrollment::Automatic(template, channels) => {
            let object = tenant.meta.object_ref(Kind::Tenant);
            let missing: Vec<Finding> = channels
                .iter()
                .filter_map(|channel| {
                    format_of(&tenant.meta.namespace, channel, formats, "no Device is created until then")
                        .err()
                })
                .collect();
            let is_whole = missing.is_empty();
            missing.into_iter().for_each(|finding| outcomes.degrade(&object, finding));
            if is_whole { CreationPolicy::Create(template.clone()) } else { CreationPolicy::Blocked }
        }
    };
    Enrollment { creation, max_devices: tenant.max_devices }
}

/// Refuses to create Devices, because objects come from a folder: it belongs to its author, and may be a
/// checkout of a repository.
pub(crate) fn refuse_to_create(built: &mut Built) {
    for tenant in built.tenants.values_mut() {
        if tenant.enrollment.creation == CreationPolicy::Refuse {
            continue;
        }
        tenant.enrollment.creation = CreationPolicy::Blocked;
        let owner = &tenant.streams.owner;
        let message = "Automatic needs an API server, where Devices can be created; from a folder write \
            policy: Declared, and a Device for each code"
            .to_owned();
        built.outcomes.degrade(
            &ObjectRef::new(Kind::Tenant, &owner.namespace, &owner.name),
            Finding::new(Reason::EnrollmentUnavailable, "spec.enrollment.policy", message),
        );
    }
}
