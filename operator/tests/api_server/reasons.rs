//! Each reason of the closed set: the object that causes it, the condition, and the step after which the
//! object is Ready.

use std::collections::BTreeSet;

use flutecast_operator::Reason;
use flutecast_testkit::wait_until;

use crate::manifests::{device, format, tenant};
use crate::support::{Cluster, OWN, SOON, repository};

/// Reasons of the folder mode: an API server has no files.
const OF_FILES: [Reason; 2] = [Reason::InvalidYaml, Reason::DuplicateObject];

/// Reasons that need data-plane pods: see `served`.
const OF_PODS: [Reason; 1] = [Reason::NotServed];

struct Case {
    reason: Reason,
    /// The manifest that causes it.
    cause: String,
    kind: &'static str,
    name: &'static str,
    /// A part of the message.
    tells: &'static str,
    /// The manifest after which the object is Ready; empty if that takes no manifest.
    heal: String,
    /// Or the kubectl command after which it is Ready.
    command: &'static [&'static str],
}

impl Case {
    fn new(reason: Reason, kind: &'static str, name: &'static str, cause: String) -> Self {
        Self { reason, cause, kind, name, tells: "", heal: String::new(), command: &[] }
    }

    fn tells(self, tells: &'static str) -> Self {
        Self { tells, ..self }
    }

    fn healed_by(self, heal: String) -> Self {
        Self { heal, ..self }
    }

    fn healed_with(self, command: &'static [&'static str]) -> Self {
        Self { command, ..self }
    }

    async fn check(&self, cluster: &Cluster) {
        cluster.apply(&self.cause).await;
        self.is_said(cluster).await;
        if !self.heal.is_empty() {
            cluster.apply(&self.heal).await;
        }
        if !self.command.is_empty() {
            cluster.kubectl(self.command).await;
        }
        cluster.until(self.kind, self.name, "Ready=True Accepted").await;
    }

    async fn is_said(&self, cluster: &Cluster) {
        let why = if self.reason.waits() { "Reconciling" } else { "Stalled" };
        let expected = format!("Ready=False {} {why}=True", self.reason);
        let message = cluster.until(self.kind, self.name, &expected).await;
        assert!(message.contains(self.tells), "{}: {message}", self.reason);
    }
}

fn pinned(name: &str, code: &str) -> String {
    device(name, "t", code, "on-off").replace("spec:\n", "spec:\n  iotId: pin\n")
}

fn source(name: &str, subject: &str) -> String {
    format!("sources: [{{name: {name}, subject: {subject}, channel: power, iotId: {{subjectToken: 2}}}}]")
}

/// Returns a format that fills more than half of a mapping document.
fn huge(name: &str) -> String {
    let words: Vec<String> = (0..256).map(|n| format!("\"{n}\": {n:064}")).collect();
    let words = words.join(", ").replace(": 0", ": w");
    let fields: Vec<String> = (0..16)
        .map(|n| format!("  - {{name: f{n}, pointer: /f{n}, type: Enum, values: {{{words}}}}}\n"))
        .collect();
    format!(
        "apiVersion: flutecast.io/v1alpha1\nkind: PushFormat\nmetadata: {{name: {name}}}\nspec:\n  fields:\n\
         {}",
        fields.concat()
    )
}

fn two_channels(name: &str, code: &str, one: &str, other: &str) -> String {
    device(name, "t", code, one)
        .replace("channels:\n", &format!("channels:\n  - {{name: more, format: {other}}}\n"))
}

/// Objects that the API server accepts. Of two with the same claim the older one also has the first name:
/// Kubernetes has ages in seconds, and among equal ages the names decide.
fn cases() -> Vec<Case> {
    [references(), claims(), limits(), streams()].into_iter().flatten().collect()
}

