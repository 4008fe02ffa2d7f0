//! Copies charts of this repository with another version.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use flutecast_testkit::copy_folder;

use super::generated;

/// Copies a chart into `folder` with `version` as its version and `appVersion`, and returns the path of the
/// copy.
///
/// # Errors
/// Returns an error if the chart has an unexpected form, or a file can't be read or written.
pub fn chart_as(chart: &Path, version: &str, folder: &Path) -> anyhow::Result<PathBuf> {
    let name = chart.file_name().context("a chart's name")?;
    let copy = folder.join(format!("{}-{version}", name.display()));
    copy_folder(chart, &copy)?;
    let file = copy.join("Chart.yaml");
    let text = std::fs::read_to_string(&file)?;
    let mut replaced = 0;
    let lines = text.lines().map(|line| match line.split_once(": ") {
        Some((key @ ("version" | "appVersion"), _)) => {
            replaced += 1;
            format!("{key}: {version:?}\n")
        }
        _ => format!("{line}\n"),
    });
    let text: String = lines.collect();
    ensure!(replaced == 2, "{} has {replaced} versions", file.display());
    std::fs::write(&file, text)?;
    Ok(copy)
}

/// Replaces the CustomResourceDefinitions in a copy of the chart `flutecast-crds` by those in `definitions`,
/// a folder like `crds/yaml`.
///
/// # Errors
/// Returns an error if a definition is missing or has an unexpected form.
pub fn put_definitions(copy: &Path, definitions: &Path) -> anyhow::Result<()> {
    for name in generated::KINDS {
        let path = definitions.join(name);
        let definition = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        std::fs::write(copy.join("templates").join(name), generated::kind(name, &definition)?)?;
    }
    Ok(())
}
