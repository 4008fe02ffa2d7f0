//! The ConfigMaps and the Secret as observed: plain state, without I/O.

use std::collections::BTreeMap;
use std::sync::Arc;

use flutecast_contract::document::ShardDocument;
use flutecast_contract::name::TenantName;
use flutecast_contract::object::{ACCESS_KEY, ACCESS_SECRET, MAPPING_KEY, parse_shard_name};
use flutecast_kube::{Change, Observed, WatchFault};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::super::document::{LastGoodAccess, Parsed, broken, parse_access, parse_shard, unreadable};
use super::super::publisher::MappingSnapshot;
use super::super::{Documents, Problem};
use super::PLACE;
use crate::access::Access;

#[derive(Debug, Default)]
pub(super) struct MappingObjects {
    /// By name. `None` until the first complete list.
    shards: Option<BTreeMap<String, Shard>>,
    access: Option<AccessObject>,
    last_good_access: LastGoodAccess,
    map_fault: Option<String>,
    secret_fault: Option<String>,
}

#[derive(Debug)]
struct Shard {
    tenant: TenantName,
    version: ObjectVersion,
    parsed: Parsed<ShardDocument>,
}

#[derive(Debug)]
enum AccessObject {
    Missing,
    Found(Parsed<Arc<Access>>),
}

/// The uid and the resource version, which change with the object.
#[derive(Debug, PartialEq, Eq)]
struct ObjectVersion(Option<String>, Option<String>);

impl ObjectVersion {
    fn of(metadata: &ObjectMeta) -> Self {
        Self(metadata.uid.clone(), metadata.resource_version.clone())
    }
}

impl MappingObjects {
    /// Returns whether the state changed.
    pub(super) fn observe_map(&mut self, observed: Observed<Change<ConfigMap>>) -> bool {
        match change_in(observed, &mut self.map_fault) {
            (Some(change), fault_changed) => self.change_maps(change) || fault_changed,
            (None, fault_changed) => fault_changed,
        }
    }

    fn change_maps(&mut self, change: Change<ConfigMap>) -> bool {
        match change {
            Change::All(maps) => {
                let mut changed = self.shards.is_none();
                let mut before = self.shards.take().unwrap_or_default();
                let mut shards = BTreeMap::new();
                for map in maps {
                    let Some(name) = map.metadata.name.clone() else { continue };
                    // Objects that did not change while the watch was broken are not parsed again.
                    let known = before
                        .remove(&name)
                        .filter(|known| known.version == ObjectVersion::of(&map.metadata));
                    changed |= known.is_none();
                    if let Some(shard) = known.or_else(|| Shard::read(&name, &map)) {
                        shards.insert(name, shard);
                    }
                }
                self.shards = Some(shards);
                changed || !before.is_empty()
            }
            Change::Applied(map) => {
                let Some(name) = map.metadata.name.clone() else { return false };
                let Some(shard) = Shard::read(&name, &map) else { return false };
                self.shards.get_or_insert_default().insert(name, shard);
                true
            }
            Change::Deleted(map) => {
                let name = map.metadata.name.as_ref();
                self.shards.as_mut().zip(name).is_some_and(|(shards, name)| shards.remove(name).is_some())
            }
        }
    }

    /// Returns whether the state may have changed.
    pub(super) fn observe_secret(&mut self, observed: Observed<Change<Secret>>) -> bool {
        let change = match change_in(observed, &mut self.secret_fault) {
            (Some(change), _) => change,
            (None, fault_changed) => return fault_changed,
        };
        let secret = match change {
            Change::All(secrets) => secrets.into_iter().find(is_access),
            Change::Applied(secret) if is_access(&secret) => Some(secret),
            Change::Deleted(secret) if is_access(&secret) => None,
            Change::Applied(_) | Change::Deleted(_) => return true,
        };
        self.access = Some(match secret {
            Some(secret) => {
                let parsed = read_access(&secret);
                self.last_good_access.found(&parsed);
                AccessObject::Found(parsed)
            }
            None => {
                self.last_good_access.gone();
                AccessObject::Missing
            }
        });
        true
    }

    /// Returns what was observed; the error says why not everything was listed yet.
    pub(super) fn snapshot(&self) -> Result<MappingSnapshot, String> {
        let faults = || self.map_fault.iter().chain(&self.secret_fault);
        let (Some(shards), Some(access)) = (&self.shards, &self.access) else {
            let mut reason = faults().map(String::as_str).collect::<Vec<_>>().join("; ");
            if reason.is_empty() {
                reason = "the mapping was not read from the Kubernetes API yet".to_owned();
            }
            return Err(reason);
        };
        let mut documents = Documents::default();
        let mut problems: Vec<Problem> = faults().map(|fault| unreadable(PLACE, fault)).collect();
        for shard in shards.values() {
            problems.extend(shard.parsed.problems.iter().cloned());
            match &shard.parsed.document {
                Some(document) => documents.documents.push(document.clone()),
                None => drop(documents.unreadable.insert(shard.tenant.clone())),
            }
        }
        if let AccessObject::Found(parsed) = access {
            problems.extend(parsed.problems.iter().cloned());
        }
        let access = self.last_good_access.current.clone();
        Ok(MappingSnapshot { documents, access, problems })
    }
}

impl Shard {
    /// `None` if the name is no shard's, whatever the label says.
    fn read(name: &str, map: &ConfigMap) -> Option<Self> {
        let (tenant, number) = parse_shard_name(name)?;
        let place = format!("ConfigMap {name}");
        let parsed = match map.data.as_ref().and_then(|data| data.get(MAPPING_KEY)) {
            Some(content) => parse_shard(&place, (&tenant, number), content),
            None => broken(&place, &format!("it has no {MAPPING_KEY}")),
        };
        Some(Self { tenant, version: ObjectVersion::of(&map.metadata), parsed })
    }
}

/// Returns the change, if there is one, and whether the fault of the watch changed.
fn change_in<C>(observed: Observed<C>, fault: &mut Option<String>) -> (Option<C>, bool) {
    match observed {
        Observed::Fault(WatchFault { text, .. }) => {
            let changed = fault.as_ref() != Some(&text);
            *fault = Some(text);
            (None, changed)
        }
        Observed::Recovered => (None, fault.take().is_some()),
        Observed::Change(change) => (Some(change), fault.take().is_some()),
    }
}

fn is_access(secret: &Secret) -> bool {
    secret.metadata.name.as_deref() == Some(ACCESS_SECRET)
}

fn read_access(secret: &Secret) -> Parsed<Arc<Access>> {
    let place = format!("Secret {ACCESS_SECRET}");
    match secret.data.as_ref().and_then(|data| data.get(ACCESS_KEY)) {
        Some(content) => match std::str::from_utf8(&content.0) {
            Ok(content) => parse_access(&place, content),
            Err(_) => broken(&place, &format!("its {ACCESS_KEY} is not UTF-8")),
        },
        None => broken(&place, &format!("it has no {ACCESS_KEY}")),
    }
}

#[cfg(test)]
mod tests;
