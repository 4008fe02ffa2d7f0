//! A PushFormat that is edited into something that doesn't compile, on a real API server.

use flutecast_testkit::wait_until;
use serde_json::{Value, json};

use crate::manifests::{device, format, tenant};
use crate::support::{Cluster, SOON};

const BROKEN: &str = "Ready=False FormatInvalid Stalled=True";

/// A change of a definition after which it has no rules.
const LAX: &str = concat!(
    r#"[{"op":"replace","path":"/spec/versions/0/schema/openAPIV3Schema","#,
    r#""value":{"type":"object","x-kubernetes-preserve-unknown-fields":true}}]"#
);

/// Returns `changes`, whose record Tenants with different retention shorten to their own, with an expression.
fn changes(when: &str) -> String {
    format("changes")
        .replace("delivery: {policy: Every}", &format!("record: {{merge: true}}\n  when: \"{when}\""))
}

/// Returns the version that is in force, as the status has it.
async fn in_force(cluster: &Cluster, format: &str) -> Value {
    cluster.get("fpf", format, "default").await.unwrap()["status"]["inForce"].clone()
}

async fn restart(cluster: &mut Cluster) {
    stop(cluster).await;
    cluster.start_operator().await;
}

async fn stop(cluster: &mut Cluster) {
    cluster.operator.take().unwrap().process.terminate(SOON).await.unwrap();
}

/// Waits until the operator has done what there was to do: a Device that comes now is Ready.
async fn until_seen(cluster: &Cluster, name: &str) {
    cluster.apply(&device(name, "other", name, "on-off")).await;
    cluster.until("fd", name, "Ready=True Accepted").await;
}

#[tokio::test]
async fn the_last_version_that_compiled_stays_in_force() {
    let mut cluster = Cluster::with_operator().await;
    for object in [
        tenant("brief", "retention: {maxAge: 1m}"),
        tenant("long", "retention: {maxAge: 1h}"),
        tenant("other", ""),
        format("on-off"),
        changes("values.running"),
        device("d1", "brief", "C-1", "changes"),
        device("d2", "long", "C-2", "changes"),
    ] {
        cluster.apply(&object).await;
    }
    cluster.until_all_ready().await;
    assert_eq!(in_force(&cluster, "changes").await["generation"], 1);
    cluster.apply(&changes("!values.running")).await;
    cluster.until("fpf", "changes", "Ready=True Accepted").await;
    let version = in_force(&cluster, "changes").await;
    assert_eq!(version["generation"], 2);
    let since = version["since"].as_str().unwrap().to_owned();
    let mapping = cluster.mapping().await;
    let devices = versions_of_devices(&cluster).await;
    let is_as_before = async |cluster: &Cluster, message: &str| {
        assert!(message.ends_with(&format!("; the version of {since} is in force")), "{message}");
        assert_eq!(in_force(cluster, "changes").await, version);
        let now = cluster.mapping().await;
        assert_eq!(now["flutecast-brief-0"], mapping["flutecast-brief-0"]);
        assert_eq!(now["flutecast-long-0"], mapping["flutecast-long-0"]);
        let now = versions_of_devices(cluster).await;
        assert_eq!(devices, now[..devices.len()], "nothing is written to the Devices");
    };

    cluster.apply(&changes("values.running >")).await;
    let message = cluster.until("fpf", "changes", BROKEN).await;
    assert!(message.starts_with("spec.when: "), "{message}");
    is_as_before(&cluster, &message).await;

    // Over a restart nothing is written at all.
    let before = cluster.versions().await;
    restart(&mut cluster).await;
    until_seen(&cluster, "x1").await;
    let after = cluster.versions().await;
    let of_the_newcomer = ["PushFormat/on-off", "Tenant/other", "ConfigMap/flutecast-other-0"];
    for (name, version) in before.iter().filter(|(name, _)| !of_the_newcomer.contains(&name.as_str())) {
        assert_eq!(after.get(name), Some(version), "{name}");
    }
    is_as_before(&cluster, &cluster.until("fpf", "changes", BROKEN).await).await;

    // It was changed while no operator was there, and so it is when another one takes over.
    stop(&mut cluster).await;
    cluster.apply(&changes("values.nothing")).await;
    cluster.start_operator().await;
    let message = cluster.until("fpf", "changes", BROKEN).await;
    assert!(message.contains("nothing"), "{message}");
    is_as_before(&cluster, &message).await;
    let standby = cluster.spawn_operator("another").await;
    stop(&mut cluster).await;
    cluster.operator = Some(standby);
    until_seen(&cluster, "x2").await;
    is_as_before(&cluster, &cluster.until("fpf", "changes", BROKEN).await).await;

    // A Device that comes later has that version too, whichever its tenant.
    cluster.apply(&device("d3", "other", "C-3", "changes")).await;
    cluster.until("fd", "d3", "Ready=True Accepted").await;

    cluster.apply(&changes("values.running")).await;
    cluster.until("fpf", "changes", "Ready=True Accepted").await;
    cluster.until_all_ready().await;
    assert_eq!(in_force(&cluster, "changes").await["generation"], 5);
    assert_ne!(cluster.mapping().await["flutecast-long-0"], mapping["flutecast-long-0"]);
}