fn references() -> Vec<Case> {
    let no_expression = "expression: \"values.running >\"";
    let broken = format("bent").replace("pointer: /on, type: Bool", no_expression);
    vec![
        Case::new(Reason::TenantMissing, "device", "early", device("early", "late", "C-1", "on-off"))
            .tells("there is no Tenant \"late\" in namespace default")
            .healed_by(tenant("late", "")),
        Case::new(Reason::FormatMissing, "device", "blind", device("blind", "t", "C-2", "glasses"))
            .tells("spec.channels[0].format: there is no PushFormat \"glasses\"")
            .healed_by(format("glasses")),
        Case::new(Reason::FormatInvalid, "pushformat", "bent", broken)
            .tells("spec.fields[0].expression")
            .healed_by(format("bent")),
    ]
}

fn claims() -> Vec<Case> {
    vec![
        Case::new(
            Reason::DuplicateDeviceCode,
            "device",
            "second",
            format!(
                "{}---\n{}",
                device("a-first", "t", "C-3", "on-off"),
                device("second", "t", "C-3", "on-off")
            ),
        )
        .tells("\"C-3\" is taken by Device/a-first")
        .healed_with(&["delete", "device", "a-first"]),
        Case::new(
            Reason::IotIdTaken,
            "device",
            "pinned-second",
            format!("{}---\n{}", pinned("pinned-first", "C-4"), pinned("pinned-second", "C-5")),
        )
        .tells("\"pin\" is taken by Device/pinned-first")
        .healed_with(&["delete", "device", "pinned-first"]),
    ]
}

fn limits() -> Vec<Case> {
    let record = "record: {merge: true, expireFields: 10m}";
    let record = format("changes").replace("delivery: {policy: Every}", record);
    vec![
        Case::new(
            Reason::RecordOutlivesRetention,
            "device",
            "forgetful",
            format!(
                "{}---\n{record}---\n{}",
                tenant("brief", "retention: {maxAge: 1m}"),
                device("forgetful", "brief", "C-1", "changes")
            ),
        )
        .tells("Tenant/brief keeps messages for 1m only")
        .healed_by(tenant("brief", "retention: {maxAge: 10m}")),
        Case::new(
            Reason::QuotaExceeded,
            "device",
            "q2",
            format!(
                "{}---\n{}---\n{}",
                tenant("small", "quota: {maxDevices: 1}"),
                device("q1", "small", "C-1", "on-off"),
                device("q2", "small", "C-2", "on-off")
            ),
        )
        .tells("Tenant/small allows 1 devices")
        .healed_by(tenant("small", "quota: {maxDevices: 2}")),
        Case::new(
            Reason::DeviceTooLarge,
            "device",
            "fat",
            format!(
                "{}---\n{}---\n{}",
                huge("huge-1"),
                huge("huge-2"),
                two_channels("fat", "C-6", "huge-1", "huge-2")
            ),
        )
        .tells("use fewer channels, or smaller formats")
        .healed_by(device("fat", "t", "C-6", "huge-1")),
    ]
}

