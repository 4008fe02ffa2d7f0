//! Flux: source-controller, kustomize-controller and helm-controller.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use flutecast_testkit::{http_client, wait_until};
use serde_json::{Value, json};

use crate::cluster::{AddOn, Cluster, Component, Request, Start};

/// The kinds' definitions, each in the module of its controller.
const KINDS: [(Component, &str); 4] = [
    (Component::SourceController, "source.toolkit.fluxcd.io_gitrepositories"),
    (Component::SourceController, "source.toolkit.fluxcd.io_helmcharts"),
    (Component::KustomizeController, "kustomize.toolkit.fluxcd.io_kustomizations"),
    (Component::HelmController, "helm.toolkit.fluxcd.io_helmreleases"),
];
/// Kinds that source-controller watches, and that nothing here makes.
const OTHER_SOURCES: [&str; 4] = ["buckets", "externalartifacts", "helmrepositories", "ocirepositories"];
/// The kinds whose objects wait for a controller when they are deleted.
const WITH_FINALIZERS: [&str; 4] = [
    "kustomizations.kustomize.toolkit.fluxcd.io",
    "helmreleases.helm.toolkit.fluxcd.io",
    "helmcharts.source.toolkit.fluxcd.io",
    "gitrepositories.source.toolkit.fluxcd.io",
];
/// The port at which the others fetch what source-controller packed.
const ARTIFACTS: u16 = 9090;
/// The ports of metrics and health, in the order of [`Component::FLUX`]. Only the node has these.
const PORTS: [(u16, u16); 3] = [(9181, 9441), (9182, 9442), (9183, 9443)];
/// Time limit for a start on a busy machine.
const START: Duration = Duration::from_secs(120);
/// Time limit for one call of kubectl.
const SOON: Duration = Duration::from_secs(60);

/// Flux on a cluster, which ends when this is dropped unless it ran before.
#[derive(Debug)]
pub struct Flux<'a> {
    cluster: &'a Cluster,
    add_on: AddOn,
}

/// A Kustomization, HelmRelease or GitRepository as the API server has it.
#[derive(Debug, Clone)]
pub struct FluxObject(pub Value);

impl<'a> Flux<'a> {
    /// The namespace of Flux's own objects.
    pub const NAMESPACE: &'static str = "flux-system";

    /// Starts Flux's controllers with their own defaults. What an earlier Flux left behind is removed.
    ///
    /// # Errors
    /// On an existing cluster, or if they aren't ready after two minutes.
    pub async fn start(cluster: &'a Cluster) -> anyhow::Result<Self> {
        Self::start_with(cluster, &[]).await
    }

