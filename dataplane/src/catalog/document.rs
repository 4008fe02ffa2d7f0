//! Parsing of documents from a mapping folder or the Kubernetes API, and the state that is kept if one is
//! broken or removed.

use std::sync::Arc;

use flutecast_contract::document::{AccessDocument, ShardDocument};
use flutecast_contract::name::TenantName;

use super::{Problem, ProblemKind};
use crate::access::{Access, BadAccess};

/// A document, `None` if it is broken, and its problems.
#[derive(Debug, Clone)]
pub(super) struct Parsed<T> {
    pub(super) document: Option<T>,
    pub(super) problems: Vec<Problem>,
}

/// The access rules of the last document that could be read.
#[derive(Debug, Default)]
pub(super) struct LastGoodAccess {
    /// `None` if there was no access document yet.
    pub(super) current: Option<Arc<Access>>,
}

impl LastGoodAccess {
    /// To be called with a document; a broken one changes nothing. Returns whether the rules changed.
    pub(super) fn found(&mut self, parsed: &Parsed<Arc<Access>>) -> bool {
        // Equal rules keep their `Arc`, so that open streams are not checked again.
        let changed = parsed.document.is_some() && self.current != parsed.document;
        if changed {
            self.current.clone_from(&parsed.document);
        }
        changed
    }

    /// To be called without a document: removing it revokes all access. Returns whether the rules changed.
    pub(super) fn gone(&mut self) -> bool {
        let changed = self.current.as_ref().is_some_and(|known| known.tenants() > 0);
        if changed {
            self.current = Some(Arc::default());
        }
        changed
    }
}

/// Parses a shard document; its content has to agree with its name.
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

pub(super) fn parse_access(place: &str, content: &str) -> Parsed<Arc<Access>> {
    // The parser's message quotes lines of the document, which contain digests.
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

pub(super) fn broken<T>(place: &str, message: &str) -> Parsed<T> {
    Parsed { document: None, problems: vec![unreadable(place, message)] }
}

pub(super) fn unreadable(place: &str, message: &str) -> Problem {
    let message = format!("{message}; the last good state is kept");
    Problem { kind: ProblemKind::Unreadable, place: place.to_owned(), message }
}
