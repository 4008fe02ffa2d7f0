//! A factory by Flux, from `manifests/flux` as shipped, and what people do to it in git. One factory lives
//! through all stories; a failure names the step that it was in.

use std::time::Duration;

use flutecast_testbed::cluster::Cluster;
use flutecast_testbed::gitops::{Flux, FluxObject, GitRepository};
use flutecast_testbed::release::{Images, Release};
use flutecast_testkit::{SseClient, http_client, wait_until};
use http::Method;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::counting;
use crate::gitops::{PLANT, make_bare};

/// What the issue allows from `kubectl apply` on a bare cluster until all is healthy.
const BRING_UP: Duration = Duration::from_secs(120);
const SOON: Duration = Duration::from_secs(90);
/// How long a commit that mends something may take: far less than the five minutes for which the
/// Kustomization waits for what may still become healthy.
const AT_ONCE: Duration = Duration::from_secs(60);
/// The Kustomization of the factory's own manifests, the folder that it applies, and what holds all of it.
const FACTORY: &str = "plant-1-factory";
const FOLDER: &str = "manifests/demo";
const ALL: &str = "plant-1";
/// The factory's release, as Flux and as kubectl know it.
const RELEASE: (&str, &str) = (PLANT, "helmrelease/flutecast");
const KINDS: (&str, &str) = ("flutecast-system", "helmrelease/flutecast-crds");
/// The Tenant of `manifests/demo`.
const TENANT: &str = "demo";

/// A factory by Flux.
struct Plant<'a> {
    flux: Flux<'a>,
    git: GitRepository,
    release: Release<'a>,
    begin: Instant,
}

