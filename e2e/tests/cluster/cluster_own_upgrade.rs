//! Upgrades a release to the next version and back while screens are connected and devices send. Both
//! versions are built from this tree (the feature `next-version`). The order is CRDs, operator, data plane;
//! the rollback keeps the CRDs. No client misses a message, and the page is not reloaded.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use flutecast_testbed::cluster::Cluster;
use flutecast_testbed::release::{Images, Release, install_crds};
use flutecast_testkit::fleet::{Fleet, FleetOptions, FleetReport};
use flutecast_testkit::in_repository;
use flutecast_testkit::{SseClient, wait_until};
use flutecast_xtask::charts::{chart_as, put_definitions};
use serde_json::json;

use crate::chromium::Chromium;
use crate::counting::{self, DEVICES, TENANT};
use crate::kinds::Kinds;

const CLIENTS: usize = 200;
/// Longest time that any client may be without data.
const LONGEST_WITHOUT_DATA: Duration = Duration::from_secs(5);
/// Time between two messages, which alternate between the devices.
const PERIOD: Duration = Duration::from_millis(100);
const SOON: Duration = Duration::from_secs(60);
/// Shorter drain times than the chart's defaults, so that the test takes less time.
const VALUES: &str = "dataplane: {drain: {delay: 3s, window: 4s}}";
/// The operator in the new version, the data plane still in the old one.
const OPERATOR_FIRST: &str = "dataplane: {image: {tag: OLD}, drain: {delay: 3s, window: 4s}}";

fn manifests() -> String {
    let tenant = json!({
        "retention": {"maxAge": "1h", "maxMessagesPerSubject": 65_536},
        "access": {"anonymous": true},
    });
    let [a, b] = DEVICES.map(|(name, code)| {
        let mut device = counting::device(TENANT, name, code);
        device["spec"]["channels"][0]["staleAfter"] = json!("10s");
        device
    });
    counting::manifests(&[counting::tenant(TENANT, &tenant), counting::format(), a, b])
}

/// Returns the versions that the metrics of a component's pods report.
async fn versions(factory: &Release<'_>, component: &str) -> Result<BTreeSet<String>, String> {
    let mut versions = BTreeSet::new();
    for pod in factory.pods(component).await.map_err(|error| format!("{error:#}"))? {
        let metrics = factory.metrics(&pod).await.map_err(|error| format!("{}: {error:#}", pod.name))?;
        let version =
            metrics.split("flutecast_build_info{version=\"").nth(1).and_then(|rest| rest.split('"').next());
        versions.insert(version.unwrap_or("none").to_owned());
    }
    Ok(versions)
}

