//! The program: creates the parts, connects them, and ends them together.

mod cluster;
mod folder;
mod metrics;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use flutecast_nats::{JetStreamApi, Login, LoginError};
use flutecast_process::shutdown::Shutdown;
use flutecast_process::tasks::Tasks;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use self::metrics::OperatorMetrics;
use crate::clean_up::{self, CleanUp, InstallationScope};
use crate::config::{Config, Mode};
use crate::enrollment::{self, EnrollmentMetrics, RequestResult};
use crate::jetstream::reconciler::{StreamReports, StreamTask, WantedStreams};
use crate::last_messages::{DeclaredChannels, LookTask};
use crate::nats;
use crate::nats_passwords::{PasswordReports, PasswordsTask};
use crate::presence::Target;
use crate::{admin, protection};

/// The longest wait for tasks to end. The longest is to remove finalizers; Kubernetes gives a pod thirty
/// seconds.
const SHUTDOWN: Duration = Duration::from_secs(20);

struct Nats {
    client: async_nats::Client,
    connected: watch::Receiver<bool>,
    /// Enrollment has a connection of its own, so that a flood of requests delays nothing else.
    enrollment: async_nats::Client,
}

/// The channels of the tasks that manage the streams and what is in them.
struct Streams {
    wanted: watch::Sender<Option<Arc<WantedStreams>>>,
    report: watch::Receiver<StreamReports>,
    /// For the task that looks at last messages.
    channels: watch::Sender<Option<Arc<DeclaredChannels>>>,
}

impl Streams {
    /// Returns the task that looks at last messages. `grace` is how long a channel has to be gone before its
    /// last value goes; the devices of `first` are looked at soon.
    fn look_task(
        &self,
        nats: &Nats,
        grace: Duration,
        first: mpsc::Receiver<Arc<Target>>,
        metrics: &OperatorMetrics,
    ) -> LookTask {
        LookTask {
            client: nats.client.clone(),
            api: JetStreamApi::new(nats.client.clone()).observed(metrics.streams.clone()),
            connected: nats.connected.clone(),
            channels: self.channels.subscribe(),
            reports: self.report.clone(),
            grace,
            first,
            metrics: metrics.looks.clone(),
        }
    }
}

/// Runs the operator as configured, until a signal ends the process.
///
/// # Errors
/// Returns an error if something can't be used from the start, or a task ends by itself.
pub async fn run(config: Config) -> anyhow::Result<()> {
    let cancel = Shutdown::on_signals()?.asked;
    let mode = config.mode()?;
    if let (true, Mode::Kubernetes { scopes, .. }) = (config.let_go, &mode) {
        let count = protection::remove_finalizers(&cluster::client().await?, scopes).await?;
        tracing::info!(count, "nothing is held by a finalizer any longer");
        return Ok(());
    }
    if !config.clean_up.is_empty() {
        return clean_up(&config, mode).await;
    }
    let metrics = OperatorMetrics::new();
    let mut tasks = Tasks::default();
    // A folder that can't be used ends the program before anything is started.
    let folder = folder::open(&mode)?;
    if let Some(address) = config.admin {
        let listener = TcpListener::bind(address).await.with_context(|| format!("--admin {address}"))?;
        tracing::info!(address = %listener.local_addr()?, "admin port");
        tasks.spawn_until("admin port", &cancel, admin::serve(listener, endpoints(&metrics)));
    }
    let (login, passwords) = login(&config.nats, &mode, &metrics).await?;
    let nats = connect(&login, &metrics.enrollment).await?;
    if let Some(passwords) = passwords {
        tasks.spawn_until("NATS's passwords", &cancel, passwords.run(nats.connected.clone()));
    }
    let (wanted, wanted_by_task) = watch::channel(None);
    let (reports_of_task, report) = watch::channel(StreamReports::new());
    let task = StreamTask {
        api: JetStreamApi::new(nats.client.clone()).observed(metrics.streams.clone()),
        connected: nats.connected.clone(),
        wanted: wanted_by_task,
        reports: reports_of_task,
        metrics: metrics.streams.clone(),
    };
    tasks.spawn_until("JetStream", &cancel, task.run());
    let streams = Streams { wanted, report, channels: watch::Sender::new(None) };
    match (mode, folder) {
        (Mode::Folder { manifests, .. }, Some(mapping)) => {
            let operator = folder::FolderOperator { manifests, mapping, log_format: config.log_format };
            operator.start(streams, nats, &metrics, &mut tasks, &cancel);
        }
        (Mode::Kubernetes { scopes, mapping_namespace, identity, service, release, .. }, _) => {
            let client = cluster::client().await?;
            let own_namespace = mapping_namespace.unwrap_or_else(|| client.default_namespace().to_owned());
            let named: Vec<&str> = scopes.iter().map(|scope| scope.as_deref().unwrap_or("all")).collect();
            let namespaces = named.join(",");
            tracing::info!(namespaces, mapping = own_namespace, identity, "on an API server");
            let operator = cluster::ClusterOperator {
                client,
                scopes,
                own_namespace,
                identity,
                protection: config.protection,
                service,
                release,
                metrics,
                cancel: cancel.clone(),
            };
            operator.start(streams, nats, &mut tasks);
        }
        (Mode::Folder { .. }, None) => {}
    }
    end_together(tasks, &cancel).await
}

