//! What tests with Argo CD look at: the states that Applications go through, and why they are refreshed.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Seek, SeekFrom};

use flutecast_testbed::cluster::{Cluster, Component};
use flutecast_testbed::gitops::{Argocd, remove_applications, remove_flux_objects};
use flutecast_testkit::Process;
use serde_json::Value;

/// The namespace of the factory in `manifests/argocd/plant-1.yaml`.
pub(crate) const PLANT: &str = "plant-1";
/// Namespaces that factories by Argo CD have, and that of the kinds where tests install them by helm.
const NAMESPACES: [&str; 6] = [PLANT, "plant-a", "plant-b", "plant-c", "flutecast-system", "flutecast-crds"];
const KINDS: [&str; 3] = ["devices.flutecast.io", "pushformats.flutecast.io", "tenants.flutecast.io"];

/// Removes all that factories left on the cluster, the kinds included.
pub(crate) async fn make_bare(cluster: &Cluster) {
    // An Argo CD or a Flux that runs would bring the rest back.
    remove_applications(cluster).await.unwrap();
    remove_flux_objects(cluster).await.unwrap();
    for kind in KINDS {
        let path = "jsonpath={range .items[?(@.metadata.finalizers)]}{.metadata.namespace} \
                    {.metadata.name}{\"\\n\"}{end}";
        // There is nothing to list before the kind is there.
        let held = cluster.kubectl(&["get", kind, "-A", "-o", path]).await.unwrap_or_default();
        for line in held.lines() {
            let (namespace, name) = line.split_once(' ').unwrap();
            let patch = r#"{"metadata": {"finalizers": null}}"#;
            let free = ["-n", namespace, "patch", kind, name, "--type=merge", "--patch", patch];
            // One that is being deleted may go at any moment.
            let _ = cluster.kubectl(&free).await;
        }
    }
    // First the policies: they keep what is in use, and the kinds.
    let policies = "validatingadmissionpolicybindings,validatingadmissionpolicies";
    let ours = "jsonpath={range .items[*]}{.metadata.name}{\"\\n\"}{end}";
    let names = cluster.kubectl(&["get", policies, "-o", ours]).await.unwrap();
    for name in names.lines().filter(|name| name.contains("flutecast")) {
        for kind in policies.split(',') {
            cluster.kubectl(&["delete", kind, name, "--ignore-not-found"]).await.unwrap();
        }
    }
    let delete = ["delete", "customresourcedefinitions", "--ignore-not-found", "--timeout=50s"];
    cluster.kubectl(&[&delete[..], &KINDS].concat()).await.unwrap();
    let delete = ["delete", "namespaces", "--ignore-not-found", "--timeout=50s"];
    cluster.kubectl(&[&delete[..], &NAMESPACES].concat()).await.unwrap();
}

/// The states of all Applications, in the order in which they came.
pub(crate) struct Watch(Process);

impl Watch {
    pub(crate) fn begin(cluster: &Cluster) -> Self {
        let kubeconfig = cluster.kubeconfig().display().to_string();
        let state = r#"jsonpath={.metadata.name} {.status.sync.status} {.status.health.status}{"\n"}"#;
        let args =
            ["--kubeconfig", &kubeconfig, "-n", "argocd", "get", "applications.argoproj.io", "--watch"];
        Self(Process::spawn(cluster.program(), [&args[..], &["-o", state]].concat()).unwrap())
    }

    /// Returns how many states there are so far.
    pub(crate) fn now(&self) -> usize {
        self.0.line_count()
    }

    /// Returns how often each state came after the first `skip`.
    pub(crate) fn states(&self, skip: usize) -> BTreeMap<String, u32> {
        count(self.0.lines_from(skip).into_iter().map(|line| line.text))
    }
}

/// A part of the application controller's log, which has to be on level debug.
pub(crate) struct Log {
    from: u64,
}

impl Log {
    pub(crate) fn from_now(argocd: &Argocd<'_>) -> Self {
        Self { from: fs::metadata(path(argocd)).unwrap().len() }
    }

    /// Returns how often Applications were compared with git, for each Application, reason and level, and
    /// which changed objects asked for it. On level 1 it is with what Argo CD has of git, which is not
    /// asked.
    pub(crate) fn refreshes(&self, argocd: &Argocd<'_>) -> Refreshes {
        let mut file = fs::File::open(path(argocd)).unwrap();
        file.seek(SeekFrom::Start(self.from)).unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        let lines: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let of = |line: &Value, key: &str| line[key].as_str().unwrap_or_default().to_owned();
        let refresh = |line: &Value| {
            let message = of(line, "msg");
            let why = message.strip_prefix("Refreshing app status (")?;
            // What follows are times and revisions.
            let why = why.split([',', '.', ')', '\'']).next().unwrap_or_default().trim_end();
            Some(format!("{} {why}", of(line, "application").trim_start_matches("argocd/")))
        };
        let object = |line: &Value| {
            (line["msg"] == "Requesting app refresh caused by object update").then(|| {
                let [application, kind, name] = ["application", "kind", "name"].map(|key| of(line, key));
                format!("{application} {kind} {name}, level {}", line["comparison-level"])
            })
        };
        Refreshes {
            by_reason: count(lines.iter().filter_map(refresh)),
            by_object: count(lines.iter().filter_map(object)),
            syncs: lines
                .iter()
                .filter(|line| of(line, "msg").starts_with("Initiated automated sync"))
                .count(),
        }
    }
}

fn path(argocd: &Argocd<'_>) -> std::path::PathBuf {
    argocd.log(Component::ArgocdApplicationController).unwrap()
}

/// Why Applications were compared with git, and how often.
#[derive(Debug)]
pub(crate) struct Refreshes {
    #[allow(dead_code, reason = "it is printed")]
    pub(crate) by_reason: BTreeMap<String, u32>,
    pub(crate) by_object: BTreeMap<String, u32>,
    /// How often Argo CD wrote what git has, unasked.
    pub(crate) syncs: usize,
}

fn count(items: impl Iterator<Item = String>) -> BTreeMap<String, u32> {
    let mut counts = BTreeMap::new();
    for item in items {
        *counts.entry(item).or_default() += 1;
    }
    counts
}
