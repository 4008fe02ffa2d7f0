//! What differs between a folder of manifests and an API server.

pub(crate) mod cluster;
pub(crate) mod folder;
