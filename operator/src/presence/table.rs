//! The state that the controller and the task of presence share: which devices are tracked, and the presence
//! of each.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use flutecast_contract::name::{ChannelName, IotId, TenantName};
use flutecast_crds::Presence;
use k8s_openapi::jiff::Timestamp;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::damping::EVENTS;
use super::{PresenceState, whole_seconds};
use crate::object::Key;
use crate::rate_limit::TokenBucket;

/// A device whose presence is tracked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) tenant: TenantName,
    pub(crate) iot_id: IotId,
    /// The channels with a `staleAfter`.
    pub(crate) channels: Vec<(ChannelName, Duration)>,
}

/// Determines whether a device is tracked, and its [`Target`]. While it is equal, nothing has to be computed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TargetVersion {
    pub(crate) uid: String,
    pub(crate) generation: i64,
    /// `None` if the device can't be tracked.
    pub(crate) iot_id: Option<IotId>,
}

/// The devices that changed since the task asked last; `None` if one is no longer tracked.
pub(super) type TableChanges = BTreeMap<Key, Option<(Arc<Target>, PresenceState)>>;

/// A table of all devices, which clones share.
#[derive(Debug, Clone, Default)]
pub(crate) struct PresenceTable(Arc<Table>);

#[derive(Debug, Default)]
struct Table {
    rows: Mutex<Rows>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Rows {
    devices: BTreeMap<Key, Row>,
    changes: TableChanges,
    events: Option<TokenBucket>,
}

#[derive(Debug)]
struct Row {
    version: TargetVersion,
    target: Option<Arc<Target>>,
    state: PresenceState,
}

impl PresenceTable {
    /// Sets the version of a device. `before` is the presence in its status, which holds until the task finds
    /// another one. `target` is called when the version changed.
    pub(crate) fn set(
        &self,
        key: &Key,
        version: &TargetVersion,
        before: PresenceState,
        now: Timestamp,
        target: impl FnOnce(&IotId) -> Option<Target>,
    ) {
        let mut rows = self.0.lock();
        let known = rows.devices.get(key);
        if known.is_some_and(|known| known.version == *version) {
            return;
        }
        let same_object = known.filter(|known| known.version.uid == version.uid);
        let mut state = same_object.map_or(before, |known| known.state);
        let old = same_object.and_then(|known| known.target.clone());
        let was_tracked = known.is_some_and(|known| known.target.is_some());
        let mut target = version.iot_id.as_ref().and_then(target).map(Arc::new);
        match &target {
            Some(new) if old.as_ref() == Some(new) => target = old,
            Some(new) => {
                rows.changes.insert(key.clone(), Some((new.clone(), state)));
                self.0.changed.notify_one();
            }
            None => {
                if state.presence != Presence::Unknown {
                    state = PresenceState { presence: Presence::Unknown, since: Some(whole_seconds(now)) };
                }
                if was_tracked {
                    rows.changes.insert(key.clone(), None);
                    self.0.changed.notify_one();
                }
            }
        }
        rows.devices.insert(key.clone(), Row { version: version.clone(), target, state });
    }

    /// Removes a Device that was deleted.
    pub(crate) fn remove(&self, key: &Key) {
        let mut rows = self.0.lock();
        if rows.devices.remove(key).is_some_and(|row| row.target.is_some()) {
            rows.changes.insert(key.clone(), None);
            self.0.changed.notify_one();
        }
    }

    /// Removes all devices, because another operator leads.
    pub(crate) fn clear(&self) {
        let mut rows = self.0.lock();
        let devices = std::mem::take(&mut rows.devices);
        let tracked = devices.into_iter().filter(|(_, row)| row.target.is_some());
        rows.changes = tracked.map(|(key, _)| (key, None)).collect();
        self.0.changed.notify_one();
    }

    /// Returns the presence of a device; `None` if the table doesn't have it yet.
    pub(crate) fn get(&self, key: &Key) -> Option<PresenceState> {
        self.0.lock().devices.get(key).map(|row| row.state)
    }

