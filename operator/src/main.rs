//! `flutecast-operator`: over a folder, or on an API server.

mod config;

use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use flutecast_nats::{Login, LoginError};
use flutecast_operator::admin;
use flutecast_operator::apply::mapping_folder::MappingFolder;
use flutecast_operator::clock;
use flutecast_operator::enrolment;
use flutecast_operator::enrolment::counter::Shared;
use flutecast_operator::jetstream::api::Api;
use flutecast_operator::jetstream::task::{Links, Report};
use flutecast_operator::jetstream::{connection, task};
use flutecast_operator::kubernetes;
use flutecast_operator::kubernetes::clean_up::{Remains, Site};
use flutecast_operator::metrics::{Enrolled, Metrics};
use flutecast_operator::reconcile::FolderOperator;
use flutecast_operator::status::{Board, Format};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::config::{Config, LogFormat, Mode};

/// How long tasks may take to end. The longest is to let go of what a finalizer holds; Kubernetes gives a pod thirty seconds.
const SHUTDOWN: Duration = Duration::from_secs(20);

// Two are enough for what waits most of the time; each more keeps memory of its own.
#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    let config = Config::parse();
    start_log(config.log_format);
    let cancel = CancellationToken::new();
    let ended = match cancel_on_signal(cancel.clone()) {
        Ok(()) => run(config, cancel).await,
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
        let count = kubernetes::protect::let_go(&kubernetes::client().await?, places).await?;
        tracing::info!(count, "nothing is held by a finalizer any longer");
        return Ok(());
    }
    if !config.clean_up.is_empty() {
        return clean_up(&config, mode).await;
    }
    let metrics = Arc::new(Metrics::default());
    let mut tasks = JoinSet::new();
    watch_task(&mut tasks, "clock", clock::spawn(cancel.clone()));
    // A folder that can't be used ends the program before anything is begun.
    let folder = match &mode {
        Mode::Folder { mapping_out, .. } => Some(MappingFolder::open(mapping_out)?),
        Mode::Kubernetes { .. } => None,
    };
    if let Some(address) = config.admin {
        let listener = TcpListener::bind(address).await.with_context(|| format!("--admin {address}"))?;
        tracing::info!(address = %listener.local_addr()?, "admin port");
        watch_task(&mut tasks, "admin port", admin::spawn(listener, metrics.clone(), cancel.clone()));
    }
    let (client, connected) = connection::open(&config.nats).await?;
    let (wanted, wanted_by_task) = watch::channel(None);
    let (report_of_task, report) = watch::channel(Report::new());
    let requests = enrolment_connection(&config.nats, &metrics).await?;
    let nats = kubernetes::Nats {
        client: client.clone(),
        connected: connected.clone(),
        enrolment: requests.clone(),
    };
    let links = Links { connected, wanted: wanted_by_task, report: report_of_task, metrics: metrics.clone() };
    watch_task(
        &mut tasks,
        "JetStream",
        task::spawn(Api::new(client).counted(metrics.clone()), links, cancel.clone()),
    );
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
            watch_task(&mut tasks, "enrolment", enrolment::service::spawn(counters, cancel.clone()));
            let operator =
                FolderOperator::new(manifests, mapping, wanted, report, board, metrics).telling(roster);
            watch_task(&mut tasks, "folder", tokio::spawn(operator.run(cancel.clone())));
        }
        (Mode::Kubernetes { places, mapping_namespace, identity, service, release }, _) => {
            let client = kubernetes::client().await?;
            let own_namespace = mapping_namespace.unwrap_or_else(|| client.default_namespace().to_owned());
            let named: Vec<&str> = places.iter().map(|place| place.as_deref().unwrap_or("all")).collect();
            let namespaces = named.join(",");
            tracing::info!(namespaces, mapping = own_namespace, identity, "on an API server");
            let protection = config.protection.into();
            let options =
                kubernetes::Options { places, own_namespace, identity, protection, service, release };
            for (name, task) in kubernetes::start(&client, options, wanted, report, nats, &metrics, &cancel) {
                watch_task(&mut tasks, name, task);
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
    let client = kubernetes::client().await?;
    let own_namespace = mapping_namespace.unwrap_or_else(|| client.default_namespace().to_owned());
    let site = Site { places, own_namespace, identity };
    kubernetes::clean_up::clean_up(&client, &site, &what, broker).await
}

/// The connection of enrolment: whoever floods it holds up nothing else.
async fn enrolment_connection(
    login: &Login,
    metrics: &Arc<Metrics>,
) -> Result<async_nats::Client, LoginError> {
    let metrics = metrics.clone();
    let dropped = move || metrics.enrolled(Enrolled::Dropped);
    connection::open_for_requests(login, enrolment::service::WAITING, dropped).await
}

/// Has a task watched: how it ends is what the set's next result says.
fn watch_task(tasks: &mut JoinSet<anyhow::Result<()>>, name: &'static str, task: JoinHandle<()>) {
    tasks.spawn(async move { task.await.with_context(|| format!("the task {name} failed")) });
}

/// Waits until it is time to end, or a task ends by itself; then all of them end.
async fn end_together(
    mut tasks: JoinSet<anyhow::Result<()>>,
    cancel: &CancellationToken,
) -> anyhow::Result<()> {
    let mut result = Ok(());
    if let Some(ended) = tasks.join_next().await {
        result = ended.context("a task failed").flatten();
        if !cancel.is_cancelled() && result.is_ok() {
            result = Err(anyhow::anyhow!("a task ended by itself"));
        }
    }
    cancel.cancel();
    let rest = async { while tasks.join_next().await.is_some() {} };
    tokio::time::timeout(SHUTDOWN, rest).await.context("tasks do not end")?;
    tracing::info!("ended");
    result
}

fn start_log(format: LogFormat) {
    // What kube has to say is said by our own lines, once and not at each attempt.
    let usual = || EnvFilter::new("info,async_nats=warn,kube_runtime=error,kube_client=off");
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| usual());
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
