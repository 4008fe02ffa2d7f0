//! The index: the API server's objects as they were last reported, and which of them a change concerns.
//! Synchronous and without I/O: events are passed in, and each marks what has to be looked at.
//!
//! A Device concerns the tenant that it names, a PushFormat the tenants of the Devices that name it. A Tenant
//! concerns all tenants, since names and subjects are claimed across them; Tenants are few and change seldom.

pub(crate) mod kind;

mod references;
mod store;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use flutecast_crds::{Device, DeviceChannel, PushFormat, Tenant};
use k8s_openapi::api::core::v1::Secret;

use self::references::References;
pub(crate) use self::references::template_of;
pub(crate) use self::store::version_of;
pub(crate) use self::store::{Deletion, Delta, Entry, Store};
use crate::controller::dereference::DirtySet;
use crate::index::kind::ApiKind;
use crate::object::{Key, Kind, Meta, Object, Objects, SecretData};
use crate::watch::{Event, NamespaceScope};

/// The Secret of tokens that a Tenant names.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum TokenSecret {
    Held(Arc<Object<SecretData>>),
    Missing,
    /// The operator may not read it.
    Forbidden,
}

#[derive(Debug, Default)]
pub(crate) struct Index {
    pub(crate) tenants: Store<Tenant>,
    pub(crate) devices: Store<Device>,
    pub(crate) formats: Store<PushFormat>,
    tokens: BTreeMap<Key, TokenSecret>,
    /// The Secrets whose lists are under way and were empty so far.
    listing: BTreeSet<Key>,
    /// The term, and the Secrets that were not read again since it began.
    distrusted: (u64, BTreeSet<Key>),
    references: References,
    /// The namespaces where Devices should be created and may not.
    creation_forbidden: BTreeSet<String>,
    /// The objects that have to be looked at because of the changes so far.
    pub(crate) dirty: DirtySet,
}

impl Index {
    /// Returns whether all objects were listed in this term or a later one; in term 0, at least once.
    pub(crate) fn is_complete(&self, scopes: &[NamespaceScope], term: u64) -> bool {
        let Self { tenants, devices, formats, .. } = self;
        tenants.is_complete(scopes, term)
            && devices.is_complete(scopes, term)
            && formats.is_complete(scopes, term)
    }

    /// Applies an event of Tenants. Returns whether anything changed.
    pub(crate) fn apply_tenant(&mut self, event: Event<Tenant>) -> bool {
        let deltas = apply(&mut self.tenants, event);
        for delta in &deltas {
            self.dirty.touch(Kind::Tenant, &delta.key);
            if delta.is_about_deletion() {
                self.touch_users(Kind::Tenant, &delta.key);
            }
            if delta.needs_building() {
                // Also those that the template names no longer: everything is looked at.
                self.dirty.all = true;
                self.references.update_tenant(delta);
            }
        }
        !deltas.is_empty()
    }

    /// Applies an event of Devices. Returns whether anything changed.
    pub(crate) fn apply_device(&mut self, event: Event<Device>) -> bool {
        let deltas = apply(&mut self.devices, event);
        for delta in &deltas {
            self.dirty.touch(Kind::Device, &delta.key);
            if !delta.needs_building() {
                continue;
            }
            for entry in [&delta.before, &delta.after].into_iter().flatten() {
                let Ok(device) = &entry.object else { continue };
                self.dirty.tenants.insert(device.spec.tenant.clone());
                for format in self::references::formats_of(device) {
                    self.dirty.touch(Kind::PushFormat, &format);
                }
            }
            self.references.update_device(delta);
        }
        !deltas.is_empty()
    }

    /// Marks a Device because of its presence. Returns whether it exists.
    pub(crate) fn mark_device(&mut self, key: &Key) -> bool {
        let exists = self.devices.get(key).is_some();
        if exists {
            self.dirty.touch(Kind::Device, key);
        }
        exists
    }

    pub(crate) fn mark_tenant(&self, tenant: &str, dirty: &mut DirtySet) {
        let named = self.tenants.iter().filter(|((_, name), _)| name == tenant);
        named.for_each(|(key, _)| dirty.touch(Kind::Tenant, key));
    }