fn streams() -> Vec<Case> {
    vec![
        Case::new(
            Reason::SourceConflict,
            "tenant",
            "upstairs",
            format!(
                "{}---\n{}",
                tenant("t", &source("gw", "plant.*.power")),
                tenant("upstairs", &source("gw", "plant.*.*"))
            ),
        )
        .tells("spec.sources[0].subject")
        .healed_by(tenant("upstairs", &source("gw", "other.*.*"))),
        Case::new(Reason::StreamRefused, "tenant", "wide", tenant("wide", "retention: {replicas: 3}"))
            .tells("NATS refuses stream IOT_wide")
            .healed_by(tenant("wide", "retention: {replicas: 1}")),
        // A Device whose messages are not stored is not Ready either.
        Case::new(
            Reason::StreamRefused,
            "device",
            "unheard",
            format!(
                "{}---\n{}",
                tenant("broad", "retention: {replicas: 3}"),
                device("unheard", "broad", "C-1", "on-off")
            ),
        )
        .tells("NATS refuses stream IOT_broad")
        .healed_by(tenant("broad", "retention: {replicas: 1}")),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn each_reason_is_reported_and_can_be_resolved() {
    let mut cluster = Cluster::with_operator().await;
    cluster.apply(&format!("{}---\n{}", tenant("t", ""), format("on-off"))).await;
    let mut covered: BTreeSet<Reason> = OF_FILES.into();
    covered.extend(OF_PODS);
    for case in cases() {
        case.check(&cluster).await;
        covered.insert(case.reason);
    }
    covered.extend(tokens(&cluster).await);
    covered.extend(a_name_across_namespaces(&cluster).await);
    covered.extend(devices_that_may_not_be_created(&cluster).await);
    covered.extend(a_mapping_that_is_refused(&cluster).await);
    covered.extend(a_stream_of_others(&cluster).await);
    covered.extend(the_broker_goes_and_comes(&mut cluster).await);
    covered.extend(what_goes_while_it_is_used(&cluster).await);
    covered.extend(what_other_rules_let_in(&cluster).await);
    assert_eq!(covered, Reason::ALL.iter().copied().collect(), "reasons without a case");
}

async fn tokens(cluster: &Cluster) -> Vec<Reason> {
    let guarded = tenant(
        "guarded",
        "access: {tokens: {secretName: walls, restricted: [{name: wall, devices: [C-1]}]}}",
    );
    let grant = std::fs::read_to_string(repository("manifests/operator/token-secrets.yaml")).unwrap();
    let secret = |data: &str| {
        format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: walls}}\nstringData: {{{data}}}\n")
    };
    // The rules grant another Secret: the operator's service account may not read this one.
    Case::new(Reason::SecretForbidden, "tenant", "guarded", guarded.clone())
        .tells("--resource-name=walls")
        .is_caused(cluster)
        .await;
    let granted = grant.replace("acme-dashboards", "walls");
    Case::new(Reason::SecretMissing, "tenant", "guarded", granted)
        .tells("there is no Secret \"walls\"")
        .is_caused(cluster)
        .await;
    Case::new(Reason::TokenTooShort, "tenant", "guarded", secret("wall: short"))
        .tells("data.wall")
        .is_caused(cluster)
        .await;
    Case::new(Reason::SecretInvalid, "tenant", "guarded", secret("wall: 'a token with spaces in it'"))
        .tells("data.wall")
        .healed_by(secret("wall: a-token-of-many-letters"))
        .check(cluster)
        .await;
    // printf a-token-of-many-letters | sha256sum
    let access = cluster.access().await.unwrap();
    assert!(access.contains("4886ce4d05c2de84d1e10cbce130d7653e1610780de393488b396a5ac12565be"), "{access}");
    assert!(!cluster.operator_log().contains("a-token-of-many-letters"));
    vec![Reason::SecretForbidden, Reason::SecretMissing, Reason::TokenTooShort, Reason::SecretInvalid]
}

async fn devices_that_may_not_be_created(cluster: &Cluster) -> Vec<Reason> {
    let wants = "enrollment: {policy: Automatic, template: {channels: [{name: power, format: on-off}]}}";
    crate::support::may_create_devices(cluster, false).await;
    Case::new(Reason::EnrollmentUnavailable, "tenant", "wants", tenant("wants", wants))
        .tells("--verb=create")
        .is_caused(cluster)
        .await;
    crate::support::may_create_devices(cluster, true).await;
    cluster.until("tenant", "wants", "Ready=True Accepted").await;
    vec![Reason::EnrollmentUnavailable]
}

