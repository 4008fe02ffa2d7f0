//! Tells enrollment what is known of each tenant's devices, after each reconcile.

use std::collections::BTreeSet;
use std::sync::Arc;

use flutecast_contract::name::TenantName;
use flutecast_crds::Tenant;
use tokio::sync::watch;

use crate::controller::dereference::DirtySet;
use crate::index::{Entry, Index};
use crate::enrollment::policy::{Enrollment, Newcomers};
use crate::controller::build::{Built, BuiltTenant};
use crate::enrollment::roster::{self, Roll, Roster, Sources};
use crate::jetstream::task::Report;
use crate::object::Kind;

/// Keeps the roster.
#[derive(Debug)]
pub struct Registrar {
    roster: watch::Sender<Option<Arc<Roster>>>,
    /// Whether everything that was told was stored; if not, all of it is looked at again.
    was_stored: bool,
}

/// What a reconcile came to.
#[derive(Debug, Clone, Copy)]
pub struct Outcome<'a> {
    /// What was built.
    pub built: &'a Built,
    /// How it stands with the streams.
    pub report: &'a Report,
    /// The tenants that the mapping leaves out, because their stream belongs to somebody else.
    pub foreign: &'a BTreeSet<TenantName>,
    /// Whether all of the mapping is stored.
    pub is_stored: bool,
}

impl Registrar {
    /// A registrar that has told nothing yet.
    #[must_use]
    pub fn new(roster: watch::Sender<Option<Arc<Roster>>>) -> Self {
        Self { roster, was_stored: false }
    }

    /// Another operator's turn: nobody is answered from here.
    pub fn stop(&mut self) {
        self.roster.send_replace(None);
        self.was_stored = false;
    }

    /// Tells what changed: of the tenants in `scope`, and of those whose stream or enrollment is another now.
    pub fn tell(&mut self, index: &Index, scope: &DirtySet, outcome: &Outcome<'_>) {
        let before = self.roster.borrow().clone();
        let looks_at_all = scope.all || !self.was_stored || before.is_none();
        let Outcome { built, report, foreign, is_stored } = *outcome;
        let mut changed = before.is_none();
        let mut now = Roster::new();
        for (name, tenant) in &built.tenants {
            let before = before.as_ref().and_then(|roster| roster.get(name));
            let has_stream =
                report.get(name).is_some_and(|report| report.has_stream) && !foreign.contains(name);
            let owner = (tenant.streams.owner.namespace.clone(), name.to_string());
            let enrollment = enrollment_of(tenant, index.tenants.get(&owner));
            let is_same = before.is_some_and(|before| {
                before.has_stream == has_stream
                    && before.enrollment == enrollment
                    && before.namespace == owner.0
            });
            let is_touched =
                scope.tenants.contains(name.as_str()) || scope.touched.contains(&(Kind::Tenant, owner));
            if let Some(before) = before
                && is_same
                && !is_touched
                && !looks_at_all
            {
                now.insert(name.clone(), before.clone());
                continue;
            }
            let sources = Sources {
                built,
                is_stored: is_stored && !foreign.contains(name),
                has_stream,
                before: before.filter(|_| !foreign.contains(name)).map(|before| &**before),
            };
            let devices = index.devices_of(name.as_str()).filter_map(|key| index.devices.get(key));
            let devices = devices.filter_map(|entry| entry.object.as_deref().ok());
            let roll = Roll { enrollment, ..roster::roll(tenant, devices, &sources) };
            let same = before.filter(|before| ***before == roll).cloned();
            changed |= same.is_none();
            now.insert(name.clone(), same.unwrap_or_else(|| Arc::new(roll)));
        }
        changed |= before.as_ref().is_some_and(|before| before.len() != now.len());
        self.was_stored = is_stored;
        if changed {
            self.roster.send_replace(Some(Arc::new(now)));
        }
    }
}

/// How the devices of a tenant enrol. While the Tenant is being deleted no Device is created: it would never
/// see its last one go.
fn enrollment_of(tenant: &BuiltTenant, entry: Option<&Entry<Tenant>>) -> Enrollment {
    let mut enrollment = tenant.enrollment.clone();
    let is_going = entry.is_some_and(|entry| entry.life.is_deleting);
    if is_going && matches!(enrollment.newcomers, Newcomers::Created(_)) {
        enrollment.newcomers = Newcomers::Blocked;
    }
    enrollment
}
