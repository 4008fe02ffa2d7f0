//! The objects of a folder while its files change: last good versions, ages, recovery.

use super::Folder;
use super::manifests::{device, format, tenant};
use crate::backend::folder::manifests::{Former, Manifests};

fn base() -> String {
    format!("{}---\n{}", tenant("demo", ""), format("on-off"))
}

#[test]
fn a_file_that_breaks_keeps_its_last_good_objects() {
    let mut folder = Folder::default();
    let d1 = device("d1", "demo", "C-1", "on-off");
    let d2 = device("d2", "demo", "C-2", "on-off");
    let d3 = device("d3", "demo", "C-3", "on-off");
    folder.load(&[("a.yaml", &base()), ("b.yaml", &format!("{d1}---\n{d2}"))]);
    // d1 breaks, d2 is removed, d3 is new.
    folder.load(&[("a.yaml", &base()), ("b.yaml", &format!("apiVersion: [\n---\n{d3}"))]);
    let built = folder.built();
    assert!(folder.device(&built, "C-1").is_some() && folder.device(&built, "C-3").is_some());
    // It may be in the broken document, so it stays too.
    assert!(folder.device(&built, "C-2").is_some());
    let verdict = folder.outcome("File/b.yaml");
    assert!(verdict.contains("Degraded InvalidYaml: b.yaml:"), "{verdict}");
    // The file is valid again: missing objects are gone.
    folder.load(&[("a.yaml", &base()), ("b.yaml", &format!("{d1}---\n{d3}"))]);
    let built = folder.built();
    assert!(folder.device(&built, "C-1").is_some() && folder.device(&built, "C-2").is_none());
    assert_eq!(folder.outcome("File/b.yaml"), "");
    // The objects of a removed file are gone, also if it was broken.
    folder.load(&[("a.yaml", &base()), ("b.yaml", "apiVersion: [\n")]);
    folder.load(&[("a.yaml", &base())]);
    assert!(folder.device(&folder.built(), "C-1").is_none());
}

#[test]
fn an_invalid_object_keeps_its_last_good_version() {
    let mut folder = Folder::default();
    let good = device("d1", "demo", "C-1", "on-off");
    folder.load(&[("a.yaml", &base()), ("b.yaml", &good)]);
    folder.load(&[("a.yaml", &base()), ("b.yaml", &good.replace("name: power", "name: 'not a channel'"))]);
    let verdict = folder.outcome("Device/d1");
    assert!(verdict.starts_with("Device/d1 Degraded InvalidObject: spec.channels[0].name"), "{verdict}");
    assert!(
        verdict.contains("b.yaml:8") && verdict.contains("the version before stays in force"),
        "{verdict}"
    );
    assert!(folder.device(&folder.built(), "C-1").is_some());
}

#[test]
fn an_unreadable_file_keeps_its_objects() {
    let mut folder = Folder::default();
    folder.load(&[("a.yaml", &base()), ("b.yaml", &device("d1", "demo", "C-1", "on-off"))]);
    let files =
        [("a.yaml".to_owned(), Ok(base())), ("b.yaml".to_owned(), Err("Permission denied".to_owned()))]
            .into();
    assert!(folder.manifests.load(&files));
    assert!(folder.device(&folder.built(), "C-1").is_some());
    assert!(folder.outcome("File/b.yaml").contains("Permission denied"));
}

#[test]
fn the_holder_of_a_code_keeps_it_until_it_goes() {
    let mut folder = Folder::default();
    let (old, new) = (device("zz-old", "demo", "C-1", "on-off"), device("aa-new", "demo", "C-1", "on-off"));
    folder.load(&[("a.yaml", &base()), ("z.yaml", &old)]);
    folder.load(&[("a.yaml", &base()), ("b.yaml", &new), ("z.yaml", &old)]);
    assert!(
        folder
            .outcome("Device/aa-new")
            .contains("Refused DuplicateDeviceCode: spec.deviceCode: \"C-1\" is taken by Device/zz-old")
    );
    assert!(folder.outcome("Device/zz-old").contains("Accepted"));
    folder.load(&[("a.yaml", &base()), ("b.yaml", &new)]);
    assert_eq!(folder.outcome("Device/aa-new"), "Device/aa-new Accepted");
    assert_eq!(folder.device(&folder.built(), "C-1").unwrap().name, "aa-new");
    // After it was removed and restored it is the younger one.
    folder.load(&[("a.yaml", &base()), ("b.yaml", &new), ("z.yaml", &old)]);
    assert!(folder.outcome("Device/zz-old").contains("Refused DuplicateDeviceCode"));
}

#[test]
fn after_a_restart_the_former_holder_has_it() {
    let (old, new) = (device("zz-old", "demo", "C-1", "on-off"), device("aa-new", "demo", "C-1", "on-off"));
    let former = [("demo".to_owned(), "zz-old".to_owned())].into();
    let mut folder = Folder { manifests: Manifests::new(Former { devices: former, ..Former::default() }) };
    folder.load(&[("a.yaml", &format!("{}---\n{new}---\n{old}", base()))]);
    assert!(folder.outcome("Device/zz-old").contains("Accepted"), "{}", folder.outcomes());
    assert!(folder.outcome("Device/aa-new").contains("Refused DuplicateDeviceCode"));
}

#[test]
fn a_device_recovers_when_its_format_appears() {
    let mut folder = Folder::default();
    let demo = tenant("demo", "");
    let d1 = device("d1", "demo", "C-1", "on-off");
    folder.load(&[("a.yaml", &demo), ("d.yaml", &d1)]);
    assert!(folder.outcome("Device/d1").contains("Refused FormatMissing"));
    folder.load(&[("a.yaml", &demo), ("d.yaml", &d1), ("f.yaml", &format("on-off"))]);
    assert_eq!(folder.outcome("Device/d1"), "Device/d1 Accepted");
}

#[test]
fn the_same_object_twice_counts_once() {
    let mut folder = Folder::default();
    let (one, two) = (device("d1", "demo", "C-1", "on-off"), device("d1", "demo", "C-2", "on-off"));
    folder.load(&[("a.yaml", &base()), ("b.yaml", &one), ("c.yaml", &two)]);
    assert!(
        folder.device(&folder.built(), "C-1").is_some() && folder.device(&folder.built(), "C-2").is_none()
    );
    let verdict = folder.outcome("File/c.yaml");
    assert!(
        verdict.contains(
            "DuplicateObject: Device/d1 at c.yaml:2 (document 1) stands at b.yaml:2 (document 1) already"
        ),
        "{verdict}"
    );
    assert_eq!(folder.outcome("Device/d1"), "Device/d1 Accepted");
    // Also within one file.
    folder.load(&[("a.yaml", &base()), ("b.yaml", &format!("{one}---\n{two}"))]);
    assert!(
        folder.outcome("File/b.yaml").contains("DuplicateObject: Device/d1 at b.yaml:11 (document 2)"),
        "{}",
        folder.outcomes()
    );
}

#[test]
fn an_unchanged_folder_changes_nothing() {
    let mut folder = Folder::default();
    assert!(folder.load(&[("a.yaml", &base())]));
    assert!(!folder.load(&[("a.yaml", &base())]));
    assert!(folder.load(&[]));
}
