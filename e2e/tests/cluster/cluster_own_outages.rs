//! Components that a factory depends on are killed in turn while screens watch and devices publish. Each
//! stored message reaches every screen exactly once and in order. The time without data is measured.

use std::fmt::Write as _;
use std::time::Duration;

use flutecast_testbed::cluster::{Cluster, Component};
use flutecast_testbed::release::{Images, Release};
use flutecast_testkit::fleet::{Fleet, FleetOptions};
use flutecast_testkit::wait_until;
use tokio::time::Instant;

use crate::plant::{self, Devices};

const SOON: Duration = Duration::from_secs(90);
/// As many screens as a typical plant has.
const CLIENTS: usize = 60;
/// Number of messages that each device sends while a component is down that doesn't restart by itself: about
/// 12 s.
const MEANWHILE: u64 = 60;

/// A component to kill.
#[derive(Debug, Clone, Copy)]
enum Outage {
    /// The baseline for comparison.
    Nothing,
    /// A pod's container, which the kubelet restarts. `count` is the number of pods of the component.
    Pod { component: &'static str, count: usize },
    /// A component of the cluster, which the test restarts.
    Part(Component),
}

impl Outage {
    /// The outages in order, each with its name and the longest time that any screen may be without data.
    /// Devices send every 0.2 s.
    const ALL: [(&'static str, Self, Duration); 6] = [
        ("nothing", Self::Nothing, Duration::from_secs(2)),
        ("a data-plane pod of two", Self::Pod { component: "dataplane", count: 2 }, Duration::from_secs(10)),
        ("the operator", Self::Pod { component: "operator", count: 1 }, Duration::from_secs(5)),
        ("NATS", Self::Pod { component: "nats", count: 1 }, Duration::from_secs(40)),
        ("the API server", Self::Part(Component::KubeApiserver), Duration::from_secs(5)),
        ("the kubelet", Self::Part(Component::Kubelet), Duration::from_secs(5)),
    ];

    /// Kills the component and waits until it is back.
    async fn run(self, factory: &Release<'_>, devices: &Devices, fleet: &Fleet) {
        match self {
            Self::Nothing => devices.send(MEANWHILE).await,
            Self::Pod { component, count } => {
                let victim = factory.wait_for_pods(component, count).await.unwrap().remove(0);
                factory.kill(&victim).await.unwrap();
                wait_until(&format!("another container of {}", victim.name), SOON, async || {
                    let pods = factory.pods(component).await.map_err(|error| format!("{error:#}"))?;
                    let back = pods.len() == count
                        && pods.iter().all(|pod| pod.ready && pod.container != victim.container);
                    if back { Ok(()) } else { Err(format!("{pods:#?}")) }
                })
                .await
                .unwrap();
            }
            Self::Part(component) => {
                let fault = factory.cluster().kill(component).await.unwrap();
                devices.send(MEANWHILE).await;
                // Screens receive messages without this component.
                wait_until_caught_up(factory, fleet, devices).await;
                fault.mend().await.unwrap();
                factory.cluster().wait_until_whole().await.unwrap();
            }
        }
    }
}

/// Waits until every client has received what is stored now. On a time-out it prints the state of streams and
/// sources, to show where messages are stuck.
async fn wait_until_caught_up(factory: &Release<'_>, fleet: &Fleet, devices: &Devices) {
    let stored = devices.stored();
    let what = format!("all clients to receive {stored:?}");
    let caught_up = fleet.wait_until(&what, SOON, |report| {
        let has = |channel: &str, number: u64| {
            report.newest.get(channel).is_some_and(|newest| newest.number >= number && newest.behind == 0)
        };
        report.connected == CLIENTS && stored.iter().all(|(channel, number)| has(channel, *number))
    });
    let caught_up = caught_up.await;
    if caught_up.is_err() {
        let told = async {
            let nats = factory.nats().await?;
            plant::stream_states(&nats.connect("operator").await?).await
        };
        eprintln!("{}", told.await.unwrap_or_else(|error| format!("{error:#}")));
        for pod in factory.pods("dataplane").await.unwrap_or_default() {
            let metrics = factory.metrics(&pod).await.unwrap_or_else(|error| format!("{error:#}"));
            let split = metrics.lines().filter(|line| line.starts_with("flutecast_split"));
            eprintln!("{}:\n{}", pod.name, split.collect::<Vec<_>>().join("\n"));
        }
    }
    caught_up.unwrap();
}

/// Declares a Device and waits until it is Ready, which shows that the operator still works.
async fn add_device(factory: &Release<'_>, number: usize) {
    factory.apply(&plant::device(&format!("LATE-{number}")).to_string()).await.unwrap();
    let name = format!("device/late-{number}");
    factory.kubectl(&["wait", "--for=condition=Ready", "--timeout=80s", &name]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn stored_messages_survive_every_outage() {
    let cluster = Cluster::shared().await.unwrap();
    let namespace = cluster.namespace("outages").await.unwrap();
    let images = Images::of_workspace().unwrap();
    let mut factory = Release::install(&cluster, &namespace, "factory", &images, "").await.unwrap();
    factory.apply(&plant::manifests()).await.unwrap();
    factory.wait_ready().await.unwrap();

    let (nats, dataplane) = (factory.nats().await.unwrap(), factory.dataplane().await.unwrap());
    let url = format!("http://{}/v1/{}/events?device=*", dataplane.address, plant::TENANT);
    let fleet = Fleet::start_recording(&FleetOptions::new(url, CLIENTS)).unwrap();
    fleet.wait_until("all clients' streams", SOON, |report| report.connected == CLIENTS).await.unwrap();
    // Devices start only now, so that each client receives the first message of each device.
    let devices = Devices::start(nats.connect("devices").await.unwrap());

    let mut times = Vec::new();
    for (number, (what, outage, longest)) in Outage::ALL.into_iter().enumerate() {
        devices.send(10).await;
        wait_until_caught_up(&factory, &fleet, &devices).await;
        let (before, begin) = (fleet.report(), Instant::now());
        outage.run(&factory, &devices, &fleet).await;
        let whole = begin.elapsed();
        wait_until_caught_up(&factory, &fleet, &devices).await;
        let (after, end) = (fleet.report(), Instant::now());
        add_device(&factory, number).await;
        times.push((what, longest, begin..end, whole, after.welcomes - before.welcomes));
        eprintln!("{what}: recovered after {:.1} s", whole.as_secs_f32());
    }
    let sent = devices.stop().await;
    wait_until_caught_up(&factory, &fleet, &sent).await;

    let records = fleet.records();
    let report = fleet.stop().await;
    let mut table = String::from(
        "| killed | back after | longest time without data, median | … of any screen | reconnects |\n| --- \
         | --- | --- | --- | --- |\n",
    );
    let mut too_long = Vec::new();
    for (what, longest, window, whole, reconnects) in times {
        let gaps = plant::longest_gaps(&records, &window);
        let (median, most) = (gaps[gaps.len() / 2], *gaps.last().unwrap());
        let seconds = |time: Duration| format!("{:.1} s", time.as_secs_f32());
        let row = [what.to_owned(), seconds(whole), seconds(median), seconds(most), reconnects.to_string()];
        writeln!(table, "| {} |", row.join(" | ")).unwrap();
        if most > longest {
            too_long.push(format!("{what}: {most:?} without data, at most {longest:?}"));
        }
    }
    eprintln!("{CLIENTS} screens, {} messages\n{table}{report:?}", sent.stored().values().sum::<u64>());

    let stream = plant::content(&nats.connect("operator").await.unwrap()).await.unwrap();
    plant::assert_stored_once(&stream, &sent.stored());
    plant::assert_all_received(&stream, &records);
    assert_eq!((report.lost, report.wrong, report.strange), (0, 0, 0), "{report:#?}");
    assert!(report.gaps.is_empty() && report.bad_answers.is_empty() && report.failed == 0, "{report:#?}");
    assert!(too_long.is_empty(), "{too_long:#?}");
    factory.uninstall().await.unwrap();
}
