//! A real API server with Flutecast's CRDs, a real nats-server, and the operator as a process.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use flutecast_testkit::{ApiServer, NatsServer, Process, ProcessOptions, free_port, http_client, wait_until};
use serde_json::Value;

pub(crate) const SOON: Duration = Duration::from_secs(30);
/// The namespace of the mapping in these tests, which is not that of the objects.
pub(crate) const OWN: &str = "flutecast-system";

/// Returns a path in the repository.
pub(crate) fn repository(path: &str) -> String {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(path).display().to_string()
}

/// An API server and NATS, with or without an operator.
pub(crate) struct Cluster {
    pub(crate) api: ApiServer,
    pub(crate) nats: NatsServer,
    pub(crate) operator: Option<Running>,
    /// Additional environment of operators that are started.
    pub(crate) env: Vec<(std::ffi::OsString, std::ffi::OsString)>,
    /// Additional arguments of operators that are started.
    pub(crate) arguments: Vec<&'static str>,
}

pub(crate) struct Running {
    pub(crate) process: Process,
    pub(crate) admin: String,
}

impl Cluster {
    /// Starts an API server with the CRDs, and NATS, without an operator.
    pub(crate) async fn start() -> Self {
        let (api, nats) = tokio::join!(ApiServer::start(), NatsServer::start());
        let (api, nats) = (api.unwrap(), nats.unwrap());
        let this = Self { api, nats, operator: None, env: Vec::new(), arguments: Vec::new() };
        this.api.apply_kinds().await.unwrap();
        this.kubectl(&["create", "namespace", OWN]).await;
        this.kubectl(&["apply", "--server-side", "-f", &repository("manifests/operator/rbac.yaml")]).await;
        this
    }

    /// Starts the same with an operator that leads.
    pub(crate) async fn with_operator() -> Self {
        let mut this = Self::start().await;
        this.start_operator().await;
        this
    }

    /// Starts the operator, and waits until it is ready.
    pub(crate) async fn start_operator(&mut self) {
        let running = self.spawn_operator("operator-of-a-test").await;
        running.wait_until_ready().await;
        self.operator = Some(running);
    }

    /// Returns a kubeconfig with the rights of the operator's service account, and no others.
    pub(crate) async fn kubeconfig_of_the_operator(&self) -> PathBuf {
        self.api.kubeconfig_of(OWN, "flutecast-operator").await.unwrap()
    }

    /// Starts an operator under the service account of manifests/operator/rbac.yaml, without waiting for it.
    pub(crate) async fn spawn_operator(&self, identity: &str) -> Running {
        let kubeconfig = self.kubeconfig_of_the_operator().await;
        let admin = format!("127.0.0.1:{}", free_port().unwrap());
        let arguments = [
            "--kubernetes",
            "--nats",
            &self.nats.url(),
            "--admin",
            &admin,
            "--mapping-namespace",
            OWN,
            "--identity",
            identity,
        ];
        let options = ProcessOptions {
            env: [
                ("KUBECONFIG".into(), kubeconfig.into_os_string()),
                ("RUST_LOG".into(), "info,async_nats=warn,kube_runtime=error,kube_client=off".into()),
            ]
            .into_iter()
            .chain(self.env.iter().cloned())
            .collect(),
            ..ProcessOptions::default()
        };
        let program = env!("CARGO_BIN_EXE_flutecast-operator");
        let process = Process::spawn_with(program, arguments.iter().chain(&self.arguments), options).unwrap();
        Running { process, admin: format!("http://{admin}") }
    }

    /// Runs kubectl, which must succeed.
    pub(crate) async fn kubectl(&self, args: &[&str]) -> String {
        self.api.kubectl(args, "").await.unwrap()
    }

    pub(crate) async fn apply(&self, yaml: &str) {
        self.api.kubectl(&["apply", "--server-side", "-f", "-"], yaml).await.unwrap();
    }

    /// Returns an object as JSON; `None` if it doesn't exist.
    pub(crate) async fn get(&self, kind: &str, name: &str, namespace: &str) -> Option<Value> {
        let args = ["get", kind, name, "-n", namespace, "-o", "json", "--ignore-not-found"];
        let text = self.kubectl(&args).await;
        (!text.trim().is_empty()).then(|| serde_json::from_str(&text).unwrap())
    }

    /// Returns all objects of some kinds in a namespace.
    pub(crate) async fn list(&self, kinds: &str, namespace: &str) -> Vec<Value> {
        let text = self.kubectl(&["get", kinds, "-n", namespace, "-o", "json"]).await;
        let list: Value = serde_json::from_str(&text).unwrap();
        list["items"].as_array().unwrap().clone()
    }

