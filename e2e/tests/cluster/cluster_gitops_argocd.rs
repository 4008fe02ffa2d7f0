//! A factory by Argo CD, from `manifests/argocd` as shipped.

use std::time::Duration;

use flutecast_testbed::cluster::Cluster;
use flutecast_testbed::gitops::{Argocd, GitRepository};
use flutecast_testbed::release::{Images, Release};
use flutecast_testkit::{module_file, wait_until};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::counting;
use crate::gitops::{Log, PLANT, Watch, make_bare};

/// What the issue allows from `kubectl apply` on a bare cluster until all is Healthy.
const BRING_UP: Duration = Duration::from_secs(120);
const SOON: Duration = Duration::from_secs(90);
/// Devices that send, and how often each does.
const DEVICES: usize = 20;
const PACE: Duration = Duration::from_millis(500);
/// All Applications of the factory.
const APPLICATIONS: [&str; 5] =
    ["plant-1", "plant-1-kinds", "plant-1-release", "plant-1-tenants", "plant-1-devices"];
/// Kinds of others that a release can have objects of.
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

/// All that a release can have beside its pods.
fn everything() -> Value {
    json!({
        "nats": {"bundled": {"enabled": true, "sourceSubjects": ["plant.>", "mes.out"],
            "persistence": {"enabled": true, "size": "1Gi"}, "jetstream": {"maxFile": "1Gi"}}},
        "httpRoute": {"enabled": true, "parentRefs": [{"name": "gateway"}], "hostnames": ["plant.example"]},
        "ingress": {"enabled": true, "host": "plant.example"},
        "monitoring": {"serviceMonitor": {"enabled": true}, "prometheusRule": {"enabled": true},
            "grafanaDashboard": {"enabled": true}},
        "protection": "policy",
    })
}

#[tokio::test]
async fn comes_up_without_a_hand_and_stays_synced_while_devices_send() {
    let cluster = Cluster::shared().await.unwrap();
    make_bare(&cluster).await;
    Images::of_workspace().unwrap().load_as_shipped(&cluster).await.unwrap();
    for (module, version, path) in KINDS_OF_OTHERS {
        let file = module_file(module, version, path).unwrap().display().to_string();
        cluster.kubectl(&["apply", "--server-side", "--filename", &file]).await.unwrap();
    }
    let debug = [("controller.log.level", "debug")];
    let argocd = Argocd::start_with(&cluster, &[], &debug).await.unwrap();
    let repository = GitRepository::of_checkout(&cluster, "flutecast").await.unwrap();
    let revision = repository.commit("The factory").await.unwrap();
    let watch = Watch::begin(&cluster);

    let begin = Instant::now();
    cluster.apply(&repository.read("manifests/argocd/plant-1.yaml").unwrap()).await.unwrap();
    all_healthy(&argocd, &revision, BRING_UP).await;
    eprintln!("all Applications are Synced and Healthy after {:.1?}", begin.elapsed());

    let release = Release::of_others(&cluster, PLANT, "flutecast");
    for number in 0..DEVICES {
        let (name, code) = device(number);
        let path = format!("manifests/demo/devices/{name}.json");
        repository.write(&path, &counting::device("demo", &name, &code).to_string()).unwrap();
    }
    repository.write("manifests/demo/formats/count.json", &counting::format().to_string()).unwrap();
    let revision = repository.commit("Twenty devices more").await.unwrap();
    let values = json!({"spec": {"source": {"helm": {"valuesObject": {"release": everything()}}}}});
    let patch = ["-n", "argocd", "patch", "applications.argoproj.io", PLANT, "--type=merge", "--patch"];
    cluster.kubectl(&[&patch[..], &[&values.to_string()]].concat()).await.unwrap();
    for name in APPLICATIONS {
        argocd.refresh(name).await.unwrap();
    }
    accept_routes(&release).await;
    all_healthy(&argocd, &revision, BRING_UP).await;

    stays_synced(&argocd, &release, &watch, Duration::from_secs(120)).await;

    let delete = ["-n", "argocd", "delete", "applications.argoproj.io", PLANT, "--timeout=90s"];
    cluster.kubectl_with(&delete, "", SOON + SOON).await.unwrap();
    drop(argocd);
    make_bare(&cluster).await;
}

fn device(number: usize) -> (String, String) {
    (format!("cnt-{number:02}"), format!("CNT-{number:02}"))
}

async fn all_healthy(argocd: &Argocd<'_>, revision: &str, deadline: Duration) {
    let end = Instant::now() + deadline;
    for name in APPLICATIONS {
        let left = end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        argocd.wait_healthy(name, Some(revision), left).await.unwrap();
    }
}

/// Writes what a gateway and an Ingress controller write, which this cluster has none of.
async fn accept_routes(release: &Release<'_>) {
    let route = json!({"status": {"parents": [{
        "controllerName": "example.com/gateway",
        "parentRef": {"name": "gateway"},
        "conditions": [{"type": "Accepted", "status": "True", "reason": "Accepted", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z"}],
    }]}});
    let ingress = json!({"status": {"loadBalancer": {"ingress": [{"ip": "10.0.0.1"}]}}});
    let name = release.full_name("");
    for (kind, status) in [("httproutes.gateway.networking.k8s.io", route), ("ingresses", ingress)] {
        let patch = ["patch", kind, &name, "--subresource=status", "--type=merge", "--patch"];
        let status = status.to_string();
        let args = [&patch[..], &[&status]].concat();
        wait_until(kind, BRING_UP, async || release.kubectl(&args).await).await.unwrap();
    }
}

/// Lets devices send for a while. Meanwhile no Application may change its state, and nothing that the operator
/// writes may cause a comparison with git.
async fn stays_synced(argocd: &Argocd<'_>, release: &Release<'_>, watch: &Watch, time: Duration) {
    let nats = release.nats().await.unwrap();
    let client = nats.connect("devices").await.unwrap();
    let (states, log) = (watch.now(), Log::from_now(argocd));
    let end = Instant::now() + time;
    let mut sent: u64 = 0;
    while Instant::now() < end {
        for number in 0..DEVICES {
            let subject = counting::subject("demo", &device(number).1);
            client.publish(subject, counting::payload(sent).to_string().into()).await.unwrap();
            sent += 1;
        }
        client.flush().await.unwrap();
        sleep(PACE).await;
    }
    let refreshes = log.refreshes(argocd);
    eprintln!("{sent} messages in {time:?}; {refreshes:#?}\n{:#?}", watch.states(states));
    let others: Vec<_> =
        watch.states(states).into_keys().filter(|state| !state.ends_with(" Synced Healthy")).collect();
    assert!(others.is_empty(), "{others:?}");
    assert!(refreshes.by_object.is_empty(), "{refreshes:#?}");
}
