//! `flutecast-operator`: over a folder, or on an API server.

mod config;

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use flutecast_nats::{Login, LoginError};
use flutecast_operator::admin;
use flutecast_operator::backend;
use flutecast_operator::backend::cluster::clean_up::{Remains, Site};
use flutecast_operator::backend::folder::mapping::MappingFolder;
use flutecast_operator::backend::folder::reconcile::FolderOperator;
use flutecast_operator::backend::folder::status::{Board, Format};
use flutecast_operator::enrollment;
use flutecast_operator::enrollment::counter::Shared;
use flutecast_operator::jetstream::api::Api;
use flutecast_operator::jetstream::task::{Links, Report};
use flutecast_operator::jetstream::{connection, task};
use flutecast_operator::metrics::{Enrolled, Metrics};
use flutecast_operator::protection;
use flutecast_process::log::{self, JsonFields, LogFormat};
use flutecast_process::shutdown::Shutdown;
use flutecast_process::tasks::Tasks;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, Mode};

/// What is logged unless `RUST_LOG` says otherwise.
const LOG_FILTER: &str = "info,async_nats=warn";
/// How long tasks may take to end. The longest is to let go of what a finalizer holds; Kubernetes gives a pod
/// thirty seconds.
const SHUTDOWN: Duration = Duration::from_secs(20);

// Two are enough for what waits most of the time; each more keeps memory of its own.
#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    let config = Config::parse();
    let filter = std::env::var("RUST_LOG").unwrap_or_else(|_| LOG_FILTER.to_owned());
    if let Err(error) = log::start(config.log_format, JsonFields::Nested, &filter) {
        eprintln!("flutecast-operator: {error:#}");
        return ExitCode::FAILURE;
    }
    let ended = match Shutdown::on_signals() {
        Ok(shutdown) => run(config, shutdown.asked).await,
        Err(error) => Err(error),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // In the log's own format, and as a sentence: a backtrace would hide it.
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(config: Config, cancel: CancellationToken) -> anyhow::Result<()> {
    let mode = config.mode()?;
    if let (true, Mode::Kubernetes { places, .. }) = (config.let_go, &mode) {
        let count = protection::let_go(&backend::cluster::client().await?, places).await?;
        tracing::info!(count, "nothing is held by a finalizer any longer");
        return Ok(());
    }
    if !config.clean_up.is_empty() {
        return clean_up(&config, mode).await;
    }
    let metrics = Arc::new(Metrics::default());
    let mut tasks = Tasks::default();
    // A folder that can't be used ends the program before anything is begun.
    let folder = match &mode {
        Mode::Folder { mapping_out, .. } => Some(MappingFolder::open(mapping_out)?),
        Mode::Kubernetes { .. } => None,
    };
    if let Some(address) = config.admin {
        let listener = TcpListener::bind(address).await.with_context(|| format!("--admin {address}"))?;
        tracing::info!(address = %listener.local_addr()?, "admin port");
        tasks.watch("admin port", admin::spawn(listener, metrics.clone(), cancel.clone()));
    }
    let (client, connected) = connection::open(&config.nats).await?;
    let (wanted, wanted_by_task) = watch::channel(None);
    let (report_of_task, report) = watch::channel(Report::new());
    let requests = enrollment_connection(&config.nats, &metrics).await?;
    let nats = backend::cluster::Nats {
        client: client.clone(),
        connected: connected.clone(),
        enrollment: requests.clone(),
    };
    let links = Links { connected, wanted: wanted_by_task, report: report_of_task, metrics: metrics.clone() };
    tasks.watch("JetStream", task::spawn(Api::new(client).counted(metrics.clone()), links, cancel.clone()));
    match (mode, folder) {
        (Mode::Folder { manifests, .. }, Some(mapping)) => {
            let board = Board::new(match config.log_format {
                LogFormat::Text => Format::Text,
                LogFormat::Json => Format::Json,
            });
            let (roster, roster_of_counters) = watch::channel(None);
            // Nobody can create Devices in a folder.
            let (_, forbidden) = watch::channel(BTreeSet::new());
            let counters = Shared {
                client: requests,
                roster: roster_of_counters,
                forbidden,
                maker: None,
                metrics: metrics.clone(),
            };
            tasks.watch("enrollment", enrollment::service::spawn(counters, cancel.clone()));
            let operator =
                FolderOperator::new(manifests, mapping, wanted, report, board, metrics).telling(roster);
            tasks.watch("folder", tokio::spawn(operator.run(cancel.clone())));
        }
        (Mode::Kubernetes { places, mapping_namespace, identity, service, release }, _) => {
            let client = backend::cluster::client().await?;
            let own_namespace = mapping_namespace.unwrap_or_else(|| client.default_namespace().to_owned());
            let named: Vec<&str> = places.iter().map(|place| place.as_deref().unwrap_or("all")).collect();
            let namespaces = named.join(",");
            tracing::info!(namespaces, mapping = own_namespace, identity, "on an API server");
            let protection = config.protection.into();
            let options =
                backend::cluster::Options { places, own_namespace, identity, protection, service, release };
            for (name, task) in
                backend::cluster::start(&client, options, wanted, report, nats, &metrics, &cancel)
            {
                tasks.watch(name, task);
            }
        }
        (Mode::Folder { .. }, None) => {}
    }
    end_together(tasks, &cancel).await
}

/// Removes what an installation leaves.
async fn clean_up(config: &Config, mode: Mode) -> anyhow::Result<()> {
    let Mode::Kubernetes { places, mapping_namespace, identity, .. } = mode else {
        anyhow::bail!("--clean-up is for --kubernetes");
    };
    let what: BTreeSet<Remains> = config.clean_up.iter().copied().map(Remains::from).collect();
    let broker = match what.contains(&Remains::Streams) {
        true => {
            let (client, connected) = connection::open(&config.nats).await?;
            Some((Api::new(client), connected))
        }
        false => None,
    };
    let client = backend::cluster::client().await?;
    let own_namespace = mapping_namespace.unwrap_or_else(|| client.default_namespace().to_owned());
    let site = Site { places, own_namespace, identity };
    backend::cluster::clean_up::clean_up(&client, &site, &what, broker).await
}

/// The connection of enrollment: whoever floods it holds up nothing else.
async fn enrollment_connection(
    login: &Login,
    metrics: &Arc<Metrics>,
) -> Result<async_nats::Client, LoginError> {
    let metrics = metrics.clone();
    let dropped = move || metrics.enrolled(Enrolled::Dropped);
    connection::open_for_requests(login, enrollment::service::WAITING, dropped).await
}

/// Waits until it is time to end, or a task ends by itself; then all of them end.
async fn end_together(mut tasks: Tasks, cancel: &CancellationToken) -> anyhow::Result<()> {
    let fault = cancel.run_until_cancelled(tasks.ended()).await;
    cancel.cancel();
    let joined = tasks.join(SHUTDOWN).await;
    fault.map_or(joined, Err)?;
    tracing::info!("ended");
    Ok(())
}
