//! The CustomResourceDefinitions: what they accept, and that they still accept what is stored.

// Clippy allows these in test functions only, not in the functions that tests share.
#![allow(clippy::unwrap_used, clippy::panic)]

mod api;
mod stored;
