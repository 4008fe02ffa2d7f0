//! Puts the parts together.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use flutecast_contract::object::{ACCESS_SECRET, SERVICE_LABEL};
use kube::{Client, Config};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::backend::cluster::mapping::{Mapping, SHARD_SELECTOR};
use crate::controller::{Keeper, Links, State};
use crate::backend::cluster::lease::{self, Candidate, Lead};
use crate::protection::{self, Last, Protection};
use crate::backend::cluster::status::sync::Publisher;
use crate::controller::apply::directory::Registrar;
use crate::rollout::{self, Heard, Served};
use crate::backend::cluster::status::queue::Outbox;
use crate::backend::cluster::status::writer::Writer;
pub use crate::backend::cluster::watch::Place;
use crate::backend::cluster::watch::secrets::SecretWatches;
use crate::backend::cluster::watch::{Change, Watches};
use crate::backend::cluster::{MANAGER, events};
use crate::enrollment::counter::Shared;
use crate::enrollment::maker::Maker;
use crate::enrollment::{self, rights};
use crate::jetstream::task::{Report, Wanted};
use crate::metrics::Metrics;
use crate::presence;

/// How many changes may wait for the keeper.
const CHANGES: usize = 1024;
/// After how long of silence a connection counts as dead. An idle watch hears a bookmark every minute.
const SILENCE: Duration = Duration::from_secs(120);
/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(5);

/// What the operator looks after, and as whom.
#[derive(Debug, Clone)]
pub struct Options {
    /// The namespaces whose objects count.
    pub places: Vec<Place>,
    /// Where the mapping, the access Secret and the Lease are.
    pub own_namespace: String,
    /// By what this operator is told from others.
    pub identity: String,
    /// Who keeps what is used from being deleted.
    pub protection: Protection,
    /// The data plane's Service; none: nobody looks at its pods.
    pub service: Option<String>,
    /// Under which name the pods tell what they serve; none: the own namespace.
    pub release: Option<String>,
}

/// A client from the kubeconfig (`KUBECONFIG`, `~/.kube/config`) or, in a pod, from its service account.
///
/// # Errors
/// When there is neither, or it can't be used.
pub async fn client() -> anyhow::Result<Client> {
    let mut config = Config::infer().await.context("neither a kubeconfig nor a service account")?;
    config.connect_timeout = Some(CONNECT);
    config.read_timeout = Some(SILENCE);
    config.reset_reader_on_write = true;
    Ok(Client::try_from(config)?)
}

/// The way to NATS.
#[derive(Debug, Clone)]
pub struct Nats {
    /// The connection.
    pub client: async_nats::Client,
    /// Whether it holds.
    pub connected: watch::Receiver<bool>,
    /// The connection of enrollment: a flood of requests holds up nothing else.
    pub enrollment: async_nats::Client,
}

