//! The pod network: a bridge in the node's network namespace.

use super::ClusterDir;

/// Returns the CNI configuration list. Plugins use nftables, as kube-proxy does.
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
                // Lets a pod reach itself through its own Service.
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
