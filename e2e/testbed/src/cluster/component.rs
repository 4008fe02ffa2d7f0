//! The cluster's programs, each of which a test may stop, kill or freeze.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::preflight;
use crate::tools;
use flutecast_testkit::GoTool;

/// A program of the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Component {
    /// The API server's store.
    Etcd,
    /// The API.
    KubeApiserver,
    /// Runs the controllers of Deployments, EndpointSlices, namespaces and so on.
    KubeControllerManager,
    /// Assigns pods to nodes.
    KubeScheduler,
    /// Runs containers.
    Containerd,
    /// Enforces NetworkPolicies.
    NetworkPolicies,
    /// Runs pods.
    Kubelet,
    /// Routes Services to pods.
    KubeProxy,
    /// Serves git repositories to Argo CD and Flux.
    GitServer,
    /// Argo CD's cache.
    RedisServer,
    /// Renders manifests from git.
    ArgocdRepoServer,
    /// Makes Applications of ApplicationSets.
    ArgocdApplicationsetController,
    /// Compares Applications with the cluster and syncs them.
    ArgocdApplicationController,
    /// Flux: fetches git repositories and packs charts.
    SourceController,
    /// Flux: applies and prunes what a Kustomization names.
    KustomizeController,
    /// Flux: installs and upgrades HelmReleases.
    HelmController,
}

impl Component {
    /// What every cluster runs, in the order in which it is started.
    pub const CLUSTER: [Self; 8] = [
        Self::Etcd,
        Self::KubeApiserver,
        Self::Containerd,
        Self::KubeControllerManager,
        Self::KubeScheduler,
        Self::NetworkPolicies,
        Self::Kubelet,
        Self::KubeProxy,
    ];

    /// Argo CD, in the order in which it is started.
    pub const ARGOCD: [Self; 4] = [
        Self::RedisServer,
        Self::ArgocdRepoServer,
        Self::ArgocdApplicationsetController,
        Self::ArgocdApplicationController,
    ];

    /// Flux, in the order in which it is started.
    pub const FLUX: [Self; 3] = [Self::SourceController, Self::KustomizeController, Self::HelmController];

    /// Returns all components.
    pub fn all() -> impl Iterator<Item = Self> {
        Self::CLUSTER.into_iter().chain([Self::GitServer]).chain(Self::ARGOCD).chain(Self::FLUX)
    }

    /// Returns the pinned program; `None` if it is Debian's.
    #[must_use]
    pub fn tool(self) -> Option<GoTool> {
        Some(match self {
            Self::Etcd => GoTool::ETCD,
            Self::KubeApiserver => GoTool::KUBE_APISERVER,
            Self::KubeControllerManager => GoTool::KUBE_CONTROLLER_MANAGER,
            Self::KubeScheduler => tools::KUBE_SCHEDULER,
            Self::Containerd => tools::CONTAINERD,
            Self::NetworkPolicies => tools::NETWORK_POLICIES,
            Self::Kubelet => tools::KUBELET,
            Self::KubeProxy => tools::KUBE_PROXY,
            Self::GitServer => tools::GIT_SERVER,
            Self::RedisServer => return None,
            Self::ArgocdRepoServer
            | Self::ArgocdApplicationsetController
            | Self::ArgocdApplicationController => tools::argocd(),
            Self::SourceController => tools::SOURCE_CONTROLLER,
            Self::KustomizeController => tools::KUSTOMIZE_CONTROLLER,
            Self::HelmController => tools::HELM_CONTROLLER,
        })
    }

    /// Returns the path of the program, which is built before if it is pinned and isn't there.
    pub(crate) fn program(self) -> anyhow::Result<PathBuf> {
        match self.tool() {
            Some(tool) => tool.path(),
            None => preflight::find(self.name())
                .with_context(|| format!("{self} is missing (xtask/install-tools system installs it)")),
        }
    }

    /// Returns the name by which the component is known everywhere.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::KubeApiserver => "kube-apiserver",
            Self::KubeControllerManager => "kube-controller-manager",
            Self::KubeScheduler => "kube-scheduler",
            Self::Containerd => "containerd",
            Self::NetworkPolicies => "network-policies",
            Self::Kubelet => "kubelet",
            Self::KubeProxy => "kube-proxy",
            Self::GitServer => "git-server",
            Self::RedisServer => "redis-server",
            Self::ArgocdRepoServer => "argocd-repo-server",
            Self::ArgocdApplicationsetController => "argocd-applicationset-controller",
            Self::ArgocdApplicationController => "argocd-application-controller",
            Self::SourceController => "source-controller",
            Self::KustomizeController => "kustomize-controller",
            Self::HelmController => "helm-controller",
        }
    }
}

impl fmt::Display for Component {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

impl FromStr for Component {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        Self::all().find(|component| component.name() == text).with_context(|| {
            let known: Vec<_> = Self::all().map(Self::name).collect();
            format!("there is no component {text}; known are {}", known.join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_same_everywhere() {
        for component in Component::all() {
            assert_eq!(component.name().parse::<Component>().unwrap(), component);
            assert_eq!(serde_json::to_value(component).unwrap(), component.name());
        }
        assert!("kube-nothing".parse::<Component>().unwrap_err().to_string().contains("kubelet"));
    }
}