/// Starts all tasks. They end when `cancel` is cancelled; whoever gets them watches them.
#[must_use = "a task that nobody watches fails unseen"]
pub fn start(
    client: &Client,
    options: Options,
    streams: watch::Sender<Option<Arc<Wanted>>>,
    report: watch::Receiver<Report>,
    nats: Nats,
    metrics: &Arc<Metrics>,
    cancel: &CancellationToken,
) -> Vec<(&'static str, JoinHandle<()>)> {
    let Options { places, own_namespace, identity, protection, service, release } = options;
    let mut tasks = Vec::new();
    let candidate =
        Candidate { namespace: own_namespace.clone(), name: MANAGER.to_owned(), identity: identity.clone() };
    let (leading, election) = lease::spawn(client.clone(), candidate, metrics.clone(), cancel.clone());
    tasks.push(("lease", election));
    let (sender, changes) = mpsc::channel(CHANGES);
    let mut watches = watch_all(client, &places, &own_namespace, &sender, &leading, cancel);
    let heard = match &service {
        Some(service) => {
            watches.slices(client, &own_namespace, &format!("{SERVICE_LABEL}={service}"));
            let release = release.as_deref().unwrap_or(&own_namespace);
            let (heard, task) = rollout::spawn(nats.clone(), release, cancel.clone());
            tasks.push(("serving", task));
            heard
        }
        // Nobody tells anything.
        None => watch::channel(Arc::<Heard>::default()).1,
    };
    tasks.extend(watches.into_tasks().into_iter().map(|task| ("watch", task)));
    let (announcer, task) = events::spawn(client.clone(), &identity, metrics.clone(), cancel.clone());
    tasks.push(("events", task));
    let outbox = Outbox::default();
    let (waiting, queue) = (outbox.clone(), sender.downgrade());
    metrics.show_statuses_waiting(move || waiting.len());
    let length = |changes: mpsc::Sender<Change>| changes.max_capacity() - changes.capacity();
    metrics.show_changes_waiting(move || queue.upgrade().map_or(0, length));
    let writer = Writer {
        client: client.clone(),
        outbox: outbox.clone(),
        changes: sender.clone(),
        announcer,
        metrics: metrics.clone(),
        works: leading.clone(),
    };
    tasks.push(("status", writer.spawn(cancel.clone())));
    let board = presence::board::Board::default();
    let links = presence::task::Links {
        client: nats.client,
        connected: nats.connected,
        board: board.clone(),
        changes: sender.clone(),
        metrics: metrics.clone(),
    };
    tasks.push(("presence", presence::task::spawn(links, cancel.clone())));
    let last = Last {
        client: client.clone(),
        places: places.clone(),
        lease: (own_namespace.clone(), MANAGER.to_owned()),
        identity,
    };
    let (guard, task) =
        protection::spawn(client.clone(), protection, last, metrics.clone(), leading.clone(), cancel.clone());
    tasks.push(("protection", task));
    let (roster_sender, roster) = watch::channel(None);
    let (forbidden_sender, forbidden) = watch::channel(rights::Forbidden::new());
    let recheck = Arc::new(Notify::new());
    let asker = rights::Asker {
        client: client.clone(),
        roster: roster.clone(),
        forbidden: forbidden_sender,
        changes: sender.clone(),
        recheck: recheck.clone(),
    };
    tasks.push(("rights", asker.spawn(cancel.clone())));
    let counters = Shared {
        client: nats.enrollment,
        roster,
        forbidden,
        maker: Some(Maker::new(client.clone(), recheck, metrics.clone())),
        metrics: metrics.clone(),
    };
    tasks.push(("enrollment", enrollment::service::spawn(counters, cancel.clone())));
    let keeper = Keeper {
        places,
        mapping: Mapping::new(client.clone(), own_namespace, metrics.clone()),
        secrets: SecretWatches::new(client.clone(), sender, leading.clone(), cancel.clone()),
        publisher: Publisher { outbox, presence: board, metrics: metrics.clone() },
        registrar: Registrar::new(roster_sender),
        metrics: metrics.clone(),
        guard,
        state: State::new(Served::new(service)),
    };
    let links = Links { changes, leading, streams, report, heard };
    tasks.push(("keeper", keeper.spawn(links, cancel.clone())));
    tasks
}

fn watch_all(
    client: &Client,
    places: &[Place],
    own_namespace: &str,
    changes: &mpsc::Sender<Change>,
    leading: &watch::Receiver<Lead>,
    cancel: &CancellationToken,
) -> Watches {
    let mut watches = Watches::new(changes.clone(), leading.clone(), cancel.clone());
    for place in places {
        watches.kind(client, place, Change::Tenant);
        watches.kind(client, place, Change::PushFormat);
        watches.kind(client, place, Change::Device);
    }
    watches.shards(client, own_namespace, SHARD_SELECTOR);
    watches.access(client, own_namespace, ACCESS_SECRET);
    watches
}
