//! Writes what is generated in the charts: `make charts`.

use std::path::Path;

use anyhow::Context;

fn main() -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("e2e is in the workspace")?;
    for (path, text) in flutecast_e2e::generated::chart_files(root)? {
        std::fs::write(root.join(&path), text).with_context(|| format!("{}", path.display()))?;
    }
    Ok(())
}
