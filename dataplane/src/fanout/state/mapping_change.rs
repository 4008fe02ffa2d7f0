//! Devices, labels, formats and tenants change while clients are connected.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use flutecast_contract::document::DeliveryPolicy;
use flutecast_contract::name::DeviceCode;

use super::HubState;
use crate::catalog::{Device, TenantCatalog};
use crate::fanout::control_events::{self, ByeReason};
use crate::fanout::keys::{ClientKey, channel_id};
use crate::pipeline::Now;

/// The time over which the clients of a tenant that was removed come back.
const REMOVED_SPREAD: Duration = Duration::from_secs(30);

/// Returns whether both hold the very same devices, so that only settings or revisions differ.
fn same_devices(old: &TenantCatalog, new: &TenantCatalog) -> bool {
    let same = |(code, device)| old.by_code.get(code).is_some_and(|before| Arc::ptr_eq(before, device));
    old.by_code.len() == new.by_code.len() && new.by_code.iter().all(same)
}

impl HubState {
    /// Applies a new mapping. Returns whether anything changed for this tenant.
    pub(crate) fn change_catalog(&mut self, catalog: Option<Arc<TenantCatalog>>, now: Now) -> bool {
        if self.catalog.as_ref().map(Arc::as_ptr) == catalog.as_ref().map(Arc::as_ptr) {
            return false;
        }
        let old = std::mem::replace(&mut self.catalog, catalog);
        if let (Some(old), Some(new)) = (&old, &self.catalog)
            && same_devices(old, new)
        {
            return true;
        }
        if self.catalog.is_none() {
            self.end_all(ByeReason::TenantRemoved, REMOVED_SPREAD, now);
            for key in self.watched.all_keys() {
                self.unwatch(key, now);
            }
            return true;
        }
        self.drop_changed_channels(now);
        for key in self.clients.all_keys() {
            self.match_again(key, now);
        }
        true
    }

    /// Stops watching the channels that are gone or have changed. Clients that still ask for such a channel
    /// watch it again, and get the current value in its new form. An `Every` channel goes on in its new form
    /// instead: to watch it again would lose messages that are on their way.
    fn drop_changed_channels(&mut self, now: Now) {
        let Some(catalog) = self.catalog.clone() else { return };
        let (mut changed, mut renewed) = (Vec::new(), Vec::new());
        for (key, watched) in self.watched.iter_mut() {
            let device = catalog.devices.get(&watched.device.iot_id);
            if device.is_some_and(|device| Arc::ptr_eq(device, &watched.device)) {
                continue;
            }
            let device = device.filter(|device| device.code == watched.device.code);
            let channel = device.and_then(|device| Some((device, device.channels.get(&watched.channel)?)));
            let Some((device, channel)) = channel else {
                changed.push(key);
                continue;
            };
            let same = Arc::ptr_eq(&channel.program, watched.pipeline.program())
                && channel.stale_after == watched.freshness.stale_after;
            if same {
                watched.device = Arc::clone(device);
            } else if watched.every && channel.program.policy() == DeliveryPolicy::Every {
                watched.renew(device, channel);
                renewed.push(key);
            } else {
                changed.push(key);
            }
        }
        for key in renewed {
            if self.watched.get(key).is_some_and(|watched| !watched.freshness.is_stale()) {
                self.change_freshness(key, now, |freshness| freshness.touch(Duration::ZERO, now.instant));
            }
            self.read_again(key, now);
        }
        for key in changed {
            self.unwatch(key, now);
        }
    }

    /// Matches the devices of a client again, and sends it the changes. A device whose channels, labels or
    /// fields changed is announced as added, with its new description.
    fn match_again(&mut self, key: ClientKey, now: Now) {
        let Some(client) = self.clients.get(key) else { return };
        let new = self.matching(&client.request);
        let Some(client) = self.clients.get_mut(key) else { return };
        let old = std::mem::replace(&mut client.matched, new);
        let same =
            |device: &Arc<Device>| old.get(&device.code).is_some_and(|before| Arc::ptr_eq(before, device));
        let added: Vec<_> = client.matched.values().filter(|device| !same(device)).cloned().collect();
        let gone = old.keys().filter(|code| !client.matched.contains_key(*code));
        let removed: Vec<_> = gone.cloned().collect();
        if added.is_empty() && removed.is_empty() {
            return;
        }
        let frame = control_events::devices(&added, removed, client.request.channels.as_ref());
        self.tell(key, frame, now);
        self.leave_unwanted(key, &old, now);
        if let Some(client) = self.clients.get_mut(key) {
            // As for a new client: nothing gets an id before all channels were looked at.
            client.delivery.owe();
        }
        for device in &added {
            self.view(key, device, now);
        }
        self.owe_one_less(key, now);
    }

    /// Leaves the channels of `old` that a client no longer gets.
    fn leave_unwanted(&mut self, key: ClientKey, old: &BTreeMap<DeviceCode, Arc<Device>>, now: Now) {
        let Some(client) = self.clients.get(key) else { return };
        let mut unwanted = Vec::new();
        for (code, before) in old {
            let after = client.matched.get(code).filter(|after| after.iot_id == before.iot_id);
            for channel in client.wants(before) {
                if after.is_none_or(|after| !after.channels.contains_key(&channel.name)) {
                    unwanted.extend(self.watched.find(&channel_id(before, channel)));
                }
            }
        }
        for channel in unwanted {
            self.leave(key, channel, now);
        }
    }
}
