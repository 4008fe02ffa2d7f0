//! The whole process: starts the parts, supervises them, and ends them in order.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use flutecast_nats::NatsConnection;
use flutecast_process::tasks::Tasks;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::catalog::{CatalogMetrics, Mapping, watch_cluster, watch_folder};
use crate::config::{Config, OnOff};
use crate::drain::{self, DrainTimes};
use crate::fanout::{HubSettings, Hubs};
use crate::http::{
    Admin, Api, HttpMetrics, Inspect, PodMetrics, ServerSettings, ServerShutdown, StreamRegistry,
    admin_service, inspect_service, serve, service,
};
use crate::ingest::{broker, splitter};
use crate::kubernetes::Cluster;
use crate::peers::{PeerMetrics, Peers, watch_peers};
use crate::rebalance::{Rebalance, RebalanceLimits, RebalanceMetrics};
use crate::serving::{ServingMetrics, announce};

const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// The most sockets on the admin port: scrapers and probes are few.
const ADMIN_SOCKETS: usize = 64;
/// The most sockets on the loopback listener: a person and a script or two.
const INSPECT_SOCKETS: usize = 8;
/// File descriptors kept for everything but clients: the broker, the admin port, files.
const RESERVED_DESCRIPTORS: usize = 128;
/// Sockets beyond `--max-clients`, so that a surplus client is refused with a reason instead of waiting for
/// a connection.
const SPARE_SOCKETS: usize = 1_000;
/// The longest that the parts may take to end once no client is left.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// Runs until `terminate` is ready, then drains. Fails if a part can't be started, or ends by itself.
pub async fn run(config: Config, terminate: impl Future<Output = ()>) -> anyhow::Result<()> {
    let drain_times = DrainTimes::new(&config);
    // The ports first, so that one that is taken is reported at once.
    let ports = Ports {
        clients: bind(config.listen, "--listen").await?,
        admin: bind(config.admin, "--admin").await?,
        inspect: bind_inspect(config.inspect_address).await,
    };
    let broker = broker::connect(&config.nats, &config.server_name()).await?;
    let source = MappingSource::connect(&config).await?;
    let mut pod = Pod::start(config, broker, &source, ports);
    tokio::select! {
        () = terminate => {}
        error = pod.tasks.ended() => return Err(error),
        result = &mut pod.clients => anyhow::bail!("the task \"clients\" has ended by itself: {result:?}"),
    }
    pod.drain(drain_times).await;
    pod.stop().await;
    Ok(())
}

/// The listeners of a pod.
struct Ports {
    clients: BoundListener,
    admin: BoundListener,
    /// `None` if it can't be listened on.
    inspect: Option<BoundListener>,
}

/// A listener and its address, whose port the system chose if port 0 was asked for.
type BoundListener = (TcpListener, SocketAddr);

async fn bind(address: SocketAddr, option: &str) -> anyhow::Result<BoundListener> {
    let bound = async {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        io::Result::Ok((listener, address))
    };
    bound.await.with_context(|| format!("{option} {address} can't be listened on"))
}

/// Binds the loopback listener. Several pods may share a host; nothing else depends on it.
async fn bind_inspect(address: SocketAddr) -> Option<BoundListener> {
    let bound = bind(address, "--inspect-address").await;
    bound.inspect_err(|error| tracing::warn!("{error:#}; this pod's messages can't be looked at")).ok()
}

enum MappingSource {
    Folder(PathBuf),
    Cluster(Cluster),
}

impl MappingSource {
    async fn connect(config: &Config) -> anyhow::Result<Self> {
        if let Some(folder) = &config.mapping {
            return Ok(Self::Folder(folder.clone()));
        }
        let cluster = Cluster::from_environment(config.namespace.as_deref()).await.context("--kubernetes")?;
        tracing::info!(namespace = cluster.namespace, "the mapping is read from the Kubernetes API");
        Ok(Self::Cluster(cluster))
    }

    fn release(&self, config: &Config) -> String {
        match (self, &config.release) {
            (_, Some(release)) => release.clone(),
            (Self::Cluster(cluster), None) => cluster.namespace.clone(),
            (Self::Folder(_), None) => "local".to_owned(),
        }
    }
}

struct Pod {
    /// All parts but the clients' server, which ends first.
    tasks: Tasks,
    clients: JoinHandle<()>,
    broker: NatsConnection,
    hubs: Hubs,
    streams: StreamRegistry,
    server: ServerShutdown,
    /// Cancelled when the drain begins.
    draining: CancellationToken,
    /// Cancelled after the drain.
    stop: CancellationToken,
}

