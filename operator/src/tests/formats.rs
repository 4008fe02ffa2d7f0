//! A PushFormat that is edited into something that can't be used: the last version that compiled stays in
//! force, also over a restart.

use std::collections::BTreeSet;

use flutecast_contract::document::{FormatDocument, ShardDocument};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::Folder;
use super::manifests::{device, format, tenant};
use crate::backend::folder::manifests::{Former, Manifests};
use crate::controller::apply::documents::MappingDocuments;
use crate::controller::build::formats::FormatsInForce;
use crate::controller::build::{Built, build_upon};
use crate::controller::validate::validate;
use crate::finding::Outcome;
use crate::object::{Kind, ObjectRef};

/// A folder and what was built from it last.
#[derive(Default)]
struct Plant {
    folder: Folder,
    built: Built,
}

impl Plant {
    fn load(&mut self, files: &[(&str, &str)]) {
        self.folder.load(files);
        let objects = self.folder.manifests.objects().0;
        self.built = build_upon(&self.built, validate(&objects), &objects);
    }

    /// Returns the documents of the mapping, as they are stored.
    fn documents(&self) -> Vec<String> {
        let documents = MappingDocuments::of(&self.built, &BTreeSet::new());
        documents.all_shards().map(|shard| shard.to_yaml().unwrap()).collect()
    }

    /// Starts anew from the documents and these files.
    fn restart(&mut self, files: &[(&str, &str)]) {
        let (mut formats, mut former) = (FormatsInForce::default(), Former::default());
        for text in self.documents() {
            let shard = ShardDocument::from_yaml(&text).unwrap();
            for (name, document) in &shard.formats {
                formats.read_back(("default".to_owned(), name.to_string()), None, document);
                former.formats.insert((shard.tenant.to_string(), name.to_string()));
            }
        }
        self.folder = Folder { manifests: Manifests::new(former) };
        self.built = Built { formats, ..Built::default() };
        self.load(files);
    }

    /// Returns each Device, and whether it is served.
    fn served(&self) -> Vec<(String, bool)> {
        let devices = self.built.outcomes.iter().filter(|(object, _)| object.kind == Kind::Device);
        let is_served = |outcome: &Outcome| !matches!(outcome, Outcome::Refused(_));
        devices.map(|(object, outcome)| (object.to_string(), is_served(outcome))).collect()
    }

    fn outcome(&self, kind: Kind, name: &str) -> Outcome {
        self.built.outcomes.get(&ObjectRef::new(kind, "default", name)).cloned().unwrap_or_default()
    }
}

/// Returns `on-off` with an expression of this text.
fn with_when(when: &str) -> String {
    format("on-off").replace("fields:\n", &format!("when: \"{when}\"\n  fields:\n"))
}

const BROKEN: &str = "values.running >";

/// Returns a tenant, and a device that uses `on-off`.
fn base() -> String {
    [tenant("demo", ""), device("d1", "demo", "C-1", "on-off")].join("---\n")
}

#[test]
fn a_format_that_breaks_changes_nothing_and_the_next_version_counts_at_once() {
    let mut plant = Plant::default();
    plant.load(&[("a.yaml", &base()), ("f.yaml", &with_when("values.running"))]);
    let documents = plant.documents();
    assert!(documents[0].contains("when: values.running"), "{documents:?}");
    for broken in [with_when(BROKEN), with_when("values.nothing"), with_when("'")] {
        plant.load(&[("a.yaml", &base()), ("f.yaml", &broken)]);
        assert_eq!(plant.documents(), documents, "{broken}");
        assert_eq!(plant.outcome(Kind::Device, "d1"), Outcome::Accepted);
        let format = plant.outcome(Kind::PushFormat, "on-off");
        assert_eq!(format.findings()[0].field, "spec.when", "{format:?}");
    }
    // A device that comes later has the version in force.
    let later = [base(), device("d2", "demo", "C-2", "on-off")].join("---\n");
    plant.load(&[("a.yaml", &later), ("f.yaml", &with_when(BROKEN))]);
    assert_eq!(plant.outcome(Kind::Device, "d2"), Outcome::Accepted);
    plant.load(&[("a.yaml", &base()), ("f.yaml", &with_when("!values.running"))]);
    assert!(plant.documents()[0].contains("when: \"!values.running\""), "{:?}", plant.documents());
}

