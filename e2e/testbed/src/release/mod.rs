//! A factory as users install it: the images and the charts on a real cluster.
//!
//! ```no_run
//! # use flutecast_testbed::cluster::Cluster;
//! # use flutecast_testbed::release::{Images, Release};
//! # async fn test() -> anyhow::Result<()> {
//! let cluster = Cluster::shared().await?;
//! let namespace = cluster.namespace("plant").await?;
//! let images = Images::of_workspace()?;
//! let values = "dataplane: {replicas: 3}";
//! let mut factory = Release::install(&cluster, &namespace, "factory", &images, values).await?;
//! factory.apply_folder("manifests/demo").await?;
//! factory.wait_ready().await?;
//! let dataplane = factory.dataplane().await?; // http://<dataplane.address>/
//! let nats = factory.nats().await?; // nats.url("devices")
//! factory.uninstall().await
//! # }
//! ```

mod factory;
mod images;
mod nats;
mod pods;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};

pub use factory::install_factory;
pub use images::{IMAGES_VARIABLE, Images, PROGRAMS, version_after};
pub use nats::NatsAddress;
pub use pods::Pod;

use crate::cluster::{Cluster, Namespace, ServiceAddress};
use flutecast_testkit::{in_repository, wait_until};

/// Time limit for helm's `--wait`, enough on a busy machine with two cores.
const ROLLOUT: Duration = Duration::from_secs(180);
/// Time limit for all other commands.
const SOON: Duration = Duration::from_secs(90);
/// The port of the Service of the data plane.
const HTTP: u16 = 80;
/// The namespace of the CRD chart's release.
const CRDS_NAMESPACE: &str = "flutecast-crds";
/// Arguments of kubectl commands whose output is printed after a failed test.
const LOOKS: [&str; 5] = [
    "get all,endpointslices,persistentvolumeclaims -o wide",
    "get ft,fd,fpf -o wide",
    "describe pods",
    "get events --sort-by=.lastTimestamp",
    "logs -l app.kubernetes.io/name=flutecast --all-containers --prefix --tail=60 --max-log-requests=20",
];

/// Installs or upgrades the CRD chart in `chart`, which all releases of a cluster share.
///
/// # Errors
/// If helm fails.
pub async fn install_crds(cluster: &Cluster, chart: &Path) -> anyhow::Result<()> {
    let chart = chart.display().to_string();
    let args = ["upgrade", "--install", "flutecast-crds", &chart, "--namespace", CRDS_NAMESPACE];
    cluster.helm(&[&args[..], &["--create-namespace"]].concat(), SOON).await?;
    let established = ["wait", "--for=condition=Established", "--timeout=60s", "customresourcedefinitions"];
    let kinds = ["tenants.flutecast.io", "devices.flutecast.io", "pushformats.flutecast.io"];
    cluster.kubectl_with(&[&established[..], &kinds].concat(), "", SOON).await.map(drop)
}

/// A release of the chart `flutecast` in a namespace that enforces restricted pod security, with a bundled
/// NATS of its own unless the values say otherwise.
///
/// A test that panics while it holds one prints what the namespace looks like. Use `unwrap` there, not `?`.
#[derive(Debug)]
pub struct Release<'a> {
    cluster: &'a Cluster,
    namespace: String,
    name: String,
    installed: bool,
}

impl<'a> Release<'a> {
    /// Loads the images, installs the CRD chart unless it is there, then this repository's chart with
    /// `values` (YAML), and waits until all its pods are ready.
    ///
    /// # Errors
    /// If helm or kubectl fails, or something isn't ready in time.
    pub async fn install(
        cluster: &'a Cluster,
        namespace: &Namespace,
        name: &str,
        images: &Images,
        values: &str,
    ) -> anyhow::Result<Self> {
        images.load(cluster).await?;
        install_crds(cluster, &in_repository("charts/flutecast-crds")).await?;
        let mut this = Self::absent(cluster, namespace, name).await?;
        this.helm("install", &in_repository("charts/flutecast"), images, values).await?;
        Ok(this)
    }

    /// Prepares the namespace with restricted pod security, without installing anything.
    ///
    /// # Errors
    /// If kubectl fails.
    pub async fn absent(cluster: &'a Cluster, namespace: &Namespace, name: &str) -> anyhow::Result<Self> {
        let label = ["label", "--overwrite", "namespace", namespace.name()];
        let restricted =
            ["enforce", "warn"].map(|mode| format!("pod-security.kubernetes.io/{mode}=restricted"));
        let restricted = restricted.each_ref().map(String::as_str);
        cluster.kubectl(&[&label[..], &restricted].concat()).await?;
        Ok(Self { cluster, namespace: namespace.name().to_owned(), name: name.to_owned(), installed: false })
    }

    /// Returns a release that was brought by others, such as Argo CD, who also take it away.
    #[must_use]
    pub fn of_others(cluster: &'a Cluster, namespace: &str, name: &str) -> Self {
        Self { cluster, namespace: namespace.to_owned(), name: name.to_owned(), installed: false }
    }

