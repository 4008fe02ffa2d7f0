//! The cluster that all tests share: this machine's own or an existing one.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use tokio::process::Command;

use super::fault::Fault;
use super::namespace::Namespace;
use super::{
    ClusterDir, Component, Node, PROBE_IMAGE, Request, Slot, bring_up, command, image, network_policies,
    storage,
};
use crate::tools;
use flutecast_testkit::{GoTool, Process, free_port, wait_until};

/// The variable with the kubeconfig of an existing cluster.
const KUBECONFIG: &str = "KUBECONFIG";
/// The variable with the command that loads an image into an existing cluster. The archive's path is
/// appended.
const LOAD_IMAGE: &str = "FLUTECAST_LOAD_IMAGE";
/// The variable with the text that replaces `flutecast.io` in the names of images, for an existing cluster
/// with a registry.
const IMAGE_PREFIX: &str = "FLUTECAST_IMAGE_PREFIX";

/// Default time limit for kubectl.
const USUAL: Duration = Duration::from_secs(60);
/// Time limit for an import of an image.
const IMPORT: Duration = Duration::from_secs(120);
/// Time limit for the cluster to recover from a fault, and for a port-forward.
const WHOLE: Duration = Duration::from_secs(90);

/// A cluster for tests, which create their own namespaces in it.
#[derive(Debug)]
pub struct Cluster {
    kubeconfig: PathBuf,
    kubectl: PathBuf,
    /// `None` for an existing cluster.
    own: Option<(ClusterDir, Node)>,
    /// The cache of kubectl and helm.
    cache: tempfile::TempDir,
}

/// The address of a Service for programs on this machine. Dropping it ends the port-forward, if there is one.
#[derive(Debug)]
pub struct ServiceAddress {
    /// `<host>:<port>`.
    pub address: String,
    _forward: Option<Process>,
}

impl Cluster {
    /// Returns the cluster of this run: that of `KUBECONFIG` if it is set, otherwise this machine's own. The
    /// own one is brought up if necessary, mended if an earlier test left it broken, and stays up.
    ///
    /// # Errors
    /// If this machine can't run a cluster, or the existing one doesn't respond.
    pub async fn shared() -> anyhow::Result<Self> {
        let dir = ClusterDir::of(Slot::from_environment()?)?;
        let kubectl = tokio::task::spawn_blocking(|| GoTool::KUBECTL.path()).await??;
        let cache = tempfile::Builder::new().prefix("flutecast-cluster-").tempdir()?;
        let given = std::env::var_os(KUBECONFIG).filter(|path| !path.is_empty()).map(PathBuf::from);
        if let Some(kubeconfig) = given.filter(|path| *path != dir.kubeconfig()) {
            // kubectl treats a missing file as an empty one, and then tries localhost.
            ensure!(
                std::env::split_paths(&kubeconfig).any(|path| path.is_file()),
                "{KUBECONFIG}={} is not there",
                kubeconfig.display()
            );
            let this = Self { kubeconfig, kubectl, own: None, cache };
            let version = this.kubectl(&["get", "--raw", "/version"]).await;
            version.with_context(|| format!("{KUBECONFIG}={}", this.kubeconfig.display()))?;
            return Ok(this);
        }
        bring_up(&dir, &mut std::io::stderr()).await?;
        let node = Node::running(&dir).context("the cluster went down at once")?;
        let this = Self { kubeconfig: dir.kubeconfig(), kubectl, own: Some((dir, node)), cache };
        this.mend().await?;
        Ok(this)
    }

