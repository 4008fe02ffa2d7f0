//! The charts on a Kubernetes API without nodes.

mod gitops;
mod install;
mod no_way_back;
