//! The charts on a Kubernetes API without nodes.

mod defaults;
mod gitops;
mod install;
mod no_way_back;
mod umbrella;
