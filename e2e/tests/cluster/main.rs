//! Tests on a real cluster, which they share: see docs/testing.md. Their modules begin with `cluster_`: that is how
//! .config/nextest.toml and the Makefile know them.

#![allow(clippy::unwrap_used, reason = "a test says what is wrong by failing")]

mod cluster_comes_and_goes;
mod cluster_faults;
mod cluster_smoke;
mod web;