async fn clean_up(config: &Config, mode: Mode) -> anyhow::Result<()> {
    let Mode::Kubernetes { scopes, mapping_namespace, identity, passwords_secret, .. } = mode else {
        anyhow::bail!("--clean-up is for --kubernetes");
    };
    let what: BTreeSet<CleanUp> = config.clean_up.iter().copied().collect();
    let broker = match what.contains(&CleanUp::Streams) {
        true => {
            let nats = nats::open(&config.nats).await?;
            Some((JetStreamApi::new(nats.client.clone()), nats.connected()))
        }
        false => None,
    };
    let client = cluster::client().await?;
    let own_namespace = mapping_namespace.unwrap_or_else(|| client.default_namespace().to_owned());
    let scope = InstallationScope { scopes, own_namespace, identity, passwords_secret };
    clean_up::clean_up(&client, &scope, &what, broker).await
}

/// Returns the login, and the task that finds out its password if that is in a Secret which the operator
/// makes.
async fn login(
    login: &Login,
    mode: &Mode,
    metrics: &OperatorMetrics,
) -> anyhow::Result<(Login, Option<PasswordsTask>)> {
    let Mode::Kubernetes { passwords_secret: Some(name), mapping_namespace, .. } = mode else {
        return Ok((login.clone(), None));
    };
    let client = cluster::client().await?;
    let namespace = mapping_namespace.clone().unwrap_or_else(|| client.default_namespace().to_owned());
    let (own, password) = watch::channel(None);
    let reports = PasswordReports { own, problem: metrics.passwords_problem.clone() };
    let task = PasswordsTask::new(client, &namespace, name, reports, metrics.writes.clone());
    Ok((login.clone().with_password(password), Some(task)))
}

async fn connect(login: &Login, metrics: &Arc<EnrollmentMetrics>) -> Result<Nats, LoginError> {
    let nats = nats::open(login).await?;
    let metrics = metrics.clone();
    let dropped = move || metrics.count_request(RequestResult::Dropped);
    let enrollment = nats::open_for_requests(login, enrollment::PENDING_REQUESTS, dropped).await?;
    Ok(Nats { connected: nats.connected(), client: nats.client, enrollment })
}

fn endpoints(metrics: &OperatorMetrics) -> admin::Endpoints {
    let (registry, ready) = (metrics.registry(), metrics.clone());
    let metrics = move || metrics::encode(&registry);
    admin::Endpoints::new(metrics, move || ready.ready().map_err(|missing| missing.to_string()))
}

/// Waits for a signal or the end of a task; then ends all tasks.
async fn end_together(mut tasks: Tasks, cancel: &CancellationToken) -> anyhow::Result<()> {
    // The token comes first: once it is cancelled, that a task ends is no fault.
    let fault = tokio::select! {
        biased;
        () = cancel.cancelled() => None,
        fault = tasks.ended() => Some(fault),
    };
    cancel.cancel();
    let joined = tasks.join(SHUTDOWN).await;
    fault.map_or(joined, Err)?;
    tracing::info!("ended");
    Ok(())
}
