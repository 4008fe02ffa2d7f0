//! The first step: looks up the objects that changed, with all that they name.
//!
//! Each change marks in a [`DirtySet`] which objects it concerns. [`dereference`] hands the set to the
//! backend, which looks the objects up: an API server's in the index ([`crate::index::Index::objects`]), a
//! folder's in all of its files ([`crate::backend::folder::manifests::Manifests::objects`]). References stay
//! names; the build step resolves them, and reports those that are missing.

use std::collections::BTreeSet;

use super::backend::Backend;
use crate::object::{Key, Kind, Objects};

/// Returns the objects that are needed to build what is `dirty`; `None` if only statuses have to be compared.
pub(crate) fn dereference(backend: &mut impl Backend, dirty: &DirtySet) -> Option<Objects> {
    dirty.needs_building().then(|| backend.objects(dirty))
}

/// Objects that have to be looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct DirtySet {
    /// All objects.
    pub(crate) all: bool,
    /// The access document has to be built again.
    pub(crate) access: bool,
    /// The tenants whose devices have to be built again.
    pub(crate) tenants: BTreeSet<String>,
    /// The PushFormats that have to be compiled again.
    pub(crate) formats: BTreeSet<Key>,
    /// Further objects, whose status has to be compared.
    pub(crate) touched: BTreeSet<(Kind, Key)>,
}

impl DirtySet {
    pub(crate) fn everything() -> Self {
        Self { all: true, access: true, ..Self::default() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Returns whether there is more to do than to compare statuses.
    pub(crate) fn needs_building(&self) -> bool {
        let Self { all, access, tenants, formats, touched: _ } = self;
        *all || *access || !tenants.is_empty() || !formats.is_empty()
    }

    /// Marks an object for its status.
    pub(crate) fn touch(&mut self, kind: Kind, key: &Key) {
        self.touched.insert((kind, key.clone()));
    }

    pub(crate) fn merge(&mut self, other: Self) {
        let Self { all, access, tenants, formats, touched } = other;
        self.all |= all;
        self.access |= access;
        self.tenants.extend(tenants);
        self.formats.extend(formats);
        self.touched.extend(touched);
    }
}
