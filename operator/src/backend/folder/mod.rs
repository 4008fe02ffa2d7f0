//! The folder backend: manifests on disk instead of an API server.
//!
//! [`scan`] reads the files, [`manifests`] turns them into the objects in force, [`watch`] reports changes,
//! [`mapping`] writes the documents, [`status`] prints the outcomes. There is no API server that would check
//! objects first, so `schema` does, with the schema of the CRDs.

mod documents;
mod located;
mod manifest;
pub(crate) mod manifests;
pub(crate) mod mapping;
pub(crate) mod scan;
mod schema;
pub(crate) mod status;
pub(crate) mod watch;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use flutecast_contract::document::{FormatDocument, ShardDocument};
use flutecast_contract::name::TenantName;
use flutecast_crds::DeviceSpec;
use k8s_openapi::jiff::Timestamp;

use self::manifests::{Former, Manifests};
use self::mapping::MappingFolder;
use self::status::Printer;
use self::watch::MayHaveChanged;
use crate::controller::Reconciled;
use crate::controller::apply::documents::MappingDocuments;
use crate::controller::backend::{Backend, WrittenMapping};
use crate::controller::build::Built;
use crate::controller::build::formats::FormatsInForce;
use crate::controller::dereference::DirtySet;
use crate::controller::inbox::Wake;
use crate::controller::metrics::ControllerMetrics;
use crate::controller::status::conditions::seconds;
use crate::controller::status::outcomes;
use crate::finding::Outcomes;
use crate::object::{Key, Kind, Object, ObjectRef, Objects};

pub(crate) struct FolderBackend {
    path: PathBuf,
    manifests: Manifests,
    mapping: MappingFolder,
    /// The documents that the last process wrote, until formats are read back from them.
    stored: Vec<ShardDocument>,
    /// The versions of PushFormats that are in force, and since when, if this process saw them come.
    versions: BTreeMap<Key, (Arc<FormatDocument>, Option<Timestamp>)>,
    printer: Printer,
    metrics: Arc<ControllerMetrics>,
    /// The objects in force, as of the last reconcile that built them.
    objects: Objects,
    /// The problems of files and documents.
    file_outcomes: Outcomes,
    dirty: DirtySet,
}

impl FolderBackend {
    pub(crate) fn new(
        path: PathBuf,
        mapping: MappingFolder,
        printer: Printer,
        metrics: Arc<ControllerMetrics>,
    ) -> Self {
        let stored = mapping.shards();
        Self {
            path,
            manifests: Manifests::new(former(&stored)),
            stored,
            versions: BTreeMap::new(),
            mapping,
            printer,
            metrics,
            objects: Objects::default(),
            file_outcomes: Outcomes::default(),
            dirty: DirtySet::default(),
        }
    }

    /// Reads the folder. Returns whether anything changed. A folder that can't be read at all changes
    /// nothing.
    fn read(&mut self) -> bool {
        match scan::scan(&self.path) {
            Ok(files) => self.manifests.load(&files),
            Err(error) => {
                let folder = self.path.display();
                tracing::error!(%folder, %error, "the manifests can't be read; all stays as it is");
                false
            }
        }
    }

    /// Notes which versions of PushFormats are in force. One that was in force before this process started
    /// came at a time that is not known.
    fn note_versions(&mut self, built: &Built) {
        let mut known = std::mem::take(&mut self.versions);
        for (key, version) in &built.formats.0 {
            let version = match known.remove(key) {
                Some(known) if known.0 == version.document => known,
                _ => {
                    let outcome = built.outcomes.get(&ObjectRef::new(Kind::PushFormat, &key.0, &key.1));
                    let compiles = outcome.is_some_and(|outcome| outcome.findings().is_empty());
                    (version.document.clone(), compiles.then(|| seconds(Timestamp::now())))
                }
            };
            self.versions.insert(key.clone(), version);
        }
    }

