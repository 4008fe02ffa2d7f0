//! A factory managed by GitOps: the health checks for Argo CD and Flux judge real objects correctly, and the
//! operator's writes cause no difference from git. The operator runs with the arguments and the service
//! account of the installed chart.

use std::ffi::OsString;
use std::time::Duration;

use flutecast_testbed::Helm;
use flutecast_testkit::{
    ApiServer, NatsServer, Process, ProcessOptions, free_port, http_client, program, wait_until,
};
use serde_json::Value;

use crate::health_checks::{Health, argo_cd, flux};
use crate::support::{chart, root, text, yaml};

const SOON: Duration = Duration::from_secs(30);
const NAMESPACE: &str = "plant-1";

/// Objects that are wrong in different ways; the demo's objects are valid.
const WRONG: &str = r#"
apiVersion: flutecast.io/v1alpha1
kind: Device
metadata: {name: blind}
spec: {tenant: demo, deviceCode: BLIND-01, channels: [{name: power, format: not-there}]}
---
apiVersion: flutecast.io/v1alpha1
kind: Device
metadata: {name: twin}
spec: {tenant: demo, deviceCode: BLIND-01, channels: [{name: power, format: on-off}]}
---
apiVersion: flutecast.io/v1alpha1
kind: Device
metadata: {name: goes, finalizers: [example.com/keep]}
spec: {tenant: demo, deviceCode: GOES-01, channels: [{name: power, format: on-off}]}
---
apiVersion: flutecast.io/v1alpha1
kind: Tenant
metadata: {name: closed}
spec: {access: {tokens: {secretName: not-granted}}}
---
apiVersion: flutecast.io/v1alpha1
kind: PushFormat
metadata: {name: broken}
spec: {fields: [{name: a, expression: "values.b"}]}
"#;

struct Factory {
    cluster: ApiServer,
    nats: NatsServer,
}

impl Factory {
    async fn install() -> Self {
        let (cluster, nats) = (ApiServer::start().await.unwrap(), NatsServer::start().await.unwrap());
        cluster.kubectl(&["create", "namespace", NAMESPACE], "").await.unwrap();
        let helm = Helm::new(Some(&cluster.kubeconfig())).unwrap();
        helm.run(&[
            "install",
            "flutecast-crds",
            &chart("flutecast-crds"),
            "--namespace",
            "flutecast-system",
            "--create-namespace",
        ])
        .unwrap();
        let url = format!("nats.url={}", nats.url());
        helm.run(&["install", "flutecast", &chart("flutecast"), "--namespace", NAMESPACE, "--set", &url])
            .unwrap();
        Self { cluster, nats }
    }

    async fn kubectl(&self, args: &[&str], stdin: &str) -> String {
        let args: Vec<_> = ["--namespace", NAMESPACE].into_iter().chain(args.iter().copied()).collect();
        self.cluster.kubectl(&args, stdin).await.unwrap()
    }

    async fn get(&self, kind: &str, name: &str) -> Value {
        yaml(&self.kubectl(&["get", kind, name, "-o", "json", "--show-managed-fields"], "").await)
    }

    /// Starts the operator as a kubelet would start its Deployment.
    async fn start_operator(&self) -> Process {
        let deployment = self.get("deployment", "flutecast-operator").await;
        let container = &deployment["spec"]["template"]["spec"]["containers"][0];
        let admin = free_port().unwrap();
        let own = |argument: &Value| {
            let argument = argument.as_str().unwrap().replace("$(POD_NAME)", "flutecast-operator-0");
            argument.replace("0.0.0.0:8081", &format!("127.0.0.1:{admin}"))
        };
        let arguments: Vec<String> = container["args"].as_array().unwrap().iter().map(own).collect();
        let account = deployment["spec"]["template"]["spec"]["serviceAccountName"].as_str().unwrap();
        let kubeconfig = self.cluster.kubeconfig_of(NAMESPACE, account).await.unwrap();
        let mut env = vec![(OsString::from("KUBECONFIG"), kubeconfig.into_os_string())];
        for variable in container["env"].as_array().unwrap() {
            if let Some(value) = variable["value"].as_str() {
                env.push((variable["name"].as_str().unwrap().into(), value.into()));
            }
        }
        let options = ProcessOptions { env, ..ProcessOptions::default() };
        let process =
            Process::spawn_with(program("flutecast-operator").unwrap(), arguments, options).unwrap();
        let ready = format!("http://127.0.0.1:{admin}/readyz");
        wait_until("the operator's readiness", SOON, async || http_client::get_text(&ready).await)
            .await
            .unwrap_or_else(|error| panic!("{error:#}\n{}", process.tail()));
        process
    }

    /// Returns the health of an object, on which both health checks must agree.
    async fn health(&self, kind: &str, name: &str) -> Health {
        let object = self.get(kind, name).await;
        let (argo_cd, flux) = (argo_cd(&object), flux(&object));
        assert_eq!(argo_cd.0, flux, "Argo CD and Flux differ on {kind} {name}: {object:#}");
        argo_cd.0
    }

