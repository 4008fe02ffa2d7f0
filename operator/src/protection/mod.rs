//! Protects objects that are in use from deletion: a Tenant or a PushFormat that Devices, or a Tenant's
//! template of Devices, refer to. docs/decisions has the reasons why there are two ways.
//!
//! With [`Protection::Policy`] the API server refuses the deletion itself
//! (manifests/operator/protection.yaml), and the operator only reports in conditions what is being deleted
//! while it is in use. With [`Protection::Finalizer`] the operator that leads adds a finalizer to objects in
//! use.
//!
//! Guarantees with a finalizer: it is added within a second of the first use and removed within a second of
//! the end of the last use, in a namespace that is being deleted within seconds, and the last operator that
//! ends in order removes all. Not guaranteed: that finalizers are removed while no operator runs; the next
//! start does that, or `--let-go`.

mod last_operator;
mod plan;
mod writer;

pub(crate) use self::last_operator::{LastOperator, remove_finalizers};
pub(crate) use self::plan::{FINALIZER, Protection, holds};
pub(crate) use self::writer::{FinalizerPublisher, RIGHTS, spawn};
