//! Runs a Kubernetes API for one test: etcd and kube-apiserver, without nodes.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};

use crate::{GoTool, Process, free_ports, http_client, in_repository, wait_until};

/// The time limit of a start, sized for a busy machine.
const START: Duration = Duration::from_secs(90);
/// The time limit of a graceful stop; kube-apiserver waits for requests in flight.
const STOP: Duration = Duration::from_secs(20);
/// Not a secret: the API listens on 127.0.0.1 only, and only for the duration of a test.
const ADMIN_TOKEN: &str = "admin-of-a-test";

/// Requests of service accounts are recorded without their content.
const AUDIT: &str = "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules:\n\
    - {level: Metadata, userGroups: ['system:serviceaccounts'], verbs: [watch], omitStages: \
    [ResponseComplete]}\n\
    - {level: Metadata, userGroups: ['system:serviceaccounts'], omitStages: [ResponseStarted]}\n- {level: \
    None}\n";

/// A running Kubernetes API on 127.0.0.1. Dropping it kills the processes.
#[derive(Debug)]
pub struct ApiServer {
    api: Process,
    _etcd: Process,
    kubectl: PathBuf,
    api_port: u16,
    etcd_port: u16,
    // Fields are dropped in order, so the folder is removed after the processes were killed.
    folder: tempfile::TempDir,
}

impl ApiServer {
    /// Starts etcd and kube-apiserver with an empty store. Builds the pinned programs first if they are not
    /// in the cache.
    ///
    /// # Errors
    /// Returns an error if a program can't be built or is not ready within 90 s.
    pub async fn start() -> anyhow::Result<Self> {
        let (etcd, kubectl) = tokio::task::spawn_blocking(|| {
            GoTool::KUBE_APISERVER.path()?;
            anyhow::Ok((GoTool::ETCD.path()?, GoTool::KUBECTL.path()?))
        })
        .await??;
        let folder = tempfile::Builder::new().prefix("flutecast-kubernetes-").tempdir()?;
        let [etcd_port, peer_port, api_port] = free_ports()?;
        let etcd = start_etcd(&etcd, folder.path(), etcd_port, peer_port).await?;
        write_service_account_key(folder.path())?;
        std::fs::write(folder.path().join("audit-policy.yaml"), AUDIT)?;
        std::fs::write(folder.path().join("tokens.csv"), format!("{ADMIN_TOKEN},admin,1,system:masters\n"))?;
        let api = start_api(folder.path(), etcd_port, api_port).await?;
        let this = Self { api, _etcd: etcd, kubectl, api_port, etcd_port, folder };
        std::fs::write(this.kubeconfig(), this.kubeconfig_text())?;
        Ok(this)
    }

