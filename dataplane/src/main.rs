//! The program `flutecast-dataplane`.

use std::process::ExitCode;

use clap::Parser;
use flutecast_dataplane::app;
use flutecast_dataplane::config::Config;
use flutecast_process::log::{self, JsonFields};
use flutecast_process::shutdown::Shutdown;

fn main() -> ExitCode {
    let config = Config::parse();
    if let Err(error) = log::start(config.log_format, JsonFields::Flat, &config.log) {
        eprintln!("flutecast-dataplane: {error:#}");
        return ExitCode::FAILURE;
    }
    match run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Logged as one sentence; returning the error would print a backtrace.
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(config: Config) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let Shutdown { asked, urged } = Shutdown::on_signals()?;
        tokio::select! {
            result = app::run(config, asked.cancelled()) => result,
            () = urged.cancelled() => anyhow::bail!("ended at once by a second signal"),
        }
    })
}
