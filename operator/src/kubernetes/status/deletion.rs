//! What is said when something is deleted that Devices use, on both sides. Pure.

use flutecast_crds::{Device, DeviceSpec};

use super::conditions::Standing;
use super::judge::Judge;
use crate::kubernetes::index::{Entry, Key, Life};
use crate::kubernetes::kind::OurKind;
use crate::kubernetes::protect;
use crate::object::Object;
use crate::verdict::{Kind, Reason};

impl Judge<'_> {
    /// How it stands with a Tenant or a PushFormat, if it is being deleted while Devices use it; else as before.
    pub(super) fn unless_deleted<K: OurKind>(
        &self,
        key: &Key,
        entry: &Entry<K>,
        standing: Standing,
    ) -> Standing {
        if !entry.life.is_deleting {
            return standing;
        }
        let Some(users) = self.users(K::KIND, key) else { return standing };
        let what_to_do = match K::KIND {
            Kind::Tenant => "delete the Devices of the tenant",
            _ => "have their channels name another format, or delete them",
        };
        let until = if protect::holds(&entry.life) {
            format!("it is being deleted, and held ({}) until nobody uses it any more", protect::FINALIZER)
        } else {
            "it is being deleted while it is used".to_owned()
        };
        let mut message = format!("{until}: {users}; {what_to_do}. Until then it stays in force");
        if let Standing::NotReady { message: other, .. } = standing {
            message = format!("{message}; {other}");
        }
        Standing::NotReady { reason: Reason::InUse, message }
    }

    /// Who uses an object, in words; none: nobody.
    fn users(&self, kind: Kind, key: &Key) -> Option<String> {
        let mut users = self.index.users_of(kind, key);
        let first = users.next()?;
        let entry = self.index.devices.get(first)?;
        let code =
            entry.object.as_ref().map(|device| format!(" ({})", device.spec.device_code)).unwrap_or_default();
        let first = format!("Device {}{code}", first.1);
        // A Device counts once, however many of its channels name a format.
        Some(match users.count() {
            0 => format!("{first} uses it"),
            1 => format!("{first} and another one use it"),
            others => format!("{first} and {others} others use it"),
        })
    }

    /// How it stands with a Device that is ready: until what it uses is gone, if that is being deleted.
    pub(super) fn until_deleted(&self, key: &Key, entry: &Entry<Device>, standing: Standing) -> Standing {
        if !matches!(standing, Standing::Ready(_)) || entry.life.is_deleting {
            return standing;
        }
        let Ok(device) = &entry.object else { return standing };
        let going = self.going(key, device);
        if going.is_empty() {
            return standing;
        }
        let message = format!("it is served until what it uses is gone: {}", going.join("; "));
        Standing::ReadyUntil { reason: Reason::Terminating, message }
    }

    /// What a Device uses and is being deleted, with what to do.
    fn going(&self, (namespace, _): &Key, device: &Object<DeviceSpec>) -> Vec<String> {
        let when = |life: &Life| {
            if protect::holds(life) {
                "is being deleted, and goes with its last user"
            } else {
                "is being deleted"
            }
        };
        let mut going = Vec::new();
        let tenant = self.index.tenants.get(&(namespace.clone(), device.spec.tenant.clone()));
        if let Some(tenant) = tenant.filter(|tenant| tenant.life.is_deleting) {
            let name = &device.spec.tenant;
            going.push(format!(
                "Tenant {name} {}; delete the Device, or apply it anew for another Tenant",
                when(&tenant.life)
            ));
        }
        for channel in &device.spec.channels {
            let format = self.index.formats.get(&(namespace.clone(), channel.format.clone()));
            if let Some(format) = format.filter(|format| format.life.is_deleting) {
                let (format, when) = (&channel.format, when(&format.life));
                going.push(format!(
                    "PushFormat {format} {when}; have channel {} name another one",
                    channel.name
                ));
            }
        }
        going
    }
}
