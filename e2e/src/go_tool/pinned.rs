//! Which programs in Go there are, and where each is pinned.

use super::{GoTool, Stamp};

impl GoTool {
    /// All of them, in the order in which they are built: what more depends on comes first.
    pub const ALL: [Self; 22] = [
        Self::NATS_SERVER,
        Self::ETCD,
        Self::KUBE_APISERVER,
        Self::KUBECTL,
        Self::KUBE_CONTROLLER_MANAGER,
        Self::KUBE_SCHEDULER,
        Self::KUBELET,
        Self::KUBE_PROXY,
        Self::NETWORK_POLICIES,
        Self::CONTAINERD,
        Self::CONTAINERD_SHIM,
        Self::CTR,
        Self::CNI_BRIDGE,
        Self::CNI_HOST_LOCAL,
        Self::CNI_LOOPBACK,
        Self::CNI_PORTMAP,
        Self::COREDNS,
        Self::PROBE,
        Self::HELM,
        Self::KUBECONFORM,
        Self::HELM_UNITTEST,
        Self::GLUA,
    ];

    /// The message server.
    pub const NATS_SERVER: Self = Self {
        name: "nats-server",
        package: "github.com/nats-io/nats-server/v2",
        module: "github.com/nats-io/nats-server/v2",
        folder: "nats-server",
        pinned_in: "",
        go_mod: include_str!("../../tools/go.mod"),
        minutes: 1,
        source: None,
        stamp: Stamp::Nothing,
    };
    /// The store of the API server.
    pub const ETCD: Self = Self {
        name: "etcd",
        package: "go.etcd.io/etcd/server/v3",
        module: "go.etcd.io/etcd/server/v3",
        folder: "etcd",
        pinned_in: "etcd",
        go_mod: include_str!("../../tools/etcd/go.mod"),
        minutes: 2,
        source: None,
        stamp: Stamp::Nothing,
    };

    /// The API server.
    pub const KUBE_APISERVER: Self =
        Self::kubernetes("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver", 6);
    /// The command line.
    pub const KUBECTL: Self = Self::kubernetes("kubectl", "k8s.io/kubernetes/cmd/kubectl", 2);
    /// What turns Deployments into pods, and Services into EndpointSlices.
    pub const KUBE_CONTROLLER_MANAGER: Self =
        Self::kubernetes("kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager", 3);
    /// What gives pods their node.
    pub const KUBE_SCHEDULER: Self =
        Self::kubernetes("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler", 2);
    /// What runs a node's pods.
    pub const KUBELET: Self = Self::kubernetes("kubelet", "k8s.io/kubernetes/cmd/kubelet", 3);
    /// What makes Services' addresses reach pods.
    pub const KUBE_PROXY: Self = Self::kubernetes("kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy", 2);

    /// What enforces NetworkPolicies: our own, around kube-network-policies' packages.
    pub const NETWORK_POLICIES: Self = Self {
        name: "network-policies",
        package: ".",
        module: "flutecast.io/e2e/tools/network-policies",
        folder: "network-policies",
        pinned_in: "network-policies",
        go_mod: include_str!("../../tools/network-policies/go.mod"),
        minutes: 2,
        source: Some(include_str!("../../tools/network-policies/main.go")),
        stamp: Stamp::Nothing,
    };

    /// What runs containers.
    pub const CONTAINERD: Self =
        Self::containerd("containerd", "github.com/containerd/containerd/v2/cmd/containerd", 3);
    /// What stays with a pod's containers while containerd restarts.
    pub const CONTAINERD_SHIM: Self = Self::containerd(
        "containerd-shim-runc-v2",
        "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
        1,
    );
    /// containerd's own command line, which imports images.
    pub const CTR: Self = Self::containerd("ctr", "github.com/containerd/containerd/v2/cmd/ctr", 1);

    /// The network of pods: a bridge.
    pub const CNI_BRIDGE: Self =
        Self::cni("bridge", "github.com/containernetworking/plugins/plugins/main/bridge");
    /// The addresses of pods.
    pub const CNI_HOST_LOCAL: Self =
        Self::cni("host-local", "github.com/containernetworking/plugins/plugins/ipam/host-local");
    /// The loopback link of pods.
    pub const CNI_LOOPBACK: Self =
        Self::cni("loopback", "github.com/containernetworking/plugins/plugins/main/loopback");
    /// `hostPort` of pods.
    pub const CNI_PORTMAP: Self =
        Self::cni("portmap", "github.com/containernetworking/plugins/plugins/meta/portmap");

