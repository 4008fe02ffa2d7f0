//! The operator on an API server.

use std::sync::Arc;
use std::time::Duration;

use flutecast_contract::object::{ACCESS_SECRET, SERVICE_LABEL};
use flutecast_kube::ConnectError;
use flutecast_process::tasks::Tasks;
use kube::Client;
use kube::runtime::watcher;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::metrics::OperatorMetrics;
use super::{Nats, Streams};
use crate::api_server::MANAGER;
use crate::backend::cluster::change::ClusterChange;
use crate::backend::cluster::mapping::{MappingWriter, SHARD_SELECTOR};
use crate::backend::cluster::secrets::SecretWatches;
use crate::backend::cluster::status::queue::StatusQueue;
use crate::backend::cluster::status::sync::StatusSync;
use crate::backend::cluster::status::writer::Writer;
use crate::backend::cluster::{ClusterBackend, events};
use crate::controller::Controller;
use crate::controller::apply::directory::DirectoryPublisher;
use crate::controller::inbox::Inbox;
use crate::enrollment::directory::Directory;
use crate::enrollment::{self, DeviceCreator, ForbiddenNamespaces, PermissionCheck, ServerContext};
use crate::index::Index;
use crate::last_messages::MessageJudge;
use crate::lease::{self, Candidate, Leadership};
use crate::presence::{PresenceTable, PresenceTask, Target};
use crate::protection::{self, FinalizerPublisher, LastOperator, Protection};
use crate::rollout::{self, PodStates, Rollout};
use crate::watch::{EventSink, NamespaceScope, Watches};

/// The most changes that wait for the control loop.
const CHANGES: usize = 1024;
/// The most devices that wait for a look at their messages out of turn.
const FIRST_LOOKS: usize = 1024;
/// The silence after which a connection counts as dead. An idle watch gets a bookmark every minute.
const READ_TIMEOUT: Duration = Duration::from_secs(120);

pub(super) async fn client() -> Result<Client, ConnectError> {
    flutecast_kube::connect(READ_TIMEOUT).await
}

pub(super) struct ClusterOperator {
    pub(super) client: Client,
    pub(super) scopes: Vec<NamespaceScope>,
    /// The namespace of the mapping, the access Secret and the Lease.
    pub(super) own_namespace: String,
    /// Identifies this operator among others.
    pub(super) identity: String,
    pub(super) protection: Protection,
    /// The data plane's Service; `None` if Devices are Ready without its pods' confirmation.
    pub(super) service: Option<String>,
    /// The release in the pods' announcements; `None` if it is named as the own namespace.
    pub(super) release: Option<String>,
    pub(super) metrics: OperatorMetrics,
    pub(super) cancel: CancellationToken,
}

impl ClusterOperator {
    pub(super) fn start(self, streams: Streams, nats: Nats, tasks: &mut Tasks) {
        let Self { client, own_namespace, metrics, cancel, .. } = &self;
        let candidate = Candidate {
            namespace: own_namespace.clone(),
            name: MANAGER.to_owned(),
            identity: self.identity.clone(),
        };
        let (leading, election) =
            lease::spawn(client.clone(), candidate, metrics.lease.clone(), cancel.clone());
        tasks.watch("lease", election);
        let (sender, changes) = mpsc::channel(CHANGES);
        let to = EventSink { changes: sender.clone(), leading: leading.clone() };
        self.start_watches(&nats, to.clone(), tasks);
        let (directory, forbidden, recheck) = self.start_permission_check(&sender, tasks);
        let context = ServerContext {
            client: nats.enrollment.clone(),
            directory: directory.subscribe(),
            forbidden,
            creator: Some(DeviceCreator::new(client.clone(), recheck, metrics.writes.clone())),
            metrics: metrics.enrollment.clone(),
        };
        tasks.watch("enrollment", enrollment::spawn(context, cancel.clone()));
        let queue = self.start_writer(&sender, &leading, tasks);
        let (first_looks, first) = mpsc::channel(FIRST_LOOKS);
        let looks = streams.look_task(&nats, Duration::ZERO, first, metrics);
        let table = self.start_presence(nats, first_looks, &sender, tasks);
        tasks.spawn_until("last messages", cancel, looks.run(Arc::new(MessageJudge::new(table.clone()))));
        let backend = ClusterBackend {
            scopes: self.scopes.clone(),
            index: Index::default(),
            mapping: MappingWriter::new(client.clone(), own_namespace.clone(), metrics.mapping.clone()),
            secrets: SecretWatches::new(client.clone(), to, cancel.clone()),
            statuses: StatusSync { queue, presence: table, metrics: metrics.controller.clone() },
            rollout: Rollout::new(self.service.clone()),
            finalizers: self.start_protection(&leading, tasks),
            rollout_metrics: metrics.rollout.clone(),
        };
        let Streams { wanted, report, channels } = streams;
        let directory = DirectoryPublisher::new(directory);
        let controller = Controller::new(backend, wanted, channels, directory, metrics.controller.clone());
        let inbox = Inbox { changes, report, leading: Some(leading) };
        tasks.watch("controller", controller.spawn(inbox, cancel.clone()));
    }

