//! What people do in git, with a factory that Argo CD brings from `manifests/argocd`. One factory lives
//! through all stories; a failure names the story that it was in.

use std::fs;

use flutecast_testbed::cluster::Cluster;
use flutecast_testkit::{SseEvent, http_client, wait_until};
use http::Method;
use serde_json::{Value, json};

use crate::counting;
use crate::git_factory::{FOLDER, GitFactory, SOON, TENANT};
use crate::gitops::{PLANT, make_bare};
use crate::plant_1::Plant;
use crate::wrong_commits;

#[tokio::test]
async fn what_people_do_in_git_is_taken_without_a_hand() {
    let cluster = Cluster::shared().await.unwrap();
    // So that an Application says of each object how it is.
    let parameters = [("controller.resource.health.persist", "true")];
    let plant = Plant::bring_up(&cluster, &parameters, |git| {
        let write = |file: &str, object: Value| git.write(&format!("{FOLDER}/{file}"), &object.to_string());
        write("formats/count.yaml", counting::format()).unwrap();
        write("devices/count-1.yaml", counting::device(TENANT, "count-1", "CNT-1")).unwrap();
    })
    .await;
    let factory = GitFactory::new(&plant);
    only_strangers_are_orphans(&factory).await;
    devices_come_change_and_go(&factory).await;
    a_device_is_renamed(&factory).await;
    a_format_is_renamed(&factory).await;
    a_tenant_comes_and_goes_with_its_devices(&factory).await;
    a_tenant_is_renamed(&factory).await;
    the_release_goes_forth_and_back(&factory).await;
    a_secret_is_rotated(&factory).await;
    factory.remove("devices/count-1.yaml");
    factory.commit_healthy("Five devices are left").await;
    wrong_commits::each_is_named_and_the_rest_is_in_force(&factory).await;

    the_devices_are_split(&factory).await;
    factory.story("all of it is deleted");
    plant.delete().await;
    let left = cluster.kubectl(&["-n", PLANT, "get", "pods,ft,fd,fpf", "-o", "name"]).await.unwrap();
    assert!(left.is_empty(), "{left}");
    make_bare(&cluster).await;
}

/// Returns what Argo CD says of objects that belong to no Application.
async fn orphans(factory: &GitFactory<'_>) -> String {
    let applications = factory.applications().await;
    let conditions =
        applications.iter().filter_map(|one| one.0.pointer("/status/conditions")).map(Value::to_string);
    conditions.filter(|text| text.contains("Orphaned")).collect()
}

async fn only_strangers_are_orphans(factory: &GitFactory<'_>) {
    factory.story(
        "what the operator makes, and a Device that enrolled itself, are no orphans; what a stranger left is",
    );
    assert_eq!(orphans(factory).await, "");
    let enrolled = counting::device(TENANT, "cnt-7-j5cwu2sqzq75eyms", "CNT-7").to_string();
    factory.plant.release.apply(&enrolled).await.unwrap();
    factory.kubectl(&["create", "configmap", "left-behind"]).await;
    let warned = async |wanted: bool| {
        factory.plant.refresh().await;
        wait_until("the warning to come or go", SOON, async || {
            let seen = orphans(factory).await;
            let right = if wanted { seen.contains("has 1 orphaned") } else { seen.is_empty() };
            if right { Ok(()) } else { Err(seen) }
        })
        .await
        .unwrap();
    };
    warned(true).await;
    factory.kubectl(&["delete", "configmap", "left-behind"]).await;
    warned(false).await;
    factory.kubectl(&["delete", "devices.flutecast.io", "cnt-7-j5cwu2sqzq75eyms"]).await;
}

async fn devices_come_change_and_go(factory: &GitFactory<'_>) {
    factory.story("a device is added");
    let mut screen = factory.screen(TENANT, "*").await;
    factory.device("count-2", TENANT, "count-2", "CNT-2");
    factory.commit_healthy("One more device").await;
    factory.is_told(&mut screen, "added", "CNT-2").await;
    factory.shows(&mut screen, TENANT, "CNT-2", 7).await;
    factory.story("it is changed");
    let mut changed = counting::device(TENANT, "count-2", "CNT-2");
    changed["metadata"]["labels"] = json!({"line": "second"});
    factory.write("devices/count-2.yaml", &changed.to_string());
    factory.commit_healthy("On the second line").await;
    factory.is_told(&mut screen, "added", "second").await;
    factory.story("it is removed");
    factory.remove("devices/count-2.yaml");
    factory.commit_healthy("One device less").await;
    factory.is_told(&mut screen, "removed", "CNT-2").await;
    assert!(factory.object("devices", "count-2").await.is_null());
    assert!(!factory.mapping(TENANT).await.contains("CNT-2"));
}

