//! Checks that reviewers would otherwise do by hand, and the invariants of docs/architecture.md about absent
//! dependencies.

#![allow(clippy::expect_used, clippy::panic, reason = "a test says what is wrong by failing")]

mod dependencies;
mod documents;
mod files;
mod knots;
mod kubectl;
mod names;
mod source;
