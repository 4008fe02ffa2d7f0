//! The fourth step of a reconcile: brings the outside world to what was built.
//!
//! `mapping_folder` writes documents; `crate::jetstream` keeps streams, in a task of its own, so that a
//! broker that is away holds up nothing else.

pub mod directory;
pub mod documents;
pub mod source_grace;
