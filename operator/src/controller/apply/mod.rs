//! The fourth step: brings the mapping, the streams and the directory of devices to what was built.
//!
//! The backend writes the documents, [`crate::jetstream`] keeps the streams in a task of its own.

pub(crate) mod directory;
pub(crate) mod documents;
pub(crate) mod source_grace;
