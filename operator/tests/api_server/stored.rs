//! Objects that the last release stored can be read and changed under the current CRDs, on a real API server.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use flutecast_testkit::{ApiServer, wait_until};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(30);
const KINDS: &str = "tenants,devices,pushformats";
/// Each file has a namespace of its own, because they use the same names.
const FILES: [&str; 3] = ["demo", "samples", "edges"];

fn crds(path: &str) -> String {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../crds").join(path).display().to_string()
}

fn file(name: &str) -> String {
    crds(&format!("released/v1alpha1/objects/{name}.yaml"))
}

async fn install(api: &ApiServer, folder: &str) {
    for kind in ["tenants", "devices", "pushformats"] {
        let path = crds(&format!("{folder}/{kind}.yaml"));
        let apply = ["apply", "--server-side", "--force-conflicts", "-f", &path];
        api.kubectl(&apply, "").await.unwrap();
        let wait = ["wait", "--for=condition=Established", "--timeout=30s", "-f", &path];
        api.kubectl(&wait, "").await.unwrap();
    }
}

/// Returns all objects, by namespace, kind and name.
async fn stored(api: &ApiServer) -> BTreeMap<String, Value> {
    let text = api.kubectl(&["get", KINDS, "-A", "-o", "json"], "").await.unwrap();
    let list: Value = serde_json::from_str(&text).unwrap();
    let name = |object: &Value| {
        let word = |pointer: &str| object.pointer(pointer).unwrap().as_str().unwrap().to_owned();
        format!("{}/{}/{}", word("/metadata/namespace"), word("/kind"), word("/metadata/name"))
    };
    list["items"].as_array().unwrap().iter().map(|object| (name(object), object.clone())).collect()
}

fn list(objects: impl Iterator<Item = Value>) -> String {
    json!({"apiVersion": "v1", "kind": "List", "items": Vec::from_iter(objects)}).to_string()
}

/// Returns a status with all fields that the last release wrote.
fn with_status(mut object: Value) -> Value {
    let condition = |kind: &str, status: &str| {
        json!({"type": kind, "status": status, "reason": "FormatMissing", "message": "é".repeat(2000),
            "observedGeneration": 1, "lastTransitionTime": "2026-11-23T03:18:31Z"})
    };
    let conditions = json!([
        condition("Ready", "False"),
        condition("Reconciling", "True"),
        condition("Others/Own", "Unknown")
    ]);
    object["status"] = match object["kind"].as_str().unwrap() {
        "Tenant" => json!({"stream": "IOT_acme", "devices": 10_000}),
        "Device" => json!({
            "iotId": "j5cwu2sqzq75eyms", "subjects": ["iot.acme.j5cwu2sqzq75eyms.power"],
            "mqttTopics": ["iot/acme/j5cwu2sqzq75eyms/power"], "presence": "Silent",
            "lastTransition": "2026-11-23T03:18:31Z",
        }),
        _ => json!({"channels": 20_000}),
    };
    object["status"]["observedGeneration"] = json!(1);
    object["status"]["conditions"] = conditions;
    object
}

/// Returns the paths of `before` that are missing in `after`. New fields are defaults.
fn lost(before: &Value, after: &Value, path: &str, found: &mut Vec<String>) {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => {
            for (name, value) in before {
                let path = format!("{path}.{name}");
                match after.get(name) {
                    Some(after) => lost(value, after, &path, found),
                    None => found.push(path),
                }
            }
        }
        (Value::Array(before), Value::Array(after)) if before.len() == after.len() => {
            for (at, (before, after)) in before.iter().zip(after).enumerate() {
                lost(before, after, &format!("{path}[{at}]"), found);
            }
        }
        _ if before == after => {}
        _ => found.push(path.to_owned()),
    }
}

/// Returns the errors of the objects under the current CRDs.
async fn wrong(api: &ApiServer, before: &BTreeMap<String, Value>) -> Vec<String> {
    let mut wrong = Vec::new();
    let after = stored(api).await;
    for (name, before) in before {
        let Some(after) = after.get(name) else {
            wrong.push(format!("{name} is gone"));
            continue;
        };
        for part in ["spec", "status"] {
            lost(&before[part], &after[part], &format!("{name}: lost {part}"), &mut wrong);
        }
    }
    let mut run = async |what: &str, args: &[&str], stdin: String| {
        if let Err(error) = api.kubectl(args, &stdin).await {
            wrong.push(format!("{what}: {error:#}"));
        }
    };
    for name in FILES {
        let path = file(name);
        run("applied again", &["apply", "--server-side", "-n", name, "-f", &path], String::new()).await;
    }
    for name in FILES {
        run("relabelled", &["label", "--overwrite", "-n", name, KINDS, "--all", "seen=yes"], String::new())
            .await;
    }
    let statuses = stored(api).await.into_values().map(|mut object| {
        object["status"]["observedGeneration"] = json!(2);
        object
    });
    run("status", &["replace", "--subresource=status", "-f", "-"], list(statuses)).await;
    // An unchanged part of an object may violate a newer rule; a new object shows whether there is one.
    let anew = before.values().cloned().map(|mut object| {
        let name = object["metadata"]["name"].clone();
        object["metadata"] = json!({"name": name, "namespace": "anew"});
        object
    });
    run("made anew", &["create", "--dry-run=server", "--validate=false", "-f", "-"], list(anew)).await;
    wrong
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_of_the_last_release_can_be_read_and_changed() {
    let mut api = ApiServer::start().await.unwrap();
    install(&api, "released/v1alpha1").await;
    api.kubectl(&["create", "namespace", "anew"], "").await.unwrap();
    for name in FILES {
        api.kubectl(&["create", "namespace", name], "").await.unwrap();
        api.kubectl(&["apply", "--server-side", "-n", name, "-f", &file(name)], "").await.unwrap();
    }
    let statuses = stored(&api).await.into_values().map(with_status);
    api.kubectl(&["replace", "--subresource=status", "-f", "-"], &list(statuses)).await.unwrap();
    let before = stored(&api).await;
    assert!(before.len() > 25, "only {} objects", before.len());

    install(&api, "yaml").await;
    // A server that starts can't have the old CRDs in its cache.
    api.kill_api().await.unwrap();
    api.start_api().await.unwrap();
    let wrong_now = wrong(&api, &before).await;
    assert!(wrong_now.is_empty(), "{wrong_now:#?}\ncrds/released/README.md says what this is about");

    what_breaks_is_noticed(&api, &stored(&api).await).await;
}

/// Under CRDs that break stored objects, each check above fails.
async fn what_breaks_is_noticed(api: &ApiServer, before: &BTreeMap<String, Value>) {
    let spec = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties";
    let patches = [
        ("tenants", json!([{"op": "remove", "path": format!("{spec}/displayName")}])),
        ("devices", json!([{"op": "replace", "path": format!("{spec}/channels/maxItems"), "value": 31}])),
    ];
    for (kind, patch) in patches {
        let (crd, patch) = (format!("{kind}.flutecast.io"), patch.to_string());
        api.kubectl(&["patch", "crd", &crd, "--type=json", "-p", &patch], "").await.unwrap();
    }
    wait_until("what breaks to be noticed", SOON, async || {
        let wrong = wrong(api, before).await.join("\n");
        let told = ["lost spec.displayName", "Too many: 32: must have at most 31 items"];
        if told.iter().all(|told| wrong.contains(told)) { Ok(()) } else { Err(wrong) }
    })
    .await
    .unwrap();
}
