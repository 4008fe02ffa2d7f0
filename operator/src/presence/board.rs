//! What the keeper and the task of presence share: which devices are followed, and what is to be said of
//! each.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use flutecast_contract::name::{ChannelName, IotId, TenantName};
use flutecast_crds::Presence;
use k8s_openapi::jiff::Timestamp;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::pace::{Bucket, EVENTS};
use super::{Told, whole_seconds};

/// The namespace and name of a Device.
pub type Key = (String, String);

/// A device that is followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Followed {
    /// Whose stream its messages are in.
    pub tenant: TenantName,
    /// Its id on the message side.
    pub iot_id: IotId,
    /// The channels with a `staleAfter`, and that.
    pub channels: Vec<(ChannelName, Duration)>,
}

/// What decides whether a device is followed, and how. As long as it stays, nothing has to be looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// Which life of the name it is.
    pub uid: String,
    /// Which version of the spec.
    pub generation: i64,
    /// Its id, if its tenant's stream may be read; none: it can't be followed.
    pub iot_id: Option<IotId>,
}

/// What became of a device since the task looked last; none: it is no longer followed.
pub(super) type News = BTreeMap<Key, Option<(Arc<Followed>, Told)>>;

/// The board.
#[derive(Debug, Clone, Default)]
pub struct Board(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    inner: Mutex<Inner>,
    some: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    devices: BTreeMap<Key, Device>,
    news: News,
    events: Option<Bucket>,
}

#[derive(Debug)]
struct Device {
    version: Version,
    followed: Option<Arc<Followed>>,
    told: Told,
}

impl Board {
    /// Notes how it stands with a device: of its channels those with a `staleAfter` are followed. `before` is
    /// what its status says, which holds until something else is found out.
    pub fn note(
        &self,
        key: &Key,
        version: &Version,
        before: Told,
        now: Timestamp,
        followed: impl FnOnce(&IotId) -> Option<Followed>,
    ) {
        let mut inner = self.0.lock();
        let known = inner.devices.get(key);
        if known.is_some_and(|known| known.version == *version) {
            return;
        }
        let same_life = known.filter(|known| known.version.uid == version.uid);
        let mut told = same_life.map_or(before, |known| known.told);
        let old = same_life.and_then(|known| known.followed.clone());
        let was_followed = known.is_some_and(|known| known.followed.is_some());
        let mut followed = version.iot_id.as_ref().and_then(followed).map(Arc::new);
        match &followed {
            Some(new) if old.as_ref() == Some(new) => followed = old,
            Some(new) => {
                inner.news.insert(key.clone(), Some((new.clone(), told)));
                self.0.some.notify_one();
            }
            None => {
                if told.presence != Presence::Unknown {
                    told = Told { presence: Presence::Unknown, since: Some(whole_seconds(now)) };
                }
                if was_followed {
                    inner.news.insert(key.clone(), None);
                    self.0.some.notify_one();
                }
            }
        }
        inner.devices.insert(key.clone(), Device { version: version.clone(), followed, told });
    }

    /// A Device is gone.
    pub fn forget(&self, key: &Key) {
        let mut inner = self.0.lock();
        if inner.devices.remove(key).is_some_and(|device| device.followed.is_some()) {
            inner.news.insert(key.clone(), None);
            self.0.some.notify_one();
        }
    }

    /// Forgets all: another operator's turn.
    pub fn clear(&self) {
        let mut inner = self.0.lock();
        let devices = std::mem::take(&mut inner.devices);
        let followed = devices.into_iter().filter(|(_, device)| device.followed.is_some());
        inner.news = followed.map(|(key, _)| (key, None)).collect();
        self.0.some.notify_one();
    }

    /// What is to be said of a device; none: nothing is known of it yet.
    #[must_use]
    pub fn told(&self, key: &Key) -> Option<Told> {
        self.0.lock().devices.get(key).map(|device| device.told)
    }

