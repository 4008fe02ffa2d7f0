//! Commits that are wrong in twenty-two ways, and what Argo CD makes of each with `manifests/argocd`.
//!
//! Each also changes a label of another Device: the rest of a commit has to be in force, or, where Argo CD
//! holds a commit back as a whole, has to be as it was.

use std::time::Duration;

use flutecast_testbed::gitops::Application;
use flutecast_testkit::wait_until;
use serde_json::Value;
use tokio::time::Instant;

use crate::git_factory::{FOLDER, GitFactory};

/// Time limit for a commit to be judged. Between two tries Argo CD waits for up to 20 s.
const JUDGED: Duration = Duration::from_secs(60);
/// Time limit for the commit that mends it.
const MENDED: Duration = Duration::from_secs(40);
/// The Device with the label, and the one that most commits are wrong about.
const WITNESS: (&str, &str) = ("slitter-1", "devices/slitter-1.yaml");
const FLEXO: &str = "devices/flexo-1.yaml";
/// The file of one more Device.
const BAD: &str = "devices/bad.yaml";
const TENANT: &str = "tenant.yaml";
const ON_OFF: &str = "formats/on-off.yaml";

struct Wrong {
    what: &'static str,
    edits: &'static [Edit],
    outcome: Outcome,
}

/// A change below `manifests/demo`.
enum Edit {
    /// Of a file that is there: an old text and the new one.
    Replace(&'static str, &'static str, &'static str),
    Write(&'static str, &'static str),
    /// One more Device: its name, and its tenant and code as its spec has them.
    Device(&'static str, &'static str),
    Remove(&'static str),
}

/// What becomes of a commit. An object is its kind and its name.
enum Outcome {
    /// The file is named; nothing changes.
    Unreadable(&'static str),
    /// Argo CD names the object and tries none of the Application.
    HeldBack(&'static str, &'static str),
    /// The API server refuses the object, and Argo CD gives its words; the rest is in force.
    Refused(&'static str, &'static str),
    /// The API server leaves out what it doesn't know; the object stays OutOfSync.
    LeftOut(&'static str),
    /// The operator's words on the object; the rest is in force.
    Degraded(&'static str, &'static str),
}

use Edit::{Device, Remove, Replace, Write};
use Outcome::{Degraded, HeldBack, LeftOut, Refused, Unreadable};

const WRONG: [Wrong; 22] = [
    Wrong {
        what: "a brace is not closed",
        edits: &[Write(BAD, "apiVersion: flutecast.io/v1alpha1\nkind: Device\nmetadata: {name: bad\n")],
        outcome: Unreadable("bad.yaml"),
    },
    Wrong {
        what: "indented by a tab",
        edits: &[Replace(FLEXO, "  tenant: demo", "\ttenant: demo")],
        outcome: Unreadable("flexo-1.yaml"),
    },
    Wrong {
        what: "a merge was not finished",
        edits: &[Replace(FLEXO, "spec:", "<<<<<<< HEAD\nspec:")],
        outcome: Unreadable("flexo-1.yaml"),
    },
    Wrong {
        what: "a list where an object has to be",
        edits: &[Write(BAD, "- apiVersion: flutecast.io/v1alpha1\n- kind: Device\n- metadata: {}\n")],
        outcome: Unreadable("bad.yaml"),
    },
    Wrong {
        what: "an unknown kind",
        edits: &[Replace(FLEXO, "kind: Device", "kind: Devise")],
        outcome: HeldBack("Devise flexo-1", "not found"),
    },
    Wrong {
        what: "an unknown version",
        edits: &[Replace(FLEXO, "flutecast.io/v1alpha1", "flutecast.io/v1")],
        outcome: HeldBack("Device flexo-1", r#"could not find version "v1""#),
    },
    Wrong {
        what: "another namespace",
        edits: &[Replace(FLEXO, "name: flexo-1", "name: flexo-1\n  namespace: kube-system")],
        outcome: HeldBack("Device flexo-1", "namespace kube-system is not permitted"),
    },
    Wrong {
        what: "an unknown field",
        edits: &[Replace(FLEXO, "  channels:", "  colour: red\n  channels:")],
        outcome: LeftOut("Device flexo-1"),
    },
    Wrong {
        what: "a field of the wrong type",
        edits: &[Replace(FLEXO, "staleAfter: 5s", "staleAfter: 5")],
        outcome: Refused("Device flexo-1", "staleAfter in body must be of type string"),
    },
    Wrong {
        what: "a field is missing",
        edits: &[Device("bad", "tenant: demo")],
        outcome: Refused("Device bad", "spec.deviceCode: Required value"),
    },
    Wrong {
        what: "a code with spaces",
        edits: &[Device("bad", "tenant: demo, deviceCode: B A D")],
        outcome: Refused("Device bad", "spec.deviceCode in body should match"),
    },
    Wrong {
        what: "a name with capitals",
        edits: &[Device("Bad_1", "tenant: demo, deviceCode: BAD-01")],
        outcome: Refused("Device Bad_1", "metadata.name: Invalid value"),
    },
    Wrong {
        what: "another code for the same Device",
        edits: &[Replace(FLEXO, "FLEX-01", "FLEX-02")],
        outcome: Refused("Device flexo-1", "deviceCode can't be changed"),
    },
    Wrong {
        what: "another tenant for the same Device",
        edits: &[Replace(FLEXO, "tenant: demo", "tenant: other")],
        outcome: Refused("Device flexo-1", "can't be changed"),
    },
    Wrong {
        what: "an unknown delivery",
        edits: &[Replace(ON_OFF, "policy: Every", "policy: Newest")],
        outcome: Refused("PushFormat on-off", r#"Unsupported value: "Newest""#),
    },
    Wrong {
        what: "a format that is used goes",
        edits: &[Remove(ON_OFF)],
        outcome: Refused("PushFormat on-off", "PushFormat on-off is used by Device"),
    },
    Wrong {
        what: "a format that isn't there",
        edits: &[Replace(FLEXO, "format: on-off", "format: on-of")],
        outcome: Degraded("Device flexo-1", "FormatMissing: "),
    },
    Wrong {
        what: "a tenant that isn't there",
        edits: &[Device("bad", "tenant: demmo, deviceCode: BAD-01")],
        outcome: Degraded("Device bad", "TenantMissing: "),
    },
    Wrong {
        what: "a code that another Device has",
        edits: &[Device("bad", "tenant: demo, deviceCode: FLEX-01")],
        outcome: Degraded("Device bad", "DuplicateDeviceCode: "),
    },
    Wrong {
        what: "one Device more than the quota",
        edits: &[
            Replace(TENANT, "maxDevices: 100", "maxDevices: 5"),
            Device("bad", "tenant: demo, deviceCode: BAD-01"),
        ],
        outcome: Degraded("Device bad", "QuotaExceeded: "),
    },
    Wrong {
        what: "a format that doesn't compile, in the place of one that does",
        edits: &[Replace(ON_OFF, "  fields:", "  when: values.nothing > 1\n  fields:")],
        outcome: Degraded("PushFormat on-off", "FormatInvalid: "),
    },
    Wrong {
        what: "a Secret that the release doesn't grant",
        edits: &[Replace(TENANT, "anonymous: true", "anonymous: true\n    tokens: {secretName: walls}")],
        outcome: Degraded("Tenant demo", "Secret"),
    },
];

/// Commits each, waits for what becomes of it, and for the commit that takes it back.
pub(crate) async fn each_is_named_and_the_rest_is_in_force(factory: &GitFactory<'_>) {
    for (number, wrong) in WRONG.iter().enumerate() {
        factory.story(&format!("wrong commit {}: {}", number + 1, wrong.what));
        for edit in wrong.edits {
            match edit {
                Replace(path, old, new) => factory.edit(path, old, new),
                Write(path, text) => factory.write(path, text),
                Device(name, spec) => factory.write(BAD, &device(name, spec)),
                Remove(path) => factory.git.remove(&format!("{FOLDER}/{path}")).unwrap(),
            }
        }
        let mark = format!("commit-{number}");
        factory.edit(WITNESS.1, "line: l1", &format!("line: {mark}"));
        let begin = Instant::now();
        let revision = factory.commit(wrong.what).await;
        wait_until(wrong.what, JUDGED, async || wrong.outcome.check(factory, &revision, &mark).await)
            .await
            .unwrap();
        let judged = begin.elapsed();
        let begin = Instant::now();
        factory.revert(&revision, MENDED).await;
        eprintln!("        judged after {judged:.1?}, mended after {:.1?}", begin.elapsed());
    }
}

fn device(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: flutecast.io/v1alpha1\nkind: Device\nmetadata: {{name: {name}}}\n\
         spec: {{{spec}, channels: [{{name: power, format: on-off}}]}}\n"
    )
}

impl Outcome {
    async fn check(&self, factory: &GitFactory<'_>, revision: &str, mark: &str) -> Result<(), String> {
        let applications = factory.applications().await;
        let summary = || applications.iter().map(Application::summary).collect::<Vec<_>>().join("\n");
        let (said, in_force) = match self {
            Unreadable(file) => (unreadable(&applications, file), false),
            HeldBack(object, words) => (refused(&applications, object, words), false),
            Refused(object, words) => (refused(&applications, object, words), true),
            LeftOut(object) => (out_of_sync(&applications) == [*object], true),
            Degraded(object, words) => (degraded(&applications, object, words), true),
        };
        if !said {
            return Err(summary());
        }
        // Nothing of what was there may suffer. An Application that can't be compared keeps its last health.
        let spared = if let Degraded(object, _) = self { *object } else { "" };
        let ill: Vec<_> = ill(&applications).into_iter().filter(|object| object != spared).collect();
        if !ill.is_empty() && !matches!(self, HeldBack(..)) {
            return Err(format!("{ill:?}\n{}", summary()));
        }
        let not_ready = factory.devices_not_ready().await;
        if not_ready.iter().any(|name| !spared.ends_with(name.as_str())) {
            return Err(format!("not Ready: {not_ready:?}"));
        }
        let label = factory.object("devices", WITNESS.0).await["metadata"]["labels"]["line"].clone();
        let current = applications.iter().all(|one| one.revision() == revision);
        match (in_force, label.as_str()) {
            (true, Some(line)) if line == mark && current => Ok(()),
            (false, Some("l1")) => Ok(()),
            _ => Err(format!("the rest of the commit: {label}\n{}", summary())),
        }
    }
}

fn list<'a>(application: &'a Application, pointer: &str) -> impl Iterator<Item = &'a Value> {
    application.0.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn name(resource: &Value) -> String {
    format!("{} {}", text(resource, "/kind"), text(resource, "/name"))
}

fn unreadable(applications: &[Application], file: &str) -> bool {
    applications.iter().any(|application| {
        list(application, "/status/conditions")
            .any(|one| one["type"] == "ComparisonError" && text(one, "/message").contains(file))
    })
}

fn refused(applications: &[Application], object: &str, words: &str) -> bool {
    applications.iter().any(|application| {
        list(application, "/status/operationState/syncResult/resources").any(|one| {
            one["status"] == "SyncFailed" && name(one) == object && text(one, "/message").contains(words)
        })
    })
}

fn resources(applications: &[Application]) -> impl Iterator<Item = &Value> {
    applications.iter().flat_map(|application| list(application, "/status/resources"))
}

fn out_of_sync(applications: &[Application]) -> Vec<String> {
    resources(applications).filter(|one| one["status"] == "OutOfSync").map(name).collect()
}

fn degraded(applications: &[Application], object: &str, words: &str) -> bool {
    resources(applications).any(|one| {
        name(one) == object
            && text(one, "/health/status") == "Degraded"
            && text(one, "/health/message").contains(words)
    })
}

/// Returns what Argo CD doesn't call healthy.
fn ill(applications: &[Application]) -> Vec<String> {
    let ill = |one: &&Value| !["", "Healthy"].contains(&text(one, "/health/status"));
    // What the API server has refused isn't there.
    let there = |one: &&Value| text(one, "/health/status") != "Missing";
    resources(applications).filter(ill).filter(there).map(name).collect()
}
