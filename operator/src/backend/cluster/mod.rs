//! The cluster backend: objects on an API server.
//!
//! ```text
//! watches ──Change──► Inbox ──► Controller ──► ClusterBackend: Index, MappingWriter, Rollout, StatusSync
//!                       ▲                                                            │
//!                       └──Written── status::writer ◄── status::queue ◄──────────────┘
//! ```
//! The index is synchronous state. No object of a user ever gets an ownerReference from here, and none gets a
//! finalizer unless that is configured ([`crate::protection`]), so nothing hangs when the operator is gone.

pub(crate) mod change;
pub(crate) mod events;
pub(crate) mod mapping;
mod presence_targets;
pub(crate) mod secrets;
pub(crate) mod status;
mod stored_formats;
pub(crate) mod unready_devices;

use std::sync::Arc;
use std::time::Duration;

use flutecast_contract::name::TenantName;
use flutecast_crds::{DeviceSpec, TenantSpec};
use k8s_openapi::jiff::Timestamp;
use tokio::time::Instant;

use self::change::ClusterChange;
use self::mapping::MappingWriter;
use self::secrets::SecretWatches;
use self::status::sync::StatusSync;
use self::status::wanted::WantedStatuses;
use crate::controller::Reconciled;
use crate::controller::apply::documents::MappingDocuments;
use crate::controller::backend::{Backend, WrittenMapping};
use crate::controller::build::formats::FormatsInForce;
use crate::controller::dereference::DirtySet;
use crate::controller::inbox::Wake;
use crate::index::Index;
use crate::jetstream::orphans::Installation;
use crate::object::{Key, Kind, Object, ObjectKind, Objects};
use crate::protection::FinalizerPublisher;
use crate::rollout::{Rollout, RolloutChanges, RolloutMetrics};
use crate::watch::NamespaceScope;

pub(crate) struct ClusterBackend {
    /// The namespaces whose objects count.
    pub(crate) scopes: Vec<NamespaceScope>,
    pub(crate) index: Index,
    pub(crate) mapping: MappingWriter,
    pub(crate) secrets: SecretWatches,
    pub(crate) statuses: StatusSync,
    pub(crate) rollout: Rollout,
    pub(crate) finalizers: FinalizerPublisher,
    pub(crate) rollout_metrics: Arc<RolloutMetrics>,
}

impl Backend for ClusterBackend {
    type Input = ClusterChange;

    const RESYNC: Duration = Duration::from_secs(600);
    const COLLECT: Duration = Duration::from_millis(100);
    const CREATES_DEVICES: bool = true;

    fn apply_change(&mut self, change: ClusterChange) -> Wake {
        let Self { index, mapping, rollout, statuses, .. } = self;
        let is_news = match change {
            ClusterChange::Tenant(event) => index.apply_tenant(event),
            ClusterChange::Device(event) => index.apply_device(event),
            ClusterChange::PushFormat(event) => index.apply_format(event),
            ClusterChange::Tokens(key, event) => index.apply_tokens(key, event),
            ClusterChange::Shard(event) => mapping.apply_shard(event),
            ClusterChange::Access(event) => mapping.apply_access(event),
            ClusterChange::Presence(device) => index.mark_device(&device),
            ClusterChange::Slice(event) => rollout.apply_slice(event),
            ClusterChange::CreationForbidden(namespaces) => index.set_creation_forbidden(namespaces),
            ClusterChange::Written(kind, key) => {
                statuses.queue.done(&(kind, key));
                false
            }
            ClusterChange::Pods(states) => {
                rollout.set_pod_states(states);
                return Wake::Status;
            }
        };
        if is_news { Wake::Reconcile } else { Wake::Nothing }
    }

    fn dirty(&mut self) -> &mut DirtySet {
        &mut self.index.dirty
    }

    fn mark_tenant(&self, tenant: &TenantName, dirty: &mut DirtySet) {
        self.index.mark_tenant(tenant.as_str(), dirty);
        self.index.devices_of(tenant.as_str()).for_each(|device| dirty.touch(Kind::Device, device));
    }

    fn next_reconcile(&self) -> Option<Instant> {
        self.mapping.next_repair()
    }

    fn next_status(&self) -> Option<Instant> {
        self.rollout.next()
    }