    /// Runs `helm install` or `helm upgrade` with `values` and the values for the images. Waits until all
    /// pods are ready.
    ///
    /// # Errors
    /// If helm fails.
    pub async fn helm(
        &mut self,
        verb: &str,
        chart: &Path,
        images: &Images,
        values: &str,
    ) -> anyhow::Result<String> {
        let folder = tempfile::Builder::new().prefix("flutecast-values-").tempdir()?;
        let files = [("base.yaml", base_values(self.cluster, images)), ("own.yaml", values.to_owned())];
        let (chart, timeout) = (chart.display().to_string(), format!("{}s", ROLLOUT.as_secs()));
        let mut args =
            vec![verb.to_owned(), self.name.clone(), chart, "--wait".into(), "--timeout".into(), timeout];
        for (file, text) in files {
            let path = folder.path().join(file);
            std::fs::write(&path, text)?;
            args.extend(["--values".to_owned(), path.display().to_string()]);
        }
        // A failed installation may leave objects behind as well.
        self.installed = true;
        let args: Vec<_> = args.iter().map(String::as_str).collect();
        self.run_helm(&args).await
    }

    /// Runs `helm upgrade` with this repository's chart.
    ///
    /// # Errors
    /// If helm fails.
    pub async fn upgrade(&mut self, images: &Images, values: &str) -> anyhow::Result<String> {
        self.helm("upgrade", &in_repository("charts/flutecast"), images, values).await
    }

    /// Runs `helm rollback` to the previous revision.
    ///
    /// # Errors
    /// If helm fails.
    pub async fn rollback(&self) -> anyhow::Result<String> {
        let timeout = format!("{}s", ROLLOUT.as_secs());
        self.run_helm(&["rollback", &self.name, "--wait", "--timeout", &timeout]).await
    }

    /// Runs `helm uninstall` and waits until the release's pods are gone.
    ///
    /// # Errors
    /// If helm fails, or a pod is left.
    pub async fn uninstall(&mut self) -> anyhow::Result<()> {
        self.run_helm(&["uninstall", &self.name, "--wait", "--timeout", "120s"]).await?;
        self.installed = false;
        let instance = format!("app.kubernetes.io/instance={}", self.name);
        wait_until("the end of all pods", SOON, async || {
            match self.kubectl(&["get", "pods", "-l", &instance, "-o", "name"]).await {
                Ok(pods) if pods.trim().is_empty() => Ok(()),
                Ok(pods) => Err(pods),
                Err(error) => Err(format!("{error:#}")),
            }
        })
        .await
    }

    /// Runs helm in the release's namespace.
    ///
    /// # Errors
    /// If helm fails.
    pub async fn run_helm(&self, args: &[&str]) -> anyhow::Result<String> {
        self.cluster.helm(&[args, &["--namespace", &self.namespace]].concat(), ROLLOUT + SOON).await
    }

    /// Runs kubectl in the release's namespace.
    ///
    /// # Errors
    /// If kubectl fails.
    pub async fn kubectl(&self, args: &[&str]) -> anyhow::Result<String> {
        self.kubectl_with(args, "").await
    }

    /// Runs kubectl in the release's namespace with `input` on standard input.
    ///
    /// # Errors
    /// If kubectl fails.
    pub async fn kubectl_with(&self, args: &[&str], input: &str) -> anyhow::Result<String> {
        self.cluster
            .kubectl_with(&[&["--namespace", self.namespace.as_str()], args].concat(), input, SOON)
            .await
    }

    /// Applies manifests by server-side apply, as the chart's notes recommend.
    ///
    /// # Errors
    /// If kubectl fails.
    pub async fn apply(&self, manifests: &str) -> anyhow::Result<()> {
        self.kubectl_with(&["apply", "--server-side", "--filename", "-"], manifests).await.map(drop)
    }

    /// Applies a folder of this repository, such as `manifests/demo`.
    ///
    /// # Errors
    /// If kubectl fails.
    pub async fn apply_folder(&self, folder: &str) -> anyhow::Result<()> {
        let folder = in_repository(folder).display().to_string();
        self.kubectl(&["apply", "--server-side", "--recursive", "--filename", &folder]).await.map(drop)
    }

    /// Waits until each Tenant, Device and PushFormat of the namespace is Ready.
    ///
    /// # Errors
    /// If an object isn't Ready in time.
    pub async fn wait_ready(&self) -> anyhow::Result<()> {
        let wait = ["wait", "--for=condition=Ready", "--timeout=80s", "--all", "ft,fd,fpf"];
        self.kubectl(&wait).await.map(drop)
    }

    /// Scales a component (`operator`, `dataplane`), and waits until exactly `replicas` pods exist and are
    /// ready.
    ///
    /// # Errors
    /// If that takes too long.
    pub async fn scale(&self, component: &str, replicas: u32) -> anyhow::Result<()> {
        let deployment = format!("deployment/{}", self.full_name(&format!("-{component}")));
        self.kubectl(&["scale", &deployment, &format!("--replicas={replicas}")]).await?;
        self.kubectl(&["rollout", "status", &deployment, "--timeout=80s"]).await?;
        self.wait_for_pods(component, replicas as usize).await.map(drop)
    }

