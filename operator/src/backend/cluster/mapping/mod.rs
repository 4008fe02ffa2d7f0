//! The mapping as ConfigMaps, and the access document as a Secret, in the operator's own namespace.
//!
//! Documents are written by server-side apply, and only those that differ from what the API server holds. A
//! document that somebody else changed or deleted is repaired, since the watch reports it; each time later if
//! it is changed again and again. ConfigMaps of tenants that are gone are deleted.

mod metrics;
mod objects;
mod observed;
mod repairs;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use flutecast_contract::document::{AccessDocument, ShardDocument};
use flutecast_contract::object::ACCESS_SECRET;
use flutecast_kube::Right;
use flutecast_kube::fault::{brief, is_refusal};
use futures_util::{StreamExt, stream};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client};
use tokio::time::Instant;

pub(crate) use self::metrics::MappingMetrics;
use self::metrics::RepairedKind;
pub(crate) use self::objects::SHARD_SELECTOR;
use self::objects::{
    Fingerprint, fingerprint_of_map, fingerprint_of_secret, fingerprint_of_shard, fingerprint_of_text,
};
use self::observed::ObservedDocuments;
use self::repairs::{Repair, Repairs};
use crate::api_server::{ApiWrite, MANAGER};
use crate::controller::apply::documents::MappingDocuments;
use crate::controller::backend::WrittenMapping;
use crate::controller::status::write_failures::WriteFailure;
use crate::metrics::CallResult;
use crate::watch::Event;

/// In the operator's own namespace.
pub(crate) const RIGHTS: &[Right] = &[
    Right::new("", &["configmaps"], &["list", "watch", "create", "patch", "delete"]),
    Right::new("", &["secrets"], &["list", "watch", "create", "patch"]).named(&[ACCESS_SECRET]),
];

const CONCURRENT_WRITES: usize = 8;
const DEADLINE: Duration = Duration::from_secs(10);

/// The documents that the API server holds, and how they are changed.
pub(crate) struct MappingWriter {
    client: Client,
    namespace: String,
    metrics: MappingMetrics,
    shards: ObservedDocuments,
    /// The texts of the shards without their devices, by name. Formats are read from them only at the start
    /// of a term.
    heads: BTreeMap<String, Box<str>>,
    access: ObservedDocuments,
    /// The fingerprints of the documents that were compared last, by name, with the revision that they are
    /// of.
    fingerprints: BTreeMap<String, (String, Fingerprint)>,
    /// The fingerprints of what was written last, or was there as wanted. If that is still wanted and the API
    /// server holds something else, somebody else changed it.
    written: BTreeMap<String, Fingerprint>,
    repairs: Repairs,
}

