//! The program `flutecast-dataplane`.

use std::convert::Infallible;

use anyhow::Context as _;
use clap::Parser;
use flutecast_dataplane::config::Config;
use flutecast_dataplane::{app, logging};
use tokio::signal::unix::{SignalKind, signal};

fn main() -> anyhow::Result<()> {
    let config = Config::parse();
    logging::start(config.log_format, &config.log)?;
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
