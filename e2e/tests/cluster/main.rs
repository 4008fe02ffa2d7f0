//! Tests on a real cluster, which they share: see docs/testing.md.
//!
//! Modules with tests begin with `cluster_`: that is how .config/nextest.toml and e2e/tests/run know them.
//! Those that begin with `cluster_own_` stop components or look at the machine, so they don't run on an
//! existing cluster.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what is wrong by failing")]

#[path = "../stack/chromium.rs"]
#[allow(dead_code, reason = "other tests need all of it")]
mod chromium;
mod cluster_chart;
mod cluster_factory;
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
mod kinds;
mod plant;
mod web;
