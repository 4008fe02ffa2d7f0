//! The versions of PushFormats that are in force: the last one of each that compiled.
//!
//! A PushFormat that is edited into something that doesn't compile would otherwise take its channels from all
//! screens. The mapping has the version in force, so that it can be read back after a restart.

use std::collections::BTreeMap;
use std::sync::Arc;

use flutecast_contract::document::FormatDocument;
use flutecast_format::program::Program;

use super::Formats;
use crate::controller::validate::push_format::CheckedFormat;
use crate::object::{Key, Meta};

/// The version of a PushFormat that is in force.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct FormatInForce {
    /// The object that it is a version of; `None` if it was read back, and that is not known.
    meta: Option<Arc<Meta>>,
    pub(crate) document: Arc<FormatDocument>,
    /// `true` if it is what the object says now.
    pub(crate) is_current: bool,
}

/// The versions in force, by the namespace and name of their PushFormats.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct FormatsInForce(pub(crate) BTreeMap<Key, FormatInForce>);

impl FormatsInForce {
    /// Adds a version that a stored document of the mapping has. `meta` is the object that it is a version
    /// of, if that is known.
    ///
    /// Of several versions the first counts. Documents of tenants with different retention differ in when a
    /// field of a record expires, at the latest after `retention.maxAge`; the longest is nearest to what was
    /// wanted, and gives each tenant what it had.
    pub(crate) fn read_back(&mut self, key: Key, meta: Option<Arc<Meta>>, document: &FormatDocument) {
        let Some(known) = self.0.get_mut(&key) else {
            if Program::compile(document).is_ok() {
                self.0.insert(
                    key,
                    FormatInForce { meta, document: Arc::new(document.clone()), is_current: false },
                );
            }
            return;
        };
        let expiry = |document: &FormatDocument| document.record.as_ref()?.expire_fields_ms;
        if expiry(document) > expiry(&known.document) {
            let mut longer = (*known.document).clone();
            if let Some(record) = &mut longer.record {
                record.expire_fields_ms = expiry(document);
            }
            if longer == *document {
                known.document = Arc::new(longer);
            }
        }
    }
}

/// Returns the version of each format that is in force now; `before` are those that were in force before.
///
/// A format that was deleted and made again is another one.
pub(super) fn in_force(checked: BTreeMap<Key, CheckedFormat>, before: &FormatsInForce) -> Formats {
    let version = |(key, CheckedFormat { meta, document })| {
        let before = before.0.get(&key);
        let version = match document {
            Some(document) => {
                Some(FormatInForce { meta, document: shared(before, document), is_current: true })
            }
            None => before.filter(|before| is_same(before.meta.as_deref(), meta.as_deref())).map(|before| {
                let document = before.document.clone();
                FormatInForce { meta: meta.or(before.meta.clone()), document, is_current: false }
            }),
        };
        (key, version)
    };
    checked.into_iter().map(version).collect()
}

/// Returns the document that was in force, if it is equal, so that it is in memory once.
fn shared(before: Option<&FormatInForce>, document: FormatDocument) -> Arc<FormatDocument> {
    match before {
        Some(before) if *before.document == document => before.document.clone(),
        Some(_) | None => Arc::new(document),
    }
}

/// Returns whether they may be the same object: one that is not known may be any.
fn is_same(before: Option<&Meta>, now: Option<&Meta>) -> bool {
    before.zip(now).is_none_or(|(before, now)| before.is_same_object(now))
}
