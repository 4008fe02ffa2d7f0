//! Scales the data plane from one pod to three and back to one, with two thousand clients connected through
//! the Service and kube-proxy while devices publish. Clients are spread evenly, none is long without data,
//! and no message is lost. `--no-capture` prints the distribution over time.

use std::collections::BTreeMap;
use std::time::Duration;

use flutecast_testbed::cluster::Cluster;
use flutecast_testbed::release::{Images, Release};
use flutecast_testkit::fleet::{Fleet, FleetOptions, FleetReport};
use serde_json::json;
use tokio::time::Instant;

use crate::counting::{self, DEVICES, TENANT};

/// Number of clients. Each watches both devices.
const CLIENTS: usize = 2_000;
/// Time between two messages, which alternate between the devices. This is also the resolution at which the
/// time without data is measured.
const PERIOD: Duration = Duration::from_millis(500);
/// Longest time that any client may be without data.
const LONGEST_WITHOUT_DATA: Duration = Duration::from_secs(5);
/// Tolerance of a pod's number of clients, as a fraction of its share.
const UNEVEN: f64 = 0.2;
/// Time limits for clients to connect, and to be rebalanced at the slowest rate.
const SOON: Duration = Duration::from_secs(60);
const EVEN: Duration = Duration::from_secs(150);
/// Rebalancing has ended when no client was moved for this long.
const REST: Duration = Duration::from_secs(8);
/// The variable that sets the chart's `dataplane.rebalance.rate`, and its default. The chart's own 2 % takes
/// too long for a test.
const RATE: (&str, &str) = ("FLUTECAST_SCALE_RATE", "6%");

fn manifests() -> String {
    let tenant = json!({
        "retention": {"maxAge": "1h", "maxBytes": "64Mi"},
        "access": {"anonymous": true},
        "quota": {"maxClients": 5_000},
    });
    let [a, b] = DEVICES.map(|(name, code)| counting::device(TENANT, name, code));
    counting::manifests(&[counting::tenant(TENANT, &tenant), counting::format(), a, b])
}

/// Waits for states of the fleet and prints its distribution every five seconds.
struct Watching<'a> {
    fleet: &'a Fleet,
    begin: Instant,
}

impl Watching<'_> {
    /// Waits until `wanted` returns true for the report, and returns that report.
    async fn until(
        &self,
        what: &str,
        deadline: Duration,
        mut wanted: impl FnMut(&FleetReport) -> bool,
    ) -> FleetReport {
        let mut printed = None;
        let looks = self.fleet.wait_until(what, deadline, |report| {
            let second = self.begin.elapsed().as_secs();
            if printed.replace(second / 5) != Some(second / 5) {
                eprintln!("{second:>4} s  {:?}  byes {:?}", report.servers, report.byes);
            }
            wanted(report)
        });
        let report = looks.await.unwrap();
        eprintln!("{what}: after {:.1?}; without data {:?}", self.begin.elapsed(), report.without_data);
        report
    }

    /// Waits until no client was moved for [`REST`].
    async fn until_rest(&self) -> FleetReport {
        let (mut byes, mut since) = (BTreeMap::new(), Instant::now());
        self.until("the end of rebalancing", EVEN, |report| {
            if report.byes != byes {
                (byes, since) = (report.byes.clone(), Instant::now());
            }
            since.elapsed() >= REST
        })
        .await
    }
}

/// Returns whether the clients are evenly spread over `pods` pods. The total isn't checked, because some
/// clients are between two pods while they are moved.
fn is_even(report: &FleetReport, pods: usize) -> bool {
    let share = CLIENTS as f64 / pods as f64;
    report.servers.len() == pods
        && report.servers.values().all(|count| (*count as f64 - share).abs() <= share * UNEVEN)
}

