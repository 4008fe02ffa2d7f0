//! The Devices that wait for pods, and what their conditions say when that takes long. Pure: the time is
//! passed in.
//!
//! Only Devices that are not Ready for their generation are pending. A Device that became Ready stays so: a
//! pod that lags later is reported on the Tenant, since ten thousand writes would have the same information.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use flutecast_contract::document::ShardDocument;
use flutecast_contract::name::TenantName;
use flutecast_contract::shard::file_name;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use tokio::time::Instant;

use super::confirmed::{ConfirmedRevisions, shard};
use super::laggards::Laggards;
use super::metrics::PodCounts;
use super::pod_states::PodStates;
use super::revision_log::{LoggedRevision, RevisionLog};
use super::slices::{PodsUnknown, Slices};
use crate::object::Key;
use crate::watch::Event;

/// The message of a Ready Device if no pods are asked.
pub(crate) const MAPPED: &str = "it is in the mapping, and its tenant's stream takes its messages";
/// The message if all ready pods confirmed it.
const CONFIRMED: &str =
    "it is in the mapping, its tenant's stream takes its messages, and every ready data-plane pod serves it";
/// The message if there was no ready pod to confirm it.
const NO_READY_POD: &str = "it is in the mapping, and its tenant's stream takes its messages; \
                            no data-plane pod was ready to confirm that it serves it";

/// The time for which a Device's status waits for the pods before it says so. Pods confirm within some 200
/// ms, so that the first status of a Device is normally Ready, and costs one write.
const HOLD: Duration = Duration::from_secs(2);
/// The shortest time between two messages about other late pods.
const REPEAT: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Confirmation {
    /// The pods serve the Device. With the message of its condition.
    Confirmed(&'static str),
    /// Not known yet; the status stays as it is.
    Pending,
    /// The pods don't serve the Device in time. With the message of its condition.
    Late(Arc<str>),
}

/// A Device that is in the mapping, and not Ready for its generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PendingDevice {
    pub(crate) uid: String,
    pub(crate) generation: i64,
    pub(crate) tenant: TenantName,
    /// Its place among [`flutecast_contract::shard::MAX_SHARDS`] shards.
    pub(crate) slot: u32,
    /// The message in its status that it waits for pods, if an operator before this one wrote it.
    pub(crate) message: Option<Arc<str>>,
}

#[derive(Debug, Default)]
pub(crate) struct Rollout {
    /// The data plane's Service; `None` if no pods are asked.
    service: Option<String>,
    slices: Slices,
    states: Arc<PodStates>,
    log: RevisionLog,
    devices: BTreeMap<Key, Wait>,
    laggards: Laggards,
    next: Option<Instant>,
}

#[derive(Debug)]
struct Wait {
    device: PendingDevice,
    /// The revision that holds it; `None` if it isn't stored yet.
    needs: Option<LoggedRevision>,
    since: Instant,
    /// Stays once set, whatever becomes of the pods while the status is being written.
    confirmed: Option<&'static str>,
    message: Option<(Instant, Arc<str>)>,
}

/// The changes since the last evaluation.
#[derive(Debug, Default)]
pub(crate) struct RolloutChanges {
    /// The Devices whose [`Confirmation`] changed.
    pub(crate) devices: Vec<Key>,
    /// The tenants whose message changed.
    pub(crate) tenants: BTreeSet<TenantName>,
    pub(crate) pods: PodCounts,
}

impl Rollout {
    /// `service` is the data plane's Service; `None` if no pods are asked.
    pub(crate) fn new(service: Option<String>) -> Self {
        Self { service, ..Self::default() }
    }

    /// Returns whether pods have to confirm Devices.
    pub(crate) fn asks_pods(&self) -> bool {
        self.service.is_some()
    }

    /// Applies an event of an EndpointSlice. Returns whether anything changed.
    pub(crate) fn apply_slice(&mut self, event: Event<EndpointSlice>) -> bool {
        let had_right = self.slices.ready() != Err(PodsUnknown::Forbidden);
        let changed = self.slices.take(event);
        if had_right && self.slices.ready() == Err(PodsUnknown::Forbidden) {
            tracing::warn!(
                "the operator may not see EndpointSlices in its namespace, so no new Device becomes Ready; \
                 see manifests/operator/rbac.yaml"
            );
        }
        changed
    }

