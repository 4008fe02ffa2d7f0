//! What a place says, published: the same for every place.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::watch;

use super::{Catalog, Documents, Problem, ProblemKind};
use crate::access::Access;
use crate::metrics::CatalogMetrics;

/// What the mapping says, and who may read it; each changes as a whole.
#[derive(Debug, Clone)]
pub struct Mapping {
    /// The devices.
    pub catalog: watch::Receiver<Arc<Catalog>>,
    /// Who may read them. None: no access document was ever there.
    pub access: watch::Receiver<Option<Arc<Access>>>,
    /// Whether the two mean anything yet.
    pub state: watch::Receiver<MappingState>,
}

/// Whether the mapping was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MappingState {
    /// Not yet; the text says what is missing.
    Missing(String),
    /// Both the mapping and the access document were read.
    Loaded,
}

/// All that a place holds now.
#[derive(Debug)]
pub(super) struct Reading {
    /// The mapping.
    pub(super) documents: Documents,
    /// Who may read. None: no access document was ever there.
    pub(super) access: Option<Arc<Access>>,
    /// What is wrong with the documents or with the place.
    pub(super) problems: Vec<Problem>,
}

/// Makes a [`Mapping`] of one reading after the other.
#[derive(Debug)]
pub(super) struct Publisher {
    catalog: watch::Sender<Arc<Catalog>>,
    access: watch::Sender<Option<Arc<Access>>>,
    state: watch::Sender<MappingState>,
    no_access: String,
    metrics: CatalogMetrics,
    problems: BTreeSet<Problem>,
}

impl Publisher {
    /// Nothing is published yet. `no_access` says that there is no access document.
    pub(super) fn new(no_access: impl Into<String>, metrics: CatalogMetrics) -> (Self, Mapping) {
        let (catalog_sender, catalog) = watch::channel(Arc::default());
        let (access_sender, access) = watch::channel(None);
        let (state_sender, state) =
            watch::channel(MappingState::Missing("the mapping was not read yet".to_owned()));
        let publisher = Self {
            catalog: catalog_sender,
            access: access_sender,
            state: state_sender,
            no_access: no_access.into(),
            metrics,
            problems: BTreeSet::new(),
        };
        (publisher, Mapping { catalog, access, state })
    }

    /// Builds the catalog anew and publishes what has changed. Takes its time: not for a thread that serves
    /// others.
    pub(super) fn publish(mut self, reading: Reading) -> Self {
        let Reading { documents, access, mut problems } = reading;
        let before = self.catalog.borrow().clone();
        let (catalog, more) = Catalog::build_from(documents, Some(&before));
        problems.extend(more);
        self.report(problems);
        if !catalog.same(&before) {
            self.metrics.swapped(&catalog);
            tracing::info!(tenants = catalog.tenants.len(), "a newer mapping is served");
            self.catalog.send_replace(Arc::new(catalog));
        }
        // After the catalog, so that whoever is let in finds what is there.
        let access_is_there = access.is_some();
        self.access.send_if_modified(|current| {
            let same = match (&*current, &access) {
                (Some(current), Some(access)) => Arc::ptr_eq(current, access),
                (current, access) => current.is_none() && access.is_none(),
            };
            *current = access;
            !same
        });
        let state = if access_is_there {
            MappingState::Loaded
        } else {
            MappingState::Missing(self.no_access.clone())
        };
        self.set_state(state);
        self
    }

    /// The place called `place` can't be read. What was read of it before holds on.
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

    /// Logs what is new, once.
    fn report(&mut self, problems: Vec<Problem>) {
        self.metrics.set_problems(&problems);
        let problems: BTreeSet<Problem> = problems.into_iter().collect();
        for problem in problems.difference(&self.problems) {
            let Problem { kind, place, message } = problem;
            tracing::warn!(kind = kind.as_str(), place, message, "a problem in the mapping");
        }
        for problem in self.problems.difference(&problems) {
            tracing::info!(
                kind = problem.kind.as_str(),
                place = problem.place,
                "a problem in the mapping is gone"
            );
        }
        self.problems = problems;
    }
}