enum Write<'a> {
    Shard(&'a ShardDocument),
    Access(&'a AccessDocument),
    DeleteShard(String),
}

enum Written {
    Shard(Box<ConfigMap>),
    Access(Box<Secret>),
    Deleted,
}

impl MappingWriter {
    pub(crate) fn new(client: Client, namespace: String, metrics: MappingMetrics) -> Self {
        Self {
            client,
            namespace,
            metrics,
            shards: ObservedDocuments::default(),
            heads: BTreeMap::new(),
            access: ObservedDocuments::default(),
            fingerprints: BTreeMap::new(),
            written: BTreeMap::new(),
            repairs: Repairs::default(),
        }
    }

    /// Returns whether all objects were listed in this term or a later one; in term 0, at least once.
    pub(crate) fn is_complete(&self, term: u64) -> bool {
        self.shards.is_complete(term) && self.access.is_complete(term)
    }

    /// Returns what identifies this installation: the uid of its access Secret; `None` until that exists.
    pub(crate) fn installation_id(&self) -> Option<String> {
        self.access.uid(ACCESS_SECRET)
    }

    /// Returns whether the API server holds a document as it was written last.
    pub(crate) fn holds(&self, document: &ShardDocument) -> bool {
        let name = objects::name(document);
        let known = self.fingerprints.get(&name).filter(|(revision, _)| *revision == document.revision);
        known.is_some_and(|(_, fingerprint)| self.shards.fingerprint(&name) == Some(*fingerprint))
    }

    fn set_head(&mut self, map: &ConfigMap) {
        let name = map.metadata.name.clone().unwrap_or_default();
        self.heads.insert(name, objects::text_without_devices(map).unwrap_or_default().into());
    }

    /// Returns the documents that the API server holds, without their devices.
    pub(crate) fn shards_without_devices(&self) -> impl Iterator<Item = ShardDocument> {
        let held = self.shards.names().filter_map(|name| self.heads.get(name));
        held.filter_map(|head| ShardDocument::from_yaml(head).ok())
    }

    /// Returns when the next document is repaired that somebody else changes again and again.
    pub(crate) fn next_repair(&self) -> Option<Instant> {
        self.repairs.next()
    }

    /// Drops the repairs that wait, because another operator works now.
    pub(crate) fn stop(&mut self) {
        self.repairs = Repairs::default();
        self.written.clear();
        self.metrics.set_repairs_waiting(0);
    }

    /// Applies an event of a ConfigMap. Returns whether anything changed.
    pub(crate) fn apply_shard(&mut self, event: Event<ConfigMap>) -> bool {
        if let Event::Apply(map) = &event
            && self.shards.is_newer(&map.metadata)
        {
            self.set_head(map);
        }
        self.shards.apply(event, fingerprint_of_map)
    }

    /// Applies an event of the access Secret. Returns whether anything changed.
    pub(crate) fn apply_access(&mut self, event: Event<Secret>) -> bool {
        self.access.apply(event, fingerprint_of_secret)
    }

    /// Writes the documents that differ. Without `with_access` the access document stays as it is.
    pub(crate) async fn write(&mut self, wanted: &MappingDocuments, with_access: bool) -> WrittenMapping {
        let mut outcome = WrittenMapping::default();
        // Access that was withdrawn must be withdrawn before there is anything new to read.
        if with_access && self.access_differs(&wanted.access) {
            let (write, result) = self.write_one(Write::Access(&wanted.access)).await;
            self.record(&write, result, wanted, &mut outcome);
        }
        let differing = wanted.all_shards().filter(|document| self.differs(document));
        let writes: Vec<_> = differing.map(|document| Write::Shard(document)).collect();
        self.write_all(writes, wanted, &mut outcome).await;
        let names: BTreeSet<String> = wanted.all_shards().map(|shard| objects::name(shard)).collect();
        let unwanted = self.shards.names().filter(|name| !names.contains(*name)).map(str::to_owned);
        let deletes: Vec<_> = unwanted.map(Write::DeleteShard).collect();
        self.write_all(deletes, wanted, &mut outcome).await;
        let is_wanted = |name: &str| name == ACCESS_SECRET || names.contains(name);
        self.fingerprints.retain(|name, _| is_wanted(name));
        self.written.retain(|name, _| is_wanted(name));
        self.heads.retain(|name, _| is_wanted(name));
        self.repairs.retain(is_wanted);
        self.metrics.set_repairs_waiting(self.repairs.len());
        outcome
    }

    async fn write_all(
        &mut self,
        writes: Vec<Write<'_>>,
        wanted: &MappingDocuments,
        outcome: &mut WrittenMapping,
    ) {
        let this = &*self;
        let requests: Vec<_> = writes.into_iter().map(|write| this.write_one(write)).collect();
        let results: Vec<_> = stream::iter(requests).buffer_unordered(CONCURRENT_WRITES).collect().await;
        for (write, result) in results {
            self.record(&write, result, wanted, outcome);
        }
    }

    fn access_differs(&mut self, document: &AccessDocument) -> bool {
        // It is small, so its text is made each time.
        let text = document.to_yaml().ok();
        let Some(wanted) = text.map(|text| fingerprint_of_text(&text)) else { return true };
        self.fingerprints.insert(ACCESS_SECRET.to_owned(), (String::new(), wanted));
        let (held, editor) = (self.access.fingerprint(ACCESS_SECRET), self.access.editor(ACCESS_SECRET));
        is_due(&mut self.repairs, &mut self.written, ACCESS_SECRET, wanted, held, editor)
    }

    fn differs(&mut self, document: &ShardDocument) -> bool {
        let name = objects::name(document);
        let known = self.fingerprints.get(&name).filter(|(revision, _)| *revision == document.revision);
        let known = known.map(|(_, fingerprint)| *fingerprint);
        let Some(wanted) = known.or_else(|| fingerprint_of_shard(document)) else { return true };
        self.fingerprints.insert(name.clone(), (document.revision.clone(), wanted));
        let (held, editor) = (self.shards.fingerprint(&name), self.shards.editor(&name));
        is_due(&mut self.repairs, &mut self.written, &name, wanted, held, editor)
    }

    /// Records that a document was written: a new one, or one that somebody else had changed.
    fn record_written(&mut self, name: &str, kind: RepairedKind) {
        let Some((_, wanted)) = self.fingerprints.get(name) else { return };
        if self.written.insert(name.to_owned(), *wanted) == Some(*wanted) {
            tracing::info!(name, "somebody else had changed or deleted it; it is put right");
            self.metrics.count_repair(kind);
            self.repairs.record(name, Instant::now());
        } else {
            self.repairs.cancel(name);
        }
    }

    async fn write_one<'a>(&self, write: Write<'a>) -> (Write<'a>, Result<Written, WriteFailure>) {
        let result = tokio::time::timeout(DEADLINE, self.try_write(&write)).await;
        let late = |_| Err(WriteFailure::Away(format!("no answer within {DEADLINE:?}")));
        (write, result.unwrap_or_else(late))
    }

    async fn try_write(&self, write: &Write<'_>) -> Result<Written, WriteFailure> {
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.namespace);
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let parameters = PatchParams::apply(MANAGER).force();
        match write {
            Write::Shard(document) => {
                let map = objects::config_map(document, &self.namespace).map_err(WriteFailure::Refused)?;
                let stored = maps.patch(&objects::name(document), &parameters, &Patch::Apply(&map)).await;
                Ok(Written::Shard(Box::new(stored.map_err(failure)?)))
            }
            Write::Access(document) => {
                let secret = objects::secret(document, &self.namespace).map_err(WriteFailure::Refused)?;
                let stored = secrets.patch(ACCESS_SECRET, &parameters, &Patch::Apply(&secret)).await;
                Ok(Written::Access(Box::new(stored.map_err(failure)?)))
            }
            Write::DeleteShard(name) => {
                let preconditions = Preconditions { uid: self.shards.uid(name), resource_version: None };
                let parameters = DeleteParams::default().preconditions(preconditions);
                match maps.delete(name, &parameters).await {
                    Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => {}
                    deleted => drop(deleted.map_err(failure)?),
                }
                Ok(Written::Deleted)
            }
        }
    }

    fn record(
        &mut self,
        write: &Write<'_>,
        result: Result<Written, WriteFailure>,
        wanted: &MappingDocuments,
        outcome: &mut WrittenMapping,
    ) {
        let (name, kind) = match write {
            Write::Shard(document) => (objects::name(document), ApiWrite::Shard),
            Write::Access(_) => (ACCESS_SECRET.to_owned(), ApiWrite::Access),
            Write::DeleteShard(name) => (name.clone(), ApiWrite::ShardDeleted),
        };
        self.metrics.writes.count(kind, if result.is_ok() { CallResult::Done } else { CallResult::Failed });
        match result {
            Ok(Written::Shard(map)) => {
                self.set_head(&map);
                self.shards.set(&map.metadata, Some(fingerprint_of_map(&map)));
                self.record_written(&name, RepairedKind::ConfigMap);
            }
            Ok(Written::Access(secret)) => {
                self.access.set(&secret.metadata, Some(fingerprint_of_secret(&secret)));
                self.record_written(&name, RepairedKind::Secret);
            }
            Ok(Written::Deleted) => self.shards.remove(&name),
            Err(failure) => {
                let failure = failure.about(&name);
                outcome.error = Some(failure.message().to_owned());
                match write {
                    Write::Shard(document) => {
                        outcome.failures.insert(document.tenant.clone(), failure);
                    }
                    Write::Access(_) => {
                        let tenants = wanted.access.tenants.keys();
                        outcome.failures.extend(tenants.map(|tenant| (tenant.clone(), failure.clone())));
                    }
                    Write::DeleteShard(_) => {}
                }
                return;
            }
        }
        outcome.changed.push(name);
    }
}

/// Returns whether a document is written now: it differs from what is held, and if somebody else changed it,
/// it is time for the repair.
fn is_due(
    repairs: &mut Repairs,
    written: &mut BTreeMap<String, Fingerprint>,
    name: &str,
    wanted: Fingerprint,
    held: Option<Fingerprint>,
    editor: Option<&str>,
) -> bool {
    if held == Some(wanted) {
        written.insert(name.to_owned(), wanted);
        repairs.cancel(name);
        return false;
    }
    if written.get(name) != Some(&wanted) {
        return true;
    }
    match repairs.request(name, Instant::now()) {
        Repair::Now => true,
        Repair::Later { wait, is_first } => {
            if is_first {
                tracing::warn!(name, editor, ?wait, "somebody keeps on changing it; it is put right later");
            }
            false
        }
    }
}

fn failure(error: kube::Error) -> WriteFailure {
    match error {
        kube::Error::Api(status) if is_refusal(&status) => WriteFailure::Refused(status.message),
        kube::Error::Api(status) => WriteFailure::Troubled(status.message),
        error => WriteFailure::Away(brief(&error)),
    }
}
