//! Upgrades the CRDs to a newer chart version and back, with the real helm on a real API server. The newer
//! version's extra field is added to the definitions here, so no program of Flutecast is involved.

use std::path::{Path, PathBuf};
use std::time::Duration;

use flutecast_testbed::Helm;
use flutecast_testkit::{ApiServer, wait_until};
use flutecast_xtask::charts::{chart_as, put_definitions};

use crate::support::root;

const SOON: Duration = Duration::from_secs(30);
const DEVICES: &str = r#"
apiVersion: flutecast.io/v1alpha1
kind: Device
metadata: {name: one}
spec: {tenant: acme, deviceCode: D-1, channels: [{name: power, format: on-off}]}
---
apiVersion: flutecast.io/v1alpha1
kind: Device
metadata: {name: two}
spec: {tenant: acme, deviceCode: D-2, channels: [{name: power, format: on-off}]}
"#;

/// Changes that the policy refuses while it is in force.
const BACK: &str = r#"[
    {"op": "replace", "path": "/metadata/labels/app.kubernetes.io~1version", "value": "1.9.0"},
    {"op": "remove", "path": "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/location"}
]"#;

struct Setup {
    cluster: ApiServer,
    helm: Helm,
    _folder: tempfile::TempDir,
    old: PathBuf,
    new: PathBuf,
}

impl Setup {
    async fn start() -> Self {
        let cluster = ApiServer::start().await.unwrap();
        let helm = Helm::new(Some(&cluster.kubeconfig())).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let chart = root().join("charts/flutecast-crds");
        let old = chart_as(&chart, "1.9.0", folder.path()).unwrap();
        // Compared as text, 1.10 would be older than 1.9.
        let new = chart_as(&chart, "1.10.0", folder.path()).unwrap();
        put_definitions(&new, &with_location(folder.path())).unwrap();
        Self { cluster, helm, _folder: folder, old, new }
    }

    fn helm(&self, args: &[&str]) -> anyhow::Result<()> {
        self.helm.run(&[args, &["--namespace", "default"]].concat()).map(drop)
    }

    async fn kubectl(&self, args: &[&str], input: &str) -> anyhow::Result<String> {
        self.cluster.kubectl(args, input).await
    }

    async fn location(&self, device: &str) -> String {
        self.kubectl(&["get", "fd", device, "-o", "jsonpath={.spec.location}"], "").await.unwrap()
    }

    /// Sets a device's location, once the API server serves the newer definition.
    async fn place(&self, device: &str, location: &str) {
        let patch = format!("{{\"spec\": {{\"location\": {location:?}}}}}");
        wait_until("the newer field", SOON, async || {
            let patched = self.kubectl(&["patch", "fd", device, "--type=merge", "-p", &patch], "").await;
            patched.map_err(|error| error.to_string())?;
            let there = self.location(device).await;
            if there == location { Ok(()) } else { Err(format!("it is {there:?}")) }
        })
        .await
        .unwrap();
    }

    async fn version(&self) -> String {
        let label = r"jsonpath={.metadata.labels.app\.kubernetes\.io/version}";
        self.kubectl(&["get", "crd", "devices.flutecast.io", "-o", label], "").await.unwrap()
    }
}

/// Writes definitions with one more field of a Device. Returns their folder.
fn with_location(folder: &Path) -> PathBuf {
    let definitions = folder.join("definitions");
    std::fs::create_dir(&definitions).unwrap();
    for name in flutecast_xtask::charts::KINDS {
        let text = std::fs::read_to_string(root().join("crds/yaml").join(name)).unwrap();
        let place = "              tenant:\n                description: >-\n";
        let text = match name {
            "devices.yaml" => {
                assert_eq!(text.matches(place).count(), 1, "{text}");
                let location =
                    "              location:\n                maxLength: 64\n                type: string\n";
                text.replace(place, &format!("{location}{place}"))
            }
            _ => text,
        };
        std::fs::write(definitions.join(name), text).unwrap();
    }
    definitions
}

