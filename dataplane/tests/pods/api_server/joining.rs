//! Pods join and leave under connected clients: a Kubernetes API whose EndpointSlices the test writes as the
//! controller would, data planes, gateways, and clients that reconnect as an `EventSource` does.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use flutecast_testkit::fleet::{Fleet, FleetOptions, FleetReport};
use flutecast_testkit::http_client::get;
use flutecast_testkit::{Gateway, GatewayPod, ServiceProxy, free_ports, wait_until};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::fixture::{KubeFixture, Pod};
use crate::fixture::{DEADLINE, shard};

const ACCESS: &str = "{apiVersion: mapping.flutecast.io/v1, tenants: {open: {anonymous: true}}}";
const EVENTS: &str = "/v1/open/events?device=CORR-01&channel=alarms";
/// Gives shares of a hundred, which vary by about eight by chance.
const CLIENTS: usize = 300;
/// The most time for rebalancing: a tenth of the clients is moved a second, each about once.
const EVEN: Duration = Duration::from_secs(60);
/// The interval between published messages.
const PERIOD: Duration = Duration::from_millis(100);

/// A pod and the conditions of its endpoint.
struct Member {
    pod: Pod,
    /// Ready, serving, terminating.
    conditions: (bool, bool, bool),
}

struct Service {
    kube: KubeFixture,
    /// Two for each of three pods: clients and admin. Known before the pods run.
    ports: [u16; 6],
    members: Vec<Member>,
}

impl Service {
    async fn start() -> Self {
        let kube = KubeFixture::with_rights().await;
        kube.apply_shard("open", &shard("open", "")).await;
        kube.apply_access(ACCESS).await;
        Self { kube, ports: free_ports().unwrap(), members: Vec::new() }
    }

    /// Starts more pods, and makes their endpoints ready when the pods are.
    async fn join(&mut self, count: usize) {
        for _ in 0..count {
            self.add();
        }
        let first = self.members.len() - count;
        for member in &mut self.members[first..] {
            member.pod.wait_for_readiness(true, "r1").await;
            member.conditions = (true, true, false);
        }
        self.write().await;
    }

    fn add(&mut self) {
        let at = self.members.len();
        let name = name(at);
        let arguments = ["--service", "dp", "--server-name", &name, "--ping", "2s"];
        let quick = [
            "--rebalance-rate",
            "10%",
            "--rebalance-rest",
            "5s",
            "--drain-delay",
            "3s",
            "--drain-window",
            "6s",
        ];
        let ports = [self.ports[2 * at], self.ports[2 * at + 1]];
        let pod = self.kube.dataplane_on(ports, &[&arguments[..], &quick].concat());
        self.members.push(Member { pod, conditions: (false, false, false) });
    }

    /// Does what kubelet and controller do when a pod is deleted.
    async fn delete(&mut self, pods: &[usize]) {
        for at in pods {
            let member = &mut self.members[*at];
            member.pod.process.signal_term().unwrap();
            member.conditions = (false, true, true);
        }
        self.write().await;
    }

