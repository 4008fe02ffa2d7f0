//! What has to be built anew.

use std::collections::BTreeSet;

use crate::object::{Key, Kind};

/// A part of all objects.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct DirtySet {
    /// Everything.
    pub(crate) all: bool,
    /// Who may read.
    pub(crate) access: bool,
    /// The tenants whose devices are mapped anew, by the name that the Devices name.
    pub(crate) tenants: BTreeSet<String>,
    /// The PushFormats that are compiled anew.
    pub(crate) formats: BTreeSet<Key>,
    /// The objects whose status is looked at, beside those above.
    pub(crate) touched: BTreeSet<(Kind, Key)>,
}

impl DirtySet {
    /// Everything.
    #[must_use]
    pub(crate) fn everything() -> Self {
        Self { all: true, access: true, ..Self::default() }
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether something has to be built, and not only a status to be looked at.
    #[must_use]
    pub(crate) fn needs_building(&self) -> bool {
        let Self { all, access, tenants, formats, touched: _ } = self;
        *all || *access || !tenants.is_empty() || !formats.is_empty()
    }

    /// Has the status of an object looked at.
    pub(crate) fn touch(&mut self, kind: Kind, key: &Key) {
        self.touched.insert((kind, key.clone()));
    }

    /// Both parts together.
    pub(crate) fn merge(&mut self, other: Self) {
        let Self { all, access, tenants, formats, touched } = other;
        self.all |= all;
        self.access |= access;
        self.tenants.extend(tenants);
        self.formats.extend(formats);
        self.touched.extend(touched);
    }
}
