//! The Kubernetes API as Flutecast's programs use it.
//!
//! - [`client`]: a client with timeouts.
//! - [`watch`]: a watch that never ends, with list and changes, pauses after faults, and recovery.
//! - [`fault`]: errors of the API in words, without quoting a Secret.
//! - [`pods`]: the pods of a Service and whether they are ready, from its EndpointSlices.
//! - [`rights`]: the rights that a module's calls need, stated beside them, and RBAC manifests from them.
//!
//! Nothing here knows the kinds of Flutecast or what its programs do with an object.

pub mod client;
pub mod fault;
pub mod pods;
pub mod rights;
pub mod watch;

pub use client::{ConnectError, connect};
pub use pods::{ServicePod, ServicePods};
pub use rights::{Grant, Right, manifest};
pub use watch::{Change, Observed, Watch, WatchFault};