/// Adds two pods and waits until the clients are evenly spread. Returns the number of moves.
async fn one_to_three(factory: &Release<'_>, fleet: &Fleet) -> u64 {
    let watching = Watching { fleet, begin: Instant::now() };
    factory.scale("dataplane", 3).await.unwrap();
    eprintln!("three pods are ready after {:.1?}", watching.begin.elapsed());
    watching.until("shares within 20 %", EVEN, |report| is_even(report, 3)).await;
    watching.until_rest().await;
    let even = watching
        .until("even shares after the end of rebalancing", SOON, |report| {
            report.connected == CLIENTS && is_even(report, 3)
        })
        .await;
    let moves = even.byes.get("Rebalancing").copied().unwrap_or_default();
    // Clients to move are drawn at random, so each is moved about once (docs/decisions/105-rebalancing.md).
    assert!(moves <= CLIENTS as u64 * 3 / 2, "{moves} moves of {CLIENTS} clients");
    moves
}

async fn three_to_one<'a>(factory: &Release<'_>, fleet: &'a Fleet) -> Watching<'a> {
    let watching = Watching { fleet, begin: Instant::now() };
    factory.scale("dataplane", 1).await.unwrap();
    eprintln!("one pod is left after {:.1?}", watching.begin.elapsed());
    watching
        .until("all clients on the pod that stays", SOON, |report| {
            report.connected == CLIENTS && report.servers.len() == 1
        })
        .await;
    watching
}

#[tokio::test(flavor = "multi_thread")]
async fn scaling_one_three_one_keeps_two_thousand_clients_supplied() {
    let cluster = Cluster::shared().await.unwrap();
    let namespace = cluster.namespace("scale").await.unwrap();
    let images = Images::of_workspace().unwrap();
    let rate = std::env::var(RATE.0).unwrap_or_else(|_| RATE.1.to_owned());
    let values = format!("dataplane: {{replicas: 1, rebalance: {{rate: {rate}}}}}");
    let mut factory = Release::install(&cluster, &namespace, "factory", &images, &values).await.unwrap();
    factory.apply(&manifests()).await.unwrap();
    factory.wait_ready().await.unwrap();
    let reach = factory.dataplane().await.unwrap();

    let nats = factory.nats().await.unwrap();
    let (stop, publishing) = counting::publish(nats.connect("devices").await.unwrap(), PERIOD);
    let url = format!("http://{}/v1/acme/events?device=*", reach.address);
    let fleet = Fleet::start(&FleetOptions::new(url, CLIENTS)).unwrap();
    let watching = Watching { fleet: &fleet, begin: Instant::now() };
    let all_have_data = |report: &FleetReport| {
        report.connected == CLIENTS
            && report.newest.len() == DEVICES.len()
            && report.events >= 2 * CLIENTS as u64
    };
    watching.until("all clients on the only pod", SOON, all_have_data).await;

    let moves = one_to_three(&factory, &fleet).await;
    let watching = three_to_one(&factory, &fleet).await;

    stop.send_replace(true);
    let last = publishing.await.unwrap();
    let report = watching
        .until("the newest message everywhere", SOON, |report| {
            report.newest.values().all(|newest| newest.number == last && newest.behind == 0)
        })
        .await;
    eprintln!(
        "1 -> 3 -> 1: {moves} moves, at most {} reconnects of one client; without a stream {:?}; {} merged, \
         {} broke off, {} unreachable, {} MiB",
        report.most_reconnects,
        report.without_stream,
        report.merged,
        report.breaks,
        report.unreachable,
        report.memory_kib / 1_024
    );
    drop(fleet);
    assert_eq!((report.lost, report.wrong, report.strange, report.failed), (0, 0, 0, 0), "{report:#?}");
    assert!(report.gaps.is_empty(), "{:?}", report.gaps);
    let longest = Duration::from_millis(report.without_data.max_ms);
    assert!(longest <= LONGEST_WITHOUT_DATA, "a client was without data for {longest:?}: {report:#?}");
    factory.uninstall().await.unwrap();
}