impl Plant<'_> {
    /// Prints the begin of a story, which is the last line before a failure.
    fn story(&self, text: &str) {
        eprintln!("{:>4} s  {text}", self.begin.elapsed().as_secs());
    }

    /// Commits, and tells Flux as a webhook does. Returns the revision.
    async fn push(&self, message: &str) -> String {
        let revision = self.git.commit(message).await.unwrap();
        self.tell().await;
        revision
    }

    async fn take_back(&self, revision: &str) -> String {
        let revision = self.git.revert(revision).await.unwrap();
        self.tell().await;
        revision
    }

    async fn tell(&self) {
        self.flux.reconcile(Flux::NAMESPACE, "gitrepository/flutecast").await.unwrap();
    }

    /// Waits until the factory's manifests are applied and healthy.
    async fn healthy(&self, revision: &str, deadline: Duration) -> FluxObject {
        let begin = Instant::now();
        let object = self.flux.wait_applied(FACTORY, revision, deadline).await.unwrap();
        eprintln!("        healthy after {:.1?}", begin.elapsed());
        object
    }

    /// Waits until the factory's Kustomization isn't Ready at a revision, and returns why.
    async fn refused(&self, revision: &str) -> String {
        let begin = Instant::now();
        let name = format!("kustomization/{FACTORY}");
        let failed = |object: &FluxObject| {
            object.text("/status/lastAttemptedRevision").ends_with(revision) && !object.failure().is_empty()
        };
        let at = (Flux::NAMESPACE, name.as_str());
        let object = self.flux.wait_until("the failure", at, SOON, failed).await.unwrap();
        eprintln!("        after {:.1?}: {}", begin.elapsed(), object.failure());
        object.failure()
    }

    /// Waits for a HelmRelease of this chart's version.
    async fn released(&self, (namespace, name): (&str, &str), version: &str) {
        let there = |object: &FluxObject| {
            object.is_ready() && object.text("/status/history/0/chartVersion") == version
        };
        self.flux.wait_until(version, (namespace, name), SOON, there).await.unwrap();
    }

    fn write(&self, file: &str, text: &str) {
        self.git.write(&format!("{FOLDER}/{file}"), text).unwrap();
    }

    /// Writes a Device. JSON is YAML; files that end in `.json` Flux would leave out.
    fn device(&self, file: &str, spec: &Value) {
        self.write(&format!("devices/{file}.yaml"), &spec.to_string());
    }

    /// Replaces a text of a file, which has to be there.
    fn edit(&self, path: &str, old: &str, new: &str) {
        let text = self.git.read(path).unwrap();
        assert!(text.contains(old), "{path} has no {old:?}");
        self.git.write(path, &text.replace(old, new)).unwrap();
    }

    /// Returns an object of ours; `Null` if it isn't there.
    async fn object(&self, kind: &str, name: &str) -> Value {
        let get = ["get", &format!("{kind}.flutecast.io"), name, "--ignore-not-found", "-o", "json"];
        serde_json::from_str(&self.release.kubectl(&get).await.unwrap()).unwrap_or(Value::Null)
    }

    /// Waits until the condition Ready of an object has this status and reason.
    async fn is(&self, kind: &str, name: &str, wanted: &str) {
        wait_until(&format!("{kind} {name} to be {wanted}"), SOON, async || {
            let object = self.object(kind, name).await;
            let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let ready = conditions.into_iter().find(|one| one["type"] == "Ready").unwrap_or_default();
            let text = |key: &str| ready[key].as_str().unwrap_or_default().to_owned();
            let seen = format!("{} {}", text("status"), text("reason"));
            if seen == wanted { Ok(()) } else { Err(format!("{seen}: {}", ready["message"])) }
        })
        .await
        .unwrap();
    }

    /// Returns the operator's mapping of a tenant as text.
    async fn mapping(&self, tenant: &str) -> String {
        let of_tenant = format!("flutecast.io/tenant={tenant}");
        self.release.kubectl(&["get", "configmaps", "-l", &of_tenant, "-o", "yaml"]).await.unwrap()
    }

    async fn address(&self) -> String {
        self.release.dataplane().await.unwrap().address
    }

    async fn screen(&self, tenant: &str, devices: &str) -> SseClient {
        let url = format!("http://{}/v1/{tenant}/events?device={devices}", self.address().await);
        let mut screen = SseClient::connect(&url, &[]).await.unwrap();
        screen.next_named("hello", SOON).await.unwrap();
        screen
    }

    /// Sends a number as a counting device does, and waits until the screen shows it.
    async fn shows(&self, screen: &mut SseClient, tenant: &str, code: &str, number: u64) {
        let nats = self.release.nats().await.unwrap().connect("devices").await.unwrap();
        let payload = counting::payload(number).to_string();
        nats.publish(counting::subject(tenant, code), payload.into()).await.unwrap();
        nats.flush().await.unwrap();
        let what = format!("{code} to show {number}");
        let shown = |event: &flutecast_testkit::SseEvent| {
            event.is_data()
                && event.json().is_ok_and(|data| data["values"]["n"].as_f64() == Some(number as f64))
        };
        screen.next_where(&what, SOON, shown).await.unwrap();
    }

    /// Returns the names of the streams in NATS.
    async fn streams(&self) -> Vec<String> {
        let client = self.release.nats().await.unwrap().connect("operator").await.unwrap();
        let answer = client.request("$JS.API.STREAM.NAMES", "".into()).await.unwrap();
        let answer: Value = serde_json::from_slice(&answer.payload).unwrap();
        serde_json::from_value(answer["streams"].clone()).unwrap_or_default()
    }
}

#[tokio::test]
async fn a_factory_lives_through_what_people_do_in_git() {
    let cluster = Cluster::shared().await.unwrap();
    let flux = Flux::start(&cluster).await.unwrap();
    make_bare(&cluster).await;
    Images::of_workspace().unwrap().load_as_shipped(&cluster).await.unwrap();
    let git = GitRepository::of_checkout(&cluster, "flutecast").await.unwrap();
    let release = Release::of_others(&cluster, PLANT, "flutecast");
    let plant = Plant { flux, git, release, begin: Instant::now() };

    comes_up(&plant, &cluster).await;
    devices_come_change_and_go(&plant).await;
    a_device_is_renamed(&plant).await;
    a_bad_commit_is_named_and_mended(&plant).await;
    a_refused_commit_changes_nothing(&plant).await;
    a_format_in_use_stays(&plant).await;
    the_chart_goes_forth_and_back(&plant).await;
    secrets_are_rotated(&plant).await;
    a_tenant_is_renamed(&plant).await;
    a_tenant_goes_with_its_devices(&plant).await;
    everything_is_deleted(&plant, &cluster).await;
    drop(plant);
    make_bare(&cluster).await;
}

