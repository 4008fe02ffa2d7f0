//! A real cluster on this machine: etcd, kube-apiserver, kube-controller-manager, kube-scheduler, containerd,
//! kubelet, kube-proxy, CNI, CoreDNS and a program that enforces NetworkPolicies.
//!
//! All of it runs in separate namespaces (processes, mounts, network) whose first process is our supervisor.
//! The host has one network link, one route, one cgroup and one folder of it. If the supervisor is killed,
//! the kernel ends all other processes.

mod add_on;
mod bring_up;
mod certificates;
mod cgroup;
mod cluster_dir;
mod cni;
mod command;
mod component;
mod containerd;
mod control_plane;
mod dns;
mod fault;
mod handle;
mod image;
mod kubelet;
mod namespace;
mod network_policies;
mod node;
mod preflight;
mod proxy;
mod storage;
mod supervisor;
mod sysctl;
mod take_down;

pub use add_on::AddOn;
pub use bring_up::bring_up;
pub use cluster_dir::{ClusterDir, SLOT_VARIABLE, Slot};
pub(crate) use command::output;
pub use component::Component;
pub use fault::Fault;
pub use handle::{Cluster, ServiceAddress};
pub use image::PROBE_IMAGE;
pub(crate) use image::archive as packed;
pub use namespace::Namespace;
pub use node::Node;
pub use preflight::check;
pub(crate) use preflight::{find, path_variable};
pub(crate) use supervisor::Start;
pub use supervisor::{ComponentStatus, Request, supervise};
pub use take_down::take_down;