async fn a_device_is_renamed(factory: &GitFactory<'_>) {
    factory.story("a device is renamed, with the same deviceCode");
    let mut screen = factory.screen(TENANT, "CNT-1").await;
    factory.shows(&mut screen, TENANT, "CNT-1", 1).await;
    factory.device("count-1", TENANT, "counter", "CNT-1");
    factory.commit_healthy("Another name").await;
    assert!(factory.object("devices", "count-1").await.is_null());
    factory.shows(&mut screen, TENANT, "CNT-1", 2).await;
    // Its history is that of the code.
    factory.is_shown(&mut factory.screen(TENANT, "CNT-1").await, "CNT-1", 2).await;
}

async fn a_format_is_renamed(factory: &GitFactory<'_>) {
    factory.story("a format is renamed, and with it the channel that uses it");
    let mut screen = factory.screen(TENANT, "CNT-1").await;
    let mut format = counting::format();
    format["metadata"]["name"] = json!("counted");
    factory.remove("formats/count.yaml");
    factory.write("formats/counted.yaml", &format.to_string());
    let mut device = counting::device(TENANT, "counter", "CNT-1");
    device["spec"]["channels"][0]["format"] = json!("counted");
    factory.write("devices/count-1.yaml", &device.to_string());
    factory.commit_healthy("A better name").await;
    assert!(factory.object("pushformats", "count").await.is_null());
    factory.shows(&mut screen, TENANT, "CNT-1", 3).await;
}

async fn a_tenant_comes_and_goes_with_its_devices(factory: &GitFactory<'_>) {
    factory.story("a Tenant comes, and goes in one commit with its devices");
    let guest = json!({"retention": {"onDelete": "Delete"}, "access": {"anonymous": true}});
    factory.write("guest.yaml", &counting::tenant("guest", &guest).to_string());
    for number in 1..=2 {
        let mut device = counting::device("guest", &format!("guest-{number}"), &format!("G-{number}"));
        device["spec"]["channels"][0]["format"] = json!("counted");
        factory.write(&format!("devices/guest-{number}.yaml"), &device.to_string());
    }
    factory.commit_healthy("A guest").await;
    assert!(factory.streams().await.contains(&"IOT_guest".to_owned()));
    for file in ["guest.yaml", "devices/guest-1.yaml", "devices/guest-2.yaml"] {
        factory.remove(file);
    }
    factory.commit_healthy("The guest goes").await;
    assert!(factory.object("tenants", "guest").await.is_null());
    wait_until("its stream to go", SOON, async || {
        let streams = factory.streams().await;
        if streams.contains(&"IOT_guest".to_owned()) { Err(format!("{streams:?}")) } else { Ok(()) }
    })
    .await
    .unwrap();
}

async fn a_tenant_is_renamed(factory: &GitFactory<'_>) {
    factory.story("a Tenant is renamed, and each of its devices, whose tenant can't be changed");
    factory.edit("tenant.yaml", "name: demo", "name: line-1");
    for entry in fs::read_dir(factory.git.path(&format!("{FOLDER}/devices"))).unwrap() {
        let file = format!("devices/{}", entry.unwrap().file_name().to_string_lossy());
        let text = factory.git.read(&format!("{FOLDER}/{file}")).unwrap();
        let mut device: Value = serde_yaml::from_str(&text).unwrap();
        device["spec"]["tenant"] = json!("line-1");
        device["metadata"]["name"] =
            json!(format!("{}-line-1", device["metadata"]["name"].as_str().unwrap()));
        factory.write(&file, &device.to_string());
    }
    let begin = tokio::time::Instant::now();
    let revision = factory.commit("Another tenant").await;
    factory.healthy(&revision, SOON).await;
    eprintln!("        in force after {:.1?}", begin.elapsed());
    // The old stream stays, as onDelete says, and the new one begins empty.
    let streams = factory.streams().await;
    for name in ["IOT_demo", "IOT_line-1"] {
        assert!(streams.contains(&name.to_owned()), "{streams:?}");
    }
    let mut screen = factory.screen("line-1", "CNT-1").await;
    factory.sends("line-1", "CNT-1", 4).await;
    let first = screen.next_where("the first number", SOON, SseEvent::is_data).await.unwrap();
    assert_eq!(first.json().unwrap()["values"]["n"], 4, "{first:?}");
    factory.story("and back, to what its stream has kept");
    factory.revert(&revision, SOON).await;
    factory.is_shown(&mut factory.screen(TENANT, "CNT-1").await, "CNT-1", 3).await;
}

