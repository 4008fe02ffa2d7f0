//! What is known of the API server's objects, and what a change concerns. Synchronous and without I/O:
//! changes are handed in, and each leaves a mark of what has to be built anew.
//!
//! A Device belongs to the tenant that it names, a PushFormat concerns the tenants of the Devices that name
//! it. A Tenant concerns all of them, since names and subjects are given away across tenants; Tenants are few
//! and change seldom.

pub(crate) mod kind;
mod links;
mod store;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use flutecast_crds::{Device, DeviceChannel, PushFormat, Tenant};
use k8s_openapi::api::core::v1::Secret;

use self::links::Links;
pub(crate) use self::links::template_of;
pub(crate) use self::store::version_of;
pub(crate) use self::store::{Delta, Entry, Life, Store};
use crate::controller::dereference::DirtySet;
use crate::index::kind::OurKind;
use crate::object::{Key, Kind, Meta, Object, Objects, SecretData};
use crate::watch::{Event, Place};

/// A Secret that a Tenant names.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Tokens {
    /// It was read.
    Held(Arc<Object<SecretData>>),
    /// It doesn't exist.
    Missing,
    /// The operator may not read it.
    Forbidden,
}

/// Everything that is known.
#[derive(Debug, Default)]
pub(crate) struct Index {
    /// The Tenants.
    pub(crate) tenants: Store<Tenant>,
    /// The Devices.
    pub(crate) devices: Store<Device>,
    /// The PushFormats.
    pub(crate) formats: Store<PushFormat>,
    tokens: BTreeMap<Key, Tokens>,
    /// The Secrets that a list was begun for and that it has not told of.
    listing: BTreeSet<Key>,
    /// The Secrets that were not told anew since this turn has begun.
    doubted: (u64, BTreeSet<Key>),
    links: Links,
    /// Where Devices are to be created and may not.
    creation_forbidden: BTreeSet<String>,
    /// The objects that have to be looked at because of the changes so far.
    pub(crate) dirty: DirtySet,
}

impl Index {
    /// Whether everything was told in full, since this turn has begun; in turn 0, at least once.
    #[must_use]
    pub(crate) fn is_complete(&self, places: &[Place], turn: u64) -> bool {
        let Self { tenants, devices, formats, .. } = self;
        tenants.is_complete(places, turn)
            && devices.is_complete(places, turn)
            && formats.is_complete(places, turn)
    }

    /// Takes in what happened to Tenants. Answers whether anything changed.
    pub(crate) fn tenant(&mut self, event: Event<Tenant>) -> bool {
        let moved = take(&mut self.tenants, event);
        for moved in &moved {
            self.dirty.touch(Kind::Tenant, &moved.key);
            if moved.is_about_deletion() {
                self.touch_users(Kind::Tenant, &moved.key);
            }
            if moved.is_about_more_than_status() {
                // Also those that the template names no longer: everything is looked at.
                self.dirty.all = true;
                self.links.tenant_moved(moved);
            }
        }
        !moved.is_empty()
    }

    /// Takes in what happened to Devices. Answers whether anything changed.
    pub(crate) fn device(&mut self, event: Event<Device>) -> bool {
        let moved = take(&mut self.devices, event);
        for moved in &moved {
            self.dirty.touch(Kind::Device, &moved.key);
            if !moved.is_about_more_than_status() {
                continue;
            }
            for entry in [&moved.before, &moved.after].into_iter().flatten() {
                let Ok(device) = &entry.object else { continue };
                self.dirty.tenants.insert(device.spec.tenant.clone());
                for format in self::links::formats_of(device) {
                    self.dirty.touch(Kind::PushFormat, &format);
                }
            }
            self.links.device_moved(moved);
        }
        !moved.is_empty()
    }

    /// The status of a Device has to be looked at, for a reason that is not in the objects. Answers whether
    /// it exists.
    pub(crate) fn look_at_device(&mut self, key: &Key) -> bool {
        let exists = self.devices.get(key).is_some();
        if exists {
            self.dirty.touch(Kind::Device, key);
        }
        exists
    }

    /// Marks the Tenants of this name in `dirty`.
    pub(crate) fn mark_tenant(&self, tenant: &str, dirty: &mut DirtySet) {
        let named = self.tenants.iter().filter(|((_, name), _)| name == tenant);
        named.for_each(|(key, _)| dirty.touch(Kind::Tenant, key));
    }

