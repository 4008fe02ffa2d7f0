//! Charts of this repository as another version.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use flutecast_testkit::copy_folder;

use super::generated;

/// Copies a chart into `folder` under another version, which is its `appVersion` too. Returns the copy's
/// path.
///
/// # Errors
/// If the chart isn't as expected, or on a fault of the disk.
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

/// Puts other definitions of the kinds (files as in `crds/yaml`) into a copy of the chart `flutecast-crds`.
///
/// # Errors
/// If a definition is missing or isn't as expected.
pub fn put_definitions(copy: &Path, definitions: &Path) -> anyhow::Result<()> {
    for name in generated::KINDS {
        let path = definitions.join(name);
        let definition = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        std::fs::write(copy.join("templates").join(name), generated::kind(name, &definition)?)?;
    }
    Ok(())
}
