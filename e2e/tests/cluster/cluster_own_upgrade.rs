//! One version and the next, both built from this tree (the feature `next-version`), with screens connected
//! and devices sending: the kinds first, then the operator, then the data plane, then all the way back but
//! for the kinds. No client misses a message, and no page is loaded again.

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
/// The longest time that a client may be without data.
const LONGEST_WITHOUT_DATA: Duration = Duration::from_secs(5);
/// A message of the one device or the other.
const PERIOD: Duration = Duration::from_millis(100);
const SOON: Duration = Duration::from_secs(60);
/// Less time than a plant would give, as a test waits for it.
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

/// The versions that all pods of a program say they are.
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

/// Waits until the pods of both programs are of these versions and no others, and one operator works.
async fn are(factory: &Release<'_>, operator: &str, dataplane: &str) {
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
    wait_until("the new operator's turn", SOON, async || match holder().await {
        Ok(name) if operators[0].name == name => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await
    .unwrap();
}

/// Returns the location that `hello` gives for the devices.
async fn told_location(url: &str) -> serde_json::Value {
    let mut client = SseClient::connect(url, &[]).await.unwrap();
    let hello = client.next_named("hello", SOON).await.unwrap();
    let hello: serde_json::Value = serde_json::from_str(hello.data.as_deref().unwrap()).unwrap();
    hello["devices"][0]["location"].clone()
}

/// So far everything has come to everybody.
fn nothing_is_missing(report: &FleetReport) {
    let bad = [report.failed as u64, report.lost, report.wrong, report.strange, report.silent];
    assert_eq!(bad, [0; 5], "{report:#?}");
    assert!(report.gaps.is_empty() && report.bad_answers.is_empty(), "{report:#?}");
}

/// The charts of the next version, and the field that it adds.
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

/// The kinds go first; what runs doesn't mind. Then the operator: what it writes for the new field, the old
/// data plane leaves out.
async fn upgrade_kinds_and_operator(factory: &mut Release<'_>, next: &NextVersion, old: &str, events: &str) {
    install_crds(factory.cluster(), &next.kinds).await.unwrap();
    let operator_first = OPERATOR_FIRST.replace("OLD", old);
    factory.helm("upgrade", &next.chart, &next.images, &operator_first).await.unwrap();
    are(factory, next.images.version(), old).await;
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
    assert!(told_location(events).await.is_null(), "an old pod knows nothing of it");
}

async fn upgrade_dataplane(factory: &mut Release<'_>, next: &NextVersion, events: &str) {
    factory.helm("upgrade", &next.chart, &next.images, VALUES).await.unwrap();
    are(factory, next.images.version(), next.images.version()).await;
    assert_eq!(told_location(events).await, "Hall 3");
    factory.wait_ready().await.unwrap();
}

/// Back to the first revision. The kinds stay, and with them what was said in the new field.
async fn roll_back(factory: &Release<'_>, old: &str, events: &str) {
    let back = factory.run_helm(&["rollback", "factory", "1", "--wait", "--timeout", "180s"]).await;
    back.unwrap();
    are(factory, old, old).await;
    factory.wait_ready().await.unwrap();
    assert!(told_location(events).await.is_null());
    factory.kubectl(&["label", "fd", "a", "line=l1"]).await.unwrap();
    let kept = factory.kubectl(&["get", "fd", "a", "-o", "jsonpath={.spec.location}"]).await.unwrap();
    assert_eq!(kept, "Hall 3");
}

/// Each client has each message up to `last`, none was cut off, and none waited long.
async fn everybody_has_everything(fleet: &Fleet, last: u64) {
    let have_it = |report: &FleetReport| {
        report.newest.values().all(|newest| newest.number == last && newest.behind == 0)
    };
    let report = fleet.wait_until(&format!("message {last} with everybody"), SOON, have_it).await.unwrap();
    eprintln!(
        "{last} messages of each device; without data {:?}, without a stream {:?}, byes {:?}, breaks {}",
        report.without_data, report.without_stream, report.byes, report.breaks
    );
    nothing_is_missing(&report);
    assert_eq!(report.breaks + report.unreachable, 0, "a stream ends with bye: {report:#?}");
    assert!(Duration::from_millis(report.without_data.max_ms) <= LONGEST_WITHOUT_DATA, "{report:#?}");
}

/// The page shows the last number and was never loaded again.
async fn the_page_has_come_along(browser: &Chromium, last: u64) {
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
async fn screens_see_nothing_of_an_upgrade_and_of_the_way_back() {
    let cluster = Cluster::shared().await.unwrap();
    let (images, next) = (Images::of_workspace().unwrap(), NextVersion::new().unwrap());
    let old = images.version();
    let kinds = Kinds::reset(&cluster).await;
    let namespace = cluster.namespace("upgrade").await.unwrap();
    let mut factory = Release::install(&cluster, &namespace, "factory", &images, VALUES).await.unwrap();
    next.images.load(&cluster).await.unwrap();
    factory.apply(&manifests()).await.unwrap();
    factory.wait_ready().await.unwrap();
    are(&factory, old, old).await;
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
    nothing_is_missing(&fleet.report());
    upgrade_dataplane(&mut factory, &next, &events).await;
    nothing_is_missing(&fleet.report());
    roll_back(&factory, old, &events).await;

    stop.send_replace(true);
    let last = publishing.await.unwrap();
    everybody_has_everything(&fleet, last).await;
    fleet.stop().await;
    // NATS was no part of it.
    assert_eq!(factory.wait_for_pods("nats", 1).await.unwrap(), broker);
    the_page_has_come_along(&browser, last).await;
    browser.close().await.unwrap();
    factory.uninstall().await.unwrap();
    kinds.restore().await;
}

/// Returns whether a text of the page is this number, with whatever stands between its digits.
fn shows(text: &serde_json::Value, number: u64) -> bool {
    let digits: String = text.as_str().unwrap_or_default().chars().filter(char::is_ascii_digit).collect();
    digits == number.to_string()
}
