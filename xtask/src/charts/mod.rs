//! Writes the generated files in `charts/`, and copies charts with another version for tests.

mod copy;
mod generated;
mod schemas;
mod snapshots;

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use flutecast_testkit::in_repository;

pub use copy::{chart_as, put_definitions};
pub use generated::{KINDS, chart_files};
pub use schemas::of_definitions as schemas_of_definitions;
pub use snapshots::rendered_cases;

#[derive(Debug, Args)]
pub struct SchemaArgs {
    /// The `swagger.json` of Kubernetes, for the kinds that the charts use
    #[arg(long, value_name = "FILE", conflicts_with = "definition", required_unless_present = "definition")]
    swagger: Option<PathBuf>,

    /// A CustomResourceDefinition of another project
    #[arg(long, value_name = "FILE")]
    definition: Vec<PathBuf>,

    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Writes the generated files and the snapshots.
///
/// # Errors
/// Returns an error if a source file is missing or helm fails.
pub fn write() -> anyhow::Result<()> {
    let root = in_repository("");
    for (path, text) in chart_files(&root)? {
        std::fs::write(root.join(&path), text).with_context(|| format!("{}", path.display()))?;
    }
    for (case, rendered) in rendered_cases(&root)? {
        if case != "crds" {
            std::fs::write(root.join(format!("charts/snapshots/{case}.yaml")), rendered)?;
        }
    }
    Ok(())
}

/// Writes the schemas that `args` select.
///
/// # Errors
/// Returns an error if a document has an unexpected form.
pub fn write_schemas(args: &SchemaArgs) -> anyhow::Result<()> {
    let schemas = match &args.swagger {
        Some(swagger) => schemas::of_kubernetes(swagger)?,
        None => schemas::definitions(&args.definition)?,
    };
    std::fs::write(&args.out, format!("{schemas}\n")).with_context(|| format!("{}", args.out.display()))
}