async fn the_release_goes_forth_and_back(factory: &GitFactory<'_>) {
    let edit = |file: &str, old: &str, new: &str| {
        let text = factory.git.read(file).unwrap();
        assert!(text.contains(old), "{file} has no {old:?}");
        factory.git.write(file, &text.replace(old, new)).unwrap();
    };
    let label = ["get", "deployment", "flutecast-dataplane", "-o", "jsonpath={.metadata.labels.round}"];
    factory.story("another version of the chart");
    edit("charts/flutecast/Chart.yaml", "\nversion: 0.1.0", "\nversion: 0.1.1");
    edit("charts/flutecast/values.yaml", "commonLabels: {}", "commonLabels: {round: second}");
    let forth = factory.git.commit("Chart 0.1.1").await.unwrap();
    factory.plant.refresh().await;
    factory.plant.all_healthy(&forth).await;
    assert_eq!(factory.kubectl(&label).await, "second");
    factory.story("and back");
    let back = factory.git.revert(&forth).await.unwrap();
    factory.plant.refresh().await;
    factory.plant.all_healthy(&back).await;
    assert_eq!(factory.kubectl(&label).await, "");
    factory.shows(&mut factory.screen(TENANT, "CNT-1").await, TENANT, "CNT-1", 5).await;
}

async fn a_secret_is_rotated(factory: &GitFactory<'_>) {
    factory.story("a Secret with a token comes by git, then another token");
    let secret = |token: &str| {
        let metadata = json!({"name": "walls"});
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"wall": token}})
            .to_string()
    };
    let tokens = ["first-token-of-the-wall-0123456789", "other-token-of-the-wall-0123456789"];
    let url = factory.url(&format!("{TENANT}/devices")).await;
    let answers = async |wanted: [u16; 2]| {
        wait_until("the tokens", SOON, async || {
            let mut seen = [0; 2];
            for (status, token) in seen.iter_mut().zip(tokens) {
                let bearer = format!("Bearer {token}");
                let answer = http_client::request(Method::GET, &url, &[("authorization", &bearer)], "").await;
                *status = answer.map_or(0, |answer| answer.status.as_u16());
            }
            if seen == wanted { Ok(()) } else { Err(format!("{seen:?}")) }
        })
        .await
        .unwrap();
    };
    let values = "manifests/argocd/plant-1-release.yaml";
    let text = factory.git.read(values).unwrap();
    factory.git.write(values, &format!("{text}\ntokenSecrets: [walls]\n")).unwrap();
    factory.write("walls.yaml", &secret(tokens[0]));
    factory.edit("tenant.yaml", "anonymous: true", "tokens: {secretName: walls}");
    let first = factory.git.commit("Screens with tokens").await.unwrap();
    factory.plant.refresh().await;
    factory.plant.all_healthy(&first).await;
    answers([200, 401]).await;
    factory.write("walls.yaml", &secret(tokens[1]));
    let second = factory.commit("Another token").await;
    factory.healthy(&second, SOON).await;
    answers([401, 200]).await;
    for commit in [second, first] {
        factory.git.revert(&commit).await.unwrap();
    }
    factory.write("README.md", "Tokens come later.\n");
    let back = factory.git.commit("No tokens").await.unwrap();
    factory.plant.refresh().await;
    factory.plant.all_healthy(&back).await;
}

/// Two commits: what deletes an Application's objects with it goes, then two Applications take its place.
async fn the_devices_are_split(factory: &GitFactory<'_>) {
    factory.story("the Application of the devices is split in two, and no device goes meanwhile");
    let uid = ["get", "devices.flutecast.io", "flexo-1", "-o", "jsonpath={.metadata.uid}"];
    let before = factory.kubectl(&uid).await;
    let template = |part: &str| format!("manifests/argocd/factory/templates/3-devices{part}.yaml");
    let text = factory.git.read(&template("")).unwrap();
    let outlived = text.replace("  finalizers: [resources-finalizer.argocd.argoproj.io]\n", "");
    factory.git.write(&template(""), &outlived).unwrap();
    let first = factory.git.commit("The devices may outlive their Application").await.unwrap();
    factory.plant.refresh().await;
    factory.plant.all_healthy(&first).await;

    factory.git.remove(&template("")).unwrap();
    for part in ["-one", "-two"] {
        let text = text.replace("-devices\n", &format!("-devices{part}\n"));
        let text = text.replace("/devices\n", &format!("/devices/{}\n", &part[1..]));
        factory.git.write(&template(part), &text).unwrap();
    }
    for entry in fs::read_dir(factory.git.path(&format!("{FOLDER}/devices"))).unwrap() {
        let file = entry.unwrap().file_name().into_string().unwrap();
        let text = factory.git.read(&format!("{FOLDER}/devices/{file}")).unwrap();
        let line = if file.starts_with('c') { "one" } else { "two" };
        factory.write(&format!("devices/{line}/{file}"), &text);
        factory.remove(&format!("devices/{file}"));
    }
    let second = factory.git.commit("Two lines").await.unwrap();
    factory.plant.argocd.refresh(PLANT).await.unwrap();
    for part in ["-one", "-two"] {
        let name = format!("{PLANT}-devices{part}");
        factory.plant.argocd.wait_healthy(&name, Some(&second), SOON).await.unwrap();
    }
    assert!(factory.plant.argocd.application("plant-1-devices").await.is_err());
    assert_eq!(factory.kubectl(&uid).await, before, "it was deleted and made again");
}