    /// Returns the path of the administrator's kubeconfig.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Returns the path of kubectl.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.kubectl
    }

    /// Runs kubectl for at most a minute. Returns its output.
    ///
    /// # Errors
    /// If kubectl fails.
    pub async fn kubectl(&self, args: &[&str]) -> anyhow::Result<String> {
        self.kubectl_with(args, "", USUAL).await
    }

    /// Runs kubectl with `input` on its standard input, for at most `deadline`.
    ///
    /// # Errors
    /// If kubectl fails.
    pub async fn kubectl_with(
        &self,
        args: &[&str],
        input: &str,
        deadline: Duration,
    ) -> anyhow::Result<String> {
        let mut kubectl = Command::new(&self.kubectl);
        kubectl.env(KUBECONFIG, &self.kubeconfig).arg("--cache-dir").arg(self.cache.path()).args(args);
        finish(kubectl, "kubectl", args, input, deadline).await
    }

    /// Applies manifests.
    ///
    /// # Errors
    /// If kubectl fails.
    pub async fn apply(&self, manifests: &str) -> anyhow::Result<String> {
        self.kubectl_with(&["apply", "--filename", "-"], manifests, USUAL).await
    }

    /// Runs helm for at most `deadline`. Returns its output.
    ///
    /// # Errors
    /// If helm fails.
    pub async fn helm(&self, args: &[&str], deadline: Duration) -> anyhow::Result<String> {
        let mut helm = Command::new(tokio::task::spawn_blocking(|| tools::HELM.path()).await??);
        helm.env(KUBECONFIG, &self.kubeconfig).args(args);
        // Isolates helm from the user's repositories and plugins, and from other runs.
        for (variable, folder) in
            [("HELM_CACHE_HOME", "cache"), ("HELM_CONFIG_HOME", "config"), ("HELM_DATA_HOME", "data")]
        {
            helm.env(variable, self.cache.path().join("helm").join(folder));
        }
        finish(helm, "helm", args, "", deadline).await
    }

    /// Loads an image archive into the cluster: into this machine's own directly, into an existing one by
    /// `FLUTECAST_LOAD_IMAGE`.
    ///
    /// # Errors
    /// If it can't be imported, or `FLUTECAST_LOAD_IMAGE` is missing on an existing cluster.
    pub async fn load_image(&self, archive: &Path) -> anyhow::Result<()> {
        if let Some((dir, _)) = &self.own {
            return bring_up::import_image(dir, archive).await;
        }
        let Some(load) = std::env::var(LOAD_IMAGE).ok().filter(|text| !text.is_empty()) else {
            bail!(
                "{LOAD_IMAGE} must say how this cluster gets images: a command to which an archive's path \
                 is appended, such as \
                 'kind load image-archive' (see docs/testing.md)"
            );
        };
        let mut shell = Command::new("sh");
        shell.args(["-ec", &format!("{load} \"$1\""), "sh"]).arg(archive).env(KUBECONFIG, &self.kubeconfig);
        finish(shell, &load, &[&archive.display().to_string()], "", IMPORT).await.map(drop)
    }

    /// Gives an image of this machine's own cluster a second name.
    ///
    /// # Errors
    /// On an existing cluster, or if the image isn't there.
    pub async fn tag_image(&self, name: &str, other: &str) -> anyhow::Result<()> {
        bring_up::ctr(self.dir()?, &["images", "tag", "--force", name, other]).await.map(drop)
    }

    /// Returns the name of an image of ours (`flutecast.io/…`) for pods: the same, unless
    /// `FLUTECAST_IMAGE_PREFIX` names a registry of an existing cluster.
    #[must_use]
    pub fn image(&self, name: &str) -> String {
        let prefix = std::env::var(IMAGE_PREFIX).ok().filter(|text| !text.is_empty() && self.own.is_none());
        match (prefix, name.strip_prefix("flutecast.io/")) {
            (Some(prefix), Some(rest)) => format!("{}/{rest}", prefix.trim_end_matches('/')),
            _ => name.to_owned(),
        }
    }

    /// Returns the name of the image for pods of tests: `/probe serve :8080`, `/probe get URL TIMES`, `/probe
    /// lookup NAME` (e2e/testbed/tools/probe).
    ///
    /// # Errors
    /// As [`Self::load_image`].
    pub async fn probe_image(&self) -> anyhow::Result<String> {
        if self.own.is_none() {
            let [probe, _] = tokio::task::spawn_blocking(image::archives).await??;
            self.load_image(&probe).await?;
        }
        Ok(self.image(PROBE_IMAGE))
    }

    /// Creates a namespace whose name begins with `prefix`. It is deleted when the result is dropped.
    ///
    /// # Errors
    /// If it can't be created.
    pub async fn namespace(&self, prefix: &str) -> anyhow::Result<Namespace> {
        Namespace::make(self, prefix).await
    }

    /// Returns the node of this machine's own cluster.
    ///
    /// # Errors
    /// On an existing cluster, whose nodes must not be broken.
    pub fn node(&self) -> anyhow::Result<&Node> {
        match &self.own {
            Some((_, node)) => Ok(node),
            None => bail!("this needs a cluster of this machine's own: unset {KUBECONFIG}"),
        }
    }

    /// Returns the folder and addresses of this machine's own cluster.
    ///
    /// # Errors
    /// On an existing cluster.
    pub fn dir(&self) -> anyhow::Result<&ClusterDir> {
        self.node()?;
        self.own.as_ref().map(|(dir, _)| dir).context("this machine's own cluster")
    }

    /// Kills a component with SIGKILL. It stays down until the fault is mended or dropped.
    ///
    /// # Errors
    /// On an existing cluster, or if it can't be killed.
    pub async fn kill(&self, component: Component) -> anyhow::Result<Fault> {
        Fault::cause(self.node()?, Request::Kill(component), Request::Start(component)).await
    }

    /// Stops a component gracefully. It stays down until the fault is mended or dropped.
    ///
    /// # Errors
    /// On an existing cluster, or if it can't be stopped.
    pub async fn stop(&self, component: Component) -> anyhow::Result<Fault> {
        Fault::cause(self.node()?, Request::Stop(component), Request::Start(component)).await
    }

    /// Freezes a component: it hangs, with its connections open, until the fault is mended or dropped.
    ///
    /// # Errors
    /// On an existing cluster, or if it doesn't run.
    pub async fn freeze(&self, component: Component) -> anyhow::Result<Fault> {
        Fault::cause(self.node()?, Request::Freeze(component), Request::Thaw(component)).await
    }

    /// Kills all processes of a container with SIGKILL, as the kernel does when it runs out of memory.
    ///
    /// # Errors
    /// On an existing cluster, or if there is no such container.
    pub async fn kill_container(&self, id: &str) -> anyhow::Result<()> {
        ensure!(!id.is_empty(), "the pod has no container yet");
        let Some((dir, _)) = &self.own else { return self.node().map(drop) };
        bring_up::ctr(dir, &["tasks", "kill", "--signal", "SIGKILL", "--all", id]).await.map(drop)
    }

    /// Starts stopped components, thaws frozen ones, and waits until the cluster works.
    ///
    /// # Errors
    /// If something doesn't work after 90 s.
    pub async fn mend(&self) -> anyhow::Result<()> {
        if let Some((_, node)) = &self.own {
            for component in Component::CLUSTER {
                for request in [Request::Start(component), Request::Thaw(component)] {
                    node.request(request).await?;
                }
            }
        }
        self.wait_until_whole().await?;
        self.free_volumes().await
    }

    /// Empties released volumes, so that later tests can claim them. Kubernetes keeps their data for an
    /// administrator.
    async fn free_volumes(&self) -> anyhow::Result<()> {
        let Some((dir, _)) = &self.own else { return Ok(()) };
        let released = "jsonpath={.items[?(@.status.phase==\"Released\")].metadata.name}";
        for volume in self.kubectl(&["get", "persistentvolumes", "-o", released]).await?.split_whitespace() {
            storage::empty(dir, volume)?;
            let patch = r#"[{"op": "remove", "path": "/spec/claimRef"}]"#;
            self.kubectl(&["patch", "persistentvolume", volume, "--type=json", "--patch", patch]).await?;
        }
        Ok(())
    }

    /// Waits until the API and all nodes are ready, names are resolved and NetworkPolicies are enforced.
    ///
    /// # Errors
    /// If something doesn't work after 90 s.
    pub async fn wait_until_whole(&self) -> anyhow::Result<()> {
        const LOOK: Duration = Duration::from_secs(15);
        let ready = ["get", "--raw", "/readyz"];
        wait_until("kube-apiserver's readiness", WHOLE, async || self.kubectl_with(&ready, "", LOOK).await)
            .await?;
        let nodes = ["wait", "--for=condition=Ready", "nodes", "--all", "--timeout=10s"];
        wait_until("the nodes' readiness", WHOLE, async || self.kubectl_with(&nodes, "", LOOK).await).await?;
        if let Some((_, node)) = &self.own {
            network_policies::wait_until_enforced(node, WHOLE).await?;
            let dns = ["-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout=10s"];
            wait_until("CoreDNS", WHOLE, async || self.kubectl_with(&dns, "", LOOK).await).await?;
        }
        Ok(())
    }

    /// Returns an address of a Service's port for programs on this machine: on the own cluster the Service's
    /// address, which kube-proxy balances; on an existing one that of a port-forward, which leads to one pod.
    ///
    /// # Errors
    /// If there is no such Service, or the port-forward doesn't start.
    pub async fn reach(&self, namespace: &str, service: &str, port: u16) -> anyhow::Result<ServiceAddress> {
        if self.own.is_some() {
            let jsonpath = "jsonpath={.spec.clusterIP}";
            let ip = self.kubectl(&["-n", namespace, "get", "service", service, "-o", jsonpath]).await?;
            ensure!(
                ip.parse::<std::net::IpAddr>().is_ok(),
                "Service {namespace}/{service} has no address: {ip:?}"
            );
            return Ok(ServiceAddress { address: format!("{ip}:{port}"), _forward: None });
        }
        let (local, target) = (free_port()?, format!("service/{service}"));
        let kubeconfig = self.kubeconfig.display().to_string();
        let ports = format!("{local}:{port}");
        let args = ["--kubeconfig", &kubeconfig, "-n", namespace, "port-forward", &target, &ports];
        let mut forward = Process::spawn(&self.kubectl, args)?;
        forward.wait_for_line("port-forward", WHOLE, |line| line.starts_with("Forwarding from")).await?;
        Ok(ServiceAddress { address: format!("127.0.0.1:{local}"), _forward: Some(forward) })
    }
}

/// Runs a command to its end. Returns its output.
///
/// # Errors
/// If it fails; the error holds what it wrote.
async fn finish(
    program: Command,
    name: &str,
    args: &[&str],
    input: &str,
    deadline: Duration,
) -> anyhow::Result<String> {
    let what = || format!("{name} {}", args.join(" "));
    let output = command::output(program, input, deadline).await.with_context(what)?;
    let (said, complained) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{}: {}: {}{}", what(), output.status, complained.trim(), said.trim());
    Ok(said.into_owned())
}
