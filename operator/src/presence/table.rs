//! The state that the controller, the judge of messages and the task of presence share: which devices are
//! tracked, and what was observed of each.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use flutecast_contract::name::{ChannelName, IotId, TenantName};
use k8s_openapi::jiff::Timestamp;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::damping::EVENTS;
use super::{Observation, Understanding};
use crate::object::Key;
use crate::rate_limit::TokenBucket;

/// A device that is tracked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) tenant: TenantName,
    pub(crate) iot_id: IotId,
    /// The channels with a `staleAfter`; without any the presence stays Unknown.
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
pub(super) type TableChanges = BTreeMap<Key, Option<(Arc<Target>, Observation)>>;

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
    judged: BTreeMap<Key, Understanding>,
    events: Option<TokenBucket>,
}

#[derive(Debug)]
struct Row {
    version: TargetVersion,
    target: Option<Arc<Target>>,
    reported: Observation,
    /// The last judgement, which may not be reported yet.
    judged: Understanding,
}

impl PresenceTable {
    /// Sets the version of a device. `before` is what its status says, which holds until something else is
    /// observed. `target` is called when the version changed.
    pub(crate) fn set(
        &self,
        key: &Key,
        version: &TargetVersion,
        before: Observation,
        now: Timestamp,
        target: impl FnOnce(&IotId) -> Option<Target>,
    ) {
        let mut rows = self.0.lock();
        let known = rows.devices.get(key);
        if known.is_some_and(|known| known.version == *version) {
            return;
        }
        let same_object = known.filter(|known| known.version.uid == version.uid);
        let mut reported = same_object.map_or(before, |known| known.reported.clone());
        let old = same_object.and_then(|known| known.target.clone());
        let was_tracked = known.is_some_and(|known| known.target.is_some());
        let mut target = version.iot_id.as_ref().and_then(target).map(Arc::new);
        if target.as_ref().is_none_or(|target| target.channels.is_empty()) {
            reported.presence = reported.presence.lost(now);
        }
        reported.understanding = reported.understanding.of_device(target.is_some());
        let mut judged = reported.understanding.clone();
        match &target {
            Some(new) if old.as_ref() == Some(new) => {
                target = old;
                judged = same_object.map_or(judged, |known| known.judged.clone());
            }
            Some(new) => {
                rows.judged.remove(key);
                rows.changes.insert(key.clone(), Some((new.clone(), reported.clone())));
                self.0.changed.notify_one();
            }
            None => {
                if was_tracked {
                    rows.changes.insert(key.clone(), None);
                    self.0.changed.notify_one();
                }
            }
        }
        rows.devices.insert(key.clone(), Row { version: version.clone(), target, reported, judged });
    }

    /// Notes what was judged of a device's messages, as [`Understanding::followed_by`] says.
    pub(crate) fn judged(&self, key: &Key, iot_id: &IotId, newer: Understanding, is_certain: bool) {
        let mut rows = self.0.lock();
        let is_this = |row: &&mut Row| row.target.as_ref().is_some_and(|target| target.iot_id == *iot_id);
        let Some(row) = rows.devices.get_mut(key).filter(is_this) else { return };
        let judged = row.judged.followed_by(newer, is_certain);
        if judged != row.judged {
            row.judged = judged.clone();
            rows.judged.insert(key.clone(), judged);
            self.0.changed.notify_one();
        }
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
        rows.judged.clear();
        let tracked = devices.into_iter().filter(|(_, row)| row.target.is_some());
        rows.changes = tracked.map(|(key, _)| (key, None)).collect();
        self.0.changed.notify_one();
    }

    /// Returns what was reported of a device; `None` if the table doesn't have it yet.
    pub(crate) fn get(&self, key: &Key) -> Option<Observation> {
        self.0.lock().devices.get(key).map(|row| row.reported.clone())
    }

    /// Returns whether one more Event about what was observed may be created. Their rate is bounded: when a
    /// whole plant is switched off, one Event for each device is of no use.
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

    /// Returns what was judged since the task asked last. What follows from [`Self::take_changes`] comes
    /// first.
    pub(super) fn take_judged(&self) -> BTreeMap<Key, Understanding> {
        std::mem::take(&mut self.0.lock().judged)
    }