async fn a_name_across_namespaces(cluster: &Cluster) -> Vec<Reason> {
    cluster.kubectl(&["create", "namespace", "plant-2"]).await;
    let elsewhere = |yaml: &str| yaml.replace("metadata: {", "metadata: {namespace: plant-2, ");
    let ours = tenant("t2", "");
    // Its streams are deleted with it; otherwise they would still conflict.
    cluster.apply(&elsewhere(&tenant("t2", "retention: {onDelete: Delete}"))).await;
    cluster.apply(&elsewhere(&format("on-off"))).await;
    let holder = cluster.get("tenant", "t2", "plant-2").await.unwrap();
    // Kubernetes has ages in seconds, and among equal ages the first by namespace is older.
    let same_second = async || {
        let newest = cluster.list("tenants", "default").await;
        newest
            .iter()
            .all(|tenant| tenant["metadata"]["creationTimestamp"] != holder["metadata"]["creationTimestamp"])
    };
    wait_until("the next second", SOON, async || {
        cluster.apply(&tenant("clock", &format!("displayName: \"{:?}\"", std::time::Instant::now()))).await;
        cluster.kubectl(&["delete", "tenant", "clock"]).await;
        if same_second().await { Ok(()) } else { Err("still the same") }
    })
    .await
    .unwrap();
    Case::new(Reason::TenantNameTaken, "tenant", "t2", ours)
        .tells("is taken by Tenant/plant-2/t2")
        .is_caused(cluster)
        .await;
    Case::new(Reason::TenantRefused, "device", "homeless", device("homeless", "t2", "C-1", "on-off"))
        .tells("Tenant/t2 is refused itself")
        .healed_with(&["delete", "tenant", "t2", "-n", "plant-2"])
        .check(cluster)
        .await;
    cluster.until("tenant", "t2", "Ready=True Accepted").await;
    vec![Reason::TenantNameTaken, Reason::TenantRefused]
}