/// Waits until all pods of both programs report the given versions and the new operator holds the lease.
async fn wait_for_versions(factory: &Release<'_>, operator: &str, dataplane: &str) {
    wait_until("the versions", SOON, async || {
        let found = (versions(factory, "operator").await?, versions(factory, "dataplane").await?);
        let expected = (BTreeSet::from([operator.to_owned()]), BTreeSet::from([dataplane.to_owned()]));
        if found == expected { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await
    .unwrap();
    let holder =
        || factory.kubectl(&["get", "lease", "flutecast-operator", "-o", "jsonpath={.spec.holderIdentity}"]);
    let operators = factory.wait_for_pods("operator", 1).await.unwrap();
    wait_until("the lease of the new operator", SOON, async || match holder().await {
        Ok(name) if operators[0].name == name => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await
    .unwrap();
}

/// Returns the first device's `location` in `hello`.
async fn location_in_hello(url: &str) -> serde_json::Value {
    let mut client = SseClient::connect(url, &[]).await.unwrap();
    let hello = client.next_named("hello", SOON).await.unwrap();
    let hello: serde_json::Value = serde_json::from_str(hello.data.as_deref().unwrap()).unwrap();
    hello["devices"][0]["location"].clone()
}

/// Asserts that every client has received every message so far.
fn assert_complete(report: &FleetReport) {
    let bad = [report.failed as u64, report.lost, report.wrong, report.strange, report.silent];
    assert_eq!(bad, [0; 5], "{report:#?}");
    assert!(report.gaps.is_empty() && report.bad_answers.is_empty(), "{report:#?}");
}

/// The images and charts of the next version, whose CRDs have one more field.
struct NextVersion {
    images: Images,
    chart: PathBuf,
    kinds: PathBuf,
    _folder: tempfile::TempDir,
}

impl NextVersion {
    fn new() -> anyhow::Result<Self> {
        let images = Images::of_next()?;
        let folder = tempfile::tempdir()?;
        let chart = chart_as(&in_repository("charts/flutecast"), images.version(), folder.path())?;
        let kinds = chart_as(&in_repository("charts/flutecast-crds"), images.version(), folder.path())?;
        put_definitions(&kinds, &images.definitions())?;
        Ok(Self { images, chart, kinds, _folder: folder })
    }
}

/// Upgrades the CRDs first, then the operator. The old data plane ignores the new field in the mapping.
async fn upgrade_kinds_and_operator(factory: &mut Release<'_>, next: &NextVersion, old: &str, events: &str) {
    install_crds(factory.cluster(), &next.kinds).await.unwrap();
    let operator_first = OPERATOR_FIRST.replace("OLD", old);
    factory.helm("upgrade", &next.chart, &next.images, &operator_first).await.unwrap();
    wait_for_versions(factory, next.images.version(), old).await;
    let location = r#"{"spec": {"location": "Hall 3"}}"#;
    factory.kubectl(&["patch", "fd", "a", "--type=merge", "--patch", location]).await.unwrap();
    let generation =
        factory.kubectl(&["get", "fd", "a", "-o", "jsonpath={.metadata.generation}"]).await.unwrap();
    let judged = format!("jsonpath={{.status.observedGeneration}}={generation}");
    factory.kubectl(&["wait", "fd/a", "--timeout=60s", &format!("--for={judged}")]).await.unwrap();
    factory.wait_ready().await.unwrap();
    let mapping = factory
        .kubectl(&["get", "configmap", "flutecast-acme-0", "-o", r"jsonpath={.data.mapping\.yaml}"])
        .await
        .unwrap();
    assert!(mapping.contains("location: Hall 3"), "{mapping}");
    assert!(location_in_hello(events).await.is_null(), "an old pod doesn't know the new field");
}

async fn upgrade_dataplane(factory: &mut Release<'_>, next: &NextVersion, events: &str) {
    factory.helm("upgrade", &next.chart, &next.images, VALUES).await.unwrap();
    wait_for_versions(factory, next.images.version(), next.images.version()).await;
    assert_eq!(location_in_hello(events).await, "Hall 3");
    factory.wait_ready().await.unwrap();
}

/// Rolls back to the first revision. The CRDs stay, so the value of the new field is kept.
async fn roll_back(factory: &Release<'_>, old: &str, events: &str) {
    let back = factory.run_helm(&["rollback", "factory", "1", "--wait", "--timeout", "180s"]).await;
    back.unwrap();
    wait_for_versions(factory, old, old).await;
    factory.wait_ready().await.unwrap();
    assert!(location_in_hello(events).await.is_null());
    factory.kubectl(&["label", "fd", "a", "line=l1"]).await.unwrap();
    let kept = factory.kubectl(&["get", "fd", "a", "-o", "jsonpath={.spec.location}"]).await.unwrap();
    assert_eq!(kept, "Hall 3");
}

/// Asserts that each client has received every message up to `last`, that no stream broke off, and that no
/// client was without data for too long.
async fn assert_all_received(fleet: &Fleet, last: u64) {
    let have_it = |report: &FleetReport| {
        report.newest.values().all(|newest| newest.number == last && newest.behind == 0)
    };
    let report = fleet.wait_until(&format!("message {last} on every client"), SOON, have_it).await.unwrap();
    eprintln!(
        "{last} messages of each device; without data {:?}, without a stream {:?}, byes {:?}, breaks {}",
        report.without_data, report.without_stream, report.byes, report.breaks
    );
    assert_complete(&report);
    assert_eq!(report.breaks + report.unreachable, 0, "a stream ended without bye: {report:#?}");
    assert!(Duration::from_millis(report.without_data.max_ms) <= LONGEST_WITHOUT_DATA, "{report:#?}");
}

/// Waits until the page shows the last number, and asserts that it was never reloaded.
async fn page_shows_last_number(browser: &Chromium, last: u64) {
    let state = "const shown = document.querySelector('[data-device=\"B-1\"] [data-field=\"n\"]'); \
                 return [window.__loaded, document.body.dataset.connection, shown?.textContent]";
    wait_until("the page to show the last number", SOON, async || match browser.script(state).await {
        Ok(state) if state[0] == "once" && state[1] == "live" && shows(&state[2], last) => Ok(()),
        Ok(state) => Err(format!("{last}: {state}")),
        Err(error) => Err(format!("{error:#}")),
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn upgrade_and_rollback_lose_no_message_and_reload_no_page() {
    let cluster = Cluster::shared().await.unwrap();
    let (images, next) = (Images::of_workspace().unwrap(), NextVersion::new().unwrap());
    let old = images.version();
    let kinds = Kinds::reset(&cluster).await;
    let namespace = cluster.namespace("upgrade").await.unwrap();
    let mut factory = Release::install(&cluster, &namespace, "factory", &images, VALUES).await.unwrap();
    next.images.load(&cluster).await.unwrap();
    factory.apply(&manifests()).await.unwrap();
    factory.wait_ready().await.unwrap();
    wait_for_versions(&factory, old, old).await;
    let broker = factory.wait_for_pods("nats", 1).await.unwrap();

    let nats = factory.nats().await.unwrap();
    let (stop, publishing) = counting::publish(nats.connect("devices").await.unwrap(), PERIOD);
    let reach = factory.dataplane().await.unwrap();
    let url = |device: &str| format!("http://{}/v1/acme/events?{device}", reach.address);
    let fleet = Fleet::start(&FleetOptions::new(url("device=A-1&device=B-1"), CLIENTS)).unwrap();
    let all = |report: &FleetReport| report.connected == CLIENTS && report.newest.len() == DEVICES.len();
    fleet.wait_until("all screens", SOON, all).await.unwrap();
    let browser = Chromium::open(&format!("http://{}/?tenant=acme", reach.address), 1200, 800).await.unwrap();
    browser.script("window.__loaded = 'once'").await.unwrap();

    let events = url("device=A-1");
    upgrade_kinds_and_operator(&mut factory, &next, old, &events).await;
    assert_complete(&fleet.report());
    upgrade_dataplane(&mut factory, &next, &events).await;
    assert_complete(&fleet.report());
    roll_back(&factory, old, &events).await;

    stop.send_replace(true);
    let last = publishing.await.unwrap();
    assert_all_received(&fleet, last).await;
    fleet.stop().await;
    // NATS was not upgraded: its pod is the same.
    assert_eq!(factory.wait_for_pods("nats", 1).await.unwrap(), broker);
    page_shows_last_number(&browser, last).await;
    browser.close().await.unwrap();
    factory.uninstall().await.unwrap();
    kinds.restore().await;
}

/// Returns whether a text of the page is this number, ignoring separators between digits.
fn shows(text: &serde_json::Value, number: u64) -> bool {
    let digits: String = text.as_str().unwrap_or_default().chars().filter(char::is_ascii_digit).collect();
    digits == number.to_string()
}
