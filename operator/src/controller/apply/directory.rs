//! Publishes the directory of devices that enrollment replies from, after each reconcile.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use flutecast_contract::name::{ChannelName, DeviceCode, TenantName};
use flutecast_crds::DeviceSpec;
use tokio::sync::watch;

use crate::controller::Reconciled;
use crate::controller::backend::Backend;
use crate::controller::build::{Built, BuiltTenant};
use crate::controller::dereference::DirtySet;
use crate::enrollment::directory::{DeviceEntry, Directory, TenantDirectory};
use crate::enrollment::policy::{CreationPolicy, Enrollment};
use crate::finding::Outcome;
use crate::object::{Kind, Object};

#[derive(Debug)]
pub(crate) struct DirectoryPublisher {
    directory: watch::Sender<Option<Arc<Directory>>>,
    /// `true` if everything that was published was stored; if not, all tenants are looked at again.
    was_stored: bool,
}

/// The inputs of a tenant's directory, besides its devices.
struct Sources<'a> {
    built: &'a Built,
    tenant: &'a BuiltTenant,
    enrollment: Enrollment,
    /// `true` if the mapping of the tenant is stored as it was built.
    is_stored: bool,
    has_stream: bool,
    before: Option<&'a TenantDirectory>,
}

impl DirectoryPublisher {
    pub(crate) fn new(directory: watch::Sender<Option<Arc<Directory>>>) -> Self {
        Self { directory, was_stored: false }
    }

    /// Withdraws the directory: no request is answered from here.
    pub(crate) fn stop(&mut self) {
        self.directory.send_replace(None);
        self.was_stored = false;
    }

    /// Publishes what changed: of the tenants in `dirty`, and of those whose stream or enrollment changed.
    pub(crate) fn publish(
        &mut self,
        backend: &impl Backend,
        dirty: &DirtySet,
        reconciled: &Reconciled<'_>,
        is_stored: bool,
    ) {
        let before = self.directory.borrow().clone();
        let is_full = dirty.all || !self.was_stored || before.is_none();
        let Reconciled { built, report, foreign, write_failures: _ } = *reconciled;
        let entry = |(name, tenant): (&TenantName, &BuiltTenant)| {
            let before = before.as_ref().and_then(|directory| directory.get(name));
            let is_foreign = foreign.contains(name);
            let owner = (tenant.streams.owner.namespace.clone(), name.to_string());
            let sources = Sources {
                built,
                tenant,
                enrollment: enrollment_of(tenant, backend.is_being_deleted(&owner)),
                is_stored: is_stored && !is_foreign,
                has_stream: !is_foreign && report.get(name).is_some_and(|report| report.has_stream),
                before: before.filter(|_| !is_foreign).map(|before| &**before),
            };
            let is_dirty = is_full
                || dirty.tenants.contains(name.as_str())
                || dirty.touched.contains(&(Kind::Tenant, owner));
            let now = match before {
                Some(before) if !is_dirty && sources.are_those_of(before) => before.clone(),
                _ => {
                    let now = sources.directory(backend.devices_of(name.as_str()));
                    before.filter(|before| ***before == now).cloned().unwrap_or_else(|| Arc::new(now))
                }
            };
            (name.clone(), now)
        };
        let now: Directory = built.tenants.iter().map(entry).collect();
        self.was_stored = is_stored;
        // Entries that did not change are those of before, so there is no need to compare all devices.
        let is_same = |before: &Directory| {
            let is_kept = |(name, entry)| before.get(name).is_some_and(|before| Arc::ptr_eq(before, entry));
            before.len() == now.len() && now.iter().all(is_kept)
        };
        if !before.as_deref().is_some_and(is_same) {
            self.directory.send_replace(Some(Arc::new(now)));
        }
    }
}

/// Returns the enrollment of a tenant's devices. While the Tenant is being deleted no Device is created: the
/// Tenant would never see its last one go.
fn enrollment_of(tenant: &BuiltTenant, is_being_deleted: bool) -> Enrollment {
    let mut enrollment = tenant.enrollment.clone();
    if is_being_deleted && matches!(enrollment.creation, CreationPolicy::Create(_)) {
        enrollment.creation = CreationPolicy::Blocked;
    }
    enrollment
}

impl Sources<'_> {
    fn are_those_of(&self, before: &TenantDirectory) -> bool {
        before.has_stream == self.has_stream
            && before.enrollment == self.enrollment
            && before.namespace == self.tenant.streams.owner.namespace
    }

    fn directory<'a>(self, devices: impl Iterator<Item = &'a Object<DeviceSpec>>) -> TenantDirectory {
        let namespace = self.tenant.streams.owner.namespace.clone();
        let mut entries = self.mapped();
        // Of two Devices with one code, the first is named.
        for device in devices.filter(|device| device.meta.namespace == namespace) {
            let Ok(code) = DeviceCode::new(&device.spec.device_code) else { continue };
            entries.entry(code).or_insert_with(|| self.pending(device));
        }
        let Self { enrollment, has_stream, .. } = self;
        TenantDirectory { namespace, has_stream, enrollment, devices: entries }
    }

    /// The devices that the stored mapping has.
    fn mapped(&self) -> BTreeMap<DeviceCode, DeviceEntry> {
        // Many devices have the same channels.
        let mut lists: BTreeSet<Arc<[ChannelName]>> = BTreeSet::new();
        let mut entries = BTreeMap::new();
        for (iot_id, device) in self.tenant.shards.iter().flat_map(|shard| &shard.devices) {
            let channels: Arc<[ChannelName]> = device.channels.keys().cloned().collect();
            let channels = lists.get(&channels).cloned().unwrap_or(channels);
            lists.insert(channels.clone());
            let mapped = DeviceEntry::Mapped { iot_id: iot_id.clone(), channels };
            // What is not stored yet may still be refused; what was stored before still is.
            let was = self.before.and_then(|before| before.devices.get(&device.code));
            if self.is_stored || was == Some(&mapped) {
                entries.insert(device.code.clone(), mapped);
            }
        }
        entries
    }

    fn pending(&self, device: &Object<DeviceSpec>) -> DeviceEntry {
        let object = device.meta.object_ref(Kind::Device);
        let refused = |outcome: &&Outcome| matches!(outcome, Outcome::Refused(_));
        let outcome = self.built.outcomes.get(&object).filter(refused);
        let problem = outcome.and_then(|outcome| outcome.findings().first()).map(ToString::to_string);
        DeviceEntry::Pending { object: object.to_string(), problem }
    }
}
