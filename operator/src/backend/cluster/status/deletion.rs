//! Objects that are being deleted while others use them, and the Devices and Tenants that do. Pure.

use flutecast_crds::{Device, DeviceChannel, DeviceSpec, Tenant};

use super::wanted::WantedStatuses;
use crate::controller::status::{self, conditions::Readiness};
use crate::index::kind::ApiKind;
use crate::index::{Deletion, Entry, template_of};
use crate::object::{Key, Kind, Object};
use crate::protection;

impl WantedStatuses<'_> {
    /// Changes the readiness of a Tenant or a PushFormat that is being deleted while it is used.
    pub(super) fn unless_deleted<K: ApiKind>(
        &self,
        key: &Key,
        entry: &Entry<K>,
        readiness: Readiness,
    ) -> Readiness {
        if !entry.deletion.is_deleting {
            return readiness;
        }
        let Some(users) = self.users(K::KIND, key) else { return readiness };
        let Users { who, what_to_do } = users;
        let until = if protection::holds(&entry.deletion) {
            format!("it is being deleted, and held ({}) until nobody uses it any more", protection::FINALIZER)
        } else {
            "it is being deleted while it is used".to_owned()
        };
        status::in_use(readiness, format!("{until}: {who}; {what_to_do}. Until then it stays in force"))
    }

    /// Returns the users of an object in words; `None` if there are none.
    fn users(&self, kind: Kind, key: &Key) -> Option<Users> {
        let mut devices = self.index.devices_using(kind, key);
        let devices = devices.next().map(|first| {
            let entry = self.index.devices.get(first).map(|entry| &entry.object);
            let code = entry.and_then(|object| object.as_ref().ok()).map(|device| &device.spec.device_code);
            let code = code.map(|code| format!(" ({code})")).unwrap_or_default();
            // A Device counts once, however many of its channels name a format.
            let what_to_do = match kind {
                Kind::Tenant => "delete the Devices of the tenant",
                _ => "have their channels name another format, or delete them",
            };
            (format!("Device {}{code}", first.1), devices.count(), what_to_do)
        });
        let mut tenants = self.index.tenants_using(kind, key);
        let tenants = tenants.next().map(|first| {
            let what_to_do = "have spec.enrollment.template of the Tenant name another format";
            (format!("the template of Tenant {}", first.1), tenants.count(), what_to_do)
        });
        let all: Vec<_> = devices.into_iter().chain(tenants).collect();
        let others = all.iter().map(|(_, others, _)| others).sum::<usize>();
        let mut who: Vec<String> = all.iter().map(|(first, ..)| first.clone()).collect();
        match others {
            0 => {}
            1 => who.push("another one".to_owned()),
            others => who.push(format!("{others} others")),
        }
        let verb = if who.len() > 1 { "use" } else { "uses" };
        let what_to_do: Vec<&str> = all.iter().map(|(.., what)| *what).collect();
        let what_to_do = what_to_do.join(", and ");
        (!all.is_empty()).then(|| Users { who: format!("{} {verb} it", who.join(" and ")), what_to_do })
    }

    /// Changes the readiness of a Tenant whose template names what is being deleted.
    pub(super) fn until_template_deleted(
        &self,
        (namespace, _): &Key,
        entry: &Entry<Tenant>,
        readiness: Readiness,
    ) -> Readiness {
        let Ok(tenant) = &entry.object else { return readiness };
        let going = template_of(&tenant.spec).iter().filter_map(|channel| {
            let (format, when) = self.format_that_goes(namespace, channel)?;
            let name = &channel.name;
            Some(format!(
                "PushFormat {format} {when}; have channel {name} of spec.enrollment.template name another one"
            ))
        });
        until(
            entry,
            readiness,
            "its template of Devices is whole until what it names is gone",
            going.collect(),
        )
    }

    /// Changes the readiness of a Device that uses what is being deleted.
    pub(super) fn until_deleted(&self, key: &Key, entry: &Entry<Device>, readiness: Readiness) -> Readiness {
        let Ok(device) = &entry.object else { return readiness };
        until(entry, readiness, "it is served until what it uses is gone", self.going(key, device))
    }

    /// Returns what a Device uses and is being deleted, with what to do.
    fn going(&self, (namespace, _): &Key, device: &Object<DeviceSpec>) -> Vec<String> {
        let mut going = Vec::new();
        let tenant = self.index.tenants.get(&(namespace.clone(), device.spec.tenant.clone()));
        if let Some(tenant) = tenant.filter(|tenant| tenant.deletion.is_deleting) {
            let name = &device.spec.tenant;
            going.push(format!(
                "Tenant {name} {}; delete the Device, or apply it anew for another Tenant",
                when(&tenant.deletion)
            ));
        }
        going.extend(device.spec.channels.iter().filter_map(|channel| {
            let (format, when) = self.format_that_goes(namespace, channel)?;
            Some(format!("PushFormat {format} {when}; have channel {} name another one", channel.name))
        }));
        going
    }

    /// Returns the PushFormat of a channel if it is being deleted, and when it goes.
    fn format_that_goes<'c>(
        &self,
        namespace: &str,
        channel: &'c DeviceChannel,
    ) -> Option<(&'c str, &'static str)> {
        let format = self.index.formats.get(&(namespace.to_owned(), channel.format.clone()))?;
        format.deletion.is_deleting.then(|| (channel.format.as_str(), when(&format.deletion)))
    }
}

struct Users {
    who: String,
    what_to_do: String,
}

fn until<K: ApiKind>(entry: &Entry<K>, readiness: Readiness, how: &str, going: Vec<String>) -> Readiness {
    if entry.deletion.is_deleting { readiness } else { status::until_gone(readiness, how, &going) }
}

fn when(deletion: &Deletion) -> &'static str {
    if protection::holds(deletion) {
        "is being deleted, and goes with its last user"
    } else {
        "is being deleted"
    }
}
