//! `flutecast-operator`: the folder mode.

mod config;

use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use flutecast_operator::apply::mapping_folder::MappingFolder;
use flutecast_operator::jetstream::api::Api;
use flutecast_operator::jetstream::task::{Report, Wanted};
use flutecast_operator::jetstream::{connection, task};
use flutecast_operator::reconcile::FolderOperator;
use flutecast_operator::status::{Board, Format};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::config::{Config, LogFormat};

/// How long tasks may take to end.
const SHUTDOWN: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let config = Config::parse();
    start_log(config.log_format);
    let cancel = CancellationToken::new();
    cancel_on_signal(cancel.clone())?;
    run(config, cancel).await
}

async fn run(config: Config, cancel: CancellationToken) -> anyhow::Result<()> {
    let mapping = MappingFolder::open(&config.mapping_out)?;
    let (client, connected) = connection::open(&config.nats).await.context("--nats can't be used")?;
    let (wanted, wanted_by_task) = watch::channel(Arc::new(Wanted::default()));
    let (report_of_task, report) = watch::channel(Report::new());
    let mut streams =
        task::spawn(Api::new(client), connected, wanted_by_task, report_of_task, cancel.clone());
    let format = match config.log_format {
        LogFormat::Text => Format::Text,
        LogFormat::Json => Format::Json,
    };
    let operator = FolderOperator::new(config.manifests, mapping, wanted, report, Board::new(format));
    tokio::select! {
        ended = &mut streams, if !cancel.is_cancelled() => {
            ended.context("the JetStream task failed")?;
            anyhow::ensure!(cancel.is_cancelled(), "the JetStream task ended by itself");
        }
        () = operator.run(cancel.clone()) => {}
    }
    if !streams.is_finished() {
        tokio::time::timeout(SHUTDOWN, streams).await.context("the JetStream task does not end")??;
    }
    tracing::info!("ended");
    Ok(())
}

fn start_log(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,async_nats=warn"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => log.with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => log.json().init(),
    }
}

/// Cancels on SIGTERM and SIGINT.
fn cancel_on_signal(cancel: CancellationToken) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("asked to end");
        cancel.cancel();
    });
    Ok(())
}
