//! A Kubernetes cluster on this machine, and releases of the charts on it. See the README beside this crate.
//!
//! - [`cluster`]: brings a cluster up and down; [`cluster::Cluster`] is what tests use.
//! - [`gitops`]: Argo CD on a cluster, and git repositories for it.
//! - [`release`]: a release of the chart `flutecast`, with its images.
//! - [`image`]: OCI archives without a container engine.
//! - [`tools`]: the programs in Go, pinned.

#![allow(missing_docs, reason = "only programs and tests of this workspace link it")]

pub mod cluster;
pub mod gitops;
mod helm;
pub mod image;
pub mod release;
pub mod tools;

pub use helm::{Helm, HelmOutput};
