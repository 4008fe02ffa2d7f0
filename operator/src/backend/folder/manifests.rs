//! The objects in force of a folder, and the outcomes of its files. Synchronous, without I/O: the contents of
//! the files are passed in.

use std::collections::{BTreeMap, BTreeSet};

use super::manifest::{self, Entry, Manifest};
use crate::finding::{Finding, Outcomes, Reason};
use crate::object::{ObjectRef, Objects};

/// The contents of the files of a folder, by path within it, or why a file can't be read.
pub(crate) type Files = BTreeMap<String, Result<String, String>>;

/// The objects of a folder.
///
/// While a document is broken, the object that it was, or may have been, stays in force as it last was valid.
/// It goes when the file is valid without it, or is removed.
#[derive(Debug, Default)]
pub(crate) struct Manifests {
    files: BTreeMap<String, File>,
    /// The number of the reading at which each object first appeared.
    appeared: BTreeMap<ObjectRef, i64>,
    readings: i64,
    /// Devices that held their codes before this process started, as tenant and name of the Device.
    former: BTreeSet<(String, String)>,
}

#[derive(Debug, Default)]
struct File {
    content: Option<Result<String, String>>,
    /// The objects that the file defines, now or, where it is broken, when it was last valid.
    objects: BTreeMap<ObjectRef, Defined>,
    /// On the file as a whole.
    findings: Vec<Finding>,
    /// On single objects.
    broken: BTreeMap<ObjectRef, Vec<Finding>>,
}

#[derive(Debug, Clone, PartialEq)]
struct Defined {
    manifest: Manifest,
    place: String,
}

impl Manifests {
    /// `former` are the devices that held their codes when the last process wrote the mapping, as tenant and
    /// name. They count as older than all others, so that a device keeps its code over a restart.
    pub(crate) fn new(former: BTreeSet<(String, String)>) -> Self {
        Self { former, ..Self::default() }
    }

    /// Replaces the contents of all files. Returns whether anything changed.
    pub(crate) fn load(&mut self, files: &Files) -> bool {
        let before = self.files.len();
        self.files.retain(|path, _| files.contains_key(path));
        let mut changed = before != self.files.len();
        for (path, content) in files {
            let file = self.files.entry(path.clone()).or_default();
            if file.content.as_ref() != Some(content) {
                file.load(path, content);
                changed = true;
            }
        }
        if changed {
            self.note_appearances();
        }
        changed
    }

    /// Returns the objects in force, and the outcomes of files and documents.
    pub(crate) fn objects(&self) -> (Objects, Outcomes) {
        let mut objects = Objects::default();
        let mut outcomes = Outcomes::default();
        let holders = self.holders();
        for (path, file) in &self.files {
            self.judge_file(path, file, &holders, &mut outcomes);
        }
        for (object, path) in &holders {
            let Some(defined) = self.files.get(*path).and_then(|file| file.objects.get(*object)) else {
                continue;
            };
            match defined.manifest.with_created(self.appeared.get(*object).copied().unwrap_or_default()) {
                Manifest::Tenant(object) => objects.tenants.push(object),
                Manifest::Device(object) => objects.devices.push(object),
                Manifest::PushFormat(object) => objects.formats.push(object),
                Manifest::Secret(object) => objects.secrets.push(object),
            }
        }
        (objects, outcomes)
    }

    /// Returns the file that each object is taken from: the first by path that defines it.
    fn holders(&self) -> BTreeMap<&ObjectRef, &str> {
        let mut holders = BTreeMap::new();
        for (path, file) in &self.files {
            for object in file.objects.keys() {
                holders.entry(object).or_insert(path.as_str());
            }
        }
        holders
    }

    fn judge_file(
        &self,
        path: &str,
        file: &File,
        holders: &BTreeMap<&ObjectRef, &str>,
        outcomes: &mut Outcomes,
    ) {
        let file_ref = ObjectRef::file(path);
        for finding in &file.findings {
            outcomes.degrade(&file_ref, finding.clone());
        }
        for (object, defined) in &file.objects {
            if let Some(holder) = holders.get(object)
                && *holder != path
                && let Some(holder) = self.files.get(*holder).and_then(|file| file.objects.get(object))
            {
                let message = format!(
                    "{object} at {} stands at {} already; that one counts",
                    defined.place, holder.place
                );
                outcomes.degrade(&file_ref, Finding::new(Reason::DuplicateObject, "", message));
            }
        }
        for (object, findings) in &file.broken {
            for finding in findings {
                if holders.contains_key(object) {
                    let message = format!("{}; the version before stays in force", finding.message);
                    outcomes.degrade(object, Finding { message, ..finding.clone() });
                } else {
                    outcomes.refuse(object, finding.clone());
                }
            }
        }
    }

    /// Records the reading of new objects as their age, and forgets those that are gone.
    fn note_appearances(&mut self) {
        let objects: BTreeMap<ObjectRef, Option<(String, String)>> = self
            .files
            .values()
            .flat_map(|file| &file.objects)
            .map(|(object, defined)| (object.clone(), device_of(&defined.manifest)))
            .collect();
        self.appeared.retain(|object, _| objects.contains_key(object));
        for (object, device) in objects {
            let former = device.is_some_and(|device| self.former.contains(&device));
            let reading = if former { -1 } else { self.readings };
            self.appeared.entry(object).or_insert(reading);
        }
        // Those that held a code when the process started had the first reading to appear.
        self.former.clear();
        self.readings += 1;
    }
}

fn device_of(manifest: &Manifest) -> Option<(String, String)> {
    match manifest {
        Manifest::Device(device) => Some((device.spec.tenant.clone(), device.meta.name.clone())),
        Manifest::Tenant(_) | Manifest::PushFormat(_) | Manifest::Secret(_) => None,
    }
}

impl File {
    fn load(&mut self, path: &str, content: &Result<String, String>) {
        self.content = Some(content.clone());
        self.findings.clear();
        self.broken.clear();
        let text = match content {
            Ok(text) => text,
            Err(error) => {
                let message = format!("{path} can't be read: {error}; its objects stay as they were");
                self.findings.push(Finding::new(Reason::InvalidYaml, "", message));
                return;
            }
        };
        let last_good = std::mem::take(&mut self.objects);
        let mut nameless = false;
        for entry in manifest::read(path, text) {
            match entry {
                Entry::Good { manifest, place } => self.define(Defined { manifest, place }),
                Entry::Ignored { kind } => {
                    tracing::info!(file = path, kind, "ignored: not a kind that Flutecast reads")
                }
                Entry::Broken { object: Some(object), findings } => {
                    self.broken.entry(object).or_default().extend(findings);
                }
                Entry::Broken { object: None, findings } => {
                    nameless = true;
                    self.findings.extend(findings);
                }
            }
        }
        for (object, defined) in last_good {
            // A broken document without a name may be any object that the file no longer defines.
            if !self.objects.contains_key(&object) && (nameless || self.broken.contains_key(&object)) {
                self.objects.insert(object, defined);
            }
        }
    }

    fn define(&mut self, defined: Defined) {
        let object = defined.manifest.object_ref();
        if let Some(first) = self.objects.get(&object) {
            let message =
                format!("{object} at {} stands at {} already; that one counts", defined.place, first.place);
            self.findings.push(Finding::new(Reason::DuplicateObject, "", message));
        } else {
            self.objects.insert(object, defined);
        }
    }
}
