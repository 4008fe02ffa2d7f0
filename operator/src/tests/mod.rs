//! The folder mode without a folder: all pure steps together.

mod any_order;
mod findings;
mod folder;
mod formats;
#[path = "../../tests/program/manifests.rs"]
pub(crate) mod manifests;
mod schema;
mod unchecked;

use std::collections::BTreeMap;

use flutecast_contract::document::DeviceDocument;

use crate::backend::folder::manifests::{Files, Manifests};
use crate::backend::folder::status::{Format, Printer};
use crate::controller::build::{self, Built};
use crate::controller::status;
use crate::controller::validate::validate;
use crate::finding::Outcomes;
use crate::jetstream::reconciler::StreamReports;
use crate::object::Objects;

pub(crate) fn build(objects: &Objects) -> Built {
    build::build(validate(objects), objects)
}

/// Checks that the outcome of `object` after loading `yaml`, in the one file `plant/a.yaml`, contains
/// `expected`.
#[track_caller]
fn check(yaml: &str, object: &str, expected: &str) {
    let mut folder = Folder::default();
    folder.load(&[("plant/a.yaml", yaml)]);
    let line = folder.outcome(object);
    assert!(
        line.contains(expected),
        "{object}: {line:?}\n does not contain {expected:?}\nall:\n{}",
        folder.outcomes()
    );
}

#[derive(Default)]
pub(crate) struct Folder {
    manifests: Manifests,
}

impl Folder {
    /// Loads these files, and no others. Returns whether anything changed.
    pub(crate) fn load(&mut self, files: &[(&str, &str)]) -> bool {
        let files: Files =
            files.iter().map(|(path, text)| ((*path).to_owned(), Ok((*text).to_owned()))).collect();
        self.manifests.load(&files)
    }

    pub(crate) fn built(&self) -> Built {
        build(&self.manifests.objects().0)
    }

    /// All outcomes as they are printed.
    pub(crate) fn outcomes(&self) -> String {
        let files: Outcomes = self.manifests.objects().1;
        let outcomes = status::outcomes(&self.built(), &files, &StreamReports::new(), &BTreeMap::new());
        let mut out = Vec::new();
        Printer::new(Format::Text).print(outcomes, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    /// The line about one object; empty if there is none.
    pub(crate) fn outcome(&self, object: &str) -> String {
        let start = format!("{object} ");
        self.outcomes().lines().find(|line| line.starts_with(&start)).unwrap_or_default().to_owned()
    }

    fn device<'a>(&self, built: &'a Built, code: &str) -> Option<&'a DeviceDocument> {
        let shards = built.tenants.values().flat_map(|tenant| &tenant.shards);
        let mut devices = shards.flat_map(|shard| shard.devices.values());
        devices.find(|device| device.code.as_str() == code).map(|device| &**device)
    }
}