    /// Returns the path of a kubeconfig file for a cluster administrator.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("kubeconfig.yaml")
    }

    /// Writes a kubeconfig file with a token of a service account, and returns its path. The account's
    /// namespace is the default namespace of the file.
    ///
    /// # Errors
    /// Returns an error if the account does not exist or the file can't be written.
    pub async fn kubeconfig_of(&self, namespace: &str, account: &str) -> anyhow::Result<PathBuf> {
        let token = self.kubectl(&["create", "token", account, "--namespace", namespace], "").await?;
        let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(self.kubeconfig())?)?;
        config["users"][0]["user"] = serde_json::json!({"token": token.trim()});
        config["contexts"][0]["context"]["namespace"] = namespace.into();
        let mut file = tempfile::Builder::new();
        let file = file.prefix(account).suffix(".kubeconfig").tempfile_in(self.folder.path())?;
        std::fs::write(file.path(), config.to_string())?;
        Ok(file.into_temp_path().keep()?)
    }

    /// Runs kubectl as cluster administrator with `stdin` as its input, and returns its output.
    ///
    /// # Errors
    /// Returns an error if kubectl fails.
    pub async fn kubectl(&self, args: &[&str], stdin: &str) -> anyhow::Result<String> {
        let mut command = Command::new(&self.kubectl);
        command.arg("--kubeconfig").arg(self.kubeconfig()).args(["--request-timeout", "30s"]).args(args);
        // A discovery cache that outlives this server would be wrong for the next server on the same port.
        command.arg("--cache-dir").arg(self.folder.path().join("kubectl-cache"));
        let (input, what) = (stdin.to_owned(), args.join(" "));
        let output = tokio::task::spawn_blocking(move || run(command, &input)).await??;
        ensure!(
            output.status.success(),
            "kubectl {what}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Applies Flutecast's CustomResourceDefinitions and waits until they are established.
    ///
    /// # Errors
    /// Returns an error if kubectl fails.
    pub async fn apply_kinds(&self) -> anyhow::Result<()> {
        let kinds = in_repository("crds/yaml").display().to_string();
        self.kubectl(&["apply", "--server-side", "-f", &kinds], "").await?;
        self.kubectl(&["wait", "--for=condition=Established", "--timeout=20s", "-f", &kinds], "").await?;
        Ok(())
    }

    /// Starts kube-controller-manager with the given controllers, such as `namespace-controller`.
    ///
    /// # Errors
    /// Returns an error if it can't be started.
    pub async fn start_controllers(&self, controllers: &[&str]) -> anyhow::Result<Process> {
        let program = tokio::task::spawn_blocking(|| GoTool::KUBE_CONTROLLER_MANAGER.path()).await??;
        let kubeconfig = self.kubeconfig().display().to_string();
        Process::spawn(
            program,
            [
                format!("--kubeconfig={kubeconfig}"),
                format!("--controllers={}", controllers.join(",")),
                "--leader-elect=false".to_owned(),
                "--secure-port=0".to_owned(),
            ],
        )
    }

    /// Returns the requests of service accounts so far, each as an Event of `audit.k8s.io/v1` without
    /// content. A watch is there as soon as it was begun.
    ///
    /// # Errors
    /// Returns an error if the file can't be read.
    pub fn audit(&self) -> anyhow::Result<Vec<serde_json::Value>> {
        let text = std::fs::read_to_string(self.folder.path().join("audit.log"))?;
        // The last line may not be complete yet.
        Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
    }

    /// Stops the API server with SIGTERM; etcd keeps running. The server waits for open watches; use
    /// [`Self::kill_api`] if there are any.
    ///
    /// # Errors
    /// Returns an error if the server does not exit within 20 s of SIGTERM; it is then killed.
    pub async fn stop_api(&mut self) -> anyhow::Result<()> {
        self.api.terminate(STOP).await.map(drop)
    }

    /// Kills the API server with SIGKILL, as a crash would; etcd keeps running.
    ///
    /// # Errors
    /// Returns an error if the operating system refuses.
    pub async fn kill_api(&mut self) -> anyhow::Result<()> {
        self.api.kill().await
    }

    /// Starts the API server again, on the same port and store.
    ///
    /// # Errors
    /// Returns the same errors as [`Self::start`].
    pub async fn start_api(&mut self) -> anyhow::Result<()> {
        self.api = start_api(self.folder.path(), self.etcd_port, self.api_port).await?;
        Ok(())
    }

    fn kubeconfig_text(&self) -> String {
        let certificate = self.folder.path().join("certificates/apiserver.crt");
        serde_json::json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": {
                "server": format!("https://127.0.0.1:{}", self.api_port),
                "certificate-authority": certificate,
            }}],
            "users": [{"name": "admin", "user": {"token": ADMIN_TOKEN}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin",
             "namespace": "default"}}],
            "current-context": "test",
        })
        .to_string()
    }
}

async fn start_etcd(program: &Path, folder: &Path, port: u16, peer_port: u16) -> anyhow::Result<Process> {
    let client = format!("http://127.0.0.1:{port}");
    let peer = format!("http://127.0.0.1:{peer_port}");
    let data = folder.join("etcd").display().to_string();
    let members = format!("default={peer}");
    let etcd = Process::spawn(
        program,
        [
            "--data-dir",
            &data,
            "--listen-client-urls",
            &client,
            "--advertise-client-urls",
            &client,
            "--listen-peer-urls",
            &peer,
            "--initial-advertise-peer-urls",
            &peer,
            "--initial-cluster",
            &members,
            // The store is only used by one test and need not survive a power failure.
            "--unsafe-no-fsync",
        ],
    )?;
    let health = format!("{client}/health");
    wait_until("etcd's health", START, async || http_client::get_text(&health).await).await?;
    Ok(etcd)
}

