//! The pinned Go programs that the cluster and the tests of the charts need.

use flutecast_testkit::{GoTool, Stamp};

/// Returns the folder of a pinned module's go.mod.
macro_rules! pinned_in {
    ($folder:literal) => {
        concat!(env!("CARGO_MANIFEST_DIR"), "/tools/", $folder)
    };
}

/// All tools including [`GoTool::LOCAL`], in build order: tools that most tests need come first.
pub const ALL: [GoTool; 28] = [
    GoTool::NATS_SERVER,
    GoTool::ETCD,
    GoTool::KUBE_APISERVER,
    GoTool::KUBECTL,
    GoTool::KUBE_CONTROLLER_MANAGER,
    KUBE_SCHEDULER,
    KUBELET,
    KUBE_PROXY,
    NETWORK_POLICIES,
    CONTAINERD,
    CONTAINERD_SHIM,
    CTR,
    CNI_BRIDGE,
    CNI_HOST_LOCAL,
    CNI_LOOPBACK,
    CNI_PORTMAP,
    COREDNS,
    PROBE,
    HELM,
    KUBECONFORM,
    KUBE_SCORE,
    HELM_UNITTEST,
    GLUA,
    GIT_SERVER,
    ARGOCD,
    KUSTOMIZE_CONTROLLER,
    SOURCE_CONTROLLER,
    HELM_CONTROLLER,
];

pub const KUBE_SCHEDULER: GoTool =
    GoTool::kubernetes("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler", 2);
pub const KUBELET: GoTool = GoTool::kubernetes("kubelet", "k8s.io/kubernetes/cmd/kubelet", 3);
pub const KUBE_PROXY: GoTool = GoTool::kubernetes("kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy", 2);

/// Enforces NetworkPolicies: our own program around the packages of kube-network-policies.
pub const NETWORK_POLICIES: GoTool = GoTool {
    name: "network-policies",
    package: ".",
    module: "flutecast.io/e2e/tools/network-policies",
    cache: "network-policies",
    pinned_in: pinned_in!("network-policies"),
    go_mod: include_str!("../tools/network-policies/go.mod"),
    minutes: 2,
    source: Some(include_str!("../tools/network-policies/main.go")),
    stamp: Stamp::Nothing,
};

pub const CONTAINERD: GoTool =
    containerd("containerd", "github.com/containerd/containerd/v2/cmd/containerd", 3);
/// Keeps a pod's containers running while containerd restarts.
pub const CONTAINERD_SHIM: GoTool = containerd(
    "containerd-shim-runc-v2",
    "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
    1,
);
/// containerd's command line, which imports images.
pub const CTR: GoTool = containerd("ctr", "github.com/containerd/containerd/v2/cmd/ctr", 1);

/// The CNI plugin for the pod network's bridge.
pub const CNI_BRIDGE: GoTool = cni("bridge", "github.com/containernetworking/plugins/plugins/main/bridge");
/// The CNI plugin that assigns addresses to pods.
pub const CNI_HOST_LOCAL: GoTool =
    cni("host-local", "github.com/containernetworking/plugins/plugins/ipam/host-local");
/// The CNI plugin for a pod's loopback device.
pub const CNI_LOOPBACK: GoTool =
    cni("loopback", "github.com/containernetworking/plugins/plugins/main/loopback");
/// The CNI plugin for `hostPort`.
pub const CNI_PORTMAP: GoTool = cni("portmap", "github.com/containernetworking/plugins/plugins/meta/portmap");

/// The cluster's DNS.
pub const COREDNS: GoTool = GoTool {
    name: "coredns",
    package: "github.com/coredns/coredns",
    module: "github.com/coredns/coredns",
    cache: "coredns",
    pinned_in: pinned_in!("coredns"),
    go_mod: include_str!("../tools/coredns/go.mod"),
    minutes: 3,
    source: None,
    stamp: Stamp::Nothing,
};

/// Our own program for tests' pods, which also runs as every pod's sandbox.
pub const PROBE: GoTool = GoTool {
    name: "probe",
    package: ".",
    module: "flutecast.io/e2e/tools/probe",
    cache: "probe",
    pinned_in: pinned_in!("probe"),
    go_mod: include_str!("../tools/probe/go.mod"),
    minutes: 1,
    source: Some(include_str!("../tools/probe/main.go")),
    stamp: Stamp::Nothing,
};

