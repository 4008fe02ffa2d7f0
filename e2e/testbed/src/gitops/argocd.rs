//! Argo CD without its user interface: application controller, repo server, ApplicationSet controller, redis.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use flutecast_testkit::{http_client, in_repository, wait_until};
use serde_json::{Value, json};

use crate::cluster::{AddOn, Cluster, Component, Start, path_variable};
use crate::tools;

/// The namespace of Argo CD and of its Applications.
const NAMESPACE: &str = "argocd";
/// Argo CD's definitions and ConfigMaps, in its module.
const OBJECTS: [&str; 6] = [
    "manifests/crds/application-crd.yaml",
    "manifests/crds/applicationset-crd.yaml",
    "manifests/crds/appproject-crd.yaml",
    "manifests/base/config/argocd-cm.yaml",
    "manifests/base/config/argocd-cmd-params-cm.yaml",
    "manifests/base/config/argocd-secret.yaml",
];
/// What the repo server of 3.6 runs for each commit, signed or not.
const VERIFY: &str = "hack/git-verify-wrapper.sh";
/// What a factory's manifests ask of Argo CD's ConfigMap.
const OURS: &str = "manifests/argocd/argocd-cm.yaml";
/// The ports, of which only the node has these.
const REDIS: u16 = 6379;
const REPO_SERVER: u16 = 8081;
const CONTROLLER_METRICS: u16 = 8082;
const REPO_SERVER_METRICS: u16 = 8084;
const APPLICATIONSET_METRICS: u16 = 8085;
const APPLICATIONSET_HEALTH: u16 = 8086;
/// Time limit for a start on a busy machine.
const START: Duration = Duration::from_secs(120);
/// Time limit for one call of kubectl.
const SOON: Duration = Duration::from_secs(60);

/// Argo CD on a cluster, which ends when this is dropped unless it ran before.
#[derive(Debug)]
pub struct Argocd<'a> {
    cluster: &'a Cluster,
    add_on: AddOn,
}

/// An Application as the API server has it.
#[derive(Debug, Clone)]
pub struct Application(pub Value);

impl<'a> Argocd<'a> {
    /// Starts Argo CD with its own defaults and `manifests/argocd/argocd-cm.yaml`. What an earlier Argo CD
    /// left in its namespace is removed.
    ///
    /// # Errors
    /// On an existing cluster, or if it isn't ready after two minutes.
    pub async fn start(cluster: &'a Cluster) -> anyhow::Result<Self> {
        Self::start_with(cluster, &[], &[]).await
    }

