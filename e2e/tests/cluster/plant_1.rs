//! The factory `plant-1` as Argo CD brings it from `manifests/argocd`, and devices that send in it.

use std::collections::BTreeMap;
use std::time::Duration;

use flutecast_testbed::cluster::Cluster;
use flutecast_testbed::gitops::{Argocd, GitRepository};
use flutecast_testbed::release::{Images, Release};
use flutecast_testkit::{module_file, wait_until};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::counting;
use crate::gitops::{Log, PLANT, Refreshes, Watch, make_bare};

/// Time limit for all Applications to be Synced and Healthy, from `kubectl apply` on a bare cluster or from a
/// commit.
const HEALTHY: Duration = Duration::from_secs(120);
/// Time limit for the deletion of the whole.
const GONE: Duration = Duration::from_secs(90);
/// Devices that send, and how often each does.
const DEVICES: usize = 20;
const PACE: Duration = Duration::from_millis(500);
/// The code of a device that enrolls itself.
pub(crate) const ENROLLED: &str = "SELF-1";
/// What the Tenant says so that it may.
const ENROLLMENT: &str =
    "spec:\n  enrollment: {policy: Automatic, template: {channels: [{name: count, format: count}]}}";
/// All Applications of the factory.
const APPLICATIONS: [&str; 5] =
    ["flutecast-kinds", "plant-1", "plant-1-release", "plant-1-tenants", "plant-1-devices"];
/// Kinds of others that a release can have objects of: module, version and file.
const KINDS_OF_OTHERS: [(&str, &str, &str); 3] = [
    ("sigs.k8s.io/gateway-api", "v1.4.0", "config/crd/standard/gateway.networking.k8s.io_httproutes.yaml"),
    (
        "github.com/prometheus-operator/prometheus-operator",
        "v0.85.0",
        "example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml",
    ),
    (
        "github.com/prometheus-operator/prometheus-operator",
        "v0.85.0",
        "example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml",
    ),
];

/// The factory on a cluster that was bare before.
pub(crate) struct Plant<'a> {
    cluster: &'a Cluster,
    pub(crate) argocd: Argocd<'a>,
    pub(crate) repository: GitRepository,
    pub(crate) release: Release<'a>,
    watch: Watch,
    /// From `kubectl apply` until all was Synced and Healthy.
    pub(crate) took: Duration,
}

/// What was seen while devices sent.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) sent: u64,
    pub(crate) refreshes: Refreshes,
    /// How often an Application was written in each state.
    pub(crate) states: BTreeMap<String, u32>,
}

impl<'a> Plant<'a> {
    /// Makes the cluster bare, starts Argo CD, and applies `kinds.yaml` and `plant-1.yaml` of
    /// `manifests/argocd` after `change` has seen the repository.
    pub(crate) async fn bring_up(
        cluster: &'a Cluster,
        parameters: &[(&str, &str)],
        change: impl FnOnce(&GitRepository),
    ) -> Self {
        make_bare(cluster).await;
        Images::of_workspace().unwrap().load_as_shipped(cluster).await.unwrap();
        for (module, version, path) in KINDS_OF_OTHERS {
            let file = module_file(module, version, path).unwrap().display().to_string();
            cluster.kubectl(&["apply", "--server-side", "--filename", &file]).await.unwrap();
        }
        let parameters = [parameters, &[("controller.log.level", "debug")]].concat();
        let argocd = Argocd::start_with(cluster, &[], &parameters).await.unwrap();
        let repository = GitRepository::of_checkout(cluster, "flutecast").await.unwrap();
        change(&repository);
        let revision = repository.commit("The factory").await.unwrap();
        let (watch, release) = (Watch::begin(cluster), Release::of_others(cluster, PLANT, "flutecast"));
        let begin = Instant::now();
        for file in ["manifests/argocd/kinds.yaml", "manifests/argocd/plant-1.yaml"] {
            cluster.apply(&repository.read(file).unwrap()).await.unwrap();
        }
        let mut this = Self { cluster, argocd, repository, release, watch, took: Duration::ZERO };
        this.all_healthy(&revision).await;
        this.took = begin.elapsed();
        this
    }