#[tokio::test]
async fn a_format_that_never_compiled_or_is_made_again_has_nothing_in_force() {
    let mut cluster = Cluster::with_operator().await;
    for object in [
        tenant("other", ""),
        format("on-off"),
        changes("values.running >"),
        device("d1", "other", "C-1", "changes"),
    ] {
        cluster.apply(&object).await;
    }
    let is_refused = async |cluster: &Cluster| {
        let message = cluster.until("fpf", "changes", BROKEN).await;
        assert!(!message.contains("in force"), "{message}");
        assert_eq!(in_force(cluster, "changes").await, json!(null));
        cluster.until("fd", "d1", BROKEN).await;
        let mapping = cluster.mapping().await;
        assert!(!mapping["flutecast-other-0"].contains("changes"), "{mapping:?}");
    };
    is_refused(&cluster).await;
    cluster.apply(&changes("values.running")).await;
    cluster.until("fd", "d1", "Ready=True Accepted").await;
    // Nobody saw the one that was deleted go, and the mapping has its format.
    stop(&mut cluster).await;
    cluster.kubectl(&["delete", "fpf", "changes"]).await;
    cluster.apply(&changes("values.running >")).await;
    cluster.start_operator().await;
    is_refused(&cluster).await;
}

/// One that was stored under other rules, or is of a newer version.
#[tokio::test]
async fn what_can_not_be_read_keeps_its_version() {
    let mut cluster = Cluster::with_operator().await;
    for object in [
        tenant("other", ""),
        format("on-off"),
        changes("values.running"),
        device("d1", "other", "C-1", "changes"),
    ] {
        cluster.apply(&object).await;
    }
    cluster.until_all_ready().await;
    let (version, mapping) = (in_force(&cluster, "changes").await, cluster.mapping().await);
    stop(&mut cluster).await;
    cluster.kubectl(&["patch", "crd", "pushformats.flutecast.io", "--type=json", "-p", LAX]).await;
    let unreadable = "apiVersion: flutecast.io/v1alpha1\nkind: PushFormat\nmetadata: {name: changes}\n\
                      spec: {fields: many}\n";
    wait_until("the rules to be gone", SOON, async || {
        let args = ["apply", "--server-side", "-f", "-"];
        cluster.api.kubectl(&args, unreadable).await.map_err(|error| error.to_string())
    })
    .await
    .unwrap();
    for _ in 0..2 {
        cluster.start_operator().await;
        let message = cluster.until("fpf", "changes", "Ready=False InvalidObject Stalled=True").await;
        assert!(message.ends_with("is in force"), "{message}");
        assert_eq!(in_force(&cluster, "changes").await, version);
        assert_eq!(cluster.mapping().await, mapping);
        stop(&mut cluster).await;
    }
}

/// Returns the versions of the Devices, sorted by name.
async fn versions_of_devices(cluster: &Cluster) -> Vec<(Value, Value)> {
    let mut versions = Vec::new();
    wait_until("all Devices to have been looked at", SOON, async || {
        versions.clear();
        for device in cluster.list("fd", "default").await {
            if device["status"]["observedGeneration"].is_null() {
                return Err(device["metadata"]["name"].to_string());
            }
            let meta = &device["metadata"];
            versions.push((meta["name"].clone(), meta["resourceVersion"].clone()));
        }
        Ok(())
    })
    .await
    .unwrap();
    versions
}