    /// Starts Argo CD with further entries of the ConfigMaps `argocd-cm` and `argocd-cmd-params-cm`. If it
    /// runs with others, it is started again.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_with(
        cluster: &'a Cluster,
        config: &[(&str, &str)],
        parameters: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        let running = is_running(cluster).await?;
        if !running {
            remove_applications(cluster).await?;
            cluster
                .kubectl(&["delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=55s"])
                .await?;
        }
        make_objects(cluster, config, parameters).await?;
        let mut commands = Vec::new();
        for component in Component::ARGOCD {
            commands.push((component, start(cluster, component).await?));
        }
        let this = Self { cluster, add_on: AddOn::start(cluster, &commands).await? };
        this.wait_until_ready().await?;
        Ok(this)
    }

    /// Lets Argo CD run until the cluster ends.
    pub fn keep(self) {
        self.add_on.keep();
    }

    /// Returns an Application.
    ///
    /// # Errors
    /// If there is none of this name.
    pub async fn application(&self, name: &str) -> anyhow::Result<Application> {
        let args = ["-n", NAMESPACE, "get", "applications.argoproj.io", name, "-o", "json"];
        let text = self.cluster.kubectl(&args).await?;
        Ok(Application(serde_json::from_str(&text).with_context(|| name.to_owned())?))
    }

    /// Asks for a comparison with git, as a webhook does: by itself Argo CD looks every two to three minutes.
    ///
    /// # Errors
    /// If there is no such Application.
    pub async fn refresh(&self, name: &str) -> anyhow::Result<()> {
        let refresh = "argocd.argoproj.io/refresh=normal";
        let args = ["-n", NAMESPACE, "annotate", "applications.argoproj.io", name, "--overwrite", refresh];
        self.cluster.kubectl(&args).await.map(drop)
    }

    /// Waits until an Application is Synced and Healthy, at this revision if one is given.
    ///
    /// # Errors
    /// If it isn't in time.
    pub async fn wait_healthy(
        &self,
        name: &str,
        revision: Option<&str>,
        deadline: Duration,
    ) -> anyhow::Result<Application> {
        wait_until(&format!("the Application {name}"), deadline, async || {
            let application = self.application(name).await?;
            let there = revision.is_none_or(|revision| application.revision() == revision);
            ensure!(there && application.is("Synced", "Healthy"), "{}", application.summary());
            Ok(application)
        })
        .await
    }

    /// Returns the metrics of the application controller as text.
    ///
    /// # Errors
    /// If it doesn't answer.
    pub async fn metrics(&self) -> anyhow::Result<String> {
        http_client::get_text(&address(self.cluster, CONTROLLER_METRICS, "metrics")?).await
    }

    /// Returns the path of the log of one of its components.
    ///
    /// # Errors
    /// On an existing cluster.
    pub fn log(&self, component: Component) -> anyhow::Result<PathBuf> {
        Ok(self.cluster.dir()?.path(&format!("logs/{component}.log")))
    }

    async fn wait_until_ready(&self) -> anyhow::Result<()> {
        for (port, path) in [
            (CONTROLLER_METRICS, "healthz"),
            (REPO_SERVER_METRICS, "healthz"),
            (APPLICATIONSET_METRICS, "metrics"),
        ] {
            let url = address(self.cluster, port, path)?;
            let ready = wait_until("Argo CD", START, async || http_client::get_text(&url).await).await;
            ready.with_context(|| {
                format!(
                    "{url}; see {}",
                    self.cluster.dir().map_or_else(|_| String::new(), |dir| dir.text("logs"))
                )
            })?;
        }
        Ok(())
    }
}