    /// Returns the address of the data plane's Service.
    ///
    /// # Errors
    /// If there is none.
    pub async fn dataplane(&self) -> anyhow::Result<ServiceAddress> {
        self.cluster.reach(&self.namespace, &self.full_name(""), HTTP).await
    }

    /// Returns the chart's name for an object: `full_name("-nats")`.
    #[must_use]
    pub fn full_name(&self, suffix: &str) -> String {
        let name = &self.name;
        if name.contains("flutecast") {
            format!("{name}{suffix}")
        } else {
            format!("{name}-flutecast{suffix}")
        }
    }

    /// Returns the name of the release's namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    #[must_use]
    pub fn cluster(&self) -> &'a Cluster {
        self.cluster
    }

    /// Returns the last log lines of all pods of a component (`operator`, `dataplane`, `nats`).
    ///
    /// # Errors
    /// If kubectl fails.
    pub async fn logs(&self, component: &str, lines: u32) -> anyhow::Result<String> {
        let (selector, tail) = (self.selector(component), format!("--tail={lines}"));
        self.kubectl(&["logs", "-l", &selector, "--prefix", "--max-log-requests=20", &tail]).await
    }

    fn selector(&self, component: &str) -> String {
        format!("app.kubernetes.io/instance={},app.kubernetes.io/component={component}", self.name)
    }

    /// Returns a blocking kubectl command, for use in `drop`.
    fn kubectl_now(&self) -> Command {
        let mut kubectl = Command::new(self.cluster.program());
        kubectl.arg("--kubeconfig").arg(self.cluster.kubeconfig());
        kubectl.args(["--request-timeout", "10s", "--namespace", &self.namespace]).stdin(Stdio::null());
        kubectl
    }

    /// Removes the release's cluster-wide objects.
    fn remove_from_cluster(&self) {
        let selector = format!("app.kubernetes.io/instance={}", self.name);
        let kinds = "validatingadmissionpolicies,validatingadmissionpolicybindings,priorityclasses";
        let mut list = self.kubectl_now();
        list.args(["get", kinds, "--selector", &selector, "-o", "name"]);
        let Ok(list) = list.output() else { return };
        let list = String::from_utf8_lossy(&list.stdout);
        // Releases in other namespaces may have the same name.
        let own: Vec<_> =
            list.lines().filter(|name| name.contains(&format!("/{}-", self.namespace))).collect();
        if !own.is_empty() {
            let _ =
                self.kubectl_now().args(["delete", "--wait=false"]).args(own).stdout(Stdio::null()).status();
        }
    }

    /// Prints the state of the namespace.
    fn explain(&self) {
        for look in LOOKS {
            let output = self.kubectl_now().args(look.split(' ')).output();
            let text = output.map(|output| [output.stdout, output.stderr].concat()).unwrap_or_default();
            eprintln!(
                "--- kubectl -n {} {look}\n{}",
                self.namespace,
                String::from_utf8_lossy(&text).trim_end()
            );
        }
    }
}

impl Drop for Release<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.explain();
        }
        if self.installed {
            self.remove_from_cluster();
        }
    }
}

/// Returns the values that every release of a test needs: our images, small resource requests, and the
/// subjects of the demo's gateways.
fn base_values(cluster: &Cluster, images: &Images) -> String {
    let operator = cluster.image("flutecast.io/flutecast-operator");
    let registry = operator.trim_end_matches("/flutecast-operator");
    let tag = images.version();
    let (_, nats) = images::NATS_IMAGE.rsplit_once('/').unwrap_or_default();
    let (nats, nats_tag) = nats.split_once(':').unwrap_or_default();
    format!(
        "image: {{registry: {registry:?}, tag: {tag:?}}}\n\
         operator: {{resources: {{requests: {{cpu: 20m}}}}}}\n\
         dataplane: {{resources: {{requests: {{cpu: 20m}}}}}}\n\
         nats:\n  bundled:\n    enabled: true\n    \
         image: {{repository: {nats:?}, tag: {nats_tag:?}}}\n    \
         sourceSubjects: [\"plant.>\", mes.out]\n    \
         jetstream: {{maxMemory: 64Mi, maxFile: 1Gi}}\n    persistence: {{size: 1Gi}}\n    \
         resources: {{requests: {{cpu: 20m}}}}\n"
    )
}

/// Decodes a value of a Secret.
fn decoded(base64: &str) -> anyhow::Result<String> {
    let bytes = data_encoding::BASE64.decode(base64.trim().as_bytes()).context("base64 of a Secret")?;
    let text = String::from_utf8(bytes)?;
    ensure!(!text.is_empty(), "the Secret holds nothing");
    Ok(text)
}