    pub(crate) fn set_pod_states(&mut self, states: Arc<PodStates>) {
        self.states = states;
    }

    /// Forgets the pending Devices, because another operator leads.
    pub(crate) fn stop(&mut self) {
        self.devices.clear();
        self.laggards = Laggards::default();
        self.next = None;
    }

    /// Returns when [`Self::evaluate`] may return changes without an event.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.next
    }

    /// Returns the number of Devices that wait for pods.
    pub(crate) fn count(&self) -> usize {
        self.devices.values().filter(|wait| wait.confirmed.is_none()).count()
    }

    /// Sets what the API server holds of the mapping: the revisions of each tenant by shard; `None` for a
    /// shard that isn't stored as it should be.
    pub(crate) fn set_stored<'a, S>(&mut self, tenants: impl Iterator<Item = (&'a TenantName, S)>)
    where
        S: ExactSizeIterator<Item = Option<&'a str>>,
    {
        if self.service.is_none() {
            return;
        }
        let mut mapped = BTreeSet::new();
        for (tenant, revisions) in tenants {
            self.log.record(tenant, revisions);
            mapped.insert(tenant.clone());
        }
        self.log.retain(|tenant| mapped.contains(tenant));
    }

    /// Keeps only the pending Devices for which `keep` returns `true`.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&Key) -> bool) {
        self.devices.retain(|key, _| keep(key));
    }

    /// Sets a Device that is pending; `None` removes it.
    pub(crate) fn set_pending(&mut self, key: &Key, device: Option<PendingDevice>, now: Instant) {
        let Some(device) = device else {
            self.devices.remove(key);
            return;
        };
        let is_same = |wait: &Wait| {
            let PendingDevice { uid, generation, tenant, slot: _, message: _ } = &wait.device;
            *uid == device.uid && *generation == device.generation && *tenant == device.tenant
        };
        if self.devices.get(key).is_some_and(is_same) {
            return;
        }
        // The message of an operator before this one stays until there is another one.
        let message = device.message.clone().map(|message| (now, message));
        let wait = Wait { device, needs: None, since: now, confirmed: None, message };
        self.devices.insert(key.clone(), wait);
    }

    /// Compares what the pods serve with the mapping. `shards` returns the documents of a tenant as they were
    /// built.
    pub(crate) fn evaluate<'a>(
        &mut self,
        shards: impl Fn(&TenantName) -> Option<&'a [Arc<ShardDocument>]>,
        now: Instant,
    ) -> RolloutChanges {
        let mut changes = RolloutChanges::default();
        self.next = None;
        if self.service.is_none() {
            return changes;
        }
        let Self { service: _, slices, states, log, devices, laggards, next } = self;
        let ready = slices.ready();
        let mut evaluation =
            Evaluation { ready, states, log, confirmed: BTreeMap::new(), messages: BTreeMap::new(), next };
        for (key, wait) in devices.iter_mut().filter(|(_, wait)| wait.confirmed.is_none()) {
            if evaluation.evaluate(wait, shards(&wait.device.tenant), now) {
                changes.devices.push(key.clone());
            }
        }
        if let Ok(ready) = ready {
            let (tenants, pods, wake) = laggards.evaluate(states, log, ready, now);
            changes.tenants = tenants;
            changes.pods = pods;
            *next = earliest(*next, wake);
        }
        changes
    }

    /// Returns whether the pods serve a Device that is not Ready yet.
    pub(crate) fn confirmation(&self, key: &Key) -> Confirmation {
        if self.service.is_none() {
            return Confirmation::Confirmed(MAPPED);
        }
        match self.devices.get(key) {
            None => Confirmation::Pending,
            Some(Wait { confirmed: Some(message), .. }) => Confirmation::Confirmed(message),
            Some(Wait { message: Some((_, message)), .. }) => Confirmation::Late(message.clone()),
            Some(_) => Confirmation::Pending,
        }
    }

    /// Returns the message about a tenant whose pods have lagged for long. `before` is such a message in its
    /// conditions, perhaps of an operator before this one: it stays until it is known whether it is over.
    pub(crate) fn tenant_message<'a>(
        &'a self,
        tenant: &TenantName,
        before: Option<&'a str>,
    ) -> Option<&'a str> {
        self.service.as_ref()?;
        let is_known =
            self.states.connected && self.slices.ready().is_ok() && !self.laggards.may_catch_up(tenant);
        self.laggards.message(tenant).or_else(|| before.filter(|_| !is_known))
    }
}

