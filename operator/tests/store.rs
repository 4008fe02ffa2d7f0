//! What a folder holds as its files change: last good versions, who is older, what heals.
#![allow(clippy::unwrap_used)] // Also in helpers, which clippy does not take for tests.

mod manifests;

use manifests::{Box1, device, format, tenant};

fn base() -> String {
    format!("{}---\n{}", tenant("demo", ""), format("on-off"))
}

#[test]
fn a_file_that_breaks_keeps_its_last_good_objects() {
    let mut operator = Box1::default();
    let d1 = device("d1", "demo", "C-1", "on-off");
    let d2 = device("d2", "demo", "C-2", "on-off");
    let d3 = device("d3", "demo", "C-3", "on-off");
    operator.load(&[("a.yaml", &base()), ("b.yaml", &format!("{d1}---\n{d2}"))]);
    // d1 breaks, d2 is no longer there, d3 is new.
    operator.load(&[("a.yaml", &base()), ("b.yaml", &format!("apiVersion: [\n---\n{d3}"))]);
    let built = operator.built();
    assert!(operator.device(&built, "C-1").is_some() && operator.device(&built, "C-3").is_some());
    // It could have been the broken document, so it stays too.
    assert!(operator.device(&built, "C-2").is_some());
    let verdict = operator.verdict("File/b.yaml");
    assert!(verdict.contains("Degraded InvalidYaml: b.yaml:"), "{verdict}");
    // Whole again: what isn't there is gone.
    operator.load(&[("a.yaml", &base()), ("b.yaml", &format!("{d1}---\n{d3}"))]);
    let built = operator.built();
    assert!(operator.device(&built, "C-1").is_some() && operator.device(&built, "C-2").is_none());
    assert_eq!(operator.verdict("File/b.yaml"), "");
    // A broken file that is removed takes its objects with it.
    operator.load(&[("a.yaml", &base()), ("b.yaml", "apiVersion: [\n")]);
    operator.load(&[("a.yaml", &base())]);
    assert!(operator.device(&operator.built(), "C-1").is_none());
}

#[test]
fn an_invalid_object_keeps_its_last_good_version() {
    let mut operator = Box1::default();
    let good = device("d1", "demo", "C-1", "on-off");
    operator.load(&[("a.yaml", &base()), ("b.yaml", &good)]);
    operator.load(&[("a.yaml", &base()), ("b.yaml", &good.replace("name: power", "name: 'not a channel'"))]);
    let verdict = operator.verdict("Device/d1");
    assert!(verdict.starts_with("Device/d1 Degraded InvalidObject: spec.channels[0].name"), "{verdict}");
    assert!(
        verdict.contains("b.yaml:8") && verdict.contains("the version before stays in force"),
        "{verdict}"
    );
    assert!(operator.device(&operator.built(), "C-1").is_some());
}

#[test]
fn an_unreadable_file_keeps_its_objects() {
    let mut operator = Box1::default();
    operator.load(&[("a.yaml", &base()), ("b.yaml", &device("d1", "demo", "C-1", "on-off"))]);
    let files =
        [("a.yaml".to_owned(), Ok(base())), ("b.yaml".to_owned(), Err("Permission denied".to_owned()))]
            .into();
    assert!(operator.store.load(&files));
    assert!(operator.device(&operator.built(), "C-1").is_some());
    assert!(operator.verdict("File/b.yaml").contains("Permission denied"));
}

#[test]
fn the_holder_of_a_code_keeps_it_and_the_newcomer_heals() {
    let mut operator = Box1::default();
    let (old, new) = (device("zz-old", "demo", "C-1", "on-off"), device("aa-new", "demo", "C-1", "on-off"));
    operator.load(&[("a.yaml", &base()), ("z.yaml", &old)]);
    operator.load(&[("a.yaml", &base()), ("b.yaml", &new), ("z.yaml", &old)]);
    assert!(
        operator
            .verdict("Device/aa-new")
            .contains("Refused DuplicateDeviceCode: spec.deviceCode: \"C-1\" is taken by Device/zz-old")
    );
    assert!(operator.verdict("Device/zz-old").contains("Accepted"));
    operator.load(&[("a.yaml", &base()), ("b.yaml", &new)]);
    assert_eq!(operator.verdict("Device/aa-new"), "Device/aa-new Accepted");
    assert_eq!(operator.device(&operator.built(), "C-1").unwrap().name, "aa-new");
    // Back again, it is the younger one.
    operator.load(&[("a.yaml", &base()), ("b.yaml", &new), ("z.yaml", &old)]);
    assert!(operator.verdict("Device/zz-old").contains("Refused DuplicateDeviceCode"));
}

#[test]
fn after_a_restart_the_former_holder_has_it() {
    let (old, new) = (device("zz-old", "demo", "C-1", "on-off"), device("aa-new", "demo", "C-1", "on-off"));
    let former = [("demo".to_owned(), "zz-old".to_owned())].into();
    let mut operator = Box1 { store: flutecast_operator::backend::folder::store::Store::new(former) };
    operator.load(&[("a.yaml", &format!("{}---\n{new}---\n{old}", base()))]);
    assert!(operator.verdict("Device/zz-old").contains("Accepted"), "{}", operator.verdicts());
    assert!(operator.verdict("Device/aa-new").contains("Refused DuplicateDeviceCode"));
}

#[test]
fn a_missing_format_heals_when_it_appears() {
    let mut operator = Box1::default();
    let demo = tenant("demo", "");
    let d1 = device("d1", "demo", "C-1", "on-off");
    operator.load(&[("a.yaml", &demo), ("d.yaml", &d1)]);
    assert!(operator.verdict("Device/d1").contains("Refused FormatMissing"));
    operator.load(&[("a.yaml", &demo), ("d.yaml", &d1), ("f.yaml", &format("on-off"))]);
    assert_eq!(operator.verdict("Device/d1"), "Device/d1 Accepted");
}

#[test]
fn the_same_object_twice_counts_once() {
    let mut operator = Box1::default();
    let (one, two) = (device("d1", "demo", "C-1", "on-off"), device("d1", "demo", "C-2", "on-off"));
    operator.load(&[("a.yaml", &base()), ("b.yaml", &one), ("c.yaml", &two)]);
    assert!(
        operator.device(&operator.built(), "C-1").is_some()
            && operator.device(&operator.built(), "C-2").is_none()
    );
    let verdict = operator.verdict("File/c.yaml");
    assert!(
        verdict.contains(
            "DuplicateObject: Device/d1 at c.yaml:2 (document 1) stands at b.yaml:2 (document 1) already"
        ),
        "{verdict}"
    );
    assert_eq!(operator.verdict("Device/d1"), "Device/d1 Accepted");
    // Within one file too.
    operator.load(&[("a.yaml", &base()), ("b.yaml", &format!("{one}---\n{two}"))]);
    assert!(
        operator.verdict("File/b.yaml").contains("DuplicateObject: Device/d1 at b.yaml:11 (document 2)"),
        "{}",
        operator.verdicts()
    );
}

#[test]
fn an_unchanged_folder_changes_nothing() {
    let mut operator = Box1::default();
    assert!(operator.load(&[("a.yaml", &base())]));
    assert!(!operator.load(&[("a.yaml", &base())]));
    assert!(operator.load(&[]));
}