impl Pod {
    fn start(config: Config, broker: NatsConnection, source: &MappingSource, ports: Ports) -> Self {
        let Ports { clients: (clients, listen), admin: (admin, admin_address), inspect } = ports;
        let inspect_address = inspect.as_ref().map(|(_, address)| tracing::field::display(*address));
        let mut starter = Starter {
            server_name: config.server_name(),
            release: source.release(&config),
            config,
            broker,
            registry: Registry::with_prefix("flutecast"),
            tasks: Tasks::default(),
            draining: CancellationToken::new(),
            stop: CancellationToken::new(),
        };
        let metrics = PodMetrics::register(&mut starter.registry);
        let http_metrics = HttpMetrics::register(&mut starter.registry);
        let mapping = starter.mapping(source);
        let peers = starter.peers(source);
        starter.announcements(&mapping);
        let hubs = starter.fan_out(&mapping);
        starter.splitter(&mapping);
        let streams = starter.streams(&mapping, http_metrics.clone());
        starter.rebalance(peers, &hubs, &streams);

        let server = ServerShutdown::default();
        let api = Api {
            hubs: hubs.clone(),
            access: mapping.access.clone(),
            streams: streams.clone(),
            metrics: http_metrics,
        };
        let clients = starter.serve_clients(clients, api, server.clone());
        starter.serve_inspect(inspect, &mapping);
        let server_name = starter.server_name.clone();
        let Starter { tasks, broker, draining, stop, .. } = starter.serve_admin(admin, metrics, mapping);
        tracing::info!(%listen, admin = %admin_address, inspect = inspect_address, server_name, "serving");
        Self { tasks, clients, broker, hubs, streams, server, draining, stop }
    }

    /// Sends the clients away, and cuts off those who have not left in time.
    async fn drain(&mut self, DrainTimes { delay, window, spread, cut }: DrainTimes) {
        let cut = Instant::now() + cut;
        self.draining.cancel();
        tracing::info!(clients = self.hubs.connections(), "draining");
        sleep(delay).await;
        drain::send_all_away(window, &self.hubs, &self.streams).await;
        self.hubs.drain(spread);
        self.server.drain.cancel();
        if timeout_at(cut, &mut self.clients).await.is_err() {
            let clients = self.hubs.connections();
            tracing::warn!(clients, "some clients did not leave in time; they are cut off");
            self.server.abort.cancel();
            let _ = timeout(STOP_TIMEOUT, &mut self.clients).await;
        }
    }

    async fn stop(self) {
        self.stop.cancel();
        if let Err(error) = self.tasks.join(STOP_TIMEOUT).await {
            tracing::warn!("{error:#}");
        }
        // Acknowledgements of split messages may still wait in the connection.
        let _ = timeout(STOP_TIMEOUT, self.broker.client.flush()).await;
        tracing::info!("ended");
    }
}

struct Starter {
    config: Config,
    server_name: String,
    release: String,
    broker: NatsConnection,
    registry: Registry,
    tasks: Tasks,
    draining: CancellationToken,
    stop: CancellationToken,
}

impl Starter {
    fn mapping(&mut self, source: &MappingSource) -> Mapping {
        let metrics = CatalogMetrics::register(&mut self.registry);
        let (mapping, task) = match source {
            MappingSource::Folder(path) => watch_folder(path, metrics, self.stop.clone()),
            MappingSource::Cluster(cluster) => watch_cluster(cluster, metrics, self.stop.clone()),
        };
        self.tasks.watch("mapping", task);
        mapping
    }

    /// `None` outside a cluster and without `--service`.
    fn peers(&mut self, source: &MappingSource) -> Option<watch::Receiver<Arc<Peers>>> {
        let (MappingSource::Cluster(cluster), Some(service)) = (source, &self.config.service) else {
            return None;
        };
        let metrics = PeerMetrics::register(&mut self.registry);
        let (peers, task) = watch_peers(cluster, service, metrics);
        self.tasks.spawn_until("peers", &self.stop, task);
        Some(peers)
    }

    fn announcements(&mut self, mapping: &Mapping) {
        let task = announce(
            self.broker.clone(),
            mapping.catalog.clone(),
            self.release.clone(),
            self.server_name.clone(),
            ServingMetrics::register(&mut self.registry),
        );
        self.tasks.spawn_until("announcing", &self.stop, task);
    }