    /// The cluster's DNS.
    pub const COREDNS: Self = Self {
        name: "coredns",
        package: "github.com/coredns/coredns",
        module: "github.com/coredns/coredns",
        folder: "coredns",
        pinned_in: "coredns",
        go_mod: include_str!("../../tools/coredns/go.mod"),
        minutes: 3,
        source: None,
        stamp: Stamp::Nothing,
    };

    /// What pods of tests run, and every pod's sandbox: our own.
    pub const PROBE: Self = Self {
        name: "probe",
        package: ".",
        module: "flutecast.io/e2e/tools/probe",
        folder: "probe",
        pinned_in: "probe",
        go_mod: include_str!("../../tools/probe/go.mod"),
        minutes: 1,
        source: Some(include_str!("../../tools/probe/main.go")),
        stamp: Stamp::Nothing,
    };

    /// What installs charts.
    pub const HELM: Self = Self {
        name: "helm",
        package: "helm.sh/helm/v4/cmd/helm",
        module: "helm.sh/helm/v4",
        folder: "helm",
        pinned_in: "helm",
        go_mod: include_str!("../../tools/helm/go.mod"),
        minutes: 4,
        source: None,
        stamp: Stamp::Version("helm.sh/helm/v4/internal/version.version"),
    };
    /// What holds rendered charts against Kubernetes' schemas.
    pub const KUBECONFORM: Self = Self {
        name: "kubeconform",
        package: "github.com/yannh/kubeconform/cmd/kubeconform",
        module: "github.com/yannh/kubeconform",
        folder: "kubeconform",
        pinned_in: "kubeconform",
        go_mod: include_str!("../../tools/kubeconform/go.mod"),
        minutes: 1,
        source: None,
        stamp: Stamp::Version("main.version"),
    };
    /// What runs a chart's unit tests; it needs no helm.
    pub const HELM_UNITTEST: Self = Self {
        name: "helm-unittest",
        package: "github.com/helm-unittest/helm-unittest/cmd/helm-unittest",
        module: "github.com/helm-unittest/helm-unittest",
        folder: "helm-unittest",
        pinned_in: "helm-unittest",
        go_mod: include_str!("../../tools/helm-unittest/go.mod"),
        minutes: 2,
        source: None,
        stamp: Stamp::Version("github.com/helm-unittest/helm-unittest/internal/build.version"),
    };

    /// What runs Lua as Argo CD does, for its health checks; the version is Argo CD 3.2's.
    pub const GLUA: Self = Self {
        name: "glua",
        package: "github.com/yuin/gopher-lua/cmd/glua",
        module: "github.com/yuin/gopher-lua",
        folder: "glua",
        pinned_in: "glua",
        go_mod: include_str!("../../tools/glua/go.mod"),
        minutes: 1,
        source: None,
        stamp: Stamp::Nothing,
    };

    const fn kubernetes(name: &'static str, package: &'static str, minutes: u32) -> Self {
        Self {
            name,
            package,
            module: "k8s.io/kubernetes",
            folder: "kubernetes",
            pinned_in: "kubernetes",
            go_mod: include_str!("../../tools/kubernetes/go.mod"),
            minutes,
            source: None,
            stamp: Stamp::Kubernetes,
        }
    }

    const fn containerd(name: &'static str, package: &'static str, minutes: u32) -> Self {
        Self {
            name,
            package,
            module: "github.com/containerd/containerd/v2",
            folder: "containerd",
            pinned_in: "containerd",
            go_mod: include_str!("../../tools/containerd/go.mod"),
            minutes,
            source: None,
            stamp: Stamp::Version("github.com/containerd/containerd/v2/version.Version"),
        }
    }

    const fn cni(name: &'static str, package: &'static str) -> Self {
        Self {
            name,
            package,
            module: "github.com/containernetworking/plugins",
            folder: "cni",
            pinned_in: "cni",
            go_mod: include_str!("../../tools/cni/go.mod"),
            minutes: 1,
            source: None,
            stamp: Stamp::Version(
                "github.com/containernetworking/plugins/pkg/utils/buildversion.BuildVersion",
            ),
        }
    }
}