    /// Applies an event of PushFormats. Returns whether anything changed.
    pub(crate) fn apply_format(&mut self, event: Event<PushFormat>) -> bool {
        let deltas = apply(&mut self.formats, event);
        for delta in &deltas {
            self.dirty.touch(Kind::PushFormat, &delta.key);
            if delta.is_about_deletion() {
                self.touch_users(Kind::PushFormat, &delta.key);
            }
            if !delta.needs_building() {
                continue;
            }
            self.dirty.formats.insert(delta.key.clone());
            for device in self.references.users(&delta.key) {
                if let Some(Ok(device)) = self.devices.get(device).map(|entry| &entry.object) {
                    self.dirty.tenants.insert(device.spec.tenant.clone());
                }
            }
        }
        !deltas.is_empty()
    }

    /// Applies an event of a Secret that a Tenant names. Returns whether anything changed.
    pub(crate) fn apply_tokens(&mut self, key: Key, event: Event<Secret>) -> bool {
        let is_read_again = match &event {
            Event::Complete(_, term) => *term >= self.distrusted.0,
            // There will be no other report.
            Event::Forbidden => true,
            Event::Apply(_) | Event::Broken(_) | Event::Delete(_) | Event::Restart(_) => false,
        };
        let is_trusted_again = is_read_again && self.distrusted.1.remove(&key);
        self.dirty.access |= is_trusted_again;
        self.update_tokens(key, event) || is_trusted_again
    }

    fn update_tokens(&mut self, key: Key, event: Event<Secret>) -> bool {
        if matches!(event, Event::Apply(_) | Event::Broken(_)) {
            self.listing.remove(&key);
        }
        let now = match event {
            Event::Apply(secret) => TokenSecret::Held(Arc::new(secret_of(&key, *secret))),
            Event::Delete(_) | Event::Broken(_) => TokenSecret::Missing,
            // A Secret that was read stays: while starting, before it has loaded its roles, an API server
            // answers 403.
            Event::Forbidden if matches!(self.tokens.get(&key), Some(TokenSecret::Held(_))) => return false,
            Event::Forbidden => TokenSecret::Forbidden,
            // The list of one Secret is empty if there is none; one that exists is reported before its end.
            Event::Restart(_) => {
                self.listing.insert(key);
                return false;
            }
            Event::Complete(..) if self.listing.remove(&key) => TokenSecret::Missing,
            Event::Complete(..) => return false,
        };
        let changed = self.tokens.get(&key) != Some(&now);
        if changed {
            self.tokens.insert(key, now);
            self.dirty.access = true;
        }
        changed
    }

    /// Hides all Secrets until they are read again in this term, because they may be long out of date. They
    /// are not removed: while starting, before it has loaded its roles, an API server answers 403.
    pub(crate) fn distrust_tokens(&mut self, term: u64) {
        self.distrusted = (term, self.tokens.keys().cloned().collect());
    }

    /// Removes a Secret that no Tenant names any longer.
    pub(crate) fn remove_tokens(&mut self, key: &Key) {
        self.listing.remove(key);
        self.distrusted.1.remove(key);
        if self.tokens.remove(key).is_some() {
            self.dirty.access = true;
        }
    }

    /// Returns a Secret; `None` if it was not read in this term.
    pub(crate) fn token_secret(&self, key: &Key) -> Option<&TokenSecret> {
        self.tokens.get(key).filter(|_| !self.distrusted.1.contains(key))
    }

