//! What differs between a folder of manifests and an API server.

pub mod cluster;
pub mod folder;