    /// Takes in what happened to PushFormats. Answers whether anything changed.
    pub(crate) fn format(&mut self, event: Event<PushFormat>) -> bool {
        let moved = take(&mut self.formats, event);
        for moved in &moved {
            self.dirty.touch(Kind::PushFormat, &moved.key);
            if moved.is_about_deletion() {
                self.touch_users(Kind::PushFormat, &moved.key);
            }
            if !moved.is_about_more_than_status() {
                continue;
            }
            self.dirty.formats.insert(moved.key.clone());
            for device in self.links.users(&moved.key) {
                if let Some(Ok(device)) = self.devices.get(device).map(|entry| &entry.object) {
                    self.dirty.tenants.insert(device.spec.tenant.clone());
                }
            }
        }
        !moved.is_empty()
    }

    /// Takes in what happened to a Secret that a Tenant names. Answers whether anything changed.
    pub(crate) fn tokens(&mut self, key: Key, event: Event<Secret>) -> bool {
        let is_told_anew = match &event {
            Event::Complete(_, turn) => *turn >= self.doubted.0,
            // There will be no other answer.
            Event::Forbidden => true,
            Event::Apply(_) | Event::Broken { .. } | Event::Delete(_) | Event::Restart(_) => false,
        };
        let is_settled = is_told_anew && self.doubted.1.remove(&key);
        self.dirty.access |= is_settled;
        self.tokens_now(key, event) || is_settled
    }

    fn tokens_now(&mut self, key: Key, event: Event<Secret>) -> bool {
        if matches!(event, Event::Apply(_) | Event::Broken { .. }) {
            self.listing.remove(&key);
        }
        let now = match event {
            Event::Apply(secret) => Tokens::Held(Arc::new(secret_of(&key, *secret))),
            Event::Delete(_) | Event::Broken { .. } => Tokens::Missing,
            // What was read stays: an API server that starts forbids much before it knows its roles.
            Event::Forbidden if matches!(self.tokens.get(&key), Some(Tokens::Held(_))) => return false,
            Event::Forbidden => Tokens::Forbidden,
            // The list of one Secret is empty when there is none; what is there is told between the two.
            Event::Restart(_) => {
                self.listing.insert(key);
                return false;
            }
            Event::Complete(..) if self.listing.remove(&key) => Tokens::Missing,
            Event::Complete(..) => return false,
        };
        let changed = self.tokens.get(&key) != Some(&now);
        if changed {
            self.tokens.insert(key, now);
            self.dirty.access = true;
        }
        changed
    }

    /// What is known of the Secrets may be long out of date: until they are told anew, in this turn, it
    /// counts as unknown. It isn't forgotten: an API server that starts forbids much before it knows its
    /// roles.
    pub(crate) fn doubt_tokens(&mut self, turn: u64) {
        self.doubted = (turn, self.tokens.keys().cloned().collect());
    }

    /// A Secret that no Tenant names any longer.
    pub(crate) fn forget_tokens(&mut self, key: &Key) {
        self.listing.remove(key);
        self.doubted.1.remove(key);
        if self.tokens.remove(key).is_some() {
            self.dirty.access = true;
        }
    }

    /// How it stands with a Secret; none: it was not looked for yet, or not since this operator leads.
    #[must_use]
    pub(crate) fn tokens_of(&self, key: &Key) -> Option<&Tokens> {
        self.tokens.get(key).filter(|_| !self.doubted.1.contains(key))
    }

    /// Takes in where Devices are to be created and may not. Answers whether anything changed.
    pub(crate) fn creation_forbidden(&mut self, namespaces: BTreeSet<String>) -> bool {
        let changed = self.creation_forbidden != namespaces;
        let is_concerned =
            |namespace| self.creation_forbidden.contains(namespace) || namespaces.contains(namespace);
        let keys = self
            .tenants
            .iter()
            .map(|(key, _)| key)
            .filter(|(namespace, _)| changed && is_concerned(namespace));
        keys.for_each(|key| self.dirty.touch(Kind::Tenant, key));
        self.creation_forbidden = namespaces;
        changed
    }

    /// Whether Devices are to be created in a namespace and may not be.
    #[must_use]
    pub(crate) fn is_creation_forbidden(&self, namespace: &str) -> bool {
        self.creation_forbidden.contains(namespace)
    }