    /// Starts Flux's controllers with further options for all three, such as a feature gate. One that runs
    /// with others is started again.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_with(cluster: &'a Cluster, options: &[&str]) -> anyhow::Result<Self> {
        if !is_running(cluster).await? {
            remove_flux_objects(cluster).await?;
        }
        make_objects(cluster).await?;
        let mut commands = Vec::new();
        for (component, ports) in Component::FLUX.into_iter().zip(PORTS) {
            commands.push((component, start(cluster, component, ports, options).await?));
        }
        let this = Self { cluster, add_on: AddOn::start(cluster, &commands).await? };
        for (component, (_, health)) in Component::FLUX.into_iter().zip(PORTS) {
            let url = format!("http://{}:{health}/readyz", cluster.dir()?.node_address());
            let ready = wait_until("readiness", START, async || http_client::get_text(&url).await).await;
            ready.with_context(|| format!("{component}, whose log is {}", this.log_text(component)))?;
        }
        Ok(this)
    }

    /// Lets Flux run until the cluster ends.
    pub fn keep(self) {
        self.add_on.keep();
    }

    /// Returns an object of Flux: `kustomization/plant-1`.
    ///
    /// # Errors
    /// If there is none.
    pub async fn object(&self, namespace: &str, name: &str) -> anyhow::Result<FluxObject> {
        let text = self.cluster.kubectl(&["-n", namespace, "get", name, "-o", "json"]).await?;
        Ok(FluxObject(serde_json::from_str(&text).with_context(|| name.to_owned())?))
    }

    /// Asks a controller to look at an object now, as a webhook or `flux reconcile` does.
    ///
    /// # Errors
    /// If there is no such object.
    pub async fn reconcile(&self, namespace: &str, name: &str) -> anyhow::Result<()> {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_nanos();
        let request = format!("reconcile.fluxcd.io/requestedAt={now}");
        let args = ["-n", namespace, "annotate", "--overwrite", name, &request];
        self.cluster.kubectl(&args).await.map(drop)
    }

    /// Waits until an object satisfies `wanted`, and returns it.
    ///
    /// # Errors
    /// If it doesn't in time; the error says what it said last.
    pub async fn wait_until(
        &self,
        what: &str,
        (namespace, name): (&str, &str),
        deadline: Duration,
        wanted: impl Fn(&FluxObject) -> bool,
    ) -> anyhow::Result<FluxObject> {
        wait_until(&format!("{name}: {what}"), deadline, async || {
            let object = self.object(namespace, name).await?;
            ensure!(wanted(&object), "{}", object.summary());
            Ok(object)
        })
        .await
    }

    /// Waits until a Kustomization has applied a revision and all of it is healthy.
    ///
    /// # Errors
    /// If it isn't in time.
    pub async fn wait_applied(
        &self,
        name: &str,
        revision: &str,
        deadline: Duration,
    ) -> anyhow::Result<FluxObject> {
        let name = format!("kustomization/{name}");
        let applied = |object: &FluxObject| object.is_ready() && object.revision().ends_with(revision);
        self.wait_until(&format!("Ready at {revision:.8}"), (Flux::NAMESPACE, &name), deadline, applied).await
    }

    /// Returns the metrics of a controller as text.
    ///
    /// # Errors
    /// If it doesn't answer.
    pub async fn metrics(&self, component: Component) -> anyhow::Result<String> {
        let at = Component::FLUX.iter().position(|one| *one == component).context("not one of Flux's")?;
        let url = format!("http://{}:{}/metrics", self.cluster.dir()?.node_address(), PORTS[at].0);
        http_client::get_text(&url).await
    }

    /// Returns the path of the log of a controller.
    ///
    /// # Errors
    /// On an existing cluster.
    pub fn log(&self, component: Component) -> anyhow::Result<PathBuf> {
        Ok(self.cluster.dir()?.path(&format!("logs/{component}.log")))
    }

    fn log_text(&self, component: Component) -> String {
        self.log(component).map(|path| path.display().to_string()).unwrap_or_default()
    }
}

impl FluxObject {
    /// Returns a text below a JSON pointer; empty if there is none.
    #[must_use]
    pub fn text(&self, pointer: &str) -> &str {
        self.0.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    /// Returns a condition; `Null` if there is none.
    #[must_use]
    pub fn condition(&self, kind: &str) -> &Value {
        let conditions = self.0.pointer("/status/conditions").and_then(Value::as_array);
        conditions.into_iter().flatten().find(|one| one["type"] == kind).unwrap_or(&Value::Null)
    }

    /// Returns whether it is Ready, by a status of its newest spec.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.condition("Ready")["status"] == "True"
            && self.0["status"]["observedGeneration"] == self.0["metadata"]["generation"]
    }

    /// Returns the reason and the message of the condition Ready if it is False; empty otherwise.
    #[must_use]
    pub fn failure(&self) -> String {
        let ready = self.condition("Ready");
        if ready["status"] != "False" {
            return String::new();
        }
        let text = |key: &str| ready[key].as_str().unwrap_or_default().to_owned();
        format!("{}: {}", text("reason"), text("message"))
    }

    /// Returns the revision of a Kustomization that was applied last, `main@sha1:…`.
    #[must_use]
    pub fn revision(&self) -> &str {
        self.text("/status/lastAppliedRevision")
    }

    /// Returns its state in one line.
    #[must_use]
    pub fn summary(&self) -> String {
        let ready = self.condition("Ready");
        format!(
            "{} {}: Ready {} {}: {}; applied {}, tried {}",
            self.text("/kind"),
            self.text("/metadata/name"),
            ready["status"],
            ready["reason"],
            ready["message"],
            self.revision(),
            self.text("/status/lastAttemptedRevision"),
        )
    }
}

async fn is_running(cluster: &Cluster) -> anyhow::Result<bool> {
    let statuses = cluster.node()?.request(Request::Status).await?;
    let runs =
        |component| statuses.iter().any(|status| status.component == component && status.pid.is_some());
    Ok(Component::FLUX.into_iter().all(runs))
}