/// Asserts that a rollback and a downgrade are refused with a reason and change nothing.
async fn downgrades_are_refused(setup: &Setup, old: &str) {
    for back in [&["rollback", "kinds", "1"][..], &["upgrade", "kinds", old]] {
        let refusal = setup.helm(back).unwrap_err().to_string();
        for part in ["1.10.0 are not taken back to 1.9.0", "docs/upgrade.md"] {
            assert!(refusal.contains(part), "{back:?}: {refusal}");
        }
        assert_eq!(setup.location("one").await, "Hall 3");
        assert_eq!(setup.version().await, "1.10.0");
    }
}

async fn wait_for_location(setup: &Setup, what: &str, expected: &str) {
    wait_until(what, SOON, async || {
        let there = setup.location("one").await;
        if there == expected { Ok(()) } else { Err(there) }
    })
    .await
    .unwrap();
}

/// Forces a downgrade by deleting the policy binding. Values of the newer field reappear after the next
/// upgrade, unless the object was written in the meantime.
async fn forced_downgrade_loses_only_rewritten_values(setup: &Setup, new: &str) {
    setup
        .kubectl(&["delete", "validatingadmissionpolicybinding", "flutecast-kinds-no-way-back"], "")
        .await
        .unwrap();
    wait_until("the end of the policy", SOON, async || {
        let crd = ["patch", "crd", "devices.flutecast.io", "--dry-run=server", "--type=json", "-p", BACK];
        setup.kubectl(&crd, "").await
    })
    .await
    .unwrap();
    setup.helm(&["rollback", "kinds", "1"]).unwrap();
    assert_eq!(setup.version().await, "1.9.0");
    wait_for_location(setup, "the older kinds", "").await;
    setup.kubectl(&["label", "fd", "two", "line=l1"], "").await.unwrap();
    setup.helm(&["upgrade", "kinds", new]).unwrap();
    wait_for_location(setup, "the newer kinds", "Hall 3").await;
    assert_eq!(setup.location("two").await, "");
}

/// An uninstall keeps the CRDs and their objects, and the next install adopts them. With `keep=false` they
/// are deleted.
async fn uninstall_keeps_crds_unless_keep_is_false(setup: &Setup, new: &str) {
    setup.helm(&["uninstall", "kinds"]).unwrap();
    assert_eq!(setup.location("one").await, "Hall 3");
    let policies = setup.kubectl(&["get", "validatingadmissionpolicy", "-o", "name"], "").await.unwrap();
    assert_eq!(policies.trim(), "");
    setup.helm(&["install", "kinds", new]).unwrap();
    assert_eq!(setup.location("one").await, "Hall 3");
    setup.helm(&["upgrade", "kinds", new, "--set", "keep=false"]).unwrap();
    setup.helm(&["uninstall", "kinds"]).unwrap();
    wait_until("the deletion of the CRDs", SOON, async || {
        let kinds =
            setup.kubectl(&["get", "crd", "-o", "name"], "").await.map_err(|error| error.to_string())?;
        if kinds.trim().is_empty() { Ok(()) } else { Err(kinds) }
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn crds_can_be_upgraded_but_not_downgraded() {
    let setup = Setup::start().await;
    let (old, new) = (setup.old.display().to_string(), setup.new.display().to_string());
    setup.helm(&["install", "kinds", &old]).unwrap();
    wait_until("the kinds", SOON, async || setup.kubectl(&["apply", "-f", "-"], DEVICES).await)
        .await
        .unwrap();
    setup.helm(&["upgrade", "kinds", &new]).unwrap();
    setup.place("one", "Hall 3").await;
    setup.place("two", "Hall 4").await;
    downgrades_are_refused(&setup, &old).await;
    // An upgrade is still possible.
    setup.helm(&["upgrade", "kinds", &new]).unwrap();
    forced_downgrade_loses_only_rewritten_values(&setup, &new).await;
    uninstall_keeps_crds_unless_keep_is_false(&setup, &new).await;
}