impl Application {
    /// Returns a text below a JSON pointer; empty if there is none.
    #[must_use]
    pub fn text(&self, pointer: &str) -> &str {
        self.0.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    /// Returns the revision that it was compared with last.
    #[must_use]
    pub fn revision(&self) -> &str {
        self.text("/status/sync/revision")
    }

    #[must_use]
    pub fn is(&self, sync: &str, health: &str) -> bool {
        self.text("/status/sync/status") == sync && self.text("/status/health/status") == health
    }

    /// Returns its state in one line.
    #[must_use]
    pub fn summary(&self) -> String {
        let conditions = self.0.pointer("/status/conditions").map(Value::to_string).unwrap_or_default();
        format!(
            "{}: {} {} at {:.8}; operation {} {}; {conditions}",
            self.text("/metadata/name"),
            self.text("/status/sync/status"),
            self.text("/status/health/status"),
            self.revision(),
            self.text("/status/operationState/phase"),
            self.text("/status/operationState/message"),
        )
    }
}

fn address(cluster: &Cluster, port: u16, path: &str) -> anyhow::Result<String> {
    Ok(format!("http://{}:{port}/{path}", cluster.dir()?.node_address()))
}

async fn is_running(cluster: &Cluster) -> anyhow::Result<bool> {
    let statuses = cluster.node()?.request(crate::cluster::Request::Status).await?;
    let runs =
        |component| statuses.iter().any(|status| status.component == component && status.pid.is_some());
    Ok(Component::ARGOCD.into_iter().all(runs))
}

/// Removes all Applications and what makes them, and nothing that they have brought. Works without Argo
/// CD, for whom their finalizers wait.
///
/// # Errors
/// If kubectl fails.
pub async fn remove_applications(cluster: &Cluster) -> anyhow::Result<()> {
    for kind in ["applicationsets.argoproj.io", "applications.argoproj.io"] {
        let list = ["-n", NAMESPACE, "get", kind, "-o", "name"];
        // There are none before the kind is there.
        let names = cluster.kubectl(&list).await.unwrap_or_default();
        for name in names.split_whitespace() {
            let patch = r#"{"metadata": {"finalizers": null}}"#;
            let delete = ["-n", NAMESPACE, "delete", name, "--ignore-not-found", "--wait=false"];
            // One that another one held may go at any moment.
            let _ =
                cluster.kubectl(&["-n", NAMESPACE, "patch", name, "--type=merge", "--patch", patch]).await;
            cluster.kubectl(&delete).await?;
        }
    }
    Ok(())
}

/// Installs Argo CD's kinds and settings, and ours as a user would.
async fn make_objects(
    cluster: &Cluster,
    config: &[(&str, &str)],
    parameters: &[(&str, &str)],
) -> anyhow::Result<()> {
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    cluster.apply(&namespace.to_string()).await?;
    let files = tokio::task::spawn_blocking(|| OBJECTS.map(|path| tools::argocd().module_file(path)));
    // The definitions are too large for the annotation of a client-side apply.
    let mut apply = vec!["-n", NAMESPACE, "apply", "--server-side", "--force-conflicts", "--filename", "-"];
    for file in files.await? {
        let text = fs::read_to_string(file?)?;
        cluster.kubectl_with(&apply, &text, SOON).await?;
    }
    let kinds =
        ["applications", "applicationsets", "appprojects"].map(|kind| format!("crd/{kind}.argoproj.io"));
    let mut wait = vec!["wait", "--for=condition=Established", "--timeout=50s"];
    wait.extend(kinds.iter().map(String::as_str));
    cluster.kubectl(&wait).await?;

    apply.push("--field-manager=flutecast-testbed");
    let (redis, repo_server) = (format!("127.0.0.1:{REDIS}"), format!("127.0.0.1:{REPO_SERVER}"));
    let places = [("redis.server", redis.as_str()), ("repo.server", repo_server.as_str())];
    // Argo CD's own server makes these two, which doesn't run here.
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "argocd-secret"},
        "stringData": {"server.secretkey": "only-for-tests"}});
    let project = json!({"apiVersion": "argoproj.io/v1alpha1", "kind": "AppProject",
        "metadata": {"name": "default"},
        "spec": {"sourceRepos": ["*"], "destinations": [{"server": "*", "namespace": "*"}],
            "clusterResourceWhitelist": [{"group": "*", "kind": "*"}]}});
    for object in [
        config_map("argocd-cm", config),
        config_map("argocd-cmd-params-cm", &[parameters, &places].concat()),
        secret,
        project,
    ] {
        cluster.kubectl_with(&apply, &object.to_string(), SOON).await?;
    }
    // The command that docs/gitops.md gives.
    let ours = in_repository(OURS).display().to_string();
    cluster
        .kubectl(&["-n", NAMESPACE, "patch", "configmap", "argocd-cm", "--patch-file", &ours])
        .await
        .map(drop)
}

fn config_map(name: &str, entries: &[(&str, &str)]) -> Value {
    let data: BTreeMap<_, _> = entries.iter().copied().collect();
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
}

