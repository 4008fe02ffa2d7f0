//! Builds the programs in Go that the tests run, each once per machine, and says what it does.
//!
//! Without arguments all of them; with names only those, and their paths are printed:
//! `helm=$(flutecast-test-tools helm)`.

use std::io::Write;

use anyhow::Context;
use flutecast_e2e::GoTool;

fn main() -> anyhow::Result<()> {
    let names: Vec<String> = std::env::args().skip(1).collect();
    let chosen: Vec<GoTool> = if names.is_empty() {
        GoTool::ALL.to_vec()
    } else {
        names.iter().map(|name| find(name)).collect::<anyhow::Result<_>>()?
    };
    GoTool::build_missing(&chosen, &mut std::io::stderr())?;
    if !names.is_empty() {
        let mut out = std::io::stdout().lock();
        for tool in chosen {
            writeln!(out, "{}", tool.path()?.display())?;
        }
    }
    Ok(())
}

fn find(name: &str) -> anyhow::Result<GoTool> {
    let known = || GoTool::ALL.map(|tool| tool.name).join(", ");
    GoTool::ALL
        .into_iter()
        .find(|tool| tool.name == name)
        .with_context(|| format!("there is no tool {name}; known are {}", known()))
}