    async fn write(&self) {
        let endpoint = |(at, member): (usize, &Member)| {
            let (ready, serving, terminating) = member.conditions;
            json!({
                // Kubernetes refuses loopback addresses; pods are told apart by name.
                "addresses": [format!("10.0.0.{}", at + 1)],
                "conditions": {"ready": ready, "serving": serving, "terminating": terminating},
                "targetRef": {"kind": "Pod", "name": name(at)},
            })
        };
        let endpoints: Vec<Value> = self.members.iter().enumerate().map(endpoint).collect();
        self.kube
            .apply(&json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
                "metadata": {"name": "dp-1", "labels": {"kubernetes.io/service-name": "dp"}},
                "endpoints": endpoints, "ports": [],
            }))
            .await;
    }

    fn addresses(&self, pods: &[usize]) -> Vec<SocketAddr> {
        pods.iter().map(|at| address(&self.members[*at].pod.url)).collect()
    }

    async fn metric(&self, pod: usize, name: &str) -> u64 {
        let text = get(&format!("{}/metrics", self.members[pod].pod.admin_url)).await.unwrap().text();
        let line = text
            .lines()
            .find(|line| line.starts_with(&format!("{name} ")))
            .unwrap_or_else(|| panic!("{name}"));
        line.rsplit_once(' ').unwrap().1.parse().unwrap()
    }

    async fn moved(&self) -> u64 {
        let mut moved = 0;
        for pod in 0..self.members.len() {
            moved += self.metric(pod, "flutecast_rebalance_moved_total").await;
        }
        moved
    }

    /// Publishes numbered messages until the sender says `true`. The task returns the last number.
    fn publish(&self) -> (watch::Sender<bool>, JoinHandle<u64>) {
        let context = async_nats::jetstream::new(self.kube.client.clone());
        let (stop, stopped) = watch::channel(false);
        let publishing = tokio::spawn(async move {
            let mut n = 0;
            while !*stopped.borrow() {
                n += 1;
                let published =
                    context.publish("iot.open.corr1open.alarms", format!("{{\"code\":{n}}}").into()).await;
                published.unwrap().await.unwrap();
                tokio::time::sleep(PERIOD).await;
            }
            n
        });
        (stop, publishing)
    }
}

fn name(pod: usize) -> String {
    format!("pod-{pod}")
}

fn address(url: &str) -> SocketAddr {
    url.trim_start_matches("http://").parse().unwrap()
}

fn is_even(report: &FleetReport, pods: usize) -> bool {
    let share = CLIENTS as f64 / pods as f64;
    report.connected == CLIENTS
        && report.servers.len() == pods
        && report.servers.values().all(|count| (*count as f64 - share).abs() <= share * 0.2)
}

/// Scales from one pod to three and back to one, under clients that connect through `url`. `ready` tells the
/// proxy which pods are ready.
async fn one_three_one(mut service: Service, url: &str, most_moves: u64, ready: impl Fn(&Service, &[usize])) {
    let (stop, publishing) = service.publish();
    let options = FleetOptions {
        number_field: "code".to_owned(),
        ..FleetOptions::new(format!("{url}{EVENTS}"), CLIENTS)
    };
    let fleet = Fleet::start(&options).unwrap();
    fleet
        .wait_until("all clients on the only pod", DEADLINE, |report| {
            report.connected == CLIENTS && report.events >= CLIENTS as u64
        })
        .await
        .unwrap();
    assert_eq!(service.metric(0, "flutecast_rebalance_pods").await, 1);

    service.join(2).await;
    ready(&service, &[0, 1, 2]);
    clients_even_out(&service, &fleet, most_moves).await;

    let begin = Instant::now();
    service.delete(&[1, 2]).await;
    // kube-proxy and gateways learn it a moment later.
    tokio::time::sleep(Duration::from_secs(1)).await;
    ready(&service, &[0]);
    deleted_pods_drain(&mut service, &fleet, begin).await;

    stop.send_replace(true);
    nothing_was_lost(&fleet, publishing.await.unwrap()).await;
}

async fn clients_even_out(service: &Service, fleet: &Fleet, most_moves: u64) {
    let begin = Instant::now();
    fleet.wait_until("shares within 20 %", EVEN, |report| is_even(report, 3)).await.unwrap();
    let even_after = begin.elapsed();
    wait_until("no pod to move clients", EVEN, async || {
        for pod in 0..3 {
            if service.metric(pod, "flutecast_rebalance_moving").await != 0 {
                return Err(format!("pod {pod} moves clients"));
            }
        }
        Ok(())
    })
    .await
    .unwrap();
    let rest_after = begin.elapsed();
    // Clients on their way come back within this time, and no pod may begin to move clients again.
    let moved = service.moved().await;
    tokio::time::sleep(Duration::from_secs(8)).await;
    let even = fleet.wait_until("shares that stay", DEADLINE, |report| is_even(report, 3)).await.unwrap();
    let later = service.moved().await - moved;
    assert!(moved <= most_moves, "{moved} moves of {CLIENTS} clients");
    assert!(later <= CLIENTS as u64 / 10, "{later} more moves");
    wait_until("as many byes as moves", DEADLINE, async || {
        let (byes, moved) = (fleet.report().byes, service.moved().await);
        if byes.get("Rebalancing") == Some(&moved) { Ok(()) } else { Err(format!("{byes:?}, {moved} moves")) }
    })
    .await
    .unwrap();
    eprintln!(
        "1 -> 3: even after {even_after:.1?}, at rest after {rest_after:.1?}, {moved} moves and {later} \
         later, shares {:?}, longest without data {:?}, without a stream {:?}",
        even.servers, even.without_data, even.without_stream
    );
}