/// Returns the command of a component. Its environment is that of its pod in Argo CD's own manifests.
async fn start(cluster: &Cluster, component: Component) -> anyhow::Result<Start> {
    let dir = cluster.dir()?;
    let program = tokio::task::spawn_blocking(move || component.program()).await??;
    let temporary = dir.path("argocd");
    fs::create_dir_all(&temporary).with_context(|| format!("{}", temporary.display()))?;
    let (args, pod) = match component {
        Component::RedisServer => {
            let args = format!("--port {REDIS} --bind 127.0.0.1 --appendonly no --save");
            let mut args: Vec<_> = args.split(' ').map(str::to_owned).collect();
            args.extend([String::new(), "--dir".to_owned(), temporary.display().to_string()]);
            return Ok(Start::new(program, args));
        }
        Component::ArgocdRepoServer => (
            format!("--port {REPO_SERVER} --metrics-port {REPO_SERVER_METRICS}"),
            "manifests/base/repo-server/argocd-repo-server-deployment.yaml",
        ),
        Component::ArgocdApplicationsetController => (
            format!(
                "--metrics-addr :{APPLICATIONSET_METRICS} --probe-addr :{APPLICATIONSET_HEALTH} --namespace \
                 {NAMESPACE}"
            ),
            "manifests/base/applicationset-controller/argocd-applicationset-controller-deployment.yaml",
        ),
        _ => (
            format!("--metrics-port {CONTROLLER_METRICS} --namespace {NAMESPACE}"),
            "manifests/base/application-controller/argocd-application-controller-statefulset.yaml",
        ),
    };
    let mut env = environment(cluster, pod).await?;
    let helm = tokio::task::spawn_blocking(|| tools::HELM.path()).await??;
    let helm = helm.parent().context("helm has a folder")?;
    let script = tokio::task::spawn_blocking(|| tools::argocd().module_file(VERIFY)).await??;
    // Modules don't say what can be run.
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    let scripts = script.parent().context("a script has a folder")?;
    let of_ours = [
        ("ARGOCD_BINARY_NAME", component.name().to_owned()),
        // The cluster of the kubeconfig is then `https://kubernetes.default.svc`, as in a pod.
        ("ARGOCD_FAKE_IN_CLUSTER", "true".to_owned()),
        ("ARGOCD_GPG_ENABLED", "false".to_owned()),
        ("KUBECONFIG", cluster.kubeconfig().display().to_string()),
        ("NAMESPACE", NAMESPACE.to_owned()),
        ("PATH", format!("{}:{}:{}", helm.display(), scripts.display(), path_variable())),
        // What it would keep in /tmp and /app, which all clusters of the machine share.
        ("TMPDIR", temporary.display().to_string()),
        ("ARGOCD_ASK_PASS_SOCK", dir.text("argocd/ask-pass.sock")),
        ("ARGOCD_TLS_DATA_PATH", dir.text("argocd/tls")),
        ("ARGOCD_SSH_DATA_PATH", dir.text("argocd/ssh")),
        ("ARGOCD_PLUGINSOCKFILEPATH", dir.text("argocd/plugins")),
    ];
    env.extend(of_ours.map(|(name, value)| (name.to_owned(), value)));
    let args = args.split(' ').map(str::to_owned).collect();
    Ok(Start { env, ..Start::new(program, args) })
}

/// Returns the variables of a pod of Argo CD's manifests that come from a ConfigMap with such an entry.
async fn environment(cluster: &Cluster, pod: &'static str) -> anyhow::Result<BTreeMap<String, String>> {
    let file = tokio::task::spawn_blocking(|| tools::argocd().module_file(pod)).await??;
    let workload: Value = serde_yaml::from_str(&fs::read_to_string(file)?).context(pod)?;
    let containers = &workload["spec"]["template"]["spec"]["containers"];
    let text = cluster.kubectl(&["-n", NAMESPACE, "get", "configmaps", "-o", "json"]).await?;
    let maps: Value = serde_json::from_str(&text)?;
    let entry = |name: &Value, key: &Value| {
        let map = maps["items"].as_array()?.iter().find(|map| map["metadata"]["name"] == *name)?;
        map["data"][key.as_str()?].as_str().map(str::to_owned)
    };
    let variables = containers[0]["env"].as_array().with_context(|| format!("{pod} has no variables"))?;
    let value = |variable: &Value| {
        let from = &variable["valueFrom"]["configMapKeyRef"];
        Some((variable["name"].as_str()?.to_owned(), entry(&from["name"], &from["key"])?))
    };
    Ok(variables.iter().filter_map(value).collect())
}