    async fn wait_for_health(&self, kind: &str, name: &str, health: Health) {
        wait_until(&format!("{kind} {name} {health:?}"), SOON, async || {
            match self.health(kind, name).await {
                seen if seen == health => Ok(()),
                seen => Err(format!("{seen:?}: {}", self.get(kind, name).await["status"])),
            }
        })
        .await
        .unwrap();
    }
}

/// Asserts that the operator has written only statuses, so that the cluster doesn't differ from git. Returns
/// a Device.
async fn assert_no_difference_from_git(factory: &Factory, demo: &str) -> Value {
    for way in ["--server-side=true", "--server-side=false"] {
        let args = ["diff", way, "--recursive", "-f", demo];
        let manager = ["--field-manager", "git"];
        let args: Vec<_> = args
            .into_iter()
            .chain(if way.ends_with("true") { &manager[..] } else { &[] }.iter().copied())
            .collect();
        assert_eq!(factory.kubectl(&args, "").await, "", "{way}");
    }
    let old = factory.get("device", "corrugator-1").await;
    for entry in old["metadata"]["managedFields"].as_array().unwrap() {
        if entry["manager"] != "git" {
            let fields: Vec<_> = entry["fieldsV1"].as_object().unwrap().keys().collect();
            assert!(fields == ["f:status"] && entry["subresource"] == "status", "{entry}");
        }
    }
    old
}

#[tokio::test(flavor = "multi_thread")]
async fn operator_causes_no_git_difference_and_health_checks_read_real_objects() {
    let factory = Factory::install().await;
    let demo = root().join("manifests/demo").display().to_string();
    let apply = ["apply", "--server-side", "--field-manager", "git", "--recursive", "-f", &demo];
    factory.kubectl(&apply, "").await;
    factory.kubectl(&["apply", "--server-side", "--field-manager", "git", "-f", "-"], WRONG).await;
    let new = factory.get("device", "corrugator-1").await;
    assert!(new["status"].is_null());
    assert_eq!(
        (argo_cd(&new).0, flux(&new)),
        (Health::Progressing, Health::Progressing),
        "it has no status yet"
    );

    let mut operator = factory.start_operator().await;
    for (kind, name) in [("tenant", "demo"), ("device", "corrugator-1"), ("pushformat", "on-off")] {
        factory.wait_for_health(kind, name, Health::Healthy).await;
    }
    for (kind, name) in
        [("device", "blind"), ("device", "twin"), ("tenant", "closed"), ("pushformat", "broken")]
    {
        factory.wait_for_health(kind, name, Health::Degraded).await;
    }
    let (_, message) = argo_cd(&factory.get("device", "twin").await);
    assert!(message.starts_with("DuplicateDeviceCode: spec.deviceCode"), "{message}");
    factory.wait_for_health("device", "goes", Health::Healthy).await;
    factory.kubectl(&["delete", "device", "goes", "--wait=false"], "").await;
    factory.wait_for_health("device", "goes", Health::Progressing).await;

    let old = assert_no_difference_from_git(&factory, &demo).await;
    assert_eq!(
        without_ignored(&new),
        without_ignored(&old),
        "a status must not trigger a comparison with git"
    );

    // A status of an older generation doesn't count for a new spec.
    operator.terminate(SOON).await.unwrap();
    factory
        .kubectl(
            &[
                "patch",
                "device",
                "corrugator-1",
                "--type=merge",
                "-p",
                r#"{"spec":{"channels":[{"name":"power","format":"on-off"}]}}"#,
            ],
            "",
        )
        .await;
    assert_eq!(factory.health("device", "corrugator-1").await, Health::Progressing);
    assert_ne!(
        without_ignored(&new),
        without_ignored(&factory.get("device", "corrugator-1").await),
        "a spec must trigger a comparison with git"
    );
    drop(factory.nats);
}

/// Returns an object without the fields that Argo CD ignores when it decides whether an update matters.
fn without_ignored(object: &Value) -> Value {
    let settings = yaml(&text("manifests/argocd/argocd-cm.yaml"));
    let kind = object["kind"].as_str().unwrap();
    let ignored = settings["data"]
        [format!("resource.customizations.ignoreResourceUpdates.flutecast.io_{kind}")]
    .clone();
    let mut object = object.clone();
    let ignored = yaml(ignored.as_str().unwrap())["jsonPointers"].clone();
    let ignored = ignored.as_array().unwrap().iter().map(|pointer| pointer.as_str().unwrap());
    // The last two it ignores of all objects.
    for pointer in ignored.chain(["/metadata/managedFields", "/metadata/resourceVersion"]) {
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        if let Some(Value::Object(fields)) = object.pointer_mut(parent) {
            fields.remove(key);
        }
    }
    // Argo CD also ignores the generation if only a status has changed. Here it is compared, because it shows
    // a change of the spec.
    object
}
