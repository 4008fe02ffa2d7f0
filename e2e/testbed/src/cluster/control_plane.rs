//! etcd, kube-apiserver, kube-controller-manager and kube-scheduler, in the node's network.

use super::ClusterDir;

pub(super) fn etcd(dir: &ClusterDir) -> Vec<String> {
    // Loopback is reachable only from the node, not from pods.
    let (client, peer) = ("http://127.0.0.1:2379", "http://127.0.0.1:2380");
    vec![
        format!("--data-dir={}", dir.text("etcd")),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=default={peer}"),
        // The store needn't survive a power failure. It does survive a killed etcd, because the kernel has
        // its writes.
        "--unsafe-no-fsync".to_owned(),
        "--log-level=warn".to_owned(),
    ]
}

pub(super) fn kube_apiserver(dir: &ClusterDir) -> Vec<String> {
    let pki = |file: &str| dir.text(&format!("pki/{file}"));
    vec![
        "--etcd-servers=http://127.0.0.1:2379".to_owned(),
        "--bind-address=0.0.0.0".to_owned(),
        "--secure-port=6443".to_owned(),
        // Pods reach the Service `kubernetes` at this address, so it must not be loopback.
        format!("--advertise-address={}", dir.node_address()),
        format!("--tls-cert-file={}", pki("apiserver.crt")),
        format!("--tls-private-key-file={}", pki("apiserver.key")),
        format!("--client-ca-file={}", pki("ca.crt")),
        format!("--kubelet-client-certificate={}", pki("apiserver-kubelet.crt")),
        format!("--kubelet-client-key={}", pki("apiserver-kubelet.key")),
        format!("--kubelet-certificate-authority={}", pki("ca.crt")),
        // By default `kubectl logs` and `exec` would resolve the node's name, which the cluster's DNS doesn't
        // know.
        "--kubelet-preferred-address-types=InternalIP".to_owned(),
        format!("--requestheader-client-ca-file={}", pki("front-proxy-ca.crt")),
        "--requestheader-allowed-names=front-proxy-client".to_owned(),
        "--requestheader-extra-headers-prefix=X-Remote-Extra-".to_owned(),
        "--requestheader-group-headers=X-Remote-Group".to_owned(),
        "--requestheader-username-headers=X-Remote-User".to_owned(),
        format!("--proxy-client-cert-file={}", pki("front-proxy.crt")),
        format!("--proxy-client-key-file={}", pki("front-proxy.key")),
        "--authorization-mode=Node,RBAC".to_owned(),
        "--enable-admission-plugins=NodeRestriction".to_owned(),
        "--allow-privileged=true".to_owned(),
        format!("--service-cluster-ip-range={}", dir.services()),
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local".to_owned(),
        format!("--service-account-key-file={}", pki("service-accounts.pub")),
        format!("--service-account-signing-key-file={}", pki("service-accounts.key")),
        // A shutdown shall not wait for clients.
        "--shutdown-delay-duration=0s".to_owned(),
    ]
}

pub(super) fn kube_controller_manager(dir: &ClusterDir) -> Vec<String> {
    let kubeconfig = dir.text("controller-manager.yaml");
    let pki = |file: &str| dir.text(&format!("pki/{file}"));
    vec![
        format!("--kubeconfig={kubeconfig}"),
        format!("--authentication-kubeconfig={kubeconfig}"),
        format!("--authorization-kubeconfig={kubeconfig}"),
        "--bind-address=127.0.0.1".to_owned(),
        "--leader-elect=false".to_owned(),
        // A claim is bound at the next sync after the scheduler has chosen a node. The default is 15 s.
        "--pvclaimbinder-sync-period=1s".to_owned(),
        format!("--flex-volume-plugin-dir={}", dir.text("volume-plugins")),
        "--use-service-account-credentials=true".to_owned(),
        format!("--root-ca-file={}", pki("ca.crt")),
        format!("--service-account-private-key-file={}", pki("service-accounts.key")),
        format!("--cluster-signing-cert-file={}", pki("ca.crt")),
        format!("--cluster-signing-key-file={}", pki("ca.key")),
        format!("--requestheader-client-ca-file={}", pki("front-proxy-ca.crt")),
    ]
}

pub(super) fn kube_scheduler(dir: &ClusterDir) -> Vec<String> {
    let kubeconfig = dir.text("scheduler.yaml");
    vec![
        format!("--kubeconfig={kubeconfig}"),
        format!("--authentication-kubeconfig={kubeconfig}"),
        format!("--authorization-kubeconfig={kubeconfig}"),
        "--bind-address=127.0.0.1".to_owned(),
        "--leader-elect=false".to_owned(),
    ]
}