pub const HELM: GoTool = GoTool {
    name: "helm",
    package: "helm.sh/helm/v4/cmd/helm",
    module: "helm.sh/helm/v4",
    cache: "helm",
    pinned_in: pinned_in!("helm"),
    go_mod: include_str!("../tools/helm/go.mod"),
    minutes: 4,
    source: None,
    stamp: Stamp::Version("helm.sh/helm/v4/internal/version.version"),
};
/// Validates rendered charts against Kubernetes' schemas.
pub const KUBECONFORM: GoTool = GoTool {
    name: "kubeconform",
    package: "github.com/yannh/kubeconform/cmd/kubeconform",
    module: "github.com/yannh/kubeconform",
    cache: "kubeconform",
    pinned_in: pinned_in!("kubeconform"),
    go_mod: include_str!("../tools/kubeconform/go.mod"),
    minutes: 1,
    source: None,
    stamp: Stamp::Version("main.version"),
};
/// Looks for habits in rendered charts that are known to end badly.
pub const KUBE_SCORE: GoTool = GoTool {
    name: "kube-score",
    package: "github.com/zegl/kube-score/cmd/kube-score",
    module: "github.com/zegl/kube-score",
    cache: "kube-score",
    pinned_in: pinned_in!("kube-score"),
    go_mod: include_str!("../tools/kube-score/go.mod"),
    minutes: 2,
    source: None,
    stamp: Stamp::Version("main.version"),
};
/// Runs a chart's unit tests without helm.
pub const HELM_UNITTEST: GoTool = GoTool {
    name: "helm-unittest",
    package: "github.com/helm-unittest/helm-unittest/cmd/helm-unittest",
    module: "github.com/helm-unittest/helm-unittest",
    cache: "helm-unittest",
    pinned_in: pinned_in!("helm-unittest"),
    go_mod: include_str!("../tools/helm-unittest/go.mod"),
    minutes: 2,
    source: None,
    stamp: Stamp::Version("github.com/helm-unittest/helm-unittest/internal/build.version"),
};

/// Runs Lua health checks as Argo CD does; the version is that of Argo CD 3.2.
pub const GLUA: GoTool = GoTool {
    name: "glua",
    package: "github.com/yuin/gopher-lua/cmd/glua",
    module: "github.com/yuin/gopher-lua",
    cache: "glua",
    pinned_in: pinned_in!("glua"),
    go_mod: include_str!("../tools/glua/go.mod"),
    minutes: 1,
    source: None,
    stamp: Stamp::Nothing,
};

/// Serves bare git repositories over HTTP: our own program around `git http-backend`.
pub const GIT_SERVER: GoTool = GoTool {
    name: "git-server",
    package: ".",
    module: "flutecast.io/e2e/tools/git-server",
    cache: "git-server",
    pinned_in: pinned_in!("git-server"),
    go_mod: include_str!("../tools/git-server/go.mod"),
    minutes: 1,
    source: Some(include_str!("../tools/git-server/main.go")),
    stamp: Stamp::Nothing,
};

/// The variable that chooses [`argocd`].
const ARGOCD_VARIABLE: &str = "FLUTECAST_ARGOCD";

/// All of Argo CD's programs in one, which `ARGOCD_BINARY_NAME` chooses from.
pub const ARGOCD: GoTool = GoTool {
    name: "argocd",
    package: "github.com/argoproj/argo-cd/v3/cmd",
    module: "github.com/argoproj/argo-cd/v3",
    cache: "argocd",
    pinned_in: pinned_in!("argocd"),
    go_mod: include_str!("../tools/argocd/go.mod"),
    minutes: 7,
    source: None,
    stamp: Stamp::Version("github.com/argoproj/argo-cd/v3/common.version"),
};
/// The newest one, for which Go fetches a newer Go. Only those who ask for it build it.
const ARGOCD_NEWEST: GoTool = GoTool {
    pinned_in: pinned_in!("argocd-newest"),
    go_mod: include_str!("../tools/argocd-newest/go.mod"),
    ..ARGOCD
};

/// Returns the Argo CD of this run: [`ARGOCD`], or the newest one with `FLUTECAST_ARGOCD=newest`.
#[must_use]
pub fn argocd() -> GoTool {
    let newest = std::env::var_os(ARGOCD_VARIABLE).is_some_and(|value| value == "newest");
    if newest { ARGOCD_NEWEST } else { ARGOCD }
}

pub const SOURCE_CONTROLLER: GoTool = flux("source-controller", "github.com/fluxcd/source-controller", 4);
pub const KUSTOMIZE_CONTROLLER: GoTool =
    flux("kustomize-controller", "github.com/fluxcd/kustomize-controller", 4);
pub const HELM_CONTROLLER: GoTool = flux("helm-controller", "github.com/fluxcd/helm-controller", 2);

const fn containerd(name: &'static str, package: &'static str, minutes: u32) -> GoTool {
    GoTool {
        name,
        package,
        module: "github.com/containerd/containerd/v2",
        cache: "containerd",
        pinned_in: pinned_in!("containerd"),
        go_mod: include_str!("../tools/containerd/go.mod"),
        minutes,
        source: None,
        stamp: Stamp::Version("github.com/containerd/containerd/v2/version.Version"),
    }
}

const fn cni(name: &'static str, package: &'static str) -> GoTool {
    GoTool {
        name,
        package,
        module: "github.com/containernetworking/plugins",
        cache: "cni",
        pinned_in: pinned_in!("cni"),
        go_mod: include_str!("../tools/cni/go.mod"),
        minutes: 1,
        source: None,
        stamp: Stamp::Version("github.com/containernetworking/plugins/pkg/utils/buildversion.BuildVersion"),
    }
}

/// One of Flux's controllers: each is a module of its own, pinned with the others.
const fn flux(name: &'static str, package: &'static str, minutes: u32) -> GoTool {
    GoTool {
        name,
        package,
        module: package,
        cache: name,
        pinned_in: pinned_in!("flux"),
        go_mod: include_str!("../tools/flux/go.mod"),
        minutes,
        source: None,
        stamp: Stamp::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_tool_is_pinned() {
        for tool in ALL {
            let version = tool.version().unwrap();
            assert!(version.starts_with('v') || tool.source.is_some(), "{tool:?}: {version}");
        }
    }
}
