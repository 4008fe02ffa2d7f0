//! The kubelet's configuration.

use super::Place;

pub(super) fn args(place: &Place) -> Vec<String> {
    vec![
        format!("--config={}", place.text("kubelet-config.yaml")),
        format!("--kubeconfig={}", place.text("kubelet.yaml")),
        format!("--cert-dir={}", place.text("pki")),
        format!("--hostname-override={}", place.node_name()),
        // Its own name resolves to loopback, which pods can't reach.
        format!("--node-ip={}", place.node_address()),
    ]
}

/// The configuration file (JSON is YAML).
pub(super) fn config(place: &Place) -> String {
    let pki = |file: &str| place.text(&format!("pki/{file}"));
    let config = serde_json::json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": format!("unix://{}", place.containerd_socket().display()),
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": pki("ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": pki("kubelet-serving.crt"),
        "tlsPrivateKeyFile": pki("kubelet-serving.key"),
        "clusterDomain": "cluster.local",
        "clusterDNS": [place.dns_service().to_string()],
        "resolvConf": place.text("resolv.conf"),
        "podLogsDir": place.text("pods"),
        "volumePluginDir": place.text("volume-plugins"),
        // Both versions of cgroups, and no systemd.
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{}", place.cgroup()),
        "failCgroupV1": false,
        "failSwapOn": false,
        // A root that lacks CAP_SYS_RESOURCE can't raise these.
        "maxOpenFiles": 20_000,
        "oomScoreAdj": 0,
        // Imported images can't be pulled again: none is ever collected.
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        // A developer's disk may be nearly full: only the last bit is a reason to evict.
        "evictionHard": {
            "memory.available": "50Mi",
            "nodefs.available": "100Mi",
            "imagefs.available": "100Mi",
            "nodefs.inodesFree": "1%",
        },
        // Tests wait for what the kubelet reports.
        "syncFrequency": "10s",
        "nodeStatusUpdateFrequency": "5s",
    });
    format!("{config:#}\n")
}
