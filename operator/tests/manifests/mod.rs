//! Manifests for tests, and the folder mode without a folder.
// Each test program uses a part of it.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::collections::BTreeMap;

use flutecast_contract::document::DeviceDocument;
use flutecast_contract::shard::ACCESS_FILE;
use flutecast_operator::backend::folder::mapping;
use flutecast_operator::backend::folder::status;
use flutecast_operator::backend::folder::store::{Files, Store};
use flutecast_operator::controller::build::{self, Built};
use flutecast_operator::jetstream::task::Report;

/// A Tenant; `spec` is one line of its spec.
pub fn tenant(name: &str, spec: &str) -> String {
    let spec = if spec.is_empty() { "displayName: Test" } else { spec };
    format!("apiVersion: flutecast.io/v1alpha1\nkind: Tenant\nmetadata: {{name: {name}}}\nspec:\n  {spec}\n")
}

/// A PushFormat with one Bool.
pub fn format(name: &str) -> String {
    format!(
        "apiVersion: flutecast.io/v1alpha1\nkind: PushFormat\nmetadata: {{name: {name}}}\nspec:\n  delivery: {{policy: Every}}\n  fields:\n  - {{name: running, pointer: /on, type: Bool}}\n"
    )
}

/// A Device with one channel, `power`.
pub fn device(name: &str, tenant: &str, code: &str, format: &str) -> String {
    format!(
        "apiVersion: flutecast.io/v1alpha1\nkind: Device\nmetadata: {{name: {name}}}\nspec:\n  tenant: {tenant}\n  deviceCode: {code}\n  channels:\n  - {{name: power, format: {format}}}\n"
    )
}

/// The verdict on `object` after loading `yaml`, in the one file `plant/a.yaml`, contains `expected`.
#[track_caller]
pub fn check(yaml: &str, object: &str, expected: &str) {
    let mut operator = Box1::default();
    operator.load(&[("plant/a.yaml", yaml)]);
    let line = operator.verdict(object);
    assert!(
        line.contains(expected),
        "{object}: {line:?}\n does not contain {expected:?}\nall:\n{}",
        operator.verdicts()
    );
}

/// The pure part of the folder mode.
#[derive(Default)]
pub struct Box1 {
    pub store: Store,
}

impl Box1 {
    /// Loads these files, and no others.
    pub fn load(&mut self, files: &[(&str, &str)]) -> bool {
        let files: Files =
            files.iter().map(|(path, text)| ((*path).to_owned(), Ok((*text).to_owned()))).collect();
        self.store.load(&files)
    }

    pub fn built(&self) -> Built {
        let (objects, _) = self.store.objects();
        build::build(build::validate(&objects), &objects)
    }

    /// All verdicts as they are printed.
    pub fn verdicts(&self) -> String {
        let (_, folder) = self.store.objects();
        let verdicts = status::verdicts(&self.built(), &folder, &Report::new());
        let mut out = Vec::new();
        status::Board::new(status::Format::Text).say(verdicts, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    /// The line about one object; empty if there is none.
    pub fn verdict(&self, object: &str) -> String {
        let start = format!("{object} ");
        self.verdicts().lines().find(|line| line.starts_with(&start)).unwrap_or_default().to_owned()
    }

    pub fn device<'a>(&self, built: &'a Built, code: &str) -> Option<&'a DeviceDocument> {
        let shards = built.tenants.values().flat_map(|tenant| &tenant.shards);
        let mut devices = shards.flat_map(|shard| shard.devices.values());
        devices.find(|device| device.code.as_str() == code).map(|device| &**device)
    }
}

/// The mapping of these manifests, as the folder mode writes it.
pub fn mapping_of(manifests: &[String]) -> BTreeMap<String, String> {
    let mut folder = Box1::default();
    folder.load(&[("a.yaml", &manifests.join("---\n"))]);
    let texts = mapping_folder::texts(&folder.built()).unwrap();
    let shards = texts.into_iter().filter(|(file, _)| file != ACCESS_FILE);
    shards.map(|(file, text)| (file.strip_suffix(".yaml").unwrap().to_owned(), text)).collect()
}
