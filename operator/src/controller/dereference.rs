//! The first step: the objects that have to be looked at because of what changed. The backend resolves them,
//! with all that they name.

use std::collections::BTreeSet;

use crate::object::{Key, Kind};

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
