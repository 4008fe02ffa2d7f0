//! What reviewers would otherwise have to look for, and the invariants of docs/architecture.md about what is
//! absent.

#![allow(clippy::expect_used, clippy::panic, reason = "a test says what is wrong by failing")]

mod dependencies;
mod documents;
mod files;
mod knots;
mod names;
mod source;