async fn comes_up(plant: &Plant<'_>, cluster: &Cluster) {
    plant.story("a factory comes up on a bare cluster");
    plant.write("formats/count.yaml", &counting::format().to_string());
    plant.device("count-1", &counting::device(TENANT, "count-1", "CNT-1"));
    let revision = plant.git.commit("The factory").await.unwrap();
    let begin = Instant::now();
    cluster.apply(&plant.git.read("manifests/flux/plant-1.yaml").unwrap()).await.unwrap();
    plant.flux.wait_applied(ALL, &revision, BRING_UP).await.unwrap();
    plant.healthy(&revision, BRING_UP.saturating_sub(begin.elapsed())).await;
    for release in [KINDS, RELEASE] {
        plant.flux.wait_until("Ready", release, SOON, FluxObject::is_ready).await.unwrap();
    }
    eprintln!("        all is healthy {:.1?} after kubectl apply", begin.elapsed());
    assert!(begin.elapsed() < BRING_UP);
}

async fn devices_come_change_and_go(plant: &Plant<'_>) {
    plant.story("a device is added");
    let mut screen = plant.screen(TENANT, "*").await;
    plant.shows(&mut screen, TENANT, "CNT-1", 1).await;
    // With its format in the same commit, which Flux applies behind it.
    let mut device = counting::device(TENANT, "count-2", "CNT-2");
    device["spec"]["channels"][0]["format"] = json!("number");
    let mut format = counting::format();
    format["metadata"]["name"] = json!("number");
    plant.write("formats/number.yaml", &format.to_string());
    plant.device("count-2", &device);
    let revision = plant.push("One more device").await;
    plant.healthy(&revision, SOON).await;
    let added = |event: &flutecast_testkit::SseEvent| {
        event.name() == "devices" && event.data.as_ref().is_some_and(|data| data.contains("CNT-2"))
    };
    screen.next_where("the new device", SOON, added).await.unwrap();
    plant.shows(&mut screen, TENANT, "CNT-2", 7).await;

    plant.story("it is changed");
    let mut changed = device.clone();
    changed["metadata"]["labels"] = json!({"line": "l2"});
    plant.device("count-2", &changed);
    let revision = plant.push("On line 2").await;
    plant.healthy(&revision, SOON).await;
    let relabelled = |event: &flutecast_testkit::SseEvent| {
        added(event) && event.data.as_ref().is_some_and(|data| data.contains("l2"))
    };
    screen.next_where("the label", SOON, relabelled).await.unwrap();

    plant.story("it is removed");
    plant.git.remove(&format!("{FOLDER}/devices/count-2.yaml")).unwrap();
    plant.git.remove(&format!("{FOLDER}/formats/number.yaml")).unwrap();
    let revision = plant.push("One device less").await;
    plant.healthy(&revision, SOON).await;
    let removed = |event: &flutecast_testkit::SseEvent| {
        event.name() == "devices"
            && event.json().is_ok_and(|data| data["removed"].as_array().is_some_and(|all| !all.is_empty()))
    };
    let event = screen.next_where("the end of the device", SOON, removed).await.unwrap();
    assert_eq!(event.json().unwrap()["removed"], json!(["CNT-2"]));
    assert!(plant.object("devices", "count-2").await.is_null());
    assert!(!plant.mapping(TENANT).await.contains("CNT-2"));
}

async fn a_device_is_renamed(plant: &Plant<'_>) {
    plant.story("a device is renamed, with the same deviceCode");
    let mut screen = plant.screen(TENANT, "CNT-1").await;
    plant.device("count-1", &counting::device(TENANT, "counter", "CNT-1"));
    let revision = plant.push("Another name").await;
    plant.healthy(&revision, SOON).await;
    plant.is("devices", "counter", "True Accepted").await;
    assert!(plant.object("devices", "count-1").await.is_null());
    plant.shows(&mut screen, TENANT, "CNT-1", 2).await;
}