    /// Whether one more Event may be made of what is told: of a whole plant that is switched off nobody reads
    /// each.
    #[must_use]
    pub fn may_announce(&self, now: Instant) -> bool {
        self.0.lock().events.get_or_insert_with(|| Bucket::new(EVENTS, now)).take(now)
    }

    /// Waits until there is something for the task.
    pub(super) async fn some_news(&self) {
        self.0.some.notified().await;
    }

    /// What happened since the last call.
    pub(super) fn take_news(&self) -> News {
        std::mem::take(&mut self.0.lock().news)
    }

    /// Has something said of a device. Answers false if it is no longer the one that was followed.
    pub(super) fn say(&self, key: &Key, followed: &Arc<Followed>, told: Told) -> bool {
        let mut inner = self.0.lock();
        let device = inner.devices.get_mut(key);
        let same =
            |device: &&mut Device| device.followed.as_ref().is_some_and(|now| Arc::ptr_eq(now, followed));
        device.filter(same).is_some_and(|device| {
            device.told = told;
            true
        })
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn key() -> Key {
        ("default".to_owned(), "d".to_owned())
    }

    fn version(uid: &str, generation: i64, id: Option<&str>) -> Version {
        Version { uid: uid.to_owned(), generation, iot_id: id.map(|id| IotId::new(id).unwrap()) }
    }

    fn followed(iot_id: &IotId, seconds: u64) -> Option<Followed> {
        let channels = vec![(ChannelName::new("power").unwrap(), Duration::from_secs(seconds))];
        Some(Followed { tenant: TenantName::new("acme").unwrap(), iot_id: iot_id.clone(), channels })
    }

    const UNKNOWN: Told = Told { presence: Presence::Unknown, since: None };
    const ONLINE: Told = Told { presence: Presence::Online, since: Some(NOW) };

    #[test]
    fn what_was_found_out_holds_until_the_device_changes() {
        let board = Board::default();
        assert_eq!(board.told(&key()), None);
        board.note(&key(), &version("u", 1, Some("abc")), UNKNOWN, NOW, |id| followed(id, 10));
        let first = board.take_news().remove(&key()).unwrap().unwrap();
        assert!(board.say(&key(), &first.0, ONLINE));
        // The same again, or another version that says the same of its channels, is no news.
        board.note(&key(), &version("u", 1, Some("abc")), UNKNOWN, NOW, |_| panic!("nothing changed"));
        board.note(&key(), &version("u", 2, Some("abc")), UNKNOWN, NOW, |id| followed(id, 10));
        assert!(board.take_news().is_empty());
        assert_eq!(board.told(&key()), Some(ONLINE));
        // Another staleAfter is; what was said last is taken along.
        board.note(&key(), &version("u", 3, Some("abc")), UNKNOWN, NOW, |id| followed(id, 20));
        let (second, told) = board.take_news().remove(&key()).unwrap().unwrap();
        assert_eq!(told, ONLINE);
        assert!(!board.say(&key(), &first.0, UNKNOWN), "of what was followed before nothing is said");
        assert!(board.say(&key(), &second, ONLINE));
    }

    #[test]
    fn a_device_that_can_not_be_followed_is_unknown() {
        let board = Board::default();
        board.note(&key(), &version("u", 1, Some("abc")), ONLINE, NOW, |id| followed(id, 10));
        let later = Timestamp::from_second(60).unwrap();
        board.note(&key(), &version("u", 1, None), ONLINE, later, |_| panic!("there is no id"));
        assert_eq!(board.take_news(), News::from([(key(), None)]));
        assert_eq!(board.told(&key()), Some(Told { presence: Presence::Unknown, since: Some(later) }));
        // Another life begins with what its own status says.
        board.note(&key(), &version("v", 1, Some("abc")), UNKNOWN, NOW, |id| followed(id, 10));
        assert_eq!(board.told(&key()), Some(UNKNOWN));
        board.take_news();
        board.clear();
        assert_eq!((board.take_news(), board.told(&key())), (News::from([(key(), None)]), None));
    }
}
