//! The generated id of a device, and which device has which.

use std::collections::BTreeMap;

use crate::name::{DeviceCode, IotId, TenantName};

/// The id of the device with this code: the first 80 bits of a SHA-256 over tenant and code, as 16 characters
/// of lower-case base32. The same code gives the same id for ever, so that deleting and re-applying a
/// manifest changes no topic.
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

/// A device that asks for its code and for an id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdClaim {
    /// The name of its object, for messages to others.
    pub object: String,
    /// Its code.
    pub code: DeviceCode,
    /// The id that it asks for; none: the generated one.
    pub pin: Option<IotId>,
}

/// Why a device gets no id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdConflict {
    /// An older device has the code.
    #[error("the device code {code} is taken by {holder}")]
    CodeTaken {
        /// The code.
        code: DeviceCode,
        /// The object that has it.
        holder: String,
    },
    /// An older device has the id.
    #[error("the iotId {iot_id} is taken by {holder}")]
    IdTaken {
        /// The id, pinned or generated.
        iot_id: IotId,
        /// The object that has it.
        holder: String,
    },
}

/// Gives each device of a tenant its id, or says who has what it asks for. `candidates` come from the oldest
/// to the youngest; whoever came first keeps code and id, whether the id is pinned or generated. A refused
/// device holds nothing: neither its code nor its id is lost to the devices after it.
#[must_use]
pub fn assign(tenant: &TenantName, candidates: &[IdClaim]) -> Vec<Result<IotId, IdConflict>> {
    let mut codes: BTreeMap<&DeviceCode, &str> = BTreeMap::new();
    let mut ids: BTreeMap<IotId, &str> = BTreeMap::new();
    let mut verdicts = Vec::with_capacity(candidates.len());
    for IdClaim { object, code, pin } in candidates {
        if let Some(holder) = codes.get(code) {
            verdicts.push(Err(IdConflict::CodeTaken { code: code.clone(), holder: (*holder).to_owned() }));
            continue;
        }
        let iot_id = pin.clone().unwrap_or_else(|| generate(tenant, code));
        if let Some(holder) = ids.get(&iot_id) {
            verdicts.push(Err(IdConflict::IdTaken { iot_id, holder: (*holder).to_owned() }));
            continue;
        }
        codes.insert(code, object);
        ids.insert(iot_id.clone(), object);
        verdicts.push(Ok(iot_id));
    }
    verdicts
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn tenant(name: &str) -> TenantName {
        TenantName::new(name).unwrap()
    }

    fn candidate(object: &str, code: &str, pin: Option<&str>) -> IdClaim {
        let pin = pin.map(|pin| IotId::new(pin).unwrap());
        IdClaim { object: object.into(), code: DeviceCode::new(code).unwrap(), pin }
    }

    /// These never change: devices in the field publish to them.
    #[test]
    fn known_ids() {
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
    fn whoever_came_first_keeps_it() {
        let generated = generate(&tenant("demo"), &DeviceCode::new("B").unwrap());
        let verdicts = assign(
            &tenant("demo"),
            &[
                candidate("device/a", "A", Some(generated.as_str())),
                candidate("device/b", "B", None),
                candidate("device/a2", "A", None),
                candidate("device/c", "C", Some(generated.as_str())),
                // The code B is still free, as its first candidate was refused.
                candidate("device/b2", "B", Some("mine")),
                candidate("device/b3", "B", None),
                candidate("device/d", "D", Some("mine")),
            ],
        );
        let told: Vec<String> = verdicts
            .into_iter()
            .map(|verdict| verdict.map_or_else(|refusal| refusal.to_string(), |id| id.to_string()))
            .collect();
        assert_eq!(
            told,
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
        fn nobody_shares_and_everybody_refused_names_a_holder(
            asked in prop::collection::vec((0..12_u8, prop::option::of(0..8_u8)), 0..40)
        ) {
            let tenant = tenant("demo");
            let candidates: Vec<IdClaim> = asked
                .iter()
                .enumerate()
                .map(|(at, (code, pin))| {
                    // Some pins are what others' codes generate.
                    let pin = pin.map(|pin| match pin {
                        0..4 => generate(&tenant, &DeviceCode::new(&format!("C{pin}")).unwrap()),
                        pin => IotId::new(&format!("pin{pin}")).unwrap(),
                    });
                    IdClaim { object: at.to_string(), code: DeviceCode::new(&format!("C{code}")).unwrap(), pin }
                })
                .collect();
            let verdicts = assign(&tenant, &candidates);
            prop_assert_eq!(verdicts.len(), candidates.len());
            let held: Vec<(&IdClaim, &IotId)> =
                candidates.iter().zip(&verdicts).filter_map(|(candidate, verdict)| Some((candidate, verdict.as_ref().ok()?))).collect();
            let codes: BTreeSet<_> = held.iter().map(|(candidate, _)| &candidate.code).collect();
            let ids: BTreeSet<_> = held.iter().map(|(_, id)| *id).collect();
            prop_assert_eq!((codes.len(), ids.len()), (held.len(), held.len()));
            for (at, verdict) in verdicts.iter().enumerate() {
                let asked_for = &candidates[at];
                let wanted = asked_for.pin.clone().unwrap_or_else(|| generate(&tenant, &asked_for.code));
                let holder = match verdict {
                    Ok(id) => {
                        prop_assert_eq!(id, &wanted);
                        continue;
                    }
                    Err(IdConflict::CodeTaken { holder, .. } | IdConflict::IdTaken { holder, .. }) => holder,
                };
                let holder: usize = holder.parse().unwrap();
                prop_assert!(holder < at);
                let has_code = candidates[holder].code == asked_for.code;
                let has_id = verdicts[holder] == Ok(wanted);
                let right = match verdict {
                    Err(IdConflict::CodeTaken { code, .. }) => has_code && *code == asked_for.code,
                    _ => has_id && !has_code,
                };
                prop_assert!(right);
            }
            // The youngest changes nothing for the others.
            if let Some((_, older)) = candidates.split_last() {
                prop_assert_eq!(&assign(&tenant, older), &verdicts[..older.len()]);
            }
        }
    }
}
