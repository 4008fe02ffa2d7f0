//! Argo CD on the cluster, and the git repositories that it reads.
//!
//! Its programs run in the node's namespaces, as the cluster's own components do: they end with the cluster,
//! their ports are the node's, and their logs are in the cluster's folder.

mod argocd;
mod repository;

pub use argocd::{Application, Argocd};
pub use repository::GitRepository;
