//! The Device that is created for a code that nobody has.

use flutecast_contract::iot_id;
use flutecast_contract::name::{DeviceCode, TenantName};
use flutecast_crds::{Device, DeviceSpec};
use kube::api::ObjectMeta;

use crate::enrollment::policy::Template;

/// What tells the Devices that were created here from those that somebody declared.
pub const ENROLLED_LABEL: &str = "flutecast.io/enrolled";
/// How much of the code is in the name: with the iotId it makes a DNS label of 63 characters, as usable as a
/// label's value.
const LONGEST_SLUG: usize = 46;

/// The name of the Device: the code as far as a name can show it, and the iotId, which tells codes apart that
/// look the same then. The same code gives the same name for ever.
#[must_use]
pub fn name(tenant: &TenantName, code: &DeviceCode) -> String {
    let mut slug = String::new();
    for byte in code.as_str().bytes() {
        let is_plain = byte.is_ascii_alphanumeric();
        if is_plain || !slug.ends_with('-') {
            slug.push(if is_plain { byte.to_ascii_lowercase().into() } else { '-' });
        }
    }
    slug.truncate(LONGEST_SLUG);
    format!("{}-{}", slug.trim_matches('-'), iot_id::generate(tenant, code))
}

/// The Device.
#[must_use]
pub fn device(tenant: &TenantName, namespace: &str, code: &DeviceCode, template: &Template) -> Device {
    let mut labels = template.labels.clone();
    labels.insert(ENROLLED_LABEL.to_owned(), "true".to_owned());
    Device {
        metadata: ObjectMeta {
            name: Some(name(tenant, code)),
            namespace: Some(namespace.to_owned()),
            labels: Some(labels),
            ..ObjectMeta::default()
        },
        spec: DeviceSpec {
            tenant: tenant.to_string(),
            device_code: code.to_string(),
            iot_id: None,
            channels: template.channels.clone(),
        },
        status: None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn named(code: &str) -> String {
        name(&TenantName::new("demo").unwrap(), &DeviceCode::new(code).unwrap())
    }

    /// These never change: a device that enrols again must not get a second Device.
    #[test]
    fn known_names() {
        assert_eq!(named("CORR-01"), "corr-01-j5cwu2sqzq75eyms");
        assert!(named("A.b/c_:d--").starts_with("a-b-c-d-") && !named("A.b/c_:d--").contains("--"));
        assert_eq!(named(&"A".repeat(64)).len(), 63);
    }

    proptest! {
        #[test]
        fn names_are_dns_labels_and_never_meet(one in "[aA0][aA0._:/-]{0,63}", other in "[aA0][aA0._:/-]{0,9}") {
            let name = named(&one);
            // What a tenant's name may be, a DNS label, any object may be called.
            prop_assert!(TenantName::new(&name).is_ok(), "{}", name);
            prop_assert_eq!(name == named(&other), one == other);
        }
    }
}
