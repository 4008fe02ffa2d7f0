//! Compares the tables of metrics in the docs with the metrics that the programs export.

use std::collections::{BTreeMap, BTreeSet};

/// The labels of a metric, with their values. A label without values is open: its values are not compared.
type Labels = BTreeMap<String, BTreeSet<String>>;

/// Returns the differences between `page` (Markdown) and `text` (the body of `/metrics`), one sentence each.
/// The list is empty if they agree.
///
/// A metric is a table row whose first cell is its name in backticks. The second cell lists the labels, such
/// as `` `kind`: Device, Tenant; `status` ``: a closed label with all its values, an open one with none. Only
/// metrics for which `counts` returns true are compared.
#[must_use]
pub fn differences(text: &str, page: &str, counts: impl Fn(&str) -> bool) -> Vec<String> {
    let mut shown = shown(text);
    let mut written = written(page);
    shown.retain(|name, _| counts(name));
    written.retain(|name, _| counts(name));
    let missing = shown.keys().filter(|name| !written.contains_key(*name));
    let mut differences: Vec<String> =
        missing.map(|name| format!("{name} isn't on the page; it has {:?}", shown[name])).collect();
    for (name, labels) in &written {
        let Some(seen) = shown.get(name) else {
            differences.push(format!("{name} is on the page and isn't shown"));
            continue;
        };
        let is_open = |label: &String| labels.get(label).is_some_and(BTreeSet::is_empty);
        let closed: Labels = seen
            .iter()
            .map(|(label, values)| {
                (label.clone(), if is_open(label) { BTreeSet::new() } else { values.clone() })
            })
            .collect();
        if closed != *labels {
            differences.push(format!("{name} has {seen:?}; the page says {labels:?}"));
        }
    }
    differences
}

fn shown(text: &str) -> BTreeMap<String, Labels> {
    let mut shown: BTreeMap<String, Labels> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((sample, _)) = line.rsplit_once(' ') else { continue };
        let (name, labels) = sample.split_once('{').unwrap_or((sample, ""));
        let metric = shown.entry(name.to_owned()).or_default();
        // Splitting at commas is enough: no label value of Flutecast contains a comma or a quotation mark.
        for (label, value) in labels.trim_end_matches('}').split(',').filter_map(|one| one.split_once('=')) {
            metric.entry(label.to_owned()).or_default().insert(value.trim_matches('"').to_owned());
        }
    }
    shown
}

fn written(page: &str) -> BTreeMap<String, Labels> {
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `"));
    let rows = rows.filter_map(|row| {
        let mut cells = row.split('|');
        let name = cells.next()?.trim().strip_suffix('`')?;
        Some((name.to_owned(), labels(cells.next()?.trim())))
    });
    rows.collect()
}

fn labels(cell: &str) -> Labels {
    let labels = cell.split("; ").filter(|label| label.starts_with('`'));
    labels
        .map(|label| {
            let (label, values) = label.split_once(": ").unwrap_or((label, ""));
            let values = values.split(", ").filter(|value| !value.is_empty());
            (label.trim_matches('`').to_owned(), values.map(str::to_owned).collect())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::differences;

    const TEXT: &str = "# TYPE a_b counter\na_b_total{kind=\"X\",status=\"200\"} \
     1\na_b_total{kind=\"Y\",status=\"404\"} 0\na_c 7\n# EOF\n";
    const PAGE: &str = "| metric | labels | meaning |\n| --- | --- | --- |\n| `a_b_total` | `kind`: X, Y; \
     `status` | b |\n| `a_c` | | c |\n| `b_x` | | |\n";

    fn of_a(text: &str, page: &str) -> Vec<String> {
        differences(text, page, |name| name.starts_with("a_"))
    }

    #[test]
    fn differences_are_reported() {
        assert_eq!(of_a(TEXT, PAGE), [] as [&str; 0]);
        for (text, page, told) in [
            (TEXT.replace("a_c 7", ""), PAGE.to_owned(), "a_c is on the page and isn't shown"),
            (TEXT.to_owned(), PAGE.replace("| `a_c` | | c |", ""), "a_c isn't on the page"),
            (TEXT.to_owned(), PAGE.replace("X, Y", "X"), "a_b_total has"),
            (TEXT.to_owned(), PAGE.replace("X, Y", "X, Y, Z"), "a_b_total has"),
            (TEXT.replace("kind", "sort"), PAGE.to_owned(), "a_b_total has"),
            (TEXT.replace("a_c 7", "a_c{z=\"1\"} 7"), PAGE.to_owned(), "a_c has"),
        ] {
            let differences = of_a(&text, &page);
            assert!(differences.len() == 1 && differences[0].starts_with(told), "{told}: {differences:?}");
        }
    }
}
