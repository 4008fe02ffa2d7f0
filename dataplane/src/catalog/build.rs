//! From mapping documents to a [`Catalog`]: pure, without I/O.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use flutecast_contract::document::{
    API_VERSION, DeviceDocument, FormatDocument, ShardDocument, TenantSettings,
};
use flutecast_contract::name::{DeviceCode, FormatName, IotId, TenantName};
use flutecast_format::program::Program;
use prometheus_client::encoding::EncodeLabelValue;

use super::{Catalog, Channel, Device, TenantCatalog};

#[derive(Debug, Default)]
pub(crate) struct Documents {
    pub(crate) documents: Vec<ShardDocument>,
    /// The tenants with a document that can't be read: they are broken, not removed.
    pub(crate) unreadable: BTreeSet<TenantName>,
}

/// A part of the mapping that can't be served; all other parts are.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    pub kind: ProblemKind,
    /// A file, a tenant, a format or a device, in words.
    pub place: String,
    /// The problem, and what would be valid.
    pub message: String,
}

/// Used as a metric label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelValue)]
pub enum ProblemKind {
    /// A document can't be read or parsed.
    Unreadable,
    /// A tenant's shards are no complete set.
    IncompleteShards,
    /// A format doesn't compile.
    BadFormat,
    /// Two devices of a tenant have the same code or iotId.
    DuplicateDevice,
    /// A part of the access document is invalid and grants nothing.
    BadAccess,
}

impl ProblemKind {
    pub const ALL: [Self; 5] =
        [Self::Unreadable, Self::IncompleteShards, Self::BadFormat, Self::DuplicateDevice, Self::BadAccess];
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

/// A format and the program that it compiled to, kept so that an unchanged format keeps its program.
#[derive(Debug, Clone)]
pub(super) struct CompiledFormat {
    document: FormatDocument,
    program: Arc<Program>,
}

impl Catalog {
    /// Returns whether both share all tenants.
    pub(crate) fn same(&self, other: &Self) -> bool {
        is_shared(&self.tenants, &other.tenants)
    }

    /// Builds the catalog of these documents. It shares what did not change with `previous`.
    ///
    /// A format that doesn't compile removes its channels only. A tenant without a complete set of shards
    /// stays as in `previous`. A tenant without documents is removed.
    pub fn build(documents: Vec<ShardDocument>, previous: Option<&Self>) -> (Self, Vec<Problem>) {
        Self::build_from(Documents { documents, unreadable: BTreeSet::new() }, previous)
    }

    /// As [`Catalog::build`]; a tenant with an unreadable document stays as in `previous`.
    pub(crate) fn build_from(documents: Documents, previous: Option<&Self>) -> (Self, Vec<Problem>) {
        let Documents { documents, unreadable } = documents;
        let mut problems = Vec::new();
        let mut by_tenant: BTreeMap<TenantName, Vec<ShardDocument>> = BTreeMap::new();
        for tenant in unreadable {
            by_tenant.entry(tenant).or_default();
        }
        for document in documents {
            by_tenant.entry(document.tenant.clone()).or_default().push(document);
        }
        let mut tenants = HashMap::with_capacity(by_tenant.len());
        for (name, shards) in by_tenant {
            let before = previous.and_then(|catalog| catalog.tenants.get(&name));
            let tenant = match complete_set(&name, shards) {
                Ok((settings, shards)) => Some(build_tenant(&name, settings, shards, before, &mut problems)),
                Err(problem) => {
                    problems.extend(problem);
                    before.cloned()
                }
            };
            tenants.extend(tenant.map(|tenant| (name, tenant)));
        }
        problems.sort();
        problems.dedup();
        (Self { tenants }, problems)
    }
}

/// Returns whether two maps hold the same `Arc`s.
fn is_shared<K: Eq + Hash, V>(a: &HashMap<K, Arc<V>>, b: &HashMap<K, Arc<V>>) -> bool {
    let is_shared = |(key, value)| b.get(key).is_some_and(|other| Arc::ptr_eq(other, value));
    a.len() == b.len() && a.iter().all(is_shared)
}

/// Returns the shards 0 to `shards - 1` of a tenant. While the operator changes the number of shards,
/// documents of both numbers may exist; the complete set is used. The error is `None` if the problem was
/// reported when a document was read.
fn complete_set(
    tenant: &TenantName,
    found: Vec<ShardDocument>,
) -> Result<(TenantSettings, Vec<ShardDocument>), Option<Problem>> {
    if found.is_empty() {
        // There is an unreadable document, which was reported when it was read.
        return Err(None);
    }
    let problem = |message: String| {
        Err(Some(Problem { kind: ProblemKind::IncompleteShards, place: format!("tenant {tenant}"), message }))
    };
    if let Some(unknown) = found.iter().find(|shard| shard.api_version != API_VERSION) {
        let message =
            format!("apiVersion {:?} is not known; this version reads {API_VERSION}", unknown.api_version);
        return problem(message);
    }
    let counts: BTreeSet<u32> = found.iter().map(|shard| shard.shards).collect();
    for &count in &counts {
        let mut set: Vec<&ShardDocument> = found.iter().filter(|shard| shard.shards == count).collect();
        set.sort_by_key(|shard| shard.shard);
        let complete = set.len() == count as usize && set.iter().zip(0..).all(|(shard, n)| shard.shard == n);
        if let (true, Some(settings)) = (complete, set.first().and_then(|first| first.settings.clone())) {
            return Ok((settings, set.into_iter().cloned().collect()));
        }
    }
    let mut have: Vec<String> = found.iter().map(|s| format!("{} of {}", s.shard, s.shards)).collect();
    have.sort();
    let have = have.join(", ");
    problem(format!(
        "shards {have} are no complete set with settings in shard 0; its last good state is kept"
    ))
}

fn build_tenant(
    name: &TenantName,
    settings: TenantSettings,
    shards: Vec<ShardDocument>,
    before: Option<&Arc<TenantCatalog>>,
    problems: &mut Vec<Problem>,
) -> Arc<TenantCatalog> {
    let mut builder = TenantBuilder { name, before, formats: HashMap::new(), problems };
    let mut revisions = Vec::with_capacity(shards.len());
    let mut devices: HashMap<IotId, Arc<Device>> = HashMap::new();
    let mut by_code: HashMap<DeviceCode, Arc<Device>> = HashMap::new();
    for shard in shards {
        revisions.push(shard.revision);
        let programs = builder.compile_all(shard.formats);
        for (iot_id, document) in shard.devices {
            let device = builder.device(iot_id, Arc::unwrap_or_clone(document), &programs);
            if devices.contains_key(&device.iot_id) || by_code.contains_key(&device.code) {
                let Device { iot_id, code, .. } = &*device;
                builder.problems.push(Problem {
                    kind: ProblemKind::DuplicateDevice,
                    place: format!("tenant {name}, device {code}"),
                    message: format!(
                        "its code or its iotId {iot_id} is there twice; the first one is served"
                    ),
                });
                continue;
            }
            devices.insert(device.iot_id.clone(), Arc::clone(&device));
            by_code.insert(device.code.clone(), device);
        }
    }
    let formats = builder.formats;
    if let Some(before) = before {
        let is_same = settings == before.settings && revisions == before.revisions;
        if is_same && is_shared(&devices, &before.devices) {
            return Arc::clone(before);
        }
    }
    Arc::new(TenantCatalog { name: name.clone(), settings, devices, by_code, revisions, formats })
}

struct TenantBuilder<'a> {
    name: &'a TenantName,
    before: Option<&'a Arc<TenantCatalog>>,
    formats: HashMap<FormatName, Vec<CompiledFormat>>,
    problems: &'a mut Vec<Problem>,
}

