//! The Go programs that tests without a cluster need.

use super::{GoTool, Stamp};

/// Expands to the path of a folder with a go.mod; each pinned module has its own.
macro_rules! pinned_in {
    ($folder:literal) => {
        concat!(env!("CARGO_MANIFEST_DIR"), "/tools/", $folder)
    };
}

impl GoTool {
    /// The programs for nats-server and an API server, in build order.
    pub const LOCAL: [Self; 5] =
        [Self::NATS_SERVER, Self::ETCD, Self::KUBE_APISERVER, Self::KUBECTL, Self::KUBE_CONTROLLER_MANAGER];

    pub const NATS_SERVER: Self = Self {
        name: "nats-server",
        package: "github.com/nats-io/nats-server/v2",
        module: "github.com/nats-io/nats-server/v2",
        cache: "nats-server",
        pinned_in: pinned_in!("nats-server"),
        go_mod: include_str!("../../tools/nats-server/go.mod"),
        minutes: 1,
        source: None,
        stamp: Stamp::Nothing,
    };
    pub const ETCD: Self = Self {
        name: "etcd",
        package: "go.etcd.io/etcd/server/v3",
        module: "go.etcd.io/etcd/server/v3",
        cache: "etcd",
        pinned_in: pinned_in!("etcd"),
        go_mod: include_str!("../../tools/etcd/go.mod"),
        minutes: 2,
        source: None,
        stamp: Stamp::Nothing,
    };

    pub const KUBE_APISERVER: Self =
        Self::kubernetes("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver", 6);
    pub const KUBECTL: Self = Self::kubernetes("kubectl", "k8s.io/kubernetes/cmd/kubectl", 2);
    pub const KUBE_CONTROLLER_MANAGER: Self =
        Self::kubernetes("kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager", 3);

    /// Returns a tool of the Kubernetes module; all of them share its version.
    #[must_use]
    pub const fn kubernetes(name: &'static str, package: &'static str, minutes: u32) -> Self {
        Self {
            name,
            package,
            module: "k8s.io/kubernetes",
            cache: "kubernetes",
            pinned_in: pinned_in!("kubernetes"),
            go_mod: include_str!("../../tools/kubernetes/go.mod"),
            minutes,
            source: None,
            stamp: Stamp::Kubernetes,
        }
    }
}
