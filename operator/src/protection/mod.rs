//! What is in use can't vanish: a Tenant or a PushFormat that Devices name, or a Tenant's template of
//! Devices. docs/decisions/0051 says why there are two ways.
//!
//! With [`Protection::Policy`] the API server refuses the deletion by itself
//! (manifests/operator/protection.yaml) and the operator has no part in it but to say in conditions what is
//! being deleted while it is used. With [`Protection::Finalizer`] the operator that works holds what is used
//! by a finalizer.
//!
//! Promised with a finalizer: what is used is held from within a second of its first use on, it goes within a
//! second of its last one, in a namespace that is being deleted within seconds, and the last operator that
//! ends in order lets go of everything. Not promised: that anybody lets go while no operator runs; the next
//! start does, or `--let-go`.

mod last;
mod step;
mod task;

pub(crate) use self::last::Last;
pub(crate) use self::last::let_go;
pub(crate) use self::step::{Act, FINALIZER, Protection, Step, Steps, holds, steps};
pub(crate) use self::task::spawn;
pub(crate) use self::task::{Guard, RIGHTS};