    fn count(&self, outcomes: &Outcomes) {
        let metrics = &self.metrics;
        for kind in [Kind::Tenant, Kind::Device, Kind::PushFormat] {
            let Some(label) = kind.label() else { continue };
            let of_kind = outcomes.iter().filter(|(object, _)| object.kind == kind);
            let conditions = of_kind.map(|(_, outcome)| outcome.condition_label());
            let counted = conditions.inspect(|condition| metrics.count_reconcile(label, *condition));
            metrics.set_objects(label, counted);
        }
    }
}

impl Backend for FolderBackend {
    type Input = MayHaveChanged;

    /// Somebody may have changed a document of the mapping.
    const RESYNC: Duration = Duration::from_secs(30);
    /// The watch waits until changes have settled.
    const COLLECT: Duration = Duration::ZERO;
    const CREATES_DEVICES: bool = false;

    fn apply_change(&mut self, _: MayHaveChanged) -> Wake {
        if !self.read() {
            return Wake::Nothing;
        }
        self.dirty = DirtySet::everything();
        Wake::Reconcile
    }

    fn dirty(&mut self) -> &mut DirtySet {
        &mut self.dirty
    }

    fn mark_tenant(&self, tenant: &TenantName, dirty: &mut DirtySet) {
        // All outcomes are compared each time, so one mark is enough.
        for one in self.objects.tenants.iter().filter(|one| one.meta.name == tenant.as_str()) {
            dirty.touch(Kind::Tenant, &(one.meta.namespace.clone(), one.meta.name.clone()));
        }
    }

    fn begin(&mut self, _term: u64) {
        self.read();
    }

    fn stored_formats(&mut self) -> FormatsInForce {
        let mut tenants = self.manifests.objects().0.tenants;
        // Of several in other namespaces the first by age has the name.
        tenants.sort_by(|one, other| one.meta.age().cmp(&other.meta.age()));
        let mut formats = FormatsInForce::default();
        for shard in std::mem::take(&mut self.stored) {
            let tenant = tenants.iter().find(|tenant| tenant.meta.name == shard.tenant.as_str());
            let Some(namespace) = tenant.map(|tenant| &tenant.meta.namespace) else { continue };
            for (name, document) in &shard.formats {
                formats.read_back((namespace.clone(), name.to_string()), None, document);
            }
        }
        formats
    }

    fn objects(&mut self, _: &DirtySet) -> Objects {
        (self.objects, self.file_outcomes) = self.manifests.objects();
        self.objects.clone()
    }

    fn has_device(&self, (namespace, name): &Key) -> bool {
        self.objects.devices.iter().any(|one| one.meta.namespace == *namespace && one.meta.name == *name)
    }

    fn devices_of<'a>(&'a self, tenant: &'a str) -> Box<dyn Iterator<Item = &'a Object<DeviceSpec>> + 'a> {
        Box::new(self.objects.devices.iter().filter(move |one| one.spec.tenant == tenant).map(|one| &**one))
    }

    async fn write_mapping(&mut self, wanted: &MappingDocuments) -> WrittenMapping {
        match self.mapping.write(wanted) {
            Ok(changed) => WrittenMapping { changed, ..WrittenMapping::default() },
            Err(error) => WrittenMapping { error: Some(error.to_string()), ..WrittenMapping::default() },
        }
    }

    fn update_status(&mut self, reconciled: &Reconciled<'_>, _: &mut DirtySet) {
        let Reconciled { built, report, .. } = *reconciled;
        self.note_versions(built);
        let since = self.versions.iter().filter_map(|(key, (_, since))| Some((key.clone(), (*since)?)));
        let outcomes = outcomes(built, &self.file_outcomes, report, &since.collect());
        self.count(&outcomes);
        if let Err(error) = self.printer.print(outcomes, &mut io::stdout().lock()) {
            tracing::debug!(%error, "nothing reads the outcomes");
        }
    }
}

/// Returns what the documents of the last process had.
fn former(stored: &[ShardDocument]) -> Former {
    let mut former = Former::default();
    for shard in stored {
        let with_tenant = |name: &str| (shard.tenant.to_string(), name.to_owned());
        former.devices.extend(shard.devices.values().map(|device| with_tenant(&device.name)));
        former.formats.extend(shard.formats.keys().map(|format| with_tenant(format.as_str())));
    }
    former
}