async fn a_bad_commit_is_named_and_mended(plant: &Plant<'_>) {
    plant.story("a commit with a missing format, a code that is taken, and a format that doesn't compile");
    let mut missing = counting::device(TENANT, "without-format", "BAD-1");
    missing["spec"]["channels"][0]["format"] = json!("nowhere");
    plant.device("bad-1", &missing);
    plant.device("bad-2", &counting::device(TENANT, "taken", "CNT-1"));
    plant.device("good", &counting::device(TENANT, "good", "CNT-3"));
    let mut format = counting::format();
    format["spec"]["when"] = json!("values.nothing > 1");
    plant.write("formats/count.yaml", &format.to_string());
    let bad = plant.push("Wrong in three ways").await;
    let said = plant.refused(&bad).await;
    assert!(said.starts_with("HealthCheckFailed"), "{said}");
    plant.is("devices", "without-format", "False FormatMissing").await;
    plant.is("devices", "taken", "False DuplicateDeviceCode").await;
    plant.is("pushformats", "count", "False FormatInvalid").await;
    let named = ["without-format", "taken", "count"].map(|name| said.contains(&format!("/{PLANT}/{name} ")));
    assert!(named.contains(&true), "{said}");
    plant.story("what is right in it is in force, and the format as it was");
    plant.is("devices", "good", "True Accepted").await;
    let mut screen = plant.screen(TENANT, "CNT-1").await;
    plant.shows(&mut screen, TENANT, "CNT-1", 3).await;
    plant.story("the commit that mends it is taken at once");
    let revision = plant.take_back(&bad).await;
    plant.healthy(&revision, AT_ONCE).await;

    plant.story("a commit that only waits for something, and the one that mends it");
    plant.device("bad-1", &missing);
    let bad = plant.push("Only a format is missing").await;
    plant.is("devices", "without-format", "False FormatMissing").await;
    let said = plant.refused(&bad).await;
    assert!(said.contains("without-format"), "{said}");
    let revision = plant.take_back(&bad).await;
    plant.healthy(&revision, AT_ONCE).await;
}

async fn a_refused_commit_changes_nothing(plant: &Plant<'_>) {
    plant.story("a commit that the API server refuses, and one that is no YAML");
    let mut odd = counting::device(TENANT, "odd", "ODD-1");
    odd["spec"]["deviceCode"] = json!("not a code");
    plant.device("odd", &odd);
    plant.device("good", &counting::device(TENANT, "good", "CNT-3"));
    let bad = plant.push("A code with spaces").await;
    let said = plant.refused(&bad).await;
    assert!(said.contains("odd") && said.contains("deviceCode"), "{said}");
    // Flux checks all objects of a commit before it writes the first.
    assert!(plant.object("devices", "good").await.is_null());
    let mut screen = plant.screen(TENANT, "CNT-1").await;
    plant.shows(&mut screen, TENANT, "CNT-1", 4).await;
    plant.git.remove(&format!("{FOLDER}/devices/odd.yaml")).unwrap();
    plant.write("devices/broken.yaml", "kind: Device\n  spec: [\n");
    let bad = plant.push("No YAML").await;
    let said = plant.refused(&bad).await;
    assert!(said.contains("broken.yaml"), "{said}");
    plant.git.remove(&format!("{FOLDER}/devices/broken.yaml")).unwrap();
    plant.story("an object that names another namespace");
    let mut elsewhere = counting::device(TENANT, "good", "CNT-3");
    elsewhere["metadata"]["namespace"] = json!("kube-system");
    plant.device("good", &elsewhere);
    let revision = plant.push("Elsewhere").await;
    plant.healthy(&revision, AT_ONCE).await;
    // `targetNamespace` goes before what an object says.
    assert!(!plant.object("devices", "good").await.is_null());
    plant.git.remove(&format!("{FOLDER}/devices/good.yaml")).unwrap();
    let revision = plant.push("As before").await;
    plant.healthy(&revision, AT_ONCE).await;
}

async fn a_format_in_use_stays(plant: &Plant<'_>) {
    plant.story("a format is deleted that is in use");
    plant.git.remove(&format!("{FOLDER}/formats/count.yaml")).unwrap();
    let bad = plant.push("A format less").await;
    let said = plant.refused(&bad).await;
    assert!(said.contains("count") && said.contains("counter"), "{said}");
    assert!(!plant.object("pushformats", "count").await.is_null());
    let mut screen = plant.screen(TENANT, "CNT-1").await;
    plant.shows(&mut screen, TENANT, "CNT-1", 5).await;
    let revision = plant.take_back(&bad).await;
    plant.healthy(&revision, AT_ONCE).await;
}

