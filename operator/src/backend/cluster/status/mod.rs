//! The fifth step: what is said in the status of each object, and its writing.
//!
//! `wanted` computes statuses from what was built and what JetStream reports; `writer` brings those that
//! differ from what the API server holds there, in a task of its own, so that ten thousand of them hold up no
//! change of the mapping.

mod deletion;
pub(crate) mod queue;
pub(crate) mod sync;
pub(crate) mod wanted;
pub(crate) mod writer;
