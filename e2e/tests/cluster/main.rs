//! Tests on a real cluster, which they share: see docs/testing.md.
//!
//! The names of modules with tests begin with `cluster_`, by which .config/nextest.toml and e2e/tests/run
//! select them. Modules that begin with `cluster_own_` stop components or inspect the machine, and those that
//! begin with `cluster_gitops_` add components, so they don't run on an existing cluster.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failing test reports the fault")]

#[path = "../stack/chromium.rs"]
#[allow(dead_code, reason = "other tests need all of it")]
mod chromium;
mod cluster_chart;
mod cluster_factory;
mod cluster_gitops_argocd;
mod cluster_gitops_argocd_commits;
mod cluster_gitops_docs;
mod cluster_gitops_flux;
mod cluster_network_policies;
mod cluster_own_faults;
mod cluster_own_lifecycle;
mod cluster_own_outages;
mod cluster_own_scale;
mod cluster_own_upgrade;
mod cluster_rights;
mod cluster_smoke;
mod cluster_two_factories;
mod cluster_uninstall;
mod counting;
mod git_factory;
mod gitops;
mod kinds;
mod plant;
mod plant_1;
mod web;
mod wrong_commits;