async fn the_chart_goes_forth_and_back(plant: &Plant<'_>) {
    plant.story("another version of the chart by git");
    let chart = "charts/flutecast/Chart.yaml";
    plant.edit(chart, "\nversion: 0.1.0", "\nversion: 0.1.1");
    let values = "charts/flutecast/values.yaml";
    plant.edit(values, "commonLabels: {}", "commonLabels: {round: second}");
    let forth = plant.push("Chart 0.1.1").await;
    plant.released(RELEASE, "0.1.1").await;
    let labels = ["get", "deployment", "flutecast-dataplane", "-o", "jsonpath={.metadata.labels.round}"];
    assert_eq!(plant.release.kubectl(&labels).await.unwrap(), "second");
    plant.story("and back");
    plant.take_back(&forth).await;
    plant.released(RELEASE, "0.1.0").await;
    assert_eq!(plant.release.kubectl(&labels).await.unwrap(), "");
    let mut screen = plant.screen(TENANT, "CNT-1").await;
    plant.shows(&mut screen, TENANT, "CNT-1", 6).await;
}

async fn secrets_are_rotated(plant: &Plant<'_>) {
    plant.story("a Secret with tokens comes by git");
    let secret = |token: &str| {
        let metadata = json!({"name": "walls"});
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"wall": token}})
    };
    let tokens = ["first-token-of-the-wall-0123456789", "other-token-of-the-wall-0123456789"];
    plant.write("walls.yaml", &secret(tokens[0]).to_string());
    plant.edit(&format!("{FOLDER}/tenant.yaml"), "anonymous: true", "tokens: {secretName: walls}");
    let release = "manifests/flux/plant-1/2-release.yaml";
    plant.edit(release, "  values:\n", "  values:\n    tokenSecrets: [walls]\n");
    let revision = plant.push("Screens with tokens").await;
    plant.healthy(&revision, SOON).await;
    let url = format!("http://{}/v1/{TENANT}/devices", plant.address().await);
    let status = async |token: &str| {
        let bearer = format!("Bearer {token}");
        let answer = http_client::request(Method::GET, &url, &[("authorization", &bearer)], "").await;
        answer.map_or(0, |answer| answer.status.as_u16())
    };
    let answers = async |wanted: [u16; 2]| {
        wait_until("the tokens", SOON, async || {
            let seen = [status(tokens[0]).await, status(tokens[1]).await];
            if seen == wanted { Ok(()) } else { Err(format!("{seen:?}")) }
        })
        .await
        .unwrap();
    };
    answers([200, 401]).await;
    plant.story("and another token");
    plant.write("walls.yaml", &secret(tokens[1]).to_string());
    let second = plant.push("Another token").await;
    plant.healthy(&second, SOON).await;
    answers([401, 200]).await;
    plant.edit(&format!("{FOLDER}/tenant.yaml"), "tokens: {secretName: walls}", "anonymous: true");
    let revision = plant.push("Screens without tokens").await;
    plant.healthy(&revision, SOON).await;

    plant.story("NATS gets other passwords");
    let patch = r#"{"stringData": {"devices": "another-password-of-devices"}}"#;
    plant.release.kubectl(&["patch", "secret", "flutecast-nats-passwords", "--patch", patch]).await.unwrap();
    let restart = ["rollout", "restart", "statefulset/flutecast-nats", "deployment/flutecast-dataplane"];
    plant.release.kubectl(&restart).await.unwrap();
    for workload in &restart[2..] {
        plant.release.kubectl(&["rollout", "status", workload, "--timeout=80s"]).await.unwrap();
    }
    let mut screen = plant.screen(TENANT, "CNT-1").await;
    plant.shows(&mut screen, TENANT, "CNT-1", 8).await;
    plant.flux.reconcile(RELEASE.0, RELEASE.1).await.unwrap();
    plant.flux.wait_until("Ready", RELEASE, SOON, FluxObject::is_ready).await.unwrap();
    let url = plant.release.nats().await.unwrap().url("devices");
    assert!(url.contains("another-password-of-devices"), "Flux took the password back");
}

