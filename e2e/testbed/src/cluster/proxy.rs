//! kube-proxy's configuration.

use super::ClusterDir;

pub(super) fn args(dir: &ClusterDir) -> Vec<String> {
    vec![
        format!("--config={}", dir.text("kube-proxy-config.yaml")),
        format!("--hostname-override={}", dir.node_name()),
    ]
}

/// The configuration file (JSON is YAML).
pub(super) fn config(dir: &ClusterDir) -> String {
    let config = serde_json::json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clientConnection": {"kubeconfig": dir.text("kube-proxy.yaml")},
        // Who isn't a pod (a test on the host) is masqueraded on its way to a Service.
        "clusterCIDR": dir.pods(),
        // The limits of connection tracking are the host's: not ours to set.
        "conntrack": {"maxPerCore": 0},
        // Changes reach pods without the second that large clusters collect them for.
        "nftables": {"minSyncPeriod": "100ms", "syncPeriod": "30s"},
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
    });
    format!("{config:#}\n")
}
