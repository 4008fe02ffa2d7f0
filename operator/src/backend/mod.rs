//! The backends of the control loop: a folder of manifests, and an API server.

pub(crate) mod cluster;
pub(crate) mod folder;