    /// Waits until an object has these conditions: `Ready=True Accepted`, followed by `Stalled=…` or
    /// `Reconciling=…`. Returns the message of `Ready`.
    pub(crate) async fn until(&self, kind: &str, name: &str, expected: &str) -> String {
        self.until_within(SOON, kind, name, expected).await
    }

    /// Like [`Self::until`] with another deadline.
    pub(crate) async fn until_within(
        &self,
        deadline: Duration,
        kind: &str,
        name: &str,
        expected: &str,
    ) -> String {
        wait_until(&format!("{kind}/{name} to be {expected}"), deadline, async || {
            let object = self.get(kind, name, "default").await.ok_or("it isn't there")?;
            let (said, message) = said(&object);
            if said == expected { Ok(message) } else { Err(format!("{said}: {message}")) }
        })
        .await
        .unwrap_or_else(|error| panic!("{error:#}\n{}", self.operator_log()))
    }

    /// Waits until all Tenants, PushFormats and Devices are Ready.
    pub(crate) async fn until_all_ready(&self) {
        wait_until("all objects to be ready", SOON, async || self.are_all_ready().await)
            .await
            .unwrap_or_else(|error| panic!("{error:#}\n{}", self.operator_log()));
    }

    /// Checks whether all Tenants, PushFormats and Devices are Ready.
    pub(crate) async fn are_all_ready(&self) -> Result<(), String> {
        for object in self.list("tenants,pushformats,devices", "default").await {
            let (said, message) = said(&object);
            if said != "Ready=True Accepted" {
                return Err(format!("{}: {said} {message}", object["metadata"]["name"]));
            }
        }
        Ok(())
    }

    /// Waits until an object is gone.
    pub(crate) async fn until_gone(&self, kind: &str, name: &str) {
        wait_until(&format!("{kind}/{name} to be gone"), SOON, async || {
            match self.get(kind, name, "default").await {
                None => Ok(()),
                Some(object) => Err(object["metadata"].to_string()),
            }
        })
        .await
        .unwrap();
    }

    /// Returns the last lines of the operator's log.
    pub(crate) fn operator_log(&self) -> String {
        self.operator.as_ref().map(|operator| operator.process.tail()).unwrap_or_default()
    }

    /// Returns the documents of the mapping, by the name of the ConfigMap.
    pub(crate) async fn mapping(&self) -> BTreeMap<String, String> {
        let maps = self.list("configmaps", OWN).await;
        let ours = maps.iter().filter(|map| map["data"]["mapping.yaml"].is_string());
        ours.map(|map| {
            let name = map["metadata"]["name"].as_str().unwrap().to_owned();
            (name, map["data"]["mapping.yaml"].as_str().unwrap().to_owned())
        })
        .collect()
    }

    /// Checks whether the mapping is `expected`, by the name of the ConfigMap.
    pub(crate) async fn is_mapped(&self, expected: &BTreeMap<String, String>) -> Result<(), String> {
        let mapping = self.mapping().await;
        if mapping == *expected { Ok(()) } else { Err(format!("{mapping:#?}\ninstead of {expected:#?}")) }
    }

    /// Waits until the mapping is `expected`.
    pub(crate) async fn until_mapped(&self, expected: &BTreeMap<String, String>) {
        wait_until("the mapping to be as wanted", SOON, async || self.is_mapped(expected).await)
            .await
            .unwrap_or_else(|error| panic!("{error:#}\n{}", self.operator_log()));
    }

    /// Returns the access document.
    pub(crate) async fn access(&self) -> Option<String> {
        let secret = self.get("secret", "flutecast-access", OWN).await?;
        let text = secret["data"]["access.yaml"].as_str()?;
        let bytes = data_encoding::BASE64.decode(text.as_bytes()).unwrap();
        Some(String::from_utf8(bytes).unwrap())
    }

    /// Returns the names of the streams.
    pub(crate) async fn streams(&self) -> Vec<String> {
        let api = flutecast_nats::JetStreamApi::new(self.nats.client().await.unwrap());
        let streams = api.streams().await.unwrap();
        let mut names: Vec<String> =
            streams.iter().map(|stream| stream.config["name"].as_str().unwrap().to_owned()).collect();
        names.sort();
        names
    }