#[test]
fn the_version_in_force_is_read_back_whatever_the_file_says_now() {
    let mut plant = Plant::default();
    plant.load(&[("a.yaml", &base()), ("f.yaml", &with_when("values.running"))]);
    let documents = plant.documents();
    let schema = with_when("values.running").replace("type: Bool", "type: Nonsense");
    for broken in [with_when(BROKEN), schema, "kind: [".to_owned(), "no: format".to_owned()] {
        plant.restart(&[("a.yaml", &base()), ("f.yaml", &broken)]);
        assert_eq!(plant.documents(), documents, "{broken}");
        assert_eq!(plant.outcome(Kind::Device, "d1"), Outcome::Accepted, "{broken}");
    }
    // The file is valid without it.
    plant.load(&[("a.yaml", &base()), ("f.yaml", &format("other"))]);
    assert!(matches!(plant.outcome(Kind::Device, "d1"), Outcome::Refused(_)));
    // So it is if the operator was away meanwhile.
    plant.load(&[("a.yaml", &base()), ("f.yaml", &with_when("values.running"))]);
    plant.restart(&[("a.yaml", &base()), ("f.yaml", &format("other"))]);
    assert!(matches!(plant.outcome(Kind::Device, "d1"), Outcome::Refused(_)));
}

#[test]
fn what_was_seen_elsewhere_is_not_in_a_document_without_a_name() {
    let mut plant = Plant::default();
    plant.load(&[("a.yaml", &base()), ("f.yaml", &format("on-off"))]);
    plant.restart(&[("a.yaml", &base()), ("b.yaml", "kind: ["), ("f.yaml", &format("on-off"))]);
    plant.load(&[("a.yaml", &base()), ("b.yaml", "kind: [")]);
    assert!(matches!(plant.outcome(Kind::Device, "d1"), Outcome::Refused(_)));
}

#[test]
fn a_format_that_never_compiled_or_is_made_again_has_nothing_in_force() {
    let mut plant = Plant::default();
    plant.load(&[("a.yaml", &base()), ("f.yaml", &with_when(BROKEN))]);
    assert!(matches!(plant.outcome(Kind::Device, "d1"), Outcome::Refused(_)));
    plant.load(&[("a.yaml", &base()), ("f.yaml", &format("on-off"))]);
    assert_eq!(plant.outcome(Kind::Device, "d1"), Outcome::Accepted);
    // Both changes of the folder were read before anything was built.
    plant.folder.load(&[("a.yaml", &base())]);
    plant.load(&[("a.yaml", &base()), ("f.yaml", &with_when(BROKEN))]);
    assert!(matches!(plant.outcome(Kind::Device, "d1"), Outcome::Refused(_)));
}

#[test]
fn the_verdict_names_the_version_in_force() {
    let mut plant = Plant::default();
    plant.load(&[("a.yaml", &base()), ("f.yaml", &format("on-off"))]);
    plant.load(&[("a.yaml", &base()), ("f.yaml", &with_when(BROKEN))]);
    let key = ("default".to_owned(), "on-off".to_owned());
    let told = |since: &[(_, _)]| {
        let since = since.iter().cloned().collect();
        let files = plant.folder.manifests.objects().1;
        let outcomes = crate::controller::status::outcomes(&plant.built, &files, &Default::default(), &since);
        let outcome = outcomes.get(&ObjectRef::new(Kind::PushFormat, "default", "on-off")).cloned().unwrap();
        (outcome.word(), outcome.findings().last().unwrap().message.clone())
    };
    let (word, message) = told(&[(key, "2026-11-29T10:02:00Z".parse().unwrap())]);
    assert_eq!(word, "Degraded");
    assert!(message.ends_with("; the version of 2026-11-29T10:02:00Z is in force"), "{message}");
    assert!(told(&[]).1.ends_with("; the version before is in force"));
}

