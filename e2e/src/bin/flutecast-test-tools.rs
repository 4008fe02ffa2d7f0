//! Builds the programs in Go that the tests run, each once per machine, and says what it does.
//!
//! Without arguments all of them; with names only those, and their paths are printed: `helm=$(flutecast-test-tools helm)`.

use std::io::Write;
use std::time::Instant;

use anyhow::Context;
use flutecast_e2e::GoTool;

fn main() -> anyhow::Result<()> {
    let names: Vec<String> = std::env::args().skip(1).collect();
    let chosen: Vec<GoTool> = if names.is_empty() {
        GoTool::ALL.to_vec()
    } else {
        names.iter().map(|name| find(name)).collect::<anyhow::Result<_>>()?
    };
    build(&chosen)?;
    if !names.is_empty() {
        let mut out = std::io::stdout().lock();
        for tool in chosen {
            writeln!(out, "{}", tool.path()?.display())?;
        }
    }
    Ok(())
}

/// Builds those that this machine hasn't got yet; says on standard error which, and how many are still to come.
fn build(chosen: &[GoTool]) -> anyhow::Result<()> {
    let mut missing = Vec::new();
    for tool in chosen {
        if !tool.is_built()? {
            missing.push(tool);
        }
    }
    for (index, tool) in missing.iter().enumerate() {
        let (number, count, minutes) = (index + 1, missing.len(), tool.minutes);
        let mut err = std::io::stderr().lock();
        write!(
            err,
            "[{number}/{count}] building {} once for this machine (up to {minutes} min on two cores) ",
            tool.name
        )?;
        err.flush()?;
        let start = Instant::now();
        tool.path()?;
        writeln!(err, "{} s", start.elapsed().as_secs())?;
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
