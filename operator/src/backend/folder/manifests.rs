//! The objects in force of a folder, and the outcomes of its files. Synchronous, without I/O: the contents of
//! the files are passed in.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use flutecast_crds::TenantSpec;

use super::manifest::{self, Entry, Manifest};
use crate::finding::{Finding, Outcomes, Reason};
use crate::object::{Key, Kind, Object, ObjectRef, Objects};

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
    former: Former,
}

/// What the mapping had before this process started, each with its tenant.
#[derive(Debug, Default)]
pub(crate) struct Former {
    /// The names of the Devices, which held their codes.
    pub(crate) devices: BTreeSet<(String, String)>,
    /// The names of the formats.
    pub(crate) formats: BTreeSet<(String, String)>,
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
    /// The objects that are, or may be, in it and never could be read.
    unreadable: BTreeSet<ObjectRef>,
    /// `true` if objects may be in it that can't be told.
    is_unclear: bool,
}

#[derive(Debug, Clone, PartialEq)]
struct Defined {
    manifest: Manifest,
    place: String,
}

impl Manifests {
    /// `former` is what the mapping had when the last process wrote it. Its devices count as older than all
    /// others, so that a device keeps its code over a restart.
    pub(crate) fn new(former: Former) -> Self {
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
        objects.unreadable = self.unreadable_formats(&objects.tenants, &holders);
        (objects, outcomes)
    }

    /// Returns the PushFormats that exist and never could be read by this process: those whose document is
    /// broken, and, while a document has no name, those that the mapping had when the process started.
    fn unreadable_formats(
        &self,
        tenants: &[Arc<Object<TenantSpec>>],
        holders: &BTreeMap<&ObjectRef, &str>,
    ) -> BTreeSet<(Kind, Key)> {
        let broken = self.files.values().flat_map(|file| &file.unreadable).cloned();
        let former = self.former.formats.iter().flat_map(|(tenant, format)| {
            let tenants = tenants.iter().filter(move |one| one.meta.name == *tenant);
            tenants.map(move |tenant| ObjectRef::new(Kind::PushFormat, &tenant.meta.namespace, format))
        });
        broken
            .chain(former)
            .filter(|object| object.kind == Kind::PushFormat && !holders.contains_key(object))
            .map(|object| (object.kind, (object.namespace, object.name)))
            .collect()
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
                // Which version of a format is in force is said by its status.
                if object.kind == Kind::PushFormat && holders.contains_key(object) {
                    outcomes.degrade(object, finding.clone());
                } else if holders.contains_key(object) {
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
            let former = device.is_some_and(|device| self.former.devices.contains(&device));
            let reading = if former { -1 } else { self.readings };
            self.appeared.entry(object).or_insert(reading);
        }
        // Those that held a code when the process started had the first reading to appear.
        self.former.devices.clear();
        // What was seen somewhere is in no document without a name.
        let is_unclear = self.files.values().any(|file| file.is_unclear);
        let broken = self.files.values().flat_map(|file| &file.unreadable);
        let seen = self.appeared.keys().chain(broken).filter(|object| object.kind == Kind::PushFormat);
        let seen: BTreeSet<&str> = seen.map(|object| object.name.as_str()).collect();
        self.former.formats.retain(|(_, format)| is_unclear && !seen.contains(format.as_str()));
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
        self.is_unclear = content.is_err();
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
                    self.is_unclear = true;
                    self.findings.extend(findings);
                }
            }
        }
        for (object, defined) in last_good {
            // A broken document without a name may be any object that the file no longer defines.
            if !self.objects.contains_key(&object) && (self.is_unclear || self.broken.contains_key(&object)) {
                self.objects.insert(object, defined);
            }
        }
        let is_unclear = self.is_unclear;
        self.unreadable.retain(|_| is_unclear);
        self.unreadable.extend(self.broken.keys().cloned());
        self.unreadable.retain(|object| !self.objects.contains_key(object));
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