    /// Returns whether one more Event about presence may be created. Their rate is bounded: when a whole
    /// plant is switched off, one Event for each device is of no use.
    pub(crate) fn may_emit_event(&self, now: Instant) -> bool {
        self.0.lock().events.get_or_insert_with(|| TokenBucket::new(EVENTS, now)).take(now)
    }

    /// Waits until there are changes.
    ///
    /// # Cancel safety
    /// No change gets lost.
    pub(super) async fn changed(&self) {
        self.0.changed.notified().await;
    }

    pub(super) fn take_changes(&self) -> TableChanges {
        std::mem::take(&mut self.0.lock().changes)
    }

    /// Sets the presence of a device. Returns `false` if it is no longer tracked as this target.
    pub(super) fn update(&self, key: &Key, target: &Arc<Target>, state: PresenceState) -> bool {
        let mut rows = self.0.lock();
        let row = rows.devices.get_mut(key);
        let same = |row: &&mut Row| row.target.as_ref().is_some_and(|now| Arc::ptr_eq(now, target));
        row.filter(same).is_some_and(|row| {
            row.state = state;
            true
        })
    }
}

impl Table {
    fn lock(&self) -> MutexGuard<'_, Rows> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn key() -> Key {
        ("default".to_owned(), "d".to_owned())
    }

    fn version(uid: &str, generation: i64, id: Option<&str>) -> TargetVersion {
        TargetVersion { uid: uid.to_owned(), generation, iot_id: id.map(|id| IotId::new(id).unwrap()) }
    }

    fn target(iot_id: &IotId, seconds: u64) -> Option<Target> {
        let channels = vec![(ChannelName::new("power").unwrap(), Duration::from_secs(seconds))];
        Some(Target { tenant: TenantName::new("acme").unwrap(), iot_id: iot_id.clone(), channels })
    }

    const UNKNOWN: PresenceState = PresenceState { presence: Presence::Unknown, since: None };
    const ONLINE: PresenceState = PresenceState { presence: Presence::Online, since: Some(NOW) };

    #[test]
    fn a_presence_holds_until_the_device_changes() {
        let table = PresenceTable::default();
        assert_eq!(table.get(&key()), None);
        table.set(&key(), &version("u", 1, Some("abc")), UNKNOWN, NOW, |id| target(id, 10));
        let first = table.take_changes().remove(&key()).unwrap().unwrap();
        assert!(table.update(&key(), &first.0, ONLINE));
        // An equal version, or another one with equal channels, is no change.
        table.set(&key(), &version("u", 1, Some("abc")), UNKNOWN, NOW, |_| panic!("nothing changed"));
        table.set(&key(), &version("u", 2, Some("abc")), UNKNOWN, NOW, |id| target(id, 10));
        assert!(table.take_changes().is_empty());
        assert_eq!(table.get(&key()), Some(ONLINE));
        // Another staleAfter is one; the presence is kept.
        table.set(&key(), &version("u", 3, Some("abc")), UNKNOWN, NOW, |id| target(id, 20));
        let (second, state) = table.take_changes().remove(&key()).unwrap().unwrap();
        assert_eq!(state, ONLINE);
        assert!(!table.update(&key(), &first.0, UNKNOWN), "an old target is not updated");
        assert!(table.update(&key(), &second, ONLINE));
    }

    #[test]
    fn a_device_that_can_not_be_tracked_is_unknown() {
        let table = PresenceTable::default();
        table.set(&key(), &version("u", 1, Some("abc")), ONLINE, NOW, |id| target(id, 10));
        let later = Timestamp::from_second(60).unwrap();
        table.set(&key(), &version("u", 1, None), ONLINE, later, |_| panic!("there is no id"));
        assert_eq!(table.take_changes(), TableChanges::from([(key(), None)]));
        assert_eq!(
            table.get(&key()),
            Some(PresenceState { presence: Presence::Unknown, since: Some(later) })
        );
        // Another object of the name begins with its own status.
        table.set(&key(), &version("v", 1, Some("abc")), UNKNOWN, NOW, |id| target(id, 10));
        assert_eq!(table.get(&key()), Some(UNKNOWN));
        table.take_changes();
        table.clear();
        assert_eq!((table.take_changes(), table.get(&key())), (TableChanges::from([(key(), None)]), None));
    }
}
