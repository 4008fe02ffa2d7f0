//! Builds the programs in Go that the tests run, each once per machine, and says what it does.

use std::io::Write;

use flutecast_e2e::GoTool;

fn main() -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    for tool in [GoTool::NATS_SERVER, GoTool::ETCD, GoTool::KUBE_APISERVER, GoTool::KUBECTL] {
        if !tool.is_built()? {
            writeln!(out, "building {} once for this machine (up to {} minutes)", tool.name, tool.minutes)?;
            tool.path()?;
        }
    }
    Ok(())
}
