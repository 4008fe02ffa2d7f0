//! The Device that is created for a new code.

use std::collections::BTreeMap;

use flutecast_contract::iot_id;
use flutecast_contract::name::{DeviceCode, TenantName};
use flutecast_contract::object::IGNORE_UPDATES;
use flutecast_crds::{Device, DeviceSpec};
use kube::api::ObjectMeta;

use super::policy::Template;

/// The label of Devices that were created by enrollment.
const ENROLLED_LABEL: &str = "flutecast.io/enrolled";
/// With the iotId this makes a name of at most 63 characters, which is also valid as the value of a label.
const MAX_SLUG_LENGTH: usize = 46;

/// Returns the name of the Device: the code with the characters that a name can have, and the iotId, which
/// distinguishes codes with the same characters. A code always has the same name.
fn name(tenant: &TenantName, code: &DeviceCode) -> String {
    let mut slug = String::new();
    for byte in code.as_str().bytes() {
        let is_plain = byte.is_ascii_alphanumeric();
        if is_plain || !slug.ends_with('-') {
            slug.push(if is_plain { byte.to_ascii_lowercase().into() } else { '-' });
        }
    }
    slug.truncate(MAX_SLUG_LENGTH);
    format!("{}-{}", slug.trim_matches('-'), iot_id::generate(tenant, code))
}

pub(super) fn device(tenant: &TenantName, namespace: &str, code: &DeviceCode, template: &Template) -> Device {
    let mut labels = template.labels.clone();
    labels.insert(ENROLLED_LABEL.to_owned(), "true".to_owned());
    Device {
        metadata: ObjectMeta {
            name: Some(name(tenant, code)),
            namespace: Some(namespace.to_owned()),
            labels: Some(labels),
            annotations: Some(BTreeMap::from([(IGNORE_UPDATES.0.to_owned(), IGNORE_UPDATES.1.to_owned())])),
            ..ObjectMeta::default()
        },
        spec: DeviceSpec {
            tenant: tenant.to_string(),
            device_code: code.to_string(),
            iot_id: None,
            #[cfg(feature = "next-version")]
            location: None,
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

    /// A device that enrolls again must not get a second Device.
    #[test]
    fn names_never_change() {
        assert_eq!(named("CORR-01"), "corr-01-j5cwu2sqzq75eyms");
        assert!(named("A.b/c_:d--").starts_with("a-b-c-d-") && !named("A.b/c_:d--").contains("--"));
        assert_eq!(named(&"A".repeat(64)).len(), 63);
    }

    proptest! {
        #[test]
        fn names_are_dns_labels_and_unique(one in "[aA0][aA0._:/-]{0,63}", other in "[aA0][aA0._:/-]{0,9}") {
            let name = named(&one);
            // A tenant's name is a DNS label.
            prop_assert!(TenantName::new(&name).is_ok(), "{}", name);
            prop_assert_eq!(name == named(&other), one == other);
        }
    }
}