/// Removes all objects of Flux, without what they hold. Their finalizers would wait in vain for a Flux that
/// runs no more.
///
/// # Errors
/// If kubectl fails.
pub async fn remove_flux_objects(cluster: &Cluster) -> anyhow::Result<()> {
    for kind in WITH_FINALIZERS {
        let names = r#"jsonpath={range .items[*]}{.metadata.namespace} {.metadata.name}{"\n"}{end}"#;
        // There are no objects before the kind is there.
        let objects = cluster.kubectl(&["get", kind, "-A", "-o", names]).await.unwrap_or_default();
        for (namespace, name) in objects.lines().filter_map(|line| line.split_once(' ')) {
            let patch = r#"{"metadata": {"finalizers": null}}"#;
            cluster
                .kubectl(&["-n", namespace, "patch", kind, name, "--type=merge", "--patch", patch])
                .await?;
            cluster.kubectl(&["-n", namespace, "delete", kind, name, "--ignore-not-found"]).await?;
        }
    }
    Ok(())
}

/// Installs Flux's kinds and its namespace.
async fn make_objects(cluster: &Cluster) -> anyhow::Result<()> {
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": Flux::NAMESPACE}});
    cluster.apply(&namespace.to_string()).await?;
    let others =
        OTHER_SOURCES.map(|kind| (Component::SourceController, format!("source.toolkit.fluxcd.io_{kind}")));
    let all = KINDS.map(|(component, kind)| (component, kind.to_owned())).into_iter().chain(others);
    let files = tokio::task::spawn_blocking(|| {
        let file = |(component, kind): (Component, String)| {
            let tool = component.tool().context("Flux is pinned")?;
            tool.module_file(&format!("config/crd/bases/{kind}.yaml"))
        };
        all.map(file).collect::<anyhow::Result<Vec<_>>>()
    });
    let mut definitions = String::new();
    for file in files.await?? {
        definitions.push_str(&fs::read_to_string(file)?);
        definitions.push_str("\n---\n");
    }
    // They are too large for the annotation of a client-side apply.
    let apply = ["apply", "--server-side", "--force-conflicts", "--filename", "-"];
    cluster.kubectl_with(&apply, &definitions, SOON).await?;
    let mut wait = vec!["wait", "--for=condition=Established", "--timeout=50s"];
    let kinds = WITH_FINALIZERS.map(|kind| format!("customresourcedefinition/{kind}"));
    wait.extend(kinds.iter().map(String::as_str));
    cluster.kubectl(&wait).await.map(drop)
}

/// Returns the command of a controller. Its options are those of its pod in Flux's own manifests, without the
/// election of a leader, which takes half a minute after a kill.
async fn start(
    cluster: &Cluster,
    component: Component,
    (metrics, health): (u16, u16),
    options: &[&str],
) -> anyhow::Result<Start> {
    let dir = cluster.dir()?;
    let program = tokio::task::spawn_blocking(move || component.program()).await??;
    let (temporary, artifacts) = (dir.path("flux/tmp"), dir.path("flux/artifacts"));
    for folder in [&temporary, &artifacts] {
        fs::create_dir_all(folder).with_context(|| format!("{}", folder.display()))?;
    }
    let mut args = vec![
        "--watch-all-namespaces".to_owned(),
        "--log-level=info".to_owned(),
        format!("--metrics-addr=:{metrics}"),
        format!("--health-addr=:{health}"),
    ];
    if component == Component::SourceController {
        let address = format!("{}:{ARTIFACTS}", dir.node_address());
        args.push(format!("--storage-path={}", artifacts.display()));
        args.push(format!("--storage-addr=:{ARTIFACTS}"));
        args.push(format!("--storage-adv-addr={address}"));
    }
    args.extend(options.iter().map(|option| (*option).to_owned()));
    let mut start = Start::new(program, args);
    start.env.insert("KUBECONFIG".to_owned(), cluster.kubeconfig().display().to_string());
    start.env.insert("RUNTIME_NAMESPACE".to_owned(), Flux::NAMESPACE.to_owned());
    // What it would keep in /tmp, which all clusters of the machine share.
    start.env.insert("TMPDIR".to_owned(), temporary.display().to_string());
    Ok(start)
}
