//! Generates the ids of devices and assigns them.

use std::collections::BTreeMap;

use crate::name::{DeviceCode, IotId, TenantName};

/// Returns the generated id of a device: the first 80 bits of a SHA-256 over tenant and code, as 16
/// characters of lower-case base32. It never changes, so that deleting and re-applying a manifest changes no
/// topic.
#[must_use]
pub fn generate(tenant: &TenantName, code: &DeviceCode) -> IotId {
    use sha2::{Digest, Sha256};
    let mut hasher = Sha256::new();
    hasher.update(b"flutecast/iotId/v1\0");
    hasher.update(tenant.as_str());
    hasher.update(b"\0");
    hasher.update(code.as_str());
    let digest = hasher.finalize();
    let text = data_encoding::BASE32_NOPAD.encode(&digest[..10]).to_ascii_lowercase();
    // Sixteen characters of a-z and 2-7 are always a valid id.
    IotId::new(&text).unwrap_or_else(|_| unreachable!("base32 is a valid iotId"))
}

/// A device's claim to its code and to an id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdClaim {
    /// The reference of the Device object (`Device/corrugator-1`), for messages about conflicts.
    pub object: String,
    /// The claimed code.
    pub code: DeviceCode,
    /// The claimed id; `None` for the generated one.
    pub pin: Option<IotId>,
}

/// Why a claim is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdConflict {
    /// An older device has the code.
    #[error("the device code {code} is taken by {holder}")]
    CodeTaken {
        /// The claimed code.
        code: DeviceCode,
        /// The object that has the code.
        holder: String,
    },
    /// An older device has the id.
    #[error("the iotId {iot_id} is taken by {holder}")]
    IdTaken {
        /// The claimed id, pinned or generated.
        iot_id: IotId,
        /// The object that has the id.
        holder: String,
    },
}

/// Assigns ids to the devices of a tenant. Returns one result for each claim, in the same order.
///
/// `claims` are ordered from the oldest to the youngest device: the oldest keeps code and id, whether the id
/// is pinned or generated. A refused device holds neither, so that both stay free for the devices after it.
#[must_use]
pub fn assign(tenant: &TenantName, claims: &[IdClaim]) -> Vec<Result<IotId, IdConflict>> {
    let mut codes: BTreeMap<&DeviceCode, &str> = BTreeMap::new();
    let mut ids: BTreeMap<IotId, &str> = BTreeMap::new();
    let mut results = Vec::with_capacity(claims.len());
    for IdClaim { object, code, pin } in claims {
        if let Some(holder) = codes.get(code) {
            results.push(Err(IdConflict::CodeTaken { code: code.clone(), holder: (*holder).to_owned() }));
            continue;
        }
        let iot_id = pin.clone().unwrap_or_else(|| generate(tenant, code));
        if let Some(holder) = ids.get(&iot_id) {
            results.push(Err(IdConflict::IdTaken { iot_id, holder: (*holder).to_owned() }));
            continue;
        }
        codes.insert(code, object);
        ids.insert(iot_id.clone(), object);
        results.push(Ok(iot_id));
    }
    results
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn tenant(name: &str) -> TenantName {
        TenantName::new(name).unwrap()
    }

    fn claim(object: &str, code: &str, pin: Option<&str>) -> IdClaim {
        let pin = pin.map(|pin| IotId::new(pin).unwrap());
        IdClaim { object: object.into(), code: DeviceCode::new(code).unwrap(), pin }
    }

    /// Devices in the field publish to these ids.
    #[test]
    fn generated_ids_never_change() {
        for (name, code, expected) in [
            ("demo", "CORR-01", "j5cwu2sqzq75eyms"),
            ("demo", "CORR-02", "bxy2mdfaieacxxut"),
            ("acme", "CORR-01", "vy45nrfhjmgcxwb7"),
        ] {
            let id = generate(&tenant(name), &DeviceCode::new(code).unwrap());
            assert_eq!(id.as_str(), expected, "{name} {code}");
        }
    }

    #[test]
    fn the_oldest_claim_keeps_code_and_id() {
        let generated = generate(&tenant("demo"), &DeviceCode::new("B").unwrap());
        let results = assign(
            &tenant("demo"),
            &[
                claim("device/a", "A", Some(generated.as_str())),
                claim("device/b", "B", None),
                claim("device/a2", "A", None),
                claim("device/c", "C", Some(generated.as_str())),
                // The code B is still free, as its first claim was refused.
                claim("device/b2", "B", Some("mine")),
                claim("device/b3", "B", None),
                claim("device/d", "D", Some("mine")),
            ],
        );
        let actual: Vec<String> = results
            .into_iter()
            .map(|result| result.map_or_else(|conflict| conflict.to_string(), |id| id.to_string()))
            .collect();
        assert_eq!(
            actual,
            [
                generated.to_string(),
                format!("the iotId {generated} is taken by device/a"),
                "the device code A is taken by device/a".into(),
                format!("the iotId {generated} is taken by device/a"),
                "mine".into(),
                "the device code B is taken by device/b2".into(),
                "the iotId mine is taken by device/b2".into(),
            ]
        );
    }

    proptest! {
        #[test]
        fn no_two_devices_share_an_id_and_each_conflict_names_its_holder(
            asked in prop::collection::vec((0..12_u8, prop::option::of(0..8_u8)), 0..40)
        ) {
            let tenant = tenant("demo");
            let claims: Vec<IdClaim> = asked
                .iter()
                .enumerate()
                .map(|(at, (code, pin))| {
                    // Some pins equal the generated ids of other codes.
                    let pin = pin.map(|pin| match pin {
                        0..4 => generate(&tenant, &DeviceCode::new(&format!("C{pin}")).unwrap()),
                        pin => IotId::new(&format!("pin{pin}")).unwrap(),
                    });
                    let code = DeviceCode::new(&format!("C{code}")).unwrap();
                    IdClaim { object: at.to_string(), code, pin }
                })
                .collect();
            let results = assign(&tenant, &claims);
            prop_assert_eq!(results.len(), claims.len());
            let pairs = claims.iter().zip(&results);
            let held: Vec<(&IdClaim, &IotId)> =
                pairs.filter_map(|(claim, result)| Some((claim, result.as_ref().ok()?))).collect();
            let codes: BTreeSet<_> = held.iter().map(|(claim, _)| &claim.code).collect();
            let ids: BTreeSet<_> = held.iter().map(|(_, id)| *id).collect();
            prop_assert_eq!((codes.len(), ids.len()), (held.len(), held.len()));
            for (at, result) in results.iter().enumerate() {
                let claim = &claims[at];
                let wanted = claim.pin.clone().unwrap_or_else(|| generate(&tenant, &claim.code));
                let holder = match result {
                    Ok(id) => {
                        prop_assert_eq!(id, &wanted);
                        continue;
                    }
                    Err(IdConflict::CodeTaken { holder, .. } | IdConflict::IdTaken { holder, .. }) => holder,
                };
                let holder: usize = holder.parse().unwrap();
                prop_assert!(holder < at);
                let has_code = claims[holder].code == claim.code;
                let has_id = results[holder] == Ok(wanted);
                let right = match result {
                    Err(IdConflict::CodeTaken { code, .. }) => has_code && *code == claim.code,
                    _ => has_id && !has_code,
                };
                prop_assert!(right);
            }
            // The youngest claim changes nothing for the others.
            if let Some((_, older)) = claims.split_last() {
                prop_assert_eq!(&assign(&tenant, older), &results[..older.len()]);
            }
        }
    }
}