    fn start_watches(&self, nats: &Nats, to: EventSink<ClusterChange>, tasks: &mut Tasks) {
        let Self { client, own_namespace, cancel, .. } = self;
        let changes = to.changes.clone();
        let mut watches = Watches { to, cancel, tasks };
        for scope in &self.scopes {
            watches.start(client, scope, watcher::Config::default(), ClusterChange::Tenant);
            watches.start(client, scope, watcher::Config::default(), ClusterChange::PushFormat);
            watches.start(client, scope, watcher::Config::default(), ClusterChange::Device);
        }
        let own_scope = Some(own_namespace.clone());
        let shards = watcher::Config::default().labels(SHARD_SELECTOR);
        watches.start(client, &own_scope, shards, ClusterChange::Shard);
        let access = watcher::Config::default().fields(&format!("metadata.name={ACCESS_SECRET}"));
        watches.start(client, &own_scope, access, ClusterChange::Access);
        if let Some(service) = &self.service {
            let slices = watcher::Config::default().labels(&format!("{SERVICE_LABEL}={service}"));
            watches.start(client, &own_scope, slices, ClusterChange::Slice);
            let release = self.release.as_deref().unwrap_or(own_namespace);
            let (heard, listener) = rollout::listener(nats.client.clone(), nats.connected.clone(), release);
            tasks.spawn_until("serving", cancel, listener);
            tasks.spawn_until("pods", cancel, forward_pods(heard, changes));
        }
    }

    /// Returns the sender of the directory, the result of the check, and what causes it at once.
    fn start_permission_check(
        &self,
        changes: &mpsc::Sender<ClusterChange>,
        tasks: &mut Tasks,
    ) -> (watch::Sender<Option<Arc<Directory>>>, watch::Receiver<ForbiddenNamespaces>, Arc<Notify>) {
        let (directory_sender, directory) = watch::channel(None);
        let (forbidden_sender, forbidden) = watch::channel(ForbiddenNamespaces::new());
        let recheck = Arc::new(Notify::new());
        let check = PermissionCheck {
            client: self.client.clone(),
            directory,
            forbidden: forbidden_sender,
            recheck: recheck.clone(),
        };
        let changes = changes.clone();
        let notify = move |forbidden| {
            let changes = changes.clone();
            async move {
                let _ends_with_the_loop = changes.send(ClusterChange::CreationForbidden(forbidden)).await;
            }
        };
        tasks.spawn_until("rights", &self.cancel, check.run(notify));
        (directory_sender, forbidden, recheck)
    }

    fn start_writer(
        &self,
        changes: &mpsc::Sender<ClusterChange>,
        leading: &watch::Receiver<Leadership>,
        tasks: &mut Tasks,
    ) -> StatusQueue {
        let Self { client, metrics, cancel, .. } = self;
        let (announcer, store) = events::announcer(client.clone(), &self.identity, metrics.writes.clone());
        tasks.spawn_until("events", cancel, store);
        let queue = StatusQueue::default();
        let (waiting, inbox) = (queue.clone(), changes.downgrade());
        metrics.controller.statuses_waiting.observe(move || waiting.len());
        let length = |changes: mpsc::Sender<ClusterChange>| changes.max_capacity() - changes.capacity();
        metrics.controller.changes_waiting.observe(move || inbox.upgrade().map_or(0, length));
        let writer = Writer {
            client: client.clone(),
            queue: queue.clone(),
            changes: changes.clone(),
            announcer,
            writes: metrics.writes.clone(),
            _works: leading.clone(),
        };
        tasks.spawn_until("status", cancel, writer.run());
        queue
    }

    fn start_presence(
        &self,
        nats: Nats,
        first_looks: mpsc::Sender<Arc<Target>>,
        changes: &mpsc::Sender<ClusterChange>,
        tasks: &mut Tasks,
    ) -> PresenceTable {
        let table = PresenceTable::default();
        let task = PresenceTask {
            client: nats.client,
            connected: nats.connected,
            table: table.clone(),
            first_looks,
            metrics: self.metrics.presence.clone(),
        };
        let changes = changes.clone();
        let notify = move |key| {
            let changes = changes.clone();
            async move {
                let _ends_with_the_loop = changes.send(ClusterChange::Presence(key)).await;
            }
        };
        tasks.spawn_until("presence", &self.cancel, task.run(notify));
        table
    }

    fn start_protection(
        &self,
        leading: &watch::Receiver<Leadership>,
        tasks: &mut Tasks,
    ) -> FinalizerPublisher {
        let Self { client, metrics, cancel, .. } = self;
        let last = LastOperator {
            client: client.clone(),
            scopes: self.scopes.clone(),
            lease: (self.own_namespace.clone(), MANAGER.to_owned()),
            identity: self.identity.clone(),
        };
        let (finalizers, task) = protection::spawn(
            client.clone(),
            self.protection,
            last,
            metrics.writes.clone(),
            leading.clone(),
            cancel.clone(),
        );
        tasks.watch("protection", task);
        finalizers
    }
}

/// Forwards what the pods announced. While the control loop is busy, only the latest waits.
async fn forward_pods(mut states: watch::Receiver<Arc<PodStates>>, changes: mpsc::Sender<ClusterChange>) {
    while states.changed().await.is_ok() {
        let latest = states.borrow_and_update().clone();
        if changes.send(ClusterChange::Pods(latest)).await.is_err() {
            return;
        }
    }
}