/// Starts kube-apiserver and waits until its `/readyz` reports success.
async fn start_api(folder: &Path, etcd_port: u16, port: u16) -> anyhow::Result<Process> {
    let args = [
        format!("--etcd-servers=http://127.0.0.1:{etcd_port}"),
        "--bind-address=127.0.0.1".to_owned(),
        format!("--secure-port={port}"),
        format!("--cert-dir={}", folder.join("certificates").display()),
        format!("--token-auth-file={}", folder.join("tokens.csv").display()),
        "--authorization-mode=RBAC".to_owned(),
        "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        format!("--service-account-key-file={}", folder.join("service-accounts.pub").display()),
        format!("--service-account-signing-key-file={}", folder.join("service-accounts.key").display()),
        format!("--audit-policy-file={}", folder.join("audit-policy.yaml").display()),
        format!("--audit-log-path={}", folder.join("audit.log").display()),
        // No controller-manager runs to create service accounts, and no pod uses the address of the API
        // server.
        "--disable-admission-plugins=ServiceAccount".to_owned(),
        "--endpoint-reconciler-type=none".to_owned(),
    ];
    let mut api = Process::spawn(GoTool::KUBE_APISERVER.path()?, args)?;
    let kubectl = GoTool::KUBECTL.path()?;
    let server = format!("https://127.0.0.1:{port}");
    wait_until("kube-apiserver's readiness", START, async || {
        if let Ok(Some(status)) = api.exit_status() {
            return Err(format!("it ended with {status}:\n{}", api.tail()));
        }
        let mut command = Command::new(&kubectl);
        command.args(["--server", &server, "--insecure-skip-tls-verify", "--token", ADMIN_TOKEN]);
        command.args(["--request-timeout", "5s", "get", "--raw", "/readyz"]);
        let output = tokio::task::spawn_blocking(move || run(command, "")).await;
        match output {
            Ok(Ok(output)) if output.status.success() => Ok(()),
            Ok(Ok(output)) => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
            Ok(Err(error)) => Err(format!("{error:#}")),
            Err(error) => Err(error.to_string()),
        }
    })
    .await?;
    Ok(api)
}

/// Writes the key pair with which Kubernetes signs the tokens of service accounts.
fn write_service_account_key(folder: &Path) -> anyhow::Result<()> {
    let key = rcgen::KeyPair::generate()?;
    std::fs::write(folder.join("service-accounts.key"), key.serialize_pem())?;
    std::fs::write(folder.join("service-accounts.pub"), key.public_key_pem())?;
    Ok(())
}

fn run(mut command: Command, stdin: &str) -> anyhow::Result<std::process::Output> {
    use std::io::Write;
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut input = child.stdin.take().context("kubectl has no stdin")?;
    // kubectl closes its input when it fails early; its error message then gives the reason.
    let _ = input.write_all(stdin.as_bytes());
    drop(input);
    Ok(child.wait_with_output()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_applied_survives_a_restart_of_the_api_server() {
        let mut api = ApiServer::start().await.unwrap();
        let object = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: kept}\ndata: {a: b}\n";
        api.kubectl(&["apply", "-f", "-"], object).await.unwrap();
        api.stop_api().await.unwrap();
        assert!(api.kubectl(&["get", "ns"], "").await.is_err(), "a stopped API server must not answer");
        api.start_api().await.unwrap();
        let kept = api.kubectl(&["get", "cm", "kept", "-o", "jsonpath={.data.a}"], "").await.unwrap();
        assert_eq!(kept, "b");
        let version = api.kubectl(&["version"], "").await.unwrap();
        assert!(version.contains("Server Version: v1.37"), "{version}");
    }
}
