//! The whole process: starts the parts, watches them, and ends them in order.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use flutecast_process::tasks::Tasks;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::catalog::{watch_cluster, watch_folder};
use crate::config::{Config, OnOff};
use crate::drain::{self, DrainTimes};
use crate::fanout::{HubSettings, Hubs};
use crate::http::{Admin, Api, OpenStreams, ServerSettings, Shutdown, admin_service, serve, service};
use crate::kubernetes::Cluster;
use crate::metrics::{CatalogMetrics, HttpMetrics, PodMetrics};
use crate::peers::{PeerMetrics, watch_peers};
use crate::rebalance::{LoadSubjects, Rebalance, RebalanceMetrics, RebalanceSettings};
use crate::serving::{ServingMetrics, Subjects, announce};
use crate::sources::broker::Broker;
use crate::sources::splitter;

/// How long the head of a request may take.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How many sockets the second port holds: scrapers and probes are few.
const ADMIN_SOCKETS: usize = 64;
/// How many file descriptors are kept for everything but clients: the broker, the second port, files.
const RESERVED_DESCRIPTORS: usize = 128;
/// Sockets beyond the clients, so that a client that is too many is told so instead of waiting for a
/// connection.
const SPARE_SOCKETS: usize = 1_000;
/// How long the parts may take to end once no client is left.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// Runs until `terminate` is ready, then drains and returns.
///
/// # Errors
/// When a part can't be started, or ends by itself.
pub async fn run(config: Config, terminate: impl Future<Output = ()>) -> anyhow::Result<()> {
    let mut registry = Registry::with_prefix("flutecast");
    let pod_metrics = PodMetrics::register(&mut registry);
    let http_metrics = HttpMetrics::register(&mut registry);
    let catalog_metrics = CatalogMetrics::register(&mut registry);
    let stop = CancellationToken::new();
    let shutdown = Shutdown::default();
    let draining = CancellationToken::new();
    let drain_times = DrainTimes::new(&config);
    let mut tasks = Tasks::default();

    let server_name = config.server_name();
    // The ports first: a port that is taken should be said at once.
    let (listener, listen) = bind(config.listen, "--listen").await?;
    let (admin_listener, admin) = bind(config.admin, "--admin").await?;
    let broker = Broker::connect(&config.nats, &server_name).await?;
    let place = Place::find(&config).await?;
    let (mapping, watching) = match &place {
        Place::Folder(path) => watch_folder(path, catalog_metrics, stop.clone()),
        Place::Cluster(cluster) => watch_cluster(cluster, catalog_metrics, stop.clone()),
    };
    tasks.watch("mapping", watching);
    let mut peers = None;
    if let (Place::Cluster(cluster), Some(service)) = (&place, &config.service) {
        let metrics = PeerMetrics::register(&mut registry);
        let (seen, watching) = watch_peers(cluster, service, metrics, stop.clone());
        tasks.watch("peers", watching);
        peers = Some(seen);
    }
    let announcing = announce(
        broker.clone(),
        mapping.catalog.clone(),
        Subjects::new(place.release(&config), &server_name),
        server_name.clone(),
        ServingMetrics::register(&mut registry),
        stop.clone(),
    );
    tasks.watch("announcing", announcing);
    let settings = HubSettings {
        server_name: server_name.as_str().into(),
        ping: config.ping,
        take_timeout: config.take_timeout,
        max_clients: config.max_clients,
        ..HubSettings::default()
    };
    let (hubs, fanning_out) =
        Hubs::start(broker.clone(), mapping.catalog.clone(), settings, &mut registry, stop.clone());
    tasks.watch("fan-out", fanning_out);
    let splitting = splitter::start(broker.clone(), mapping.catalog.clone(), &mut registry, stop.clone());
    tasks.watch("splitter", splitting);

    let open = OpenStreams::new(http_metrics.clone());
    let watching = open.clone().watch(
        mapping.access.clone(),
        mapping.catalog.clone(),
        config.take_timeout,
        stop.clone(),
    );
    tasks.spawn("open streams", watching);
    if let Some(peers) = peers.filter(|_| config.rebalance == OnOff::On) {
        let rebalance = Rebalance {
            broker: broker.clone(),
            subjects: LoadSubjects::new(place.release(&config), &server_name),
            server_name: server_name.clone(),
            peers,
            hubs: hubs.clone(),
            open: open.clone(),
            settings: RebalanceSettings { rate: config.rebalance_rate, rest: config.rebalance_rest },
            metrics: RebalanceMetrics::register(&mut registry),
            draining: draining.clone(),
        };
        tasks.watch("rebalancing", rebalance.start(stop.clone()));
    }
    let api =
        Api { hubs: hubs.clone(), access: mapping.access, open: open.clone(), metrics: http_metrics.clone() };
    let server_settings = ServerSettings {
        max_sockets: max_sockets(config.max_clients),
        head_timeout: HEAD_TIMEOUT,
        take_timeout: config.take_timeout,
    };
    let clients = tokio::spawn(serve(
        listener,
        service(Arc::new(api), config.dashboard),
        server_settings.clone(),
        http_metrics,
        shutdown.clone(),
    ));
    let second_port = Admin {
        registry,
        metrics: pod_metrics,
        catalog: mapping.catalog,
        mapping: mapping.state,
        broker: broker.watch(),
        draining: draining.clone(),
    };
    // The second port answers until the very end, so that a scraper sees the drain.
    let admin_shutdown = Shutdown { drain: stop.clone(), abort: stop.clone() };
    let admin_settings = ServerSettings { max_sockets: ADMIN_SOCKETS, ..server_settings };
    let serving = serve(
        admin_listener,
        admin_service(Arc::new(second_port)),
        admin_settings,
        HttpMetrics::default(),
        admin_shutdown,
    );
    tasks.spawn("second port", serving);
    tracing::info!(%listen, %admin, server_name, "serving");

    let mut clients = std::pin::pin!(clients);
    tokio::select! {
        () = terminate => {}
        error = tasks.ended() => return Err(error),
        result = clients.as_mut() => anyhow::bail!("the task \"clients\" has ended by itself: {result:?}"),
    }

    let DrainTimes { delay, window, spread, cut } = drain_times;
    let cut = Instant::now() + cut;
    draining.cancel();
    tracing::info!(clients = hubs.connections(), "draining");
    sleep(delay).await;
    drain::send_all_away(window, &hubs, &open).await;
    hubs.drain(spread);
    shutdown.drain.cancel();
    if timeout_at(cut, clients.as_mut()).await.is_err() {
        tracing::warn!(clients = hubs.connections(), "some clients did not leave in time; they are cut off");
        shutdown.abort.cancel();
        let _ = timeout(STOP_TIMEOUT, clients).await;
    }
    stop.cancel();
    if let Err(error) = tasks.join(STOP_TIMEOUT).await {
        tracing::warn!("{error:#}");
    }
    // What the client still holds for the broker (acknowledgements of split messages) goes out.
    let _ = timeout(STOP_TIMEOUT, broker.client.flush()).await;
    tracing::info!("ended");
    Ok(())
}