    fn is_complete(&self, term: u64) -> bool {
        self.index.is_complete(&self.scopes, term) && self.mapping.is_complete(term)
    }

    fn begin(&mut self, term: u64) {
        // Secrets are listed again, too; until they are, the access document stays as it is.
        self.index.distrust_tokens(term);
    }

    fn stored_formats(&mut self) -> FormatsInForce {
        stored_formats::read_back(&self.mapping, &self.index)
    }

    fn stop(&mut self) {
        self.statuses.stop();
        self.finalizers.stop();
        self.mapping.stop();
        self.rollout.stop();
    }

    fn objects(&mut self, dirty: &DirtySet) -> Objects {
        // The Secrets that Tenants name are watched from here on.
        let named =
            self.index.tenants.objects().filter_map(|tenant| {
                Some((tenant.meta.namespace.clone(), secret_of(&tenant.spec)?.to_owned()))
            });
        for key in self.secrets.keep(named.collect()) {
            self.index.remove_tokens(&key);
        }
        self.index.objects(dirty)
    }

    fn has_device(&self, device: &Key) -> bool {
        self.index.devices.get(device).is_some_and(|entry| entry.object.is_ok())
    }

    fn devices_of<'a>(&'a self, tenant: &'a str) -> Box<dyn Iterator<Item = &'a Object<DeviceSpec>> + 'a> {
        let entries = self.index.devices_of(tenant).filter_map(|key| self.index.devices.get(key));
        Box::new(entries.filter_map(|entry| entry.object.as_deref().ok()))
    }

    fn is_being_deleted(&self, tenant: &Key) -> bool {
        self.index.tenants.get(tenant).is_some_and(|entry| entry.deletion.is_deleting)
    }

    /// The access Secret, which no other installation has, identifies this one; until it exists, no orphaned
    /// streams can exist yet.
    fn installation(&self) -> Option<Installation> {
        let alive = self.index.tenants.iter().map(|(_, entry)| entry.uid.clone());
        Some(Installation {
            id: self.mapping.installation_id()?,
            scopes: self.scopes.clone(),
            alive: alive.collect(),
        })
    }

    async fn write_mapping(&mut self, wanted: &MappingDocuments) -> WrittenMapping {
        // A Secret that was not read yet must not look like one that is gone: its tokens would be shut out
        // for a moment.
        let with_access = self.secrets.keys().all(|key| self.index.token_secret(key).is_some());
        let applied = self.mapping.write(wanted, with_access).await;
        let mapping = &self.mapping;
        self.rollout.set_stored(wanted.shards.iter().map(|(tenant, shards)| {
            let held = shards.iter().map(|shard| mapping.holds(shard).then_some(shard.revision.as_str()));
            (tenant, held)
        }));
        self.finalizers.publish(&self.index);
        applied
    }

    fn update_status(&mut self, reconciled: &Reconciled<'_>, dirty: &mut DirtySet) {
        let Self { index, rollout, statuses, .. } = self;
        let now = Instant::now();
        unready_devices::update(rollout, index, reconciled.built, dirty, now);
        let shards = |tenant: &TenantName| Some(reconciled.built.tenants.get(tenant)?.shards.as_slice());
        let RolloutChanges { devices, tenants, pods } = rollout.evaluate(shards, now);
        devices.iter().for_each(|device| dirty.touch(Kind::Device, device));
        tenants.iter().for_each(|tenant| index.mark_tenant(tenant.as_str(), dirty));
        self.rollout_metrics.set(&pods, rollout.count());
        let wanted = WantedStatuses {
            index,
            reconciled: *reconciled,
            presence: &statuses.presence,
            rollout,
            now: Timestamp::now(),
        };
        statuses.sync(&wanted, dirty);
        let metrics = &statuses.metrics;
        metrics.set_objects(ObjectKind::Tenant, index.tenants.condition_labels());
        metrics.set_objects(ObjectKind::Device, index.devices.condition_labels());
        metrics.set_objects(ObjectKind::PushFormat, index.formats.condition_labels());
    }
}

/// Returns the name of the Secret with a Tenant's tokens.
pub(crate) fn secret_of(tenant: &TenantSpec) -> Option<&str> {
    Some(&tenant.access.as_ref()?.tokens.as_ref()?.secret_name)
}