    /// Returns the resource versions of all objects that the operator writes, except the Lease.
    pub(crate) async fn versions(&self) -> BTreeMap<String, String> {
        let mut versions = BTreeMap::new();
        for (kinds, namespace) in [
            ("tenants,devices,pushformats", "default"),
            ("configmaps,secrets", OWN),
            ("events.events.k8s.io", "default"),
        ] {
            for object in self.list(kinds, namespace).await {
                let meta = &object["metadata"];
                let name = format!("{}/{}", object["kind"].as_str().unwrap(), meta["name"].as_str().unwrap());
                versions.insert(name, meta["resourceVersion"].as_str().unwrap().to_owned());
            }
        }
        versions
    }
}

/// Grants or revokes the operator's right to create Devices.
pub(crate) async fn may_create_devices(cluster: &Cluster, may: bool) {
    let rules = std::fs::read_to_string(repository("manifests/operator/rbac.yaml")).unwrap();
    let rule = "  - apiGroups: [flutecast.io]\n    resources: [devices]\n    verbs: [create]\n";
    assert!(rules.contains(rule));
    cluster.apply(&if may { rules } else { rules.replace(rule, "") }).await;
}

impl Running {
    pub(crate) async fn wait_until_ready(&self) {
        let ready = format!("{}/readyz", self.admin);
        wait_until("the operator to be ready", SOON, async || http_client::get_text(&ready).await)
            .await
            .unwrap_or_else(|error| panic!("{error:#}\n{}", self.process.tail()));
    }

    /// Returns the value of a metric, which must exist.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let text = self.metrics().await;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("there is no {name} in\n{text}")).parse().unwrap()
    }

    /// Returns the number of successful writes to the API server that have all these labels, such as
    /// `verb="ApplyStatus"`.
    pub(crate) async fn api_writes(&self, labels: &[&str]) -> f64 {
        let text = self.metrics().await;
        let writes = text.lines().filter(|line| line.starts_with("flutecast_operator_api_writes_total{"));
        let writes = writes.filter(|line| line.contains("result=\"Done\""));
        let writes: Vec<&str> =
            writes.filter(|line| labels.iter().all(|label| line.contains(label))).collect();
        assert!(!writes.is_empty(), "no write can be {labels:?} in\n{text}");
        writes.iter().map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()).sum()
    }

    async fn metrics(&self) -> String {
        http_client::get_text(&format!("{}/metrics", self.admin)).await.unwrap()
    }
}

/// Returns an object's conditions in words, but for `MessagesUnderstood`, and the message of `Ready`.
pub(crate) fn said(object: &Value) -> (String, String) {
    let none = Vec::new();
    let conditions = object["status"]["conditions"].as_array().unwrap_or(&none);
    let mut message = String::new();
    let mut said: Vec<String> = Vec::new();
    for condition in conditions {
        let text = |field: &str| condition[field].as_str().unwrap_or_default();
        if text("type") == "MessagesUnderstood" {
            // Of every Device, and no part of whether it is as wanted.
        } else if text("type") == "Ready" {
            message = text("message").to_owned();
            said.insert(0, format!("Ready={} {}", text("status"), text("reason")));
        } else {
            said.push(format!("{}={}", text("type"), text("status")));
        }
        assert_eq!(condition["observedGeneration"], object["status"]["observedGeneration"], "{object:#}");
    }
    if object["status"]["observedGeneration"] != object["metadata"]["generation"] {
        said.push("(of an older generation)".to_owned());
    }
    (said.join(" "), message)
}

/// Returns the mapping of these manifests by document, as the folder mode writes it.
pub(crate) async fn mapping_of(manifests: &[String]) -> BTreeMap<String, String> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.yaml"), manifests.join("---\n")).unwrap();
    let mut documents = folder_mode(folder.path()).await;
    documents.remove("flutecast-access");
    documents
}

/// Returns what the folder mode writes for a folder of manifests. It has no NATS, for which the mapping
/// doesn't wait.
pub(crate) async fn folder_mode(manifests: &Path) -> BTreeMap<String, String> {
    let mapping = tempfile::tempdir().unwrap();
    let arguments: [&OsStr; 6] = [
        "--manifests".as_ref(),
        manifests.as_os_str(),
        "--mapping-out".as_ref(),
        mapping.path().as_os_str(),
        "--nats".as_ref(),
        "nats://127.0.0.1:1".as_ref(),
    ];
    let program = env!("CARGO_BIN_EXE_flutecast-operator");
    let mut process = Process::spawn(program, arguments).unwrap();
    // The outcomes are printed when the mapping is written.
    process.wait_for_line("an outcome", SOON, |line| line.contains("Tenant/")).await.unwrap();
    let mut documents = BTreeMap::new();
    for file in std::fs::read_dir(mapping.path()).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            documents.insert(name, std::fs::read_to_string(&path).unwrap());
        }
    }
    documents
}
