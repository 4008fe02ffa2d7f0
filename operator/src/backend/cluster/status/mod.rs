//! The statuses of objects: which are wanted, which differ from those that the API server holds, and their
//! writing by a task of its own, so that ten thousand of them delay no change of the mapping.

mod deletion;
pub(crate) mod queue;
pub(crate) mod sync;
pub(crate) mod wanted;
pub(crate) mod writer;