    /// Reports what was observed of a device. Returns `false` if it is no longer tracked as this target.
    pub(super) fn update(&self, key: &Key, target: &Arc<Target>, observed: Observation) -> bool {
        let mut rows = self.0.lock();
        let row = rows.devices.get_mut(key);
        let same = |row: &&mut Row| row.target.as_ref().is_some_and(|now| Arc::ptr_eq(now, target));
        row.filter(same).is_some_and(|row| {
            row.reported = observed;
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
    use flutecast_crds::{DeviceStatus, Presence};

    use super::*;
    use crate::presence::{PresenceState, Understood};

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

    const fn observed(presence: Presence, since: Option<Timestamp>) -> Observation {
        Observation { presence: PresenceState { presence, since }, understanding: Understanding::NO_MESSAGES }
    }

    const UNKNOWN: Observation = observed(Presence::Unknown, None);
    const ONLINE: Observation = observed(Presence::Online, Some(NOW));

    #[test]
    fn what_was_observed_holds_until_the_device_changes() {
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
        // Another staleAfter is one; what was observed is kept.
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
        let unknown = observed(Presence::Unknown, Some(later));
        let not_looked = Observation { understanding: Understanding::NOT_LOOKED, ..unknown };
        assert_eq!(table.get(&key()), Some(not_looked));
        // Another object of the name begins with its own status.
        table.set(&key(), &version("v", 1, Some("abc")), UNKNOWN, NOW, |id| target(id, 10));
        assert_eq!(table.get(&key()), Some(UNKNOWN));
        table.take_changes();
        table.clear();
        assert_eq!((table.take_changes(), table.get(&key())), (TableChanges::from([(key(), None)]), None));
    }

    #[test]
    fn without_a_stale_after_a_device_is_tracked_for_its_messages_only() {
        let table = PresenceTable::default();
        let none = |id: &IotId| target(id, 10).map(|target| Target { channels: Vec::new(), ..target });
        let later = Timestamp::from_second(60).unwrap();
        // It had one before the operator restarted.
        table.set(&key(), &version("u", 2, Some("abc")), ONLINE, later, none);
        let unknown = observed(Presence::Unknown, Some(later));
        assert_eq!(table.take_changes()[&key()].as_ref().unwrap().1, unknown);
        assert_eq!(table.get(&key()), Some(unknown));
    }

    #[test]
    fn a_status_of_an_older_operator_is_written_once_its_messages_were_looked_at() {
        let table = PresenceTable::default();
        let old = DeviceStatus { observed_generation: Some(1), ..DeviceStatus::default() };
        for (name, judged) in [("a", Understanding::UNDERSTOOD), ("b", Understanding::NO_MESSAGES)] {
            let key = ("default".to_owned(), name.to_owned());
            table.set(&key, &version("u", 1, Some("abc")), (&old).into(), NOW, |id| target(id, 10));
            assert!(!table.get(&key).unwrap().understanding.is_said());
            table.judged(&key, &IotId::new("abc").unwrap(), judged.clone(), true);
            assert_eq!(table.take_judged().remove(&key), Some(judged));
        }
        let new = Observation::from(&DeviceStatus::default());
        assert_eq!(new.understanding, Understanding::NOT_LOOKED);
    }

    #[test]
    fn only_judgements_that_say_something_new_are_passed_on() {
        let table = PresenceTable::default();
        let id = IotId::new("abc").unwrap();
        let bad = |found: &str| Understanding::new(Understood::False, "BadField", "channel power", found);
        let judged = |newer: Understanding| {
            table.judged(&key(), &id, newer, true);
            table.take_judged().remove(&key())
        };
        assert_eq!(judged(bad("1")), None, "it is not tracked");
        table.set(&key(), &version("u", 1, Some("abc")), UNKNOWN, NOW, |id| target(id, 10));
        assert_eq!(judged(Understanding::NO_MESSAGES), None);
        assert_eq!(judged(Understanding::UNDERSTOOD), Some(Understanding::UNDERSTOOD));
        assert_eq!(judged(Understanding::NO_MESSAGES), None, "the plant rests");
        assert_eq!(judged(bad("1")), Some(bad("1")));
        assert_eq!(judged(bad("2")), None, "the same of another value");
        assert_eq!(judged(Understanding::NO_MESSAGES), Some(Understanding::NO_MESSAGES), "it is gone");
        table.judged(&key(), &IotId::new("other").unwrap(), bad("1"), true);
        assert!(table.take_judged().is_empty(), "it is another device's");
        // What was judged under another spec doesn't count.
        table.judged(&key(), &id, bad("1"), true);
        table.set(&key(), &version("u", 2, Some("abc")), UNKNOWN, NOW, |id| target(id, 20));
        assert!(table.take_judged().is_empty());
        assert_eq!(judged(bad("1")), Some(bad("1")));
        // A hint stays until it was looked for.
        let hint = Understanding::new(Understood::True, "FieldNotFound", "channel power", "is it misspelt?");
        assert_eq!(judged(hint.clone()), Some(hint.clone()));
        table.judged(&key(), &id, Understanding::UNDERSTOOD, false);
        assert!(table.take_judged().is_empty());
        assert_eq!(judged(Understanding::UNDERSTOOD), Some(Understanding::UNDERSTOOD));
    }
}
