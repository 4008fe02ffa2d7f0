//! Renders the charts with the values in `charts/flutecast/ci`. The results are committed below
//! `charts/snapshots`, so that a review shows the effect of a change to a template.

use std::path::Path;

use anyhow::Context;
use flutecast_testbed::Helm;

/// Returns the name and the rendered charts of each case.
///
/// # Errors
/// Returns an error if helm can't be built or fails.
pub fn rendered_cases(root: &Path) -> anyhow::Result<Vec<(String, String)>> {
    let helm = Helm::new(None)?;
    let chart = |name: &str| root.join("charts").join(name).display().to_string();
    let crds =
        helm.run(&["template", "crds", &chart("flutecast-crds"), "--namespace", "flutecast-system"])?;
    let mut cases = vec![("crds".to_owned(), crds.stdout)];
    for entry in std::fs::read_dir(root.join("charts/flutecast/ci"))? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).context("a file's name")?;
        let Some(case) = name.strip_suffix("-values.yaml") else { continue };
        let (flutecast, values) = (chart("flutecast"), path.display().to_string());
        let args = ["template", "factory", &flutecast, "--namespace", "plant-1", "--values", &values];
        cases.push((case.to_owned(), helm.run(&args)?.stdout));
    }
    cases.sort();
    Ok(cases)
}