/// Returns the message of a Device that is Ready: the one that it got when it became so.
pub(crate) fn message_before(message: &str) -> &'static str {
    [CONFIRMED, NO_READY_POD].into_iter().find(|known| *known == message).unwrap_or(MAPPED)
}

/// One evaluation of all pending Devices.
struct Evaluation<'a> {
    ready: Result<&'a BTreeSet<String>, PodsUnknown>,
    states: &'a PodStates,
    log: &'a RevisionLog,
    confirmed: BTreeMap<TenantName, ConfirmedRevisions>,
    /// The messages about Devices that wait for a revision, by its number.
    messages: BTreeMap<u64, Arc<str>>,
    next: &'a mut Option<Instant>,
}

impl Evaluation<'_> {
    /// Evaluates one Device. Returns whether its [`Confirmation`] changed.
    fn evaluate(&mut self, wait: &mut Wait, shards: Option<&[Arc<ShardDocument>]>, now: Instant) -> bool {
        if wait.needs.is_none() {
            wait.needs = self.stored(&wait.device, shards);
        }
        if let (Some(needs), Ok(ready)) = (&wait.needs, self.ready) {
            let PendingDevice { tenant, slot, .. } = &wait.device;
            let confirmed = match ready.is_empty() {
                true => Some(NO_READY_POD),
                false => self.confirmed(tenant, ready).covers(*slot, needs.number).then_some(CONFIRMED),
            };
            if confirmed.is_some() {
                wait.confirmed = confirmed;
                return true;
            }
        }
        // Without NATS no pod can confirm, and the conditions say so already.
        if !self.states.connected || (wait.needs.is_none() && wait.message.is_none()) {
            wait.since = now;
            return false;
        }
        let due = match &wait.message {
            None => wait.since + HOLD,
            Some((at, _)) => *at + REPEAT,
        };
        if now < due {
            *self.next = earliest(*self.next, Some(due));
            return false;
        }
        let message = self.message(wait);
        let is_new = wait.message.as_ref().is_none_or(|(_, before)| *before != message);
        wait.message = Some((now, message));
        is_new
    }

    fn confirmed(&mut self, tenant: &TenantName, ready: &BTreeSet<String>) -> &ConfirmedRevisions {
        let (states, log) = (self.states, self.log);
        self.confirmed
            .entry(tenant.clone())
            .or_insert_with(|| ConfirmedRevisions::new(states, log, ready, tenant))
    }

    /// Returns the revision that holds a Device, if the API server has it.
    fn stored(
        &self,
        device: &PendingDevice,
        shards: Option<&[Arc<ShardDocument>]>,
    ) -> Option<LoggedRevision> {
        let shards = shards?;
        let shard = shard(device.slot, shards.len());
        let stored = self.log.current(&device.tenant, shard)?;
        (*stored.revision == shards.get(shard)?.revision).then(|| stored.clone())
    }

    fn message(&mut self, wait: &Wait) -> Arc<str> {
        let Some(needs) = &wait.needs else {
            return "the mapping that holds it is not stored yet".into();
        };
        if let Some(message) = self.messages.get(&needs.number) {
            return message.clone();
        }
        let message: Arc<str> = match self.ready {
            Err(PodsUnknown::Forbidden) => "the operator may not see which data-plane pods are ready \
                (EndpointSlices in its namespace); grant it as in manifests/operator/rbac.yaml"
                .into(),
            Err(PodsUnknown::NotListed) => "which data-plane pods are ready is not known yet".into(),
            Ok(ready) => {
                let PendingDevice { tenant, slot, .. } = &wait.device;
                let shards = self.log.tenants().find(|(name, _)| *name == tenant);
                let shard = shard(*slot, shards.map_or(1, |(_, shards)| shards.len()));
                let file = file_name(tenant, u32::try_from(shard).unwrap_or_default());
                let document = file.trim_end_matches(".yaml");
                let laggards = self.confirmed(tenant, ready).laggards(*slot, needs.number);
                let revision = &needs.revision;
                format!(
                    "not every ready data-plane pod serves revision {revision} of {document} or a later one: \
                     {laggards}"
                )
                .into()
            }
        };
        self.messages.insert(needs.number, message.clone());
        message
    }
}

fn earliest(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}