    /// Sets the namespaces where Devices should be created and may not. Returns whether they changed.
    pub(crate) fn set_creation_forbidden(&mut self, namespaces: BTreeSet<String>) -> bool {
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

    /// Returns whether Devices should be created in a namespace and may not.
    pub(crate) fn is_creation_forbidden(&self, namespace: &str) -> bool {
        self.creation_forbidden.contains(namespace)
    }

    /// Returns the number of channels that use a PushFormat, of Devices and of Tenants' templates of Devices.
    pub(crate) fn channels_of(&self, format: &Key) -> u32 {
        let named =
            |channels: &[DeviceChannel]| channels.iter().filter(|channel| channel.format == format.1).count();
        let devices =
            self.references.users(format).filter_map(|key| self.devices.get(key)?.object.as_ref().ok());
        let tenants =
            self.references.templates(format).filter_map(|key| self.tenants.get(key)?.object.as_ref().ok());
        let count = devices.map(|device| named(&device.spec.channels)).sum::<usize>()
            + tenants.map(|tenant| named(template_of(&tenant.spec))).sum::<usize>();
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    pub(crate) fn is_used(&self, kind: Kind, key: &Key) -> bool {
        self.devices_using(kind, key).next().is_some() || self.tenants_using(kind, key).next().is_some()
    }

    /// Returns the Devices that use an object: those of its namespace that name it.
    pub(crate) fn devices_using<'a>(
        &'a self,
        kind: Kind,
        key: &'a Key,
    ) -> Box<dyn Iterator<Item = &'a Key> + 'a> {
        match kind {
            Kind::Tenant => Box::new(self.references.devices(&key.1).filter(|device| device.0 == key.0)),
            Kind::PushFormat => Box::new(self.references.users(key)),
            Kind::Device | Kind::Secret | Kind::File => Box::new(std::iter::empty()),
        }
    }

    /// Returns the Tenants that use an object: those of its namespace whose template of Devices names it.
    pub(crate) fn tenants_using<'a>(
        &'a self,
        kind: Kind,
        key: &'a Key,
    ) -> Box<dyn Iterator<Item = &'a Key> + 'a> {
        match kind {
            Kind::PushFormat => Box::new(self.references.templates(key)),
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

    pub(crate) fn devices_of(&self, tenant: &str) -> impl Iterator<Item = &Key> {
        self.references.devices(tenant)
    }

    /// Returns the objects that are needed to build what is `dirty`: all Tenants with the PushFormats of
    /// their templates, all Secrets, and of the dirty tenants the Devices and their PushFormats.
    pub(crate) fn objects(&self, dirty: &DirtySet) -> Objects {
        let secrets = self.tokens.values().filter_map(|tokens| match tokens {
            TokenSecret::Held(secret) => Some(secret.clone()),
            TokenSecret::Missing | TokenSecret::Forbidden => None,
        });
        let mut objects = Objects {
            tenants: self.tenants.objects().cloned().collect(),
            secrets: secrets.collect(),
            ..Objects::default()
        };
        let unreadable = self.tenants.iter().filter(|(_, entry)| entry.object.is_err());
        objects.unreadable = unreadable.map(|(key, _)| (Kind::Tenant, key.clone())).collect();
        if dirty.all {
            objects.devices = self.devices.objects().cloned().collect();
            self.add_formats(self.formats.iter().map(|(key, _)| key), &mut objects);
            return objects;
        }
        let devices = dirty.tenants.iter().flat_map(|tenant| self.references.devices(tenant));
        objects.devices =
            devices.filter_map(|key| self.devices.get(key)?.object.as_ref().ok().cloned()).collect();
        let mut formats = dirty.formats.clone();
        formats.extend(objects.devices.iter().flat_map(|device| references::formats_of(device)));
        formats.extend(objects.tenants.iter().flat_map(|tenant| references::formats_of_template(tenant)));
        self.add_formats(formats.iter(), &mut objects);
        objects
    }

    /// Adds those of these PushFormats that exist.
    fn add_formats<'a>(&self, keys: impl Iterator<Item = &'a Key>, objects: &mut Objects) {
        for (key, entry) in keys.filter_map(|key| Some((key, self.formats.get(key)?))) {
            match &entry.object {
                Ok(format) => objects.formats.push(format.clone()),
                Err(_) => drop(objects.unreadable.insert((Kind::PushFormat, key.clone()))),
            }
        }
    }
}

fn apply<K: ApiKind>(store: &mut Store<K>, event: Event<K>) -> Vec<Delta<K>> {
    match event {
        Event::Apply(object) => store.apply(*object).into_iter().collect(),
        Event::Broken(left) => store.broken(*left).into_iter().collect(),
        Event::Delete(meta) => store.delete(&meta).into_iter().collect(),
        Event::Restart(scope) => {
            store.restart(scope);
            Vec::new()
        }
        Event::Complete(scope, term) => store.complete(scope, term),
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