    /// Adds devices to the folder, and switches on all that a release can have beside its pods.
    pub(crate) async fn add_everything(&self) {
        for number in 0..DEVICES {
            let (name, code) = device(number);
            let path = format!("manifests/demo/devices/{name}.json");
            let device = counting::device("demo", &name, &code).to_string();
            self.repository.write(&path, &device).unwrap();
        }
        self.repository.write("manifests/demo/formats/count.json", &counting::format().to_string()).unwrap();
        let tenant = self.repository.read("manifests/demo/tenant.yaml").unwrap();
        self.repository
            .write("manifests/demo/tenant.yaml", &tenant.replacen("spec:", ENROLLMENT, 1))
            .unwrap();
        self.repository.write("manifests/argocd/plant-1-release.yaml", &everything().to_string()).unwrap();
        let revision = self.repository.commit("Twenty devices more").await.unwrap();
        self.refresh().await;
        self.accept_routes().await;
        self.all_healthy(&revision).await;
    }

    pub(crate) async fn refresh(&self) {
        for name in APPLICATIONS {
            self.argocd.refresh(name).await.unwrap();
        }
    }

    pub(crate) async fn all_healthy(&self, revision: &str) {
        let end = Instant::now() + HEALTHY;
        for name in APPLICATIONS {
            let left = end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            self.argocd.wait_healthy(name, Some(revision), left).await.unwrap();
        }
    }

    /// Writes what a gateway and an Ingress controller write, which this cluster has none of.
    async fn accept_routes(&self) {
        let route = json!({"status": {"parents": [{
            "controllerName": "example.com/gateway",
            "parentRef": {"name": "gateway"},
            "conditions": [{"type": "Accepted", "status": "True", "reason": "Accepted", "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z"}],
        }]}});
        let ingress = json!({"status": {"loadBalancer": {"ingress": [{"ip": "10.0.0.1"}]}}});
        let name = self.release.full_name("");
        for (kind, status) in [("httproutes.gateway.networking.k8s.io", route), ("ingresses", ingress)] {
            let patch = ["patch", kind, &name, "--subresource=status", "--type=merge", "--patch"];
            let status = status.to_string();
            let args = [&patch[..], &[&status]].concat();
            wait_until(kind, HEALTHY, async || self.release.kubectl(&args).await).await.unwrap();
        }
    }

    /// Lets devices send for a while. Halfway one enrolls itself, so that the operator makes a Device, which
    /// isn't in git, and writes a part of the mapping.
    pub(crate) async fn send_for(&self, time: Duration) -> Seen {
        let client = self.release.nats().await.unwrap().connect("devices").await.unwrap();
        let (states, log) = (self.watch.now(), Log::from_now(&self.argocd));
        let (end, halfway) = (Instant::now() + time, Instant::now() + time / 2);
        let (mut sent, mut enrolled) = (0, false);
        while Instant::now() < end {
            if !enrolled && Instant::now() >= halfway {
                let answer = client.request("flutecast.demo.enroll", ENROLLED.into()).await.unwrap();
                let answer = String::from_utf8_lossy(&answer.payload).into_owned();
                assert!(answer.contains("iotId"), "{answer}");
                enrolled = true;
            }
            for number in 0..DEVICES {
                let subject = counting::subject("demo", &device(number).1);
                client.publish(subject, counting::payload(sent).to_string().into()).await.unwrap();
                sent += 1;
            }
            client.flush().await.unwrap();
            sleep(PACE).await;
        }
        Seen { sent, refreshes: log.refreshes(&self.argocd), states: self.watch.states(states) }
    }

    /// Deletes the factory by the commands of docs/gitops.md, and waits until nothing of it is left but the
    /// kinds.
    pub(crate) async fn delete(self) {
        let delete = ["-n", "argocd", "delete", "applications.argoproj.io", PLANT, "--wait=false"];
        self.cluster.kubectl(&delete).await.unwrap();
        self.release
            .kubectl(&["delete", "devices.flutecast.io", "-l", "flutecast.io/enrolled=true"])
            .await
            .unwrap();
        let gone = ["-n", "argocd", "wait", "--for=delete", "application/plant-1", "--timeout=85s"];
        self.cluster.kubectl_with(&gone, "", GONE).await.unwrap();
    }
}

fn device(number: usize) -> (String, String) {
    (format!("cnt-{number:02}"), format!("CNT-{number:02}"))
}

/// All that a release can have beside its pods.
fn everything() -> Value {
    json!({
        "nats": {"bundled": {"enabled": true, "sourceSubjects": ["plant.>", "mes.out"],
            "persistence": {"enabled": true}}},
        "httpRoute": {"enabled": true, "parentRefs": [{"name": "gateway"}], "hostnames": ["plant.example"]},
        "ingress": {"enabled": true, "host": "plant.example"},
        "monitoring": {"serviceMonitor": {"enabled": true}, "prometheusRule": {"enabled": true},
            "grafanaDashboard": {"enabled": true}},
        "protection": "policy",
    })
}
