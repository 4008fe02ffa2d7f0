//! The network of pods: a bridge in the node's own network namespace.

use super::ClusterDir;

/// The CNI configuration list. nftables does the rest, as in kube-proxy.
pub(super) fn config(dir: &ClusterDir) -> String {
    let list = serde_json::json!({
        "cniVersion": "1.0.0",
        "name": "flutecast",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "pods",
                "isDefaultGateway": true,
                "ipMasq": true,
                "ipMasqBackend": "nftables",
                // A pod may reach itself through its own Service.
                "hairpinMode": true,
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{"subnet": dir.pods()}]],
                    "dataDir": dir.text("addresses"),
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": true}, "backend": "nftables"},
        ],
    });
    format!("{list:#}\n")
}
