//! Builds the Go programs that tests run.

use std::io::Write;

use anyhow::Context;
use flutecast_testbed::tools;
use flutecast_testkit::GoTool;

pub(crate) fn run(names: &[String]) -> anyhow::Result<()> {
    let chosen: Vec<GoTool> = if names.is_empty() {
        tools::ALL.to_vec()
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
    let known = || tools::ALL.map(|tool| tool.name).join(", ");
    tools::ALL
        .into_iter()
        .find(|tool| tool.name == name)
        .with_context(|| format!("there is no tool {name}; known are {}", known()))
}
