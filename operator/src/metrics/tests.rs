use std::collections::{BTreeMap, BTreeSet};

use super::*;

/// The metrics that a text shows: name, with its labels and their values.
fn shown(text: &str) -> BTreeMap<String, BTreeMap<String, BTreeSet<String>>> {
    let mut shown: BTreeMap<String, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (sample, _) = line.rsplit_once(' ').unwrap();
        let (name, labels) = sample.split_once('{').unwrap_or((sample, ""));
        let metric = shown.entry(name.to_owned()).or_default();
        for label in labels.trim_end_matches('}').split(',').filter(|label| !label.is_empty()) {
            let (label, value) = label.split_once('=').unwrap();
            metric.entry(label.to_owned()).or_default().insert(value.trim_matches('"').to_owned());
        }
    }
    shown
}

/// The rows of docs/operations.md whose first cell is a metric of the operator: name, and the second cell.
fn documented() -> BTreeMap<String, String> {
    let page = include_str!("../../../docs/operations.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `flutecast_"));
    let rows = rows.filter_map(|row| {
        let (name, rest) = row.split_once("` | ")?;
        Some((format!("flutecast_{name}"), rest.split(" | ").next()?.to_owned()))
    });
    rows.filter(|(name, _)| name.starts_with("flutecast_operator_") || name == "flutecast_build_info")
        .collect()
}

#[test]
fn the_page_lists_exactly_what_is_shown() {
    let (shown, documented) = (shown(&Metrics::default().text()), documented());
    let names = |names: Vec<&String>| names.into_iter().cloned().collect::<BTreeSet<_>>();
    assert_eq!(names(documented.keys().collect()), names(shown.keys().collect()));
    for (name, labels) in shown {
        let row = &documented[&name];
        // The page writes `kind`: Tenant, Device; `result`: Done, Failed.
        let written: BTreeMap<String, BTreeSet<String>> = row
            .split("; ")
            .filter_map(|label| {
                let (label, values) = label.split_once(": ")?;
                Some((label.trim_matches('`').to_owned(), values.split(", ").map(str::to_owned).collect()))
            })
            .collect();
        if name == "flutecast_build_info" {
            assert!(row.starts_with("`version`"), "{row}");
        } else {
            assert_eq!(written, labels, "{name}: {row}");
        }
    }
}

#[test]
fn queues_are_asked_when_somebody_looks() {
    let metrics = Metrics::default();
    let length = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(3));
    let asked = length.clone();
    metrics.show_changes_waiting(move || asked.load(Ordering::Relaxed));
    assert!(metrics.text().contains("\nflutecast_operator_changes_waiting 3\n"), "{}", metrics.text());
    length.store(7, Ordering::Relaxed);
    assert!(metrics.text().contains("\nflutecast_operator_changes_waiting 7\n"), "{}", metrics.text());
}

#[test]
fn objects_are_counted_anew_each_time() {
    let metrics = Metrics::default();
    let of =
        |condition: &str| format!("flutecast_operator_objects{{kind=\"Device\",condition=\"{condition}\"}}");
    metrics.objects(ObjectKind::Device, [Standing::Ready, Standing::Ready, Standing::Stalled].into_iter());
    assert!(metrics.text().contains(&format!("{} 2\n", of("Ready"))), "{}", metrics.text());
    metrics.objects(ObjectKind::Device, [Standing::Ready].into_iter());
    for (condition, count) in [("Ready", 1), ("Stalled", 0), ("Reconciling", 0)] {
        assert!(metrics.text().contains(&format!("{} {count}\n", of(condition))), "{}", metrics.text());
    }
}
