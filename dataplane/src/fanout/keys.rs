//! The keys of what a hub holds. A key does not outlive its item, although slots are reused.

use std::collections::HashMap;
use std::hash::Hash;
use std::ops::{Deref, DerefMut};

use flutecast_contract::name::{ChannelName, IotId};
use slotmap::{Key, SlotMap};

use crate::catalog::{Channel, Device};

slotmap::new_key_type! {
    pub(crate) struct ClientKey;
    pub(crate) struct ChannelKey;
}

/// Names a channel, whether it is watched or not.
pub(super) type ChannelId = (IotId, ChannelName);

pub(super) fn channel_id(device: &Device, channel: &Channel) -> ChannelId {
    (device.iot_id.clone(), channel.name.clone())
}

/// Items by key, and by a name that no two of them share.
#[derive(Debug)]
pub(super) struct Indexed<K: Key, N, T> {
    items: SlotMap<K, T>,
    by_name: HashMap<N, K>,
}

impl<K: Key, N: Eq + Hash, T> Indexed<K, N, T> {
    pub(super) fn new() -> Self {
        Self { items: SlotMap::with_key(), by_name: HashMap::new() }
    }

    pub(super) fn find(&self, name: &N) -> Option<K> {
        self.by_name.get(name).copied()
    }

    pub(super) fn add(&mut self, name: N, item: T) -> K {
        let key = self.items.insert(item);
        self.by_name.insert(name, key);
        key
    }

    pub(super) fn take(&mut self, name: &N) -> Option<T> {
        let key = self.by_name.remove(name)?;
        self.items.remove(key)
    }

    /// Returns the keys of all items, so that the items can be changed meanwhile.
    pub(super) fn all_keys(&self) -> Vec<K> {
        self.items.keys().collect()
    }
}

impl<K: Key, N, T> Deref for Indexed<K, N, T> {
    type Target = SlotMap<K, T>;

    fn deref(&self) -> &SlotMap<K, T> {
        &self.items
    }
}

impl<K: Key, N, T> DerefMut for Indexed<K, N, T> {
    fn deref_mut(&mut self) -> &mut SlotMap<K, T> {
        &mut self.items
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_does_not_outlive_its_item() {
        let mut items = slotmap::SlotMap::<ChannelKey, &str>::default();
        let first = items.insert("a");
        assert_eq!(items.remove(first), Some("a"));
        assert_eq!(items.remove(first), None);
        let second = items.insert("b");
        assert_eq!(items.get(first), None);
        assert_eq!(items.get(second), Some(&"b"));
        assert_eq!((items.len(), items.keys().collect::<Vec<_>>()), (1, vec![second]));
    }
}
