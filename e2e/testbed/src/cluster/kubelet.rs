//! The kubelet's configuration.

use super::ClusterDir;

pub(super) fn args(dir: &ClusterDir) -> Vec<String> {
    vec![
        format!("--config={}", dir.text("kubelet-config.yaml")),
        format!("--kubeconfig={}", dir.text("kubelet.yaml")),
        format!("--cert-dir={}", dir.text("pki")),
        format!("--hostname-override={}", dir.node_name()),
        // The node's name resolves to loopback, which pods can't reach.
        format!("--node-ip={}", dir.node_address()),
    ]
}

/// Returns the configuration file as JSON, which is valid YAML.
pub(super) fn config(dir: &ClusterDir) -> String {
    let pki = |file: &str| dir.text(&format!("pki/{file}"));
    let config = serde_json::json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": format!("unix://{}", dir.containerd_socket().display()),
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": pki("ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": pki("kubelet-serving.crt"),
        "tlsPrivateKeyFile": pki("kubelet-serving.key"),
        "clusterDomain": "cluster.local",
        "clusterDNS": [dir.dns_service().to_string()],
        "resolvConf": dir.text("resolv.conf"),
        "podLogsDir": dir.text("pods"),
        "volumePluginDir": dir.text("volume-plugins"),
        // Works with both versions of cgroups, and without systemd.
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{}", dir.cgroup()),
        "failCgroupV1": false,
        "failSwapOn": false,
        // A root user without CAP_SYS_RESOURCE can't raise these limits.
        "maxOpenFiles": 20_000,
        "oomScoreAdj": 0,
        // Imported images can't be pulled again, so they must not be collected.
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        // A developer's disk may be nearly full, so the thresholds are low.
        "evictionHard": {
            "memory.available": "50Mi",
            "nodefs.available": "100Mi",
            "imagefs.available": "100Mi",
            "nodefs.inodesFree": "1%",
        },
        // Tests wait for the kubelet's reports, so it reports more often than by default.
        "syncFrequency": "10s",
        "nodeStatusUpdateFrequency": "5s",
    });
    format!("{config:#}\n")
}
