//! The API as users see it: schema, rules, committed files and manifests.

mod support;

mod committed;
mod conventions;
mod manifests;
mod names;
mod rules;
mod structure;
