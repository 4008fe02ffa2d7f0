//! kube-proxy's configuration.

use super::ClusterDir;

pub(super) fn args(dir: &ClusterDir) -> Vec<String> {
    vec![
        format!("--config={}", dir.text("kube-proxy-config.yaml")),
        format!("--hostname-override={}", dir.node_name()),
    ]
}

/// Returns the configuration file as JSON, which is valid YAML.
pub(super) fn config(dir: &ClusterDir) -> String {
    let config = serde_json::json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clientConnection": {"kubeconfig": dir.text("kube-proxy.yaml")},
        // Connections to Services from outside this network (a test on the host) are masqueraded.
        "clusterCIDR": dir.pods(),
        // The limits of connection tracking belong to the host and must not be changed.
        "conntrack": {"maxPerCore": 0},
        // Large clusters collect changes for a second; here they apply sooner.
        "nftables": {"minSyncPeriod": "100ms", "syncPeriod": "30s"},
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
    });
    format!("{config:#}\n")
}