async fn deleted_pods_drain(service: &mut Service, fleet: &Fleet, begin: Instant) {
    for pod in [1, 2] {
        let process = &mut service.members[pod].pod.process;
        let status = process.wait(Duration::from_secs(24)).await.unwrap();
        assert!(status.success(), "{status}: {}", process.tail());
        let took = begin.elapsed();
        assert!(took > Duration::from_secs(5), "clients were sent away over a time: {took:?}");
        eprintln!("3 -> 1: pod {pod} has ended after {took:.1?}");
    }
    fleet
        .wait_until("all on the pod that stays", DEADLINE, |report| {
            report.connected == CLIENTS && report.servers.get("pod-0") == Some(&CLIENTS)
        })
        .await
        .unwrap();
}

async fn nothing_was_lost(fleet: &Fleet, newest: u64) {
    let report = fleet
        .wait_until("the newest message everywhere", DEADLINE, |report| {
            report
                .newest
                .get("CORR-01/alarms")
                .is_some_and(|known| known.number == newest && known.behind == 0)
        })
        .await
        .unwrap();
    eprintln!("{}", serde_json::to_string(&report).unwrap());
    let FleetReport { failed, lost, wrong, strange, breaks, silent, bad_answers, gaps, without_data, .. } =
        &report;
    assert_eq!((*failed, *lost, *wrong, *strange, *silent), (0, 0, 0, 0, 0), "{report:?}");
    assert!(bad_answers.is_empty() && gaps.is_empty() && *breaks == 0, "{report:?}");
    assert!(without_data.max_ms <= 5_000, "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_are_rebalanced_behind_nginx_and_a_service() {
    let mut service = Service::start().await;
    service.join(1).await;
    let proxy = ServiceProxy::start().await.unwrap();
    proxy.set_ready(service.addresses(&[0]));
    let gateway = Gateway::nginx(proxy.address, &[]).await.unwrap();
    let set = |service: &Service, pods: &[usize]| proxy.set_ready(service.addresses(pods));
    // The proxy chooses pods at random: each client is moved about once, and a few once more.
    one_three_one(service, &gateway.url, CLIENTS as u64 * 14 / 10, set).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_are_rebalanced_behind_haproxy() {
    let mut service = Service::start().await;
    service.join(1).await;
    let local = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
    let pods =
        service.ports.chunks(2).map(|ports| GatewayPod { clients: local(ports[0]), admin: local(ports[1]) });
    let gateway = Gateway::haproxy(&pods.collect::<Vec<_>>(), &[]).await.unwrap();
    // HAProxy checks readiness itself, and sends each client to the pod with the fewest: two thirds are moved
    // once.
    one_three_one(service, &gateway.url, CLIENTS as u64 * 8 / 10, |_, _| {}).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pod_without_broker_is_not_ready() {
    let mut kube = KubeFixture::with_rights().await;
    kube.apply_shard("open", &shard("open", "")).await;
    kube.apply_access(ACCESS).await;
    let pod = kube.dataplane(&[]);
    pod.wait_for_readiness(true, "r1").await;
    kube.nats.kill().await.unwrap();
    pod.wait_for_readiness(false, "the broker is not connected").await;
    let late = kube.dataplane(&[]);
    late.wait_for_readiness(false, "the broker is not connected").await;
    // Clients that still reach the pod are told in their streams.
    let mut client = pod.connect("/v1/open/events?device=CORR-01").await;
    client.next_named("refused", DEADLINE).await.unwrap();
    kube.nats.restart().await.unwrap();
    for pod in [&pod, &late] {
        pod.wait_for_readiness(true, "r1").await;
    }
}