/// Where the mapping comes from.
enum Place {
    Folder(PathBuf),
    Cluster(Cluster),
}

impl Place {
    async fn find(config: &Config) -> anyhow::Result<Self> {
        if let Some(folder) = &config.mapping {
            return Ok(Self::Folder(folder.clone()));
        }
        let cluster = Cluster::from_environment(config.namespace.as_deref()).await.context("--kubernetes")?;
        tracing::info!(namespace = cluster.namespace(), "the mapping is read from the Kubernetes API");
        Ok(Self::Cluster(cluster))
    }

    fn release<'a>(&'a self, config: &'a Config) -> &'a str {
        match (self, &config.release) {
            (_, Some(release)) => release,
            (Self::Cluster(cluster), None) => cluster.namespace(),
            (Self::Folder(_), None) => "local",
        }
    }
}

/// The listener and its address, whose port the system chose if `address` has port 0.
async fn bind(address: SocketAddr, option: &str) -> anyhow::Result<(TcpListener, SocketAddr)> {
    let bound = async {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        io::Result::Ok((listener, address))
    };
    bound.await.with_context(|| format!("{option} {address} can't be listened on"))
}

/// Room for every client and some more, as far as there are file descriptors.
fn max_sockets(max_clients: usize) -> usize {
    let wanted = max_clients.saturating_add(SPARE_SOCKETS);
    let Some(limit) = descriptor_limit() else { return wanted };
    let possible = limit.saturating_sub(RESERVED_DESCRIPTORS).max(1);
    if possible < wanted {
        tracing::warn!(
            limit,
            possible,
            "the limit of open files allows fewer clients than --max-clients; raise it (ulimit -n)"
        );
    }
    wanted.min(possible)
}

/// The soft limit of open files; none: unlimited, or not known.
fn descriptor_limit() -> Option<usize> {
    let limits: io::Result<String> = std::fs::read_to_string("/proc/self/limits");
    let limits = limits.ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}
