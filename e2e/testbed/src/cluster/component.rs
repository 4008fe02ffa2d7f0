//! The cluster's programs, each of which a test may stop, kill or freeze.

use std::fmt;
use std::str::FromStr;

use anyhow::Context;
use serde::{Deserialize, Serialize};

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
}

impl Component {
    /// All components in the order in which they are started.
    pub const ALL: [Self; 8] = [
        Self::Etcd,
        Self::KubeApiserver,
        Self::Containerd,
        Self::KubeControllerManager,
        Self::KubeScheduler,
        Self::NetworkPolicies,
        Self::Kubelet,
        Self::KubeProxy,
    ];

    #[must_use]
    pub fn tool(self) -> GoTool {
        match self {
            Self::Etcd => GoTool::ETCD,
            Self::KubeApiserver => GoTool::KUBE_APISERVER,
            Self::KubeControllerManager => GoTool::KUBE_CONTROLLER_MANAGER,
            Self::KubeScheduler => tools::KUBE_SCHEDULER,
            Self::Containerd => tools::CONTAINERD,
            Self::NetworkPolicies => tools::NETWORK_POLICIES,
            Self::Kubelet => tools::KUBELET,
            Self::KubeProxy => tools::KUBE_PROXY,
        }
    }

    /// Returns the name of the program, by which the component is known everywhere.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.tool().name
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
        Self::ALL.into_iter().find(|component| component.name() == text).with_context(|| {
            format!("there is no component {text}; known are {}", Self::ALL.map(Self::name).join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_same_everywhere() {
        for component in Component::ALL {
            assert_eq!(component.name().parse::<Component>().unwrap(), component);
            assert_eq!(serde_json::to_value(component).unwrap(), component.name());
        }
        assert!("kube-nothing".parse::<Component>().unwrap_err().to_string().contains("kubelet"));
    }
}