impl TenantBuilder<'_> {
    fn compile_all(
        &mut self,
        formats: BTreeMap<FormatName, FormatDocument>,
    ) -> HashMap<FormatName, Option<Arc<Program>>> {
        let compile = |(name, document)| {
            let program = self.compile(&name, document);
            (name, program)
        };
        formats.into_iter().map(compile).collect()
    }

    /// Returns the program of a format, that of another shard or of the previous catalog if the format is
    /// equal. `None` if it doesn't compile.
    fn compile(&mut self, name: &FormatName, document: FormatDocument) -> Option<Arc<Program>> {
        let find = |compiled: &HashMap<FormatName, Vec<CompiledFormat>>| {
            compiled.get(name).and_then(|all| all.iter().find(|one| one.document == document).cloned())
        };
        if let Some(compiled) = find(&self.formats) {
            return Some(compiled.program);
        }
        let compiled = match self.before.and_then(|before| find(&before.formats)) {
            Some(compiled) => compiled,
            None => match Program::compile(&document) {
                Ok(program) => CompiledFormat { document, program: Arc::new(program) },
                Err(errors) => {
                    for error in errors {
                        self.problems.push(Problem {
                            kind: ProblemKind::BadFormat,
                            place: format!("tenant {}, format {name}", self.name),
                            message: error.to_string(),
                        });
                    }
                    return None;
                }
            },
        };
        let program = Arc::clone(&compiled.program);
        self.formats.entry(name.clone()).or_default().push(compiled);
        Some(program)
    }

    fn device(
        &mut self,
        iot_id: IotId,
        document: DeviceDocument,
        programs: &HashMap<FormatName, Option<Arc<Program>>>,
    ) -> Arc<Device> {
        let DeviceDocument {
            code,
            name,
            labels,
            #[cfg(feature = "next-version")]
            location,
            channels: documents,
        } = document;
        let mut channels = BTreeMap::new();
        for (channel, document) in &*documents {
            match programs.get(&document.format) {
                Some(Some(program)) => {
                    let stale_after = document.stale_after_ms.map(Duration::from_millis);
                    let (name, program) = (channel.clone(), Arc::clone(program));
                    channels.insert(channel.clone(), Channel { name, program, stale_after });
                }
                // It doesn't compile, which was reported for the format.
                Some(None) => {}
                None => self.problems.push(Problem {
                    kind: ProblemKind::BadFormat,
                    place: format!("tenant {}, device {code}, channel {channel}", self.name),
                    message: format!("its format {} is not in the document", document.format),
                }),
            }
        }
        let device = Device {
            iot_id,
            code,
            name,
            labels,
            #[cfg(feature = "next-version")]
            location,
            channels,
        };
        match self.before.and_then(|before| before.devices.get(&device.iot_id)) {
            Some(before) if before.same(&device) => Arc::clone(before),
            _ => Arc::new(device),
        }
    }
}
