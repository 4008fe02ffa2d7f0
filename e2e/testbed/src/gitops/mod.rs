//! Argo CD and Flux on the cluster, and the git repositories that they read.
//!
//! Their programs run in the node's namespaces, as the cluster's own components do: they end with the
//! cluster, their ports are the node's, and their logs are in the cluster's folder.

mod argocd;
mod flux;
mod repository;

pub use argocd::{Application, Argocd, remove_applications};
pub use flux::{Flux, FluxObject, remove_flux_objects};
pub use repository::GitRepository;
