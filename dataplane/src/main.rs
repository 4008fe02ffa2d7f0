//! The program `flutecast-dataplane`.

use std::convert::Infallible;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use flutecast_dataplane::config::Config;
use flutecast_dataplane::{app, logging};
use tokio::signal::unix::{SignalKind, signal};

fn main() -> ExitCode {
    let config = Config::parse();
    if let Err(error) = logging::start(config.log_format, &config.log) {
        eprintln!("flutecast-dataplane: {error:#}");
        return ExitCode::FAILURE;
    }
    match run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // In the log's own format, and as a sentence: a backtrace would hide it.
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(config: Config) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).context("SIGTERM can't be waited for")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT can't be waited for")?;
        let (first, second) = (tokio::sync::Notify::new(), tokio::sync::Notify::new());
        let signals = async {
            for notify in [&first, &second] {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                notify.notify_one();
            }
            std::future::pending::<Infallible>().await
        };
        tokio::select! {
            result = app::run(config, first.notified()) => result,
            () = second.notified() => anyhow::bail!("ended at once by a second signal"),
            never = signals => match never {},
        }
    })
}
