use super::*;

#[test]
fn the_page_lists_exactly_what_is_shown() {
    let text = Metrics::default().text();
    let is_ours = |name: &str| name.starts_with("flutecast_operator_") || name == "flutecast_build_info";
    let page = include_str!("../../../docs/operations.md");
    let differences = flutecast_testkit::metrics_page::differences(&text, page, is_ours);
    assert!(differences.is_empty(), "{differences:#?}");
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
