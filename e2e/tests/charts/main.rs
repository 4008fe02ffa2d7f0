//! The Helm charts: what they render, what they refuse, and that a real API server takes them.

mod committed;
mod install;
mod support;
mod values;
