//! One document's text, wherever it comes from: a file of the mapping folder or an object of the Kubernetes
//! API. What holds when it is broken or gone is decided here, once.

use std::sync::Arc;

use flutecast_contract::document::{AccessDocument, ShardDocument};
use flutecast_contract::name::TenantName;

use super::{Problem, ProblemKind};
use crate::access::{Access, BadAccess};

/// A document, or none if it is broken, and what is wrong with it.
#[derive(Debug, Clone)]
pub(super) struct Parsed<T> {
    pub(super) document: Option<T>,
    pub(super) problems: Vec<Problem>,
}

/// Who may read, as of the last document that could be read.
#[derive(Debug, Default)]
pub(super) struct LastGoodAccess {
    current: Option<Arc<Access>>,
}

impl LastGoodAccess {
    /// None: no access document was ever there.
    pub(super) fn current(&self) -> Option<Arc<Access>> {
        self.current.clone()
    }

    /// A document is there. One that is broken leaves things as they were. Returns whether something else
    /// holds now.
    pub(super) fn found(&mut self, parsed: &Parsed<Arc<Access>>) -> bool {
        // The same rules stay the same `Arc`, so that nobody is asked to look again.
        let changed = parsed.document.is_some() && self.current != parsed.document;
        if changed {
            self.current.clone_from(&parsed.document);
        }
        changed
    }

    /// There is no document. One that is removed opens nothing any more. Returns whether something else holds
    /// now.
    pub(super) fn gone(&mut self) -> bool {
        let changed = self.current.as_ref().is_some_and(|known| known.tenants() > 0);
        if changed {
            self.current = Some(Arc::default());
        }
        changed
    }
}

/// The tenant and the shard that the name of a document stands for: `flutecast-<tenant>-<n>`.
pub(super) fn shard_name(name: &str) -> Option<(TenantName, u32)> {
    let (tenant, shard) = name.strip_prefix("flutecast-")?.rsplit_once('-')?;
    // "01" would be a second name of shard 1.
    let number = shard.parse::<u32>().ok().filter(|number| number.to_string() == shard)?;
    Some((TenantName::new(tenant).ok()?, number))
}

/// Reads the shard that the document called `place` has to be.
pub(super) fn parse_shard(place: &str, expected: (&TenantName, u32), content: &str) -> Parsed<ShardDocument> {
    let document: ShardDocument = match serde_yaml::from_str(content) {
        Ok(document) => document,
        Err(error) => return broken(place, &error.to_string()),
    };
    if expected == (&document.tenant, document.shard) {
        return Parsed { document: Some(document), problems: Vec::new() };
    }
    let ShardDocument { tenant, shard, .. } = document;
    broken(place, &format!("it says that it is shard {shard} of tenant {tenant}, which its name doesn't"))
}

/// Reads the access document, which is called `place`.
pub(super) fn parse_access(place: &str, content: &str) -> Parsed<Arc<Access>> {
    // The error of the parser would show the lines around it, and they hold digests.
    let document: AccessDocument = match serde_yaml::from_str(content) {
        Ok(document) => document,
        Err(error) => return broken(place, &without_snippet(&error)),
    };
    match Access::from_document(document) {
        Ok((access, bad)) => {
            let problem = |bad: BadAccess| Problem {
                kind: ProblemKind::BadAccess,
                place: format!("{place}, {}", bad.place),
                message: bad.message,
            };
            Parsed { document: Some(Arc::new(access)), problems: bad.into_iter().map(problem).collect() }
        }
        Err(bad) => broken(place, &bad.to_string()),
    }
}

fn without_snippet(error: &serde_yaml::Error) -> String {
    match error.location() {
        Some(location) => {
            format!("it can't be parsed; see line {}, column {}", location.line(), location.column())
        }
        None => "it can't be parsed".to_owned(),
    }
}

/// A document that can't be used at all.
pub(super) fn broken<T>(place: &str, message: &str) -> Parsed<T> {
    Parsed { document: None, problems: vec![unreadable(place, message)] }
}

/// The problem of a document that can't be read.
pub(super) fn unreadable(place: &str, message: &str) -> Problem {
    let message = format!("{message}; the last good state is kept");
    Problem { kind: ProblemKind::Unreadable, place: place.to_owned(), message }
}
