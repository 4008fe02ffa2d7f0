//! The API as users meet it: schema, rules, committed files and manifests.

// Clippy allows these in functions that are tests, and takes the helpers of an integration test for others.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

mod committed;
mod house_rules;
mod manifests;
mod names;
mod rules;
mod structure;
