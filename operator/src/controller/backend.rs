//! The interface of the control loop to the place that objects come from and documents go to: a folder, or an
//! API server.

use std::collections::BTreeMap;

use flutecast_contract::name::TenantName;
use flutecast_crds::DeviceSpec;
use tokio::time::{Duration, Instant};

use super::Reconciled;
use super::apply::documents::MappingDocuments;
use super::build::formats::FormatsInForce;
use super::dereference::DirtySet;
use super::inbox::Wake;
use super::status::write_failures::WriteFailure;
use crate::jetstream::orphans::Installation;
use crate::object::{Key, Object, Objects};

/// The result of writing the mapping.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct WrittenMapping {
    /// The names of the documents that were written or deleted.
    pub(crate) changed: Vec<String>,
    /// The tenants whose documents were not stored.
    pub(crate) failures: BTreeMap<TenantName, WriteFailure>,
    /// The error of a document that could not be written; the write is repeated.
    pub(crate) error: Option<String>,
}

/// The source of objects, and the store of documents and statuses.
///
/// All methods but [`Backend::write_mapping`] return at once; they are called by one task only.
pub(crate) trait Backend: Send + 'static {
    /// A change that it reports to the inbox.
    type Input: Send;

    /// The interval at which everything is reconciled without a change.
    const RESYNC: Duration;
    /// The time for which changes are collected.
    const COLLECT: Duration;
    /// `true` if Devices can be created for devices that enroll.
    const CREATES_DEVICES: bool;

    /// Applies a change, and marks in [`Backend::dirty`] the objects that it concerns.
    fn apply_change(&mut self, change: Self::Input) -> Wake;

    /// Returns the objects that have to be looked at in the next reconcile.
    fn dirty(&mut self) -> &mut DirtySet;

    /// Marks a tenant and its devices in `dirty`, for their statuses.
    fn mark_tenant(&self, tenant: &TenantName, dirty: &mut DirtySet);

    /// Returns when a reconcile is due without a change.
    fn next_reconcile(&self) -> Option<Instant> {
        None
    }

    /// Returns when statuses are due without a change.
    fn next_status(&self) -> Option<Instant> {
        None
    }

    /// Returns whether all objects are known as of this term or a later one.
    fn is_complete(&self, _term: u64) -> bool {
        true
    }

    /// Begins a term in which this operator works.
    fn begin(&mut self, term: u64);

    /// Returns the formats in the documents that are stored, as a term begins. Called after
    /// [`Backend::begin`].
    fn stored_formats(&mut self) -> FormatsInForce;

    /// Ends the term: another operator works now, so whatever is under way here is dropped.
    fn stop(&mut self) {}

    /// Returns the objects that have to be built again, with all that they name.
    fn objects(&mut self, dirty: &DirtySet) -> Objects;

    /// Returns whether there is a Device of this name that can be read.
    fn has_device(&self, device: &Key) -> bool;

    /// Returns the Devices that name a tenant, in any namespace.
    fn devices_of<'a>(&'a self, tenant: &'a str) -> Box<dyn Iterator<Item = &'a Object<DeviceSpec>> + 'a>;

    /// Returns whether a Tenant is being deleted.
    fn is_being_deleted(&self, _tenant: &Key) -> bool {
        false
    }

    /// Returns what this installation is responsible for; `None` if that is not known, or nothing is left
    /// over here.
    fn installation(&self) -> Option<Installation> {
        None
    }

    /// Writes the documents that differ, and removes those that are not wanted any more.
    async fn write_mapping(&mut self, wanted: &MappingDocuments) -> WrittenMapping;

    /// Writes the statuses of the objects in `dirty`.
    fn update_status(&mut self, reconciled: &Reconciled<'_>, dirty: &mut DirtySet);
}
