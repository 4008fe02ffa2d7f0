//! The cluster's certificate authorities and certificates. They are generated for each cluster.

use std::fs;
use std::path::Path;

use anyhow::Context;
use data_encoding::BASE64;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use super::ClusterDir;

/// A certificate authority. Its certificate and key are in the folder under its name.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

impl Authority {
    fn new(folder: &Path, name: &str) -> anyhow::Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        let certificate = params.self_signed(&key)?.pem();
        write(folder, &format!("{name}.crt"), &certificate)?;
        write(folder, &format!("{name}.key"), &key.serialize_pem())?;
        Ok(Self { issuer: Issuer::new(params, key), certificate })
    }

    /// Issues a client certificate for `user` of `group`, which is also a server certificate if there are
    /// `names`. Returns certificate and key.
    fn issue(&self, user: &str, group: Option<&str>, names: &[String]) -> anyhow::Result<(String, String)> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(names.to_vec())?;
        params.distinguished_name.push(DnType::CommonName, user);
        if let Some(group) = group {
            params.distinguished_name.push(DnType::OrganizationName, group);
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if !names.is_empty() {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        Ok((params.signed_by(&key, &self.issuer)?.pem(), key.serialize_pem()))
    }

    fn write(
        &self,
        folder: &Path,
        file: &str,
        user: &str,
        group: Option<&str>,
        names: &[String],
    ) -> anyhow::Result<()> {
        let (certificate, key) = self.issue(user, group, names)?;
        write(folder, &format!("{file}.crt"), &certificate)?;
        write(folder, &format!("{file}.key"), &key)
    }
}

/// Writes all certificates and keys into `pki/`, and a kubeconfig for each client.
///
/// # Errors
/// If a file can't be written.
pub(super) fn write_all(dir: &ClusterDir) -> anyhow::Result<()> {
    let folder = dir.path("pki");
    fs::create_dir_all(&folder).with_context(|| format!("{}", folder.display()))?;
    let authority = Authority::new(&folder, "ca")?;
    let node = dir.node_name();
    let mut api_names: Vec<String> =
        ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"]
            .map(str::to_owned)
            .to_vec();
    api_names.push("kubernetes.default.svc.cluster.local".to_owned());
    api_names.extend(
        [dir.node_address(), dir.api_service(), [127, 0, 0, 1].into()].map(|address| address.to_string()),
    );
    authority.write(&folder, "apiserver", "kube-apiserver", None, &api_names)?;
    authority.write(
        &folder,
        "apiserver-kubelet",
        "kube-apiserver-kubelet-client",
        Some("system:masters"),
        &[],
    )?;
    let node_names = [node.clone(), dir.node_address().to_string()];
    authority.write(
        &folder,
        "kubelet-serving",
        &format!("system:node:{node}"),
        Some("system:nodes"),
        &node_names,
    )?;
    // Aggregated API servers (metrics, for instance) recognise the API server by a separate authority.
    let front = Authority::new(&folder, "front-proxy-ca")?;
    front.write(&folder, "front-proxy", "front-proxy-client", None, &[])?;
    let service_accounts = KeyPair::generate()?;
    write(&folder, "service-accounts.key", &service_accounts.serialize_pem())?;
    write(&folder, "service-accounts.pub", &service_accounts.public_key_pem())?;

    let kubelet = format!("system:node:{node}");
    let clients = [
        ("kubeconfig.yaml", "flutecast-admin", Some("system:masters")),
        ("controller-manager.yaml", "system:kube-controller-manager", None),
        ("scheduler.yaml", "system:kube-scheduler", None),
        ("kube-proxy.yaml", "system:kube-proxy", None),
        // The program only reads pods, namespaces and NetworkPolicies.
        ("network-policies.yaml", "flutecast-network-policies", Some("system:masters")),
        ("kubelet.yaml", kubelet.as_str(), Some("system:nodes")),
    ];
    for (file, user, group) in clients {
        let (certificate, key) = authority.issue(user, group, &[])?;
        let text = kubeconfig(dir, &authority.certificate, user, &certificate, &key);
        write(dir.folder(), file, &text)?;
    }
    Ok(())
}

/// Returns a kubeconfig that refers to no other file, so that it can be copied. It is JSON, which is valid
/// YAML.
fn kubeconfig(dir: &ClusterDir, authority: &str, user: &str, certificate: &str, key: &str) -> String {
    let name = dir.node_name();
    let base64 = |text: &str| BASE64.encode(text.as_bytes());
    let config = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": {
            "server": dir.api_url(),
            "certificate-authority-data": base64(authority),
        }}],
        "users": [{"name": user, "user": {
            "client-certificate-data": base64(certificate),
            "client-key-data": base64(key),
        }}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": user, "namespace": "default"}}],
        "current-context": name,
    });
    format!("{config:#}\n")
}

/// Writes a file that only root may read, because some of these are keys.
fn write(folder: &Path, file: &str, text: &str) -> anyhow::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let path = folder.join(file);
    let mut options = fs::File::options();
    let mut file = options.create(true).truncate(true).write(true).mode(0o600).open(&path)?;
    file.write_all(text.as_bytes()).with_context(|| format!("{}", path.display()))
}