    fn fan_out(&mut self, mapping: &Mapping) -> Hubs {
        let settings = HubSettings {
            server_name: self.server_name.as_str().into(),
            ping: self.config.ping,
            take_timeout: self.config.take_timeout,
            max_clients: self.config.max_clients,
            ..HubSettings::default()
        };
        let (broker, catalog, stop) = (self.broker.clone(), mapping.catalog.clone(), self.stop.clone());
        let (hubs, task) = Hubs::start(broker, catalog, settings, &mut self.registry, stop);
        self.tasks.watch("fan-out", task);
        hubs
    }

    fn splitter(&mut self, mapping: &Mapping) {
        let (broker, catalog) = (self.broker.clone(), mapping.catalog.clone());
        let task = splitter::start(broker, catalog, &mut self.registry, self.stop.clone());
        self.tasks.watch("splitter", task);
    }

    fn streams(&mut self, mapping: &Mapping, metrics: HttpMetrics) -> StreamRegistry {
        let streams = StreamRegistry::new(metrics);
        let (access, catalog) = (mapping.access.clone(), mapping.catalog.clone());
        let watching = streams.clone().watch(access, catalog, self.config.take_timeout);
        self.tasks.spawn_until("open streams", &self.stop, watching);
        streams
    }

    fn rebalance(
        &mut self,
        peers: Option<watch::Receiver<Arc<Peers>>>,
        hubs: &Hubs,
        streams: &StreamRegistry,
    ) {
        let Some(peers) = peers.filter(|_| self.config.rebalance == OnOff::On) else { return };
        let rebalance = Rebalance {
            broker: self.broker.clone(),
            release: self.release.clone(),
            server_name: self.server_name.clone(),
            peers,
            hubs: hubs.clone(),
            streams: streams.clone(),
            limits: RebalanceLimits { rate: self.config.rebalance_rate, rest: self.config.rebalance_rest },
            metrics: RebalanceMetrics::register(&mut self.registry),
            draining: self.draining.clone(),
        };
        self.tasks.spawn_until("rebalancing", &self.stop, rebalance.run());
    }

    fn server_settings(&self, max_sockets: usize) -> ServerSettings {
        ServerSettings { max_sockets, head_timeout: HEAD_TIMEOUT, take_timeout: self.config.take_timeout }
    }

    fn serve_clients(&self, listener: TcpListener, api: Api, shutdown: ServerShutdown) -> JoinHandle<()> {
        let settings = self.server_settings(max_sockets(self.config.max_clients));
        let metrics = api.metrics.clone();
        let service = service(Arc::new(api), self.config.dashboard, self.config.path_prefix.clone());
        tokio::spawn(serve(listener, service, settings, metrics, shutdown))
    }

    fn serve_inspect(&mut self, listener: Option<BoundListener>, mapping: &Mapping) {
        let Some((listener, _address)) = listener else { return };
        let inspect = Inspect::new(mapping.catalog.clone(), self.broker.clone());
        let shutdown = ServerShutdown { drain: self.stop.clone(), abort: self.stop.clone() };
        let settings = self.server_settings(INSPECT_SOCKETS);
        let serving =
            serve(listener, inspect_service(Arc::new(inspect)), settings, HttpMetrics::default(), shutdown);
        self.tasks.spawn("inspect listener", serving);
    }

    /// Serves the admin port, which answers until the very end, so that a scraper sees the drain. The last
    /// step: it takes the registry.
    fn serve_admin(mut self, listener: TcpListener, metrics: PodMetrics, mapping: Mapping) -> Self {
        let admin = Admin {
            registry: std::mem::take(&mut self.registry),
            metrics,
            catalog: mapping.catalog,
            mapping: mapping.state,
            broker: self.broker.watch(),
            draining: self.draining.clone(),
        };
        let shutdown = ServerShutdown { drain: self.stop.clone(), abort: self.stop.clone() };
        let settings = self.server_settings(ADMIN_SOCKETS);
        let serving =
            serve(listener, admin_service(Arc::new(admin)), settings, HttpMetrics::default(), shutdown);
        self.tasks.spawn("admin port", serving);
        self
    }
}

/// Returns how many sockets the clients' port may hold, as far as there are file descriptors.
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

/// Returns the soft limit of open files; `None` if it is unlimited or unknown.
fn descriptor_limit() -> Option<usize> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}
