//! Runs system programs with a time limit.

use std::ffi::OsStr;
use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::timeout;

/// Runs a program. Returns its standard output.
///
/// # Errors
/// If it can't be started, fails (the error holds its standard error), or takes longer than `deadline`; then
/// it is killed.
pub(super) async fn run(
    program: impl AsRef<OsStr>,
    args: &[&str],
    deadline: Duration,
) -> anyhow::Result<String> {
    run_with(program, args, "", deadline).await
}

/// Runs a program with `input` on standard input. Returns its standard output.
///
/// # Errors
/// As [`run`].
pub(super) async fn run_with(
    program: impl AsRef<OsStr>,
    args: &[&str],
    input: &str,
    deadline: Duration,
) -> anyhow::Result<String> {
    let program = program.as_ref();
    let mut command = Command::new(program);
    command.args(args);
    let what = || format!("{} {}", program.to_string_lossy(), args.join(" "));
    let output = output(command, input, deadline).await.with_context(what)?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {}: {}", what(), output.status, said.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a command with `input` on standard input. Returns its output, also if it fails.
///
/// # Errors
/// If it can't be started, or takes longer than `deadline`; then it is killed.
pub(crate) async fn output(mut command: Command, input: &str, deadline: Duration) -> anyhow::Result<Output> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().context("it can't be started")?;
    let mut stdin = child.stdin.take().context("it has no standard input")?;
    let write = async {
        // A program that fails early closes its input. Its own message says why.
        let _ = stdin.write_all(input.as_bytes()).await;
        drop(stdin);
    };
    match timeout(deadline, async { tokio::join!(write, child.wait_with_output()).1 }).await {
        Ok(output) => Ok(output?),
        Err(_) => bail!("it did not end within {deadline:?}"),
    }
}
