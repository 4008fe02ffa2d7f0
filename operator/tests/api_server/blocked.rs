//! The API server refuses writes: the operator reports that, continues with all other objects, and recovers.

use std::time::Duration;

use flutecast_testkit::wait_until;

use crate::manifests::{device, format, tenant};
use crate::support::{Cluster, SOON};

/// More than are written at once (`operator/src/backend/cluster/status/writer.rs`).
const MANY: usize = 20;

/// The namespace whose statuses can't be written. By its name it comes before `default`.
const FROZEN: &str = "a-frozen";

const POLICY: &str = "apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: frozen}
spec:
  matchConstraints:
    resourceRules:
    - {apiGroups: [flutecast.io], apiVersions: [v1alpha1], operations: [UPDATE], resources: ['*/status']}
  validations: [{expression: \"object.metadata.namespace != 'a-frozen'\", message: it is frozen}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: frozen}
spec: {policyName: frozen, validationActions: [Deny]}
";

#[tokio::test(flavor = "multi_thread")]
async fn refused_writes_delay_nothing_else() {
    let cluster = Cluster::with_operator().await;
    cluster.apply(&format!("{}---\n{}", tenant("t", ""), format("on-off"))).await;
    cluster.until_all_ready().await;
    statuses_of_one_namespace_are_refused(&cluster).await;
    the_mapping_can_not_be_stored(&cluster).await;
}

async fn statuses_of_one_namespace_are_refused(cluster: &Cluster) {
    cluster.kubectl(&["create", "namespace", FROZEN]).await;
    let frozen = |yaml: &str| yaml.replace("metadata: {", "metadata: {namespace: a-frozen, ");
    cluster.apply(POLICY).await;
    let probe = frozen(&tenant("frozen", ""));
    cluster.apply(&probe).await;
    wait_until("the policy to be in force", SOON, async || {
        let args = [
            "patch",
            "tenant",
            "frozen",
            "-n",
            FROZEN,
            "--subresource=status",
            "--type=merge",
            "--dry-run=server",
        ];
        let patch = format!("--patch={{\"status\":{{\"devices\":{}}}}}", std::process::id());
        match cluster.api.kubectl(&[&args[..], &[&patch]].concat(), "").await {
            Err(error) if error.to_string().contains("it is frozen") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
    .unwrap();
    let devices: Vec<String> =
        (0..MANY).map(|n| device(&format!("d{n}"), "frozen", &format!("C-{n}"), "on-off")).collect();
    cluster.apply(&frozen(&format!("{}---\n{}", format("on-off"), devices.join("---\n")))).await;
    wait_until("writes that fail", SOON, async || {
        let log = cluster.operator.as_ref().unwrap().process.output();
        let failed = log
            .iter()
            .filter(|line| line.contains("a status can't be written") && line.contains("it is frozen"));
        let failed = failed.count();
        if failed >= MANY { Ok(()) } else { Err(format!("{failed} of {MANY}")) }
    })
    .await
    .unwrap();

    // All other objects are handled as usual.
    cluster.apply(&device("elsewhere", "t", "C-1", "on-off")).await;
    cluster.until_within(Duration::from_secs(5), "device", "elsewhere", "Ready=True Accepted").await;

    // The write is repeated until it succeeds; the log has one line about each.
    cluster.kubectl(&["delete", "validatingadmissionpolicybinding", "frozen"]).await;
    let all = [
        "wait",
        "-n",
        FROZEN,
        "--for=condition=Ready",
        "--timeout=60s",
        "--all",
        "tenants,pushformats,devices",
    ];
    cluster.kubectl(&all).await;
    let log = cluster.operator.as_ref().unwrap().process.output();
    let told =
        log.iter().filter(|line| line.contains("can't be written") && line.contains("name=\"d0\"")).count();
    assert_eq!(told, 1, "{}", cluster.operator_log());
}

/// A webhook without a server: for the API server that is a failure, not a refusal.
const WEBHOOK: &str = "apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: broken}
webhooks:
- name: broken.example.com
  clientConfig: {url: 'https://127.0.0.1:1/'}
  rules: [{apiGroups: [''], apiVersions: [v1], operations: [CREATE, UPDATE], resources: [configmaps]}]
  sideEffects: None
  admissionReviewVersions: [v1]
";

async fn the_mapping_can_not_be_stored(cluster: &Cluster) {
    cluster.apply(WEBHOOK).await;
    wait_until("the webhook to be in force", SOON, async || {
        let probe = ["create", "configmap", "probe", "--dry-run=server"];
        match cluster.api.kubectl(&probe, "").await {
            Err(error) if error.to_string().contains("broken.example.com") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
    .unwrap();
    let new = [tenant("unstored", ""), device("new", "unstored", "C-1", "on-off")].join("---\n");
    cluster.apply(&new).await;
    // No object is Ready whose mapping isn't stored.
    for (kind, name) in [("tenant", "unstored"), ("device", "new")] {
        let message = cluster.until(kind, name, "Ready=False MappingRefused Reconciling=True").await;
        assert!(
            message.contains("flutecast-unstored-0: ") && message.contains("broken.example.com"),
            "{message}"
        );
    }
    // The stored mapping stays in force, and Devices in it stay Ready; the Tenant has a condition about the
    // change that can't be stored.
    cluster.apply(&device("late", "t", "C-2", "on-off")).await;
    cluster.until("device", "late", "Ready=False MappingRefused Reconciling=True").await;
    cluster.until("tenant", "t", "Ready=False MappingRefused Reconciling=True").await;
    cluster.until("device", "elsewhere", "Ready=True Accepted").await;
    cluster.kubectl(&["delete", "validatingwebhookconfiguration", "broken"]).await;
    cluster.until_all_ready().await;
    assert!(cluster.mapping().await.contains_key("flutecast-unstored-0"));
}