async fn a_tenant_is_renamed(plant: &Plant<'_>) {
    plant.story("a Tenant is renamed, with all its devices");
    let old = plant.streams().await;
    assert!(old.contains(&"IOT_demo".to_owned()), "{old:?}");
    // A Device's tenant can't be changed, so its object is made anew. The annotation says so to Flux, for
    // this commit only: with it a typing error would delete the object, too.
    let files: Vec<_> = std::fs::read_dir(plant.git.path(&format!("{FOLDER}/devices")))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let texts: Vec<_> =
        files.iter().map(|file| plant.git.read(&format!("{FOLDER}/devices/{file}")).unwrap()).collect();
    let renamed = |text: &str, force: bool| {
        let mut device: Value = serde_yaml::from_str(text).unwrap();
        device["spec"]["tenant"] = json!("line-1");
        if force {
            device["metadata"]["annotations"] = json!({"kustomize.toolkit.fluxcd.io/force": "enabled"});
        }
        device.to_string()
    };
    for (file, text) in files.iter().zip(&texts) {
        plant.write(&format!("devices/{file}"), &renamed(text, true));
    }
    plant.edit(&format!("{FOLDER}/tenant.yaml"), "name: demo\n", "name: line-1\n");
    let revision = plant.push("The plant's line is called line-1").await;
    plant.healthy(&revision, SOON).await;
    for (file, text) in files.iter().zip(&texts) {
        plant.write(&format!("devices/{file}"), &renamed(text, false));
    }
    let revision = plant.push("Without the annotation").await;
    plant.healthy(&revision, SOON).await;
    assert!(plant.object("tenants", "demo").await.is_null());
    let streams = plant.streams().await;
    for name in ["IOT_line-1", "IOT_demo"] {
        assert!(streams.contains(&name.to_owned()), "{name} isn't in {streams:?}");
    }
    let mut screen = plant.screen("line-1", "CNT-1").await;
    plant.shows(&mut screen, "line-1", "CNT-1", 1).await;
}

async fn a_tenant_goes_with_its_devices(plant: &Plant<'_>) {
    plant.story("a Tenant and its devices go in one commit");
    for path in ["devices", "tenant.yaml"] {
        plant.git.remove(&format!("{FOLDER}/{path}")).unwrap();
    }
    let revision = plant.push("The line is sold").await;
    plant.healthy(&revision, SOON).await;
    let left =
        plant.release.kubectl(&["get", "tenants.flutecast.io,devices.flutecast.io", "-o", "name"]).await;
    assert_eq!(left.unwrap().trim(), "");
    let revision = plant.take_back(&revision).await;
    plant.healthy(&revision, SOON).await;
}

async fn everything_is_deleted(plant: &Plant<'_>, cluster: &Cluster) {
    plant.story("everything is deleted");
    let delete = ["-n", Flux::NAMESPACE, "delete", "kustomization", ALL, "--timeout=80s"];
    cluster.kubectl_with(&delete, "", SOON).await.unwrap();
    wait_until("the end of all", SOON, async || {
        let flux = "kustomizations.kustomize.toolkit.fluxcd.io,helmreleases.helm.toolkit.fluxcd.io";
        let left = cluster.kubectl(&["get", flux, "-A", "-o", "name"]).await;
        let ours = "tenants.flutecast.io,devices.flutecast.io,pushformats.flutecast.io,pods";
        let objects = plant.release.kubectl(&["get", ours, "-o", "name"]).await;
        match (left, objects) {
            (Ok(left), Ok(objects)) if left.is_empty() && objects.is_empty() => Ok(()),
            seen => Err(format!("{seen:?}")),
        }
    })
    .await
    .unwrap();
    plant.story("what the values keep is kept");
    let kept = ["get", "persistentvolumeclaims,secrets", "-o", "name"];
    let kept = plant.release.kubectl(&kept).await.unwrap();
    for name in ["persistentvolumeclaim/", "secret/flutecast-nats-passwords"] {
        assert!(kept.contains(name), "no {name}: {kept}");
    }
    plant.story("the end");
}