async fn a_mapping_that_is_refused(cluster: &Cluster) -> Vec<Reason> {
    let policy = "apiVersion: admissionregistration.k8s.io/v1\nkind: ValidatingAdmissionPolicy\nmetadata: \
                  {name: no-maps}\nspec:\n  \
        matchConstraints: {resourceRules: [{apiGroups: [''], apiVersions: [v1], operations: [CREATE], \
        resources: [configmaps]}]}\n  \
        validations: [{expression: \"!object.metadata.name.startsWith('flutecast-full-')\", message: the \
        store is full}]\n---\n\
        apiVersion: admissionregistration.k8s.io/v1\nkind: ValidatingAdmissionPolicyBinding\nmetadata: \
        {name: no-maps}\nspec: {policyName: no-maps, validationActions: [Deny]}\n";
    cluster.apply(policy).await;
    wait_until("the policy to be in force", SOON, async || {
        let probe = ["create", "configmap", "flutecast-full-probe", "--dry-run=server"];
        match cluster.api.kubectl(&probe, "").await {
            Err(error) if error.to_string().contains("the store is full") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
    .unwrap();
    Case::new(Reason::MappingRefused, "tenant", "full", tenant("full", ""))
        .tells("the store is full")
        .healed_with(&["delete", "validatingadmissionpolicybinding", "no-maps"])
        .check(cluster)
        .await;
    assert!(cluster.get("configmap", "flutecast-full-0", OWN).await.is_some());
    vec![Reason::MappingRefused]
}

async fn a_stream_of_others(cluster: &Cluster) -> Vec<Reason> {
    let context = async_nats::jetstream::new(cluster.nats.client().await.unwrap());
    let config = async_nats::jetstream::stream::Config {
        name: "IOT_foreign".to_owned(),
        subjects: vec!["theirs.>".to_owned()],
        ..Default::default()
    };
    context.create_stream(config).await.unwrap();
    let case = Case::new(Reason::StreamOwnedByOther, "tenant", "foreign", tenant("foreign", ""))
        .tells("stream IOT_foreign exists and belongs to nobody");
    case.is_caused(cluster).await;
    assert!(cluster.get("configmap", "flutecast-foreign-0", OWN).await.is_none());
    context.delete_stream("IOT_foreign").await.unwrap();
    cluster.until("tenant", "foreign", "Ready=True Accepted").await;
    vec![Reason::StreamOwnedByOther]
}

async fn the_broker_goes_and_comes(cluster: &mut Cluster) -> Vec<Reason> {
    cluster.apply(&device("steady", "t", "C-9", "on-off")).await;
    cluster.until("device", "steady", "Ready=True Accepted").await;
    let steady = cluster.get("device", "steady", "default").await.unwrap();
    cluster.nats.stop().await.unwrap();
    cluster.until("tenant", "t", "Ready=False BrokerAway Reconciling=True").await;
    // The mapping is still written: a device of a tenant with a stream waits only for the broker.
    cluster.apply(&device("meanwhile", "t", "C-10", "on-off")).await;
    cluster.until("device", "meanwhile", "Ready=False BrokerAway Reconciling=True").await;
    assert!(cluster.mapping().await["flutecast-t-0"].contains("C-10"));
    cluster.nats.restart().await.unwrap();
    for (kind, name) in [("tenant", "t"), ("device", "meanwhile")] {
        cluster.until(kind, name, "Ready=True Accepted").await;
    }
    // Ready objects stay so: nothing was written to them.
    assert_eq!(cluster.get("device", "steady", "default").await.unwrap(), steady);
    vec![Reason::BrokerAway]
}

/// Another controller delays the deletion of a PushFormat; in `protection` the operator does.
async fn what_goes_while_it_is_used(cluster: &Cluster) -> Vec<Reason> {
    cluster.apply(&format!("{}---\n{}", format("going"), device("last", "t", "C-13", "going"))).await;
    cluster.until("device", "last", "Ready=True Accepted").await;
    let keep = r#"{"metadata":{"finalizers":["others.example/own"]}}"#;
    cluster.kubectl(&["patch", "fpf", "going", "--type=merge", "-p", keep]).await;
    cluster.kubectl(&["delete", "fpf", "going", "--wait=false"]).await;
    cluster.until("pushformat", "going", "Ready=False InUse Reconciling=True").await;
    cluster.until("device", "last", "Ready=True Terminating").await;
    // The Device refers to another one: neither object has a condition about it.
    cluster.apply(&device("last", "t", "C-13", "on-off")).await;
    cluster.until("device", "last", "Ready=True Accepted").await;
    cluster.until("pushformat", "going", "Ready=True Accepted").await;
    let let_go = r#"{"metadata":{"finalizers":[]}}"#;
    cluster.kubectl(&["patch", "fpf", "going", "--type=merge", "-p", let_go]).await;
    cluster.until_gone("pushformat", "going").await;
    vec![Reason::InUse, Reason::Terminating]
}

/// Objects that were stored under other rules, or after the rules were removed.
async fn what_other_rules_let_in(cluster: &Cluster) -> Vec<Reason> {
    let lax = concat!(
        r#"[{"op":"replace","path":"/spec/versions/0/schema/openAPIV3Schema","#,
        r#""value":{"type":"object","x-kubernetes-preserve-unknown-fields":true}}]"#
    );
    for kinds in ["devices.flutecast.io", "tenants.flutecast.io"] {
        cluster.kubectl(&["patch", "crd", kinds, "--type=json", "-p", lax]).await;
    }
    let shapeless = "apiVersion: flutecast.io/v1alpha1\nkind: Device\nmetadata: {name: shapeless}\nspec: \
                     {channels: many}\n";
    wait_until("the rules to be gone", SOON, async || {
        cluster
            .api
            .kubectl(&["apply", "--server-side", "-f", "-"], shapeless)
            .await
            .map_err(|error| error.to_string())
    })
    .await
    .unwrap();
    Case::new(Reason::InvalidObject, "device", "shapeless", shapeless.to_owned())
        .tells("it can't be read")
        .healed_by(device("shapeless", "t", "C-11", "on-off"))
        .check(cluster)
        .await;
    let nameless = device("nameless", "t", "C-12", "on-off").replace("C-12", "'no blanks'");
    Case::new(Reason::InvalidName, "device", "nameless", nameless)
        .tells("spec.deviceCode")
        .healed_by(device("nameless", "t", "C-12", "on-off"))
        .check(cluster)
        .await;
    let bent = tenant(
        "bent",
        "sources: [{name: gw, subject: bent.x.power, channel: power, iotId: {subjectToken: 2}}]",
    );
    Case::new(Reason::SourceInvalid, "tenant", "bent", bent)
        .tells("token 2 of \"bent.x.power\" is \"x\"")
        .healed_by(tenant("bent", &source("gw", "bent.*.power")))
        .check(cluster)
        .await;
    vec![Reason::InvalidObject, Reason::InvalidName, Reason::SourceInvalid]
}

impl Case {
    /// Checks the cause only; another step follows.
    async fn is_caused(&self, cluster: &Cluster) {
        cluster.apply(&self.cause).await;
        self.is_said(cluster).await;
    }
}
