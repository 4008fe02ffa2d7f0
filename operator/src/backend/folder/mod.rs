//! The folder mode: manifests from disk instead of from an API server.
//!
//! [`scan`] reads the files, [`store`] turns them into the objects in force, [`watch`] says when to look
//! again. There is no API server that would check objects first, so `schema` does so, with the very schema of
//! the CRDs.

mod documents;
mod located;
mod manifest;
pub mod mapping;
pub mod reconcile;
pub mod scan;
mod schema;
pub mod status;
pub mod store;
pub mod watch;