#[test]
fn of_several_documents_one_version_is_read_back() {
    let version = |record: Value| -> FormatDocument {
        let fields = json!([{"name": "on", "pointer": "/on", "type": "Bool"}]);
        serde_json::from_value(json!({"codec": "JSON", "record": record, "fields": fields})).unwrap()
    };
    let read = |documents: &[FormatDocument]| {
        let mut formats = FormatsInForce::default();
        let key = ("default".to_owned(), "f".to_owned());
        documents.iter().for_each(|document| formats.read_back(key.clone(), None, document));
        formats.0.remove(&key).map(|version| (*version.document).clone())
    };
    let (short, long) = (version(json!({"expireFieldsMs": 1000})), version(json!({"expireFieldsMs": 2000})));
    assert_eq!(read(&[short.clone(), long.clone()]).as_ref(), Some(&long), "tenants with other retention");
    assert_eq!(read(&[long.clone(), short.clone()]).as_ref(), Some(&long));
    // A write that was cut off.
    let other = FormatDocument { when: Some("values.on".to_owned()), ..long.clone() };
    assert_eq!(read(&[short.clone(), other.clone()]), Some(short.clone()));
    // Another version of Flutecast compiled it.
    let broken = FormatDocument { when: Some("values.off".to_owned()), ..long };
    assert_eq!(read(std::slice::from_ref(&broken)), None);
    assert_eq!(read(&[broken, other.clone()]), Some(other));
}

/// A change of the folder.
#[derive(Debug, Clone)]
enum Step {
    Format { name: u8, version: u8 },
    Break { name: u8, how: u8 },
    DeleteFormat(u8),
    Device { name: u8, tenant: u8, format: u8 },
    DeleteDevice(u8),
    Retention { tenant: u8, minutes: u8 },
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0..2_u8, 0..4_u8).prop_map(|(name, version)| Step::Format { name, version }),
        // Two documents without a name may each be what the other one was.
        4 => (0..2_u8, 0..3_u8).prop_map(|(name, how)| Step::Break { name, how: how.min(2 - name) }),
        1 => (0..2_u8).prop_map(Step::DeleteFormat),
        4 => (0..4_u8, 0..2_u8, 0..2_u8)
            .prop_map(|(name, tenant, format)| Step::Device { name, tenant, format }),
        1 => (0..4_u8).prop_map(Step::DeleteDevice),
        2 => (0..2_u8, 1..9_u8).prop_map(|(tenant, minutes)| Step::Retention { tenant, minutes }),
        2 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 0..30)
}

/// Returns a format: the first two versions compile for any retention, and their records differ.
fn version(name: &str, version: u8) -> String {
    let record = match version {
        0 => "delivery: {policy: Every}",
        1 => "record: {merge: true}",
        2 => "record: {merge: true, expireFields: 3m}",
        _ => "delivery: {minInterval: 1s}",
    };
    format(name).replace("delivery: {policy: Every}", record)
}

fn broken(name: &str, how: u8) -> String {
    match how {
        0 => with_when(BROKEN).replace("on-off", name),
        1 => format(name).replace("type: Bool", "type: Nonsense"),
        _ => format!("metadata: {{name: {name}}}\nkind: ["),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_edit_into_something_invalid_and_no_restart_changes_the_mapping(steps in steps()) {
        let mut files: std::collections::BTreeMap<String, String> =
            (0..2).map(|n| (format!("t{n}"), tenant(&format!("t{n}"), ""))).collect();
        let mut plant = Plant::default();
        for step in &steps {
            match step {
                Step::Format { name, version: number } => {
                    drop(files.insert(format!("f{name}"), version(&format!("f{name}"), *number)));
                }
                Step::Break { name, how } => {
                    drop(files.insert(format!("f{name}"), broken(&format!("f{name}"), *how)));
                }
                Step::DeleteFormat(name) => drop(files.remove(&format!("f{name}"))),
                Step::Device { name, tenant, format } => drop(files.insert(
                    format!("d{name}"),
                    device(&format!("d{name}"), &format!("t{tenant}"), &format!("C-{name}"),
                        &format!("f{format}")),
                )),
                Step::DeleteDevice(name) => drop(files.remove(&format!("d{name}"))),
                Step::Retention { tenant: name, minutes } => {
                    let spec = format!("retention: {{maxAge: {minutes}m}}");
                    drop(files.insert(format!("t{name}"), tenant(&format!("t{name}"), &spec)));
                }
                Step::Restart => {}
            }
            let before = plant.documents();
            let served = plant.served();
            let files: Vec<_> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
            match step {
                Step::Restart => plant.restart(&files),
                _ => plant.load(&files),
            }
            if matches!(step, Step::Restart | Step::Break { .. }) && !before.is_empty() {
                prop_assert_eq!(plant.documents(), before, "{:?}", step);
            }
            if matches!(step, Step::Restart) {
                prop_assert_eq!(plant.served(), served);
            }
        }
    }
}
