//! Publishes the mapping, whatever it was read from.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::watch;

use super::{Catalog, CatalogMetrics, Documents, Problem, ProblemKind};
use crate::access::Access;

#[derive(Debug, Clone)]
pub(crate) struct Mapping {
    pub(crate) catalog: watch::Receiver<Arc<Catalog>>,
    /// `None` if there was no access document yet.
    pub(crate) access: watch::Receiver<Option<Arc<Access>>>,
    pub(crate) state: watch::Receiver<MappingState>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MappingState {
    /// Not read yet; the text says what is missing.
    Missing(String),
    /// Both the mapping and the access document were read.
    Loaded,
}

#[derive(Debug)]
pub(super) struct MappingSnapshot {
    pub(super) documents: Documents,
    /// `None` if there was no access document yet.
    pub(super) access: Option<Arc<Access>>,
    /// The problems of the documents and of the source.
    pub(super) problems: Vec<Problem>,
}

#[derive(Debug)]
pub(super) struct CatalogPublisher {
    catalog: watch::Sender<Arc<Catalog>>,
    access: watch::Sender<Option<Arc<Access>>>,
    state: watch::Sender<MappingState>,
    no_access: String,
    metrics: CatalogMetrics,
    problems: BTreeSet<Problem>,
}

impl CatalogPublisher {
    /// `no_access` is the reason for not being ready without an access document.
    pub(super) fn new(no_access: impl Into<String>, metrics: CatalogMetrics) -> (Self, Mapping) {
        let publisher = Self {
            catalog: watch::Sender::default(),
            access: watch::Sender::default(),
            state: watch::Sender::new(MappingState::Missing("the mapping was not read yet".to_owned())),
            no_access: no_access.into(),
            metrics,
            problems: BTreeSet::new(),
        };
        let (catalog, access) = (publisher.catalog.subscribe(), publisher.access.subscribe());
        let mapping = Mapping { catalog, access, state: publisher.state.subscribe() };
        (publisher, mapping)
    }

    /// Builds a catalog and publishes what has changed. Blocks for long: not for an async worker thread.
    pub(super) fn publish(&mut self, snapshot: MappingSnapshot) {
        let MappingSnapshot { documents, access, mut problems } = snapshot;
        let before = self.catalog.borrow().clone();
        let (catalog, more) = Catalog::build_from(documents, Some(&before));
        problems.extend(more);
        self.report(problems);
        if !catalog.same(&before) {
            self.metrics.swapped(&catalog);
            tracing::info!(tenants = catalog.tenants.len(), "a newer mapping is served");
            self.catalog.send_replace(Arc::new(catalog));
        }
        let state = match &access {
            Some(_) => MappingState::Loaded,
            None => MappingState::Missing(self.no_access.clone()),
        };
        // After the catalog, so that an admitted client finds its devices.
        self.access.send_if_modified(|current| {
            let changed = *current != access;
            *current = access;
            changed
        });
        self.set_state(state);
    }

    /// To be called when the source can't be read. What was published before stays.
    pub(super) fn unreachable(&mut self, place: &str, message: String) {
        let loaded = *self.state.borrow() == MappingState::Loaded;
        if !loaded {
            self.set_state(MappingState::Missing(message.clone()));
        }
        self.report(vec![Problem { kind: ProblemKind::Unreadable, place: place.to_owned(), message }]);
    }

    fn set_state(&self, state: MappingState) {
        self.state.send_if_modified(|current| {
            let changed = *current != state;
            if changed {
                match &state {
                    MappingState::Missing(reason) => tracing::warn!(reason, "the mapping is missing"),
                    MappingState::Loaded => tracing::info!("the mapping is loaded"),
                }
                *current = state;
            }
            changed
        });
    }

    /// Logs new and resolved problems, once each.
    fn report(&mut self, problems: Vec<Problem>) {
        self.metrics.set_problems(&problems);
        let problems: BTreeSet<Problem> = problems.into_iter().collect();
        for Problem { kind, place, message } in problems.difference(&self.problems) {
            tracing::warn!(?kind, place, message, "a problem in the mapping");
        }
        for Problem { kind, place, message: _ } in self.problems.difference(&problems) {
            tracing::info!(?kind, place, "a problem in the mapping is gone");
        }
        self.problems = problems;
    }
}
