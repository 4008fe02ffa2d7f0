//! Writes what is generated in `charts/`: `make charts`, and `make chart-schemas`.

mod schemas;

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Parser;
use flutecast_e2e::snapshots::rendered_cases;

/// Writes what is generated in `charts/`.
#[derive(Debug, Parser)]
struct Arguments {
    /// Instead: Kubernetes' schemas of the kinds that the charts use, from its `swagger.json` …
    #[arg(long, value_name = "FILE", requires = "out")]
    swagger: Option<PathBuf>,

    /// … or the schemas of kinds of others, from their CustomResourceDefinitions …
    #[arg(long, value_name = "FILE", requires = "out", conflicts_with = "swagger")]
    definition: Vec<PathBuf>,

    /// … to this file.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if let Some(out) = arguments.out {
        let schemas = match arguments.swagger {
            Some(swagger) => schemas::of_kubernetes(&swagger)?,
            None => schemas::of_definitions(&arguments.definition)?,
        };
        return std::fs::write(&out, format!("{schemas}\n")).with_context(|| format!("{}", out.display()));
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("e2e is in the workspace")?;
    for (path, text) in flutecast_e2e::generated::chart_files(root)? {
        std::fs::write(root.join(&path), text).with_context(|| format!("{}", path.display()))?;
    }
    for (case, rendered) in rendered_cases(root)? {
        if case != "crds" {
            std::fs::write(root.join(format!("charts/snapshots/{case}.yaml")), rendered)?;
        }
    }
    Ok(())
}