    /// How many channels use a PushFormat: those of Devices, and those of Tenants' templates of Devices.
    #[must_use]
    pub(crate) fn channels_of(&self, format: &Key) -> u32 {
        let named =
            |channels: &[DeviceChannel]| channels.iter().filter(|channel| channel.format == format.1).count();
        let devices = self.links.users(format).filter_map(|key| self.devices.get(key)?.object.as_ref().ok());
        let tenants =
            self.links.templates(format).filter_map(|key| self.tenants.get(key)?.object.as_ref().ok());
        let count = devices.map(|device| named(&device.spec.channels)).sum::<usize>()
            + tenants.map(|tenant| named(template_of(&tenant.spec))).sum::<usize>();
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// Whether anybody uses an object.
    #[must_use]
    pub(crate) fn is_used(&self, kind: Kind, key: &Key) -> bool {
        self.devices_using(kind, key).next().is_some() || self.tenants_using(kind, key).next().is_some()
    }

    /// The Devices that use an object: those of its namespace that name it.
    pub(crate) fn devices_using<'a>(
        &'a self,
        kind: Kind,
        key: &'a Key,
    ) -> Box<dyn Iterator<Item = &'a Key> + 'a> {
        match kind {
            Kind::Tenant => Box::new(self.links.devices(&key.1).filter(|device| device.0 == key.0)),
            Kind::PushFormat => Box::new(self.links.users(key)),
            Kind::Device | Kind::Secret | Kind::File => Box::new(std::iter::empty()),
        }
    }

    /// The Tenants that use an object: those of its namespace whose template of Devices names it.
    pub(crate) fn tenants_using<'a>(
        &'a self,
        kind: Kind,
        key: &'a Key,
    ) -> Box<dyn Iterator<Item = &'a Key> + 'a> {
        match kind {
            Kind::PushFormat => Box::new(self.links.templates(key)),
            Kind::Tenant | Kind::Device | Kind::Secret | Kind::File => Box::new(std::iter::empty()),
        }
    }

    fn touch_users(&mut self, kind: Kind, key: &Key) {
        let devices = self.devices_using(kind, key).map(|device| (Kind::Device, device.clone()));
        let tenants = self.tenants_using(kind, key).map(|tenant| (Kind::Tenant, tenant.clone()));
        let users: Vec<_> = devices.chain(tenants).collect();
        for (kind, user) in &users {
            self.dirty.touch(*kind, user);
        }
    }

    /// The Devices that name a tenant.
    pub(crate) fn devices_of(&self, tenant: &str) -> impl Iterator<Item = &Key> {
        self.links.devices(tenant)
    }

    /// The objects that `scope` needs: all Tenants with the PushFormats of their templates, all Secrets, and
    /// of the tenants in it the Devices and their PushFormats.
    #[must_use]
    pub(crate) fn objects(&self, dirty: &DirtySet) -> Objects {
        let secrets = self.tokens.values().filter_map(|tokens| match tokens {
            Tokens::Held(secret) => Some(secret.clone()),
            Tokens::Missing | Tokens::Forbidden => None,
        });
        let mut objects = Objects {
            tenants: self.tenants.objects().cloned().collect(),
            secrets: secrets.collect(),
            ..Objects::default()
        };
        if dirty.all {
            objects.devices = self.devices.objects().cloned().collect();
            objects.formats = self.formats.objects().cloned().collect();
            return objects;
        }
        let devices = dirty.tenants.iter().flat_map(|tenant| self.links.devices(tenant));
        objects.devices =
            devices.filter_map(|key| self.devices.get(key)?.object.as_ref().ok().cloned()).collect();
        let mut formats = dirty.formats.clone();
        formats.extend(objects.devices.iter().flat_map(|device| links::formats_of(device)));
        formats.extend(objects.tenants.iter().flat_map(|tenant| links::formats_of_template(tenant)));
        objects.formats =
            formats.iter().filter_map(|key| self.formats.get(key)?.object.as_ref().ok().cloned()).collect();
        objects
    }
}

/// Takes an event into a store; answers what moved.
fn take<K: OurKind>(store: &mut Store<K>, event: Event<K>) -> Vec<Delta<K>> {
    match event {
        Event::Apply(object) => store.apply(*object).into_iter().collect(),
        Event::Broken { meta, error } => store.broken(&meta, error).into_iter().collect(),
        Event::Delete(meta) => store.delete(&meta).into_iter().collect(),
        Event::Restart(place) => {
            store.restart(place);
            Vec::new()
        }
        Event::Complete(place, turn) => store.complete(place, turn),
        Event::Forbidden => Vec::new(),
    }
}

fn secret_of((namespace, name): &Key, secret: Secret) -> Object<SecretData> {
    let data = secret.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0)).collect();
    Object {
        meta: Arc::new(Meta {
            namespace: namespace.clone(),
            name: name.clone(),
            uid: secret.metadata.uid,
            created: 0,
            labels: Arc::default(),
        }),
        spec: SecretData(data),
    }
}
