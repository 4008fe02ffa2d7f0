//! Objects in use can't be deleted, in both ways: the API server refuses it, and nothing ever hangs; or a
//! finalizer delays it.

use flutecast_testkit::{Process, ProcessOptions, wait_until};
use serde_json::{Value, json};

use crate::manifests::{device, format, tenant};
use crate::support::{Cluster, SOON, repository};

const FINALIZER: &str = "flutecast.io/in-use";
/// The finalizer of another controller.
const OTHERS: &str = "others.example/own";

fn plant(name: &str) -> String {
    format!("{}---\n{}---\n{}", tenant(name, ""), format("on-off"), device("d", name, "C-1", "on-off"))
}

impl Cluster {
    /// The error of kubectl when it is refused.
    async fn refused(&self, args: &[&str]) -> String {
        match self.api.kubectl(args, "").await {
            Err(error) => error.to_string(),
            Ok(output) => panic!("kubectl {args:?} should be refused: {output}"),
        }
    }

    /// Creates a namespace with a plant in it, which is mapped.
    async fn plant_in(&self, namespace: &str) {
        self.kubectl(&["create", "namespace", namespace]).await;
        let apply = ["apply", "--server-side", "-n", namespace, "-f", "-"];
        self.api.kubectl(&apply, &plant(&format!("t-{namespace}"))).await.unwrap();
        wait_until("the device of the namespace to be ready", SOON, async || {
            let wait = ["wait", "fd", "d", "-n", namespace, "--for=condition=Ready", "--timeout=5s"];
            self.api.kubectl(&wait, "").await.map_err(|error| error.to_string())
        })
        .await
        .unwrap_or_else(|error| panic!("{error:#}\n{}", self.operator_log()));
    }

    async fn finalizers(&self, kind: &str, name: &str, namespace: &str) -> Vec<String> {
        let object = self.get(kind, name, namespace).await;
        let finalizers = object.map(|object| object["metadata"]["finalizers"].clone()).unwrap_or_default();
        finalizers.as_array().into_iter().flatten().map(|word| word.as_str().unwrap().to_owned()).collect()
    }

    async fn until_held(&self, kind: &str, name: &str, namespace: &str, expected: bool) {
        let what = format!("{namespace}/{kind}/{name} to be held: {expected}");
        wait_until(&what, SOON, async || {
            let finalizers = self.finalizers(kind, name, namespace).await;
            if finalizers.contains(&FINALIZER.to_owned()) == expected {
                Ok(())
            } else {
                Err(format!("{finalizers:?}"))
            }
        })
        .await
        .unwrap_or_else(|error| panic!("{error:#}\n{}", self.operator_log()));
    }

    /// Waits until a PushFormat's status has this number of channels.
    async fn until_channels(&self, format: &str, expected: u32) {
        wait_until(&format!("{format} to be used by {expected} channels"), SOON, async || {
            let object = self.get("fpf", format, "default").await.ok_or("it isn't there")?;
            let channels = &object["status"]["channels"];
            if *channels == expected { Ok(()) } else { Err(channels.to_string()) }
        })
        .await
        .unwrap_or_else(|error| panic!("{error:#}\n{}", self.operator_log()));
    }

    async fn set_others(&self, kind: &str, name: &str, namespace: &str, finalizers: Value) {
        let patch = json!({"metadata": {"finalizers": finalizers}}).to_string();
        self.kubectl(&["patch", kind, name, "-n", namespace, "--type=merge", "-p", &patch]).await;
    }

    async fn until_namespace_gone(&self, namespace: &str) {
        wait_until(&format!("namespace {namespace} to be gone"), SOON, async || {
            let text =
                self.kubectl(&["get", "namespace", namespace, "--ignore-not-found", "-o", "yaml"]).await;
            if text.is_empty() { Ok(()) } else { Err(text) }
        })
        .await
        .unwrap_or_else(|error| panic!("{error:#}\n{}", self.operator_log()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_policy_keeps_objects_in_use_and_lets_a_namespace_go() {
    let mut cluster = Cluster::with_operator().await;
    let controllers = cluster.api.start_controllers(&["namespace-controller"]).await.unwrap();
    cluster
        .kubectl(&["apply", "--server-side", "-f", &repository("manifests/operator/protection.yaml")])
        .await;
    cluster.apply(&plant("t")).await;
    cluster.until("device", "d", "Ready=True Accepted").await;
    the_policy_is_in_force(&cluster).await;

    let said = cluster.refused(&["delete", "ft", "t"]).await;
    assert!(said.contains("Tenant t is used by Device d (C-1); delete the Devices"), "{said}");
    let said = cluster.refused(&["delete", "fpf", "on-off"]).await;
    assert!(
        said.contains("PushFormat on-off is used by Device d (C-1), channel power; change or delete"),
        "{said}"
    );
    for (kind, name) in [("tenant", "t"), ("pushformat", "on-off"), ("device", "d")] {
        let object = cluster.get(kind, name, "default").await.unwrap();
        assert_eq!(object["metadata"].get("deletionTimestamp"), None, "{object:#}");
        assert_eq!(object["metadata"].get("finalizers"), None, "{object:#}");
        cluster.until(kind, name, "Ready=True Accepted").await;
    }
    // Their use is visible before somebody tries to delete them.
    assert_eq!(cluster.get("tenant", "t", "default").await.unwrap()["status"]["devices"], 1);
    assert_eq!(cluster.get("pushformat", "on-off", "default").await.unwrap()["status"]["channels"], 1);
    what_a_template_names_stays(&cluster).await;
    what_nobody_uses_goes_at_once(&cluster).await;
    what_goes_all_the_same_is_explained(&cluster).await;
    a_namespace_goes_without_an_operator(&mut cluster).await;
    drop(controllers);
}

/// Waits until the policy is in force: the API server compiles it asynchronously.
async fn the_policy_is_in_force(cluster: &Cluster) {
    for (kind, name) in [("tenant", "t"), ("pushformat", "on-off")] {
        wait_until("the policy to be in force", SOON, async || {
            let probe = ["delete", kind, name, "--dry-run=server"];
            match cluster.api.kubectl(&probe, "").await {
                Err(error) if error.to_string().contains("is used by Device d") => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await
        .unwrap();
    }
}

/// Returns a Tenant whose template refers to `alarm`, which no Device does.
fn with_template(name: &str, format: &str) -> String {
    let template = format!("template: {{channels: [{{name: alarm, format: {format}}}]}}");
    tenant(name, &format!("enrollment: {{policy: Automatic, {template}}}"))
}

/// An object that the next Device of a Tenant needs is in use before there is one.
async fn what_a_template_names_stays(cluster: &Cluster) {
    cluster.apply(&format!("{}---\n{}", format("alarm"), with_template("maker", "alarm"))).await;
    cluster.until("tenant", "maker", "Ready=True Accepted").await;
    cluster.until_channels("alarm", 1).await;
    wait_until("the policy to be in force", SOON, async || {
        let probe = ["delete", "fpf", "alarm", "--dry-run=server"];
        let expected = "PushFormat alarm is used by the template of Tenant maker, channel alarm; have spec";
        match cluster.api.kubectl(&probe, "").await {
            Err(error) if error.to_string().contains(expected) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
    .unwrap();
    cluster.refused(&["delete", "fpf", "alarm"]).await;
    // The template refers to another format now: the first can be deleted, and the second can't.
    cluster.apply(&with_template("maker", "on-off")).await;
    cluster.until_channels("alarm", 0).await;
    cluster.until_channels("on-off", 2).await;
    wait_until("the format to go", SOON, async || {
        let delete = ["delete", "fpf", "alarm", "--ignore-not-found", "--timeout=5s"];
        cluster.api.kubectl(&delete, "").await.map_err(|error| error.to_string())
    })
    .await
    .unwrap();
    cluster.kubectl(&["delete", "ft", "maker", "--timeout=5s"]).await;
    cluster.until_channels("on-off", 1).await;
}

async fn what_nobody_uses_goes_at_once(cluster: &Cluster) {
    cluster.apply(&format("spare")).await;
    cluster.kubectl(&["delete", "fpf", "spare", "--timeout=5s"]).await;
    // Without users, the operator has no part in the deletion.
    cluster.kubectl(&["delete", "fd", "d", "--timeout=5s"]).await;
    wait_until("the format and the Tenant to go", SOON, async || {
        let delete = ["delete", "fpf/on-off", "ft/t", "--ignore-not-found", "--timeout=5s"];
        cluster.api.kubectl(&delete, "").await.map_err(|error| error.to_string())
    })
    .await
    .unwrap();
}

/// Without the policy, and with a finalizer of another controller: both objects have conditions about it, and
/// the deletion ends when that controller wants.
async fn what_goes_all_the_same_is_explained(cluster: &Cluster) {
    cluster.kubectl(&["delete", "-f", &repository("manifests/operator/protection.yaml")]).await;
    cluster.apply(&plant("t")).await;
    cluster.until("device", "d", "Ready=True Accepted").await;
    cluster.set_others("fpf", "on-off", "default", json!([OTHERS])).await;
    wait_until("the deletion to be taken", SOON, async || {
        let delete = ["delete", "fpf", "on-off", "--wait=false"];
        cluster.api.kubectl(&delete, "").await.map_err(|error| error.to_string())
    })
    .await
    .unwrap();
    let said = cluster.until("fpf", "on-off", "Ready=False InUse Reconciling=True").await;
    assert!(
        said.contains("it is being deleted while it is used: Device d (C-1) uses it; have their channels"),
        "{said}"
    );
    let said = cluster.until("fd", "d", "Ready=True Terminating").await;
    assert!(
        said.contains("PushFormat on-off is being deleted; have channel power name another one"),
        "{said}"
    );
    cluster.set_others("fpf", "on-off", "default", json!([])).await;
    cluster.until("fd", "d", "Ready=False FormatMissing Reconciling=True").await;
    cluster.apply(&format("on-off")).await;
    cluster.until("fd", "d", "Ready=True Accepted").await;
    cluster.kubectl(&["delete", "fd/d", "fpf/on-off", "ft/t", "--timeout=10s"]).await;
    cluster
        .kubectl(&["apply", "--server-side", "-f", &repository("manifests/operator/protection.yaml")])
        .await;
}

async fn a_namespace_goes_without_an_operator(cluster: &mut Cluster) {
    cluster.plant_in("plant-2").await;
    // The operator is killed, and not started again.
    cluster.operator.take().unwrap().process.kill().await.unwrap();
    wait_until("the policy to be in force again", SOON, async || {
        let probe = ["delete", "ft", "t-plant-2", "-n", "plant-2", "--dry-run=server"];
        match cluster.api.kubectl(&probe, "").await {
            Err(error) if error.to_string().contains("is used by Device d") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
    .unwrap();
    cluster.kubectl(&["delete", "namespace", "plant-2", "--wait=false"]).await;
    cluster.until_namespace_gone("plant-2").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finalizer_holds_objects_until_the_last_user_goes() {
    let mut cluster = Cluster::start().await;
    let controllers = cluster.api.start_controllers(&["namespace-controller"]).await.unwrap();
    cluster
        .kubectl(&["apply", "--server-side", "-f", &repository("manifests/operator/finalizers.yaml")])
        .await;
    cluster.arguments = vec!["--protection", "finalizer"];
    cluster.start_operator().await;
    both_sides_say_so(&cluster).await;
    a_template_holds_what_it_names(&cluster).await;
    a_namespace_is_let_go_at_once(&cluster).await;
    a_killed_operator_is_made_up_for(&mut cluster).await;
    the_last_one_lets_go(&mut cluster).await;
    drop(controllers);
}

async fn both_sides_say_so(cluster: &Cluster) {
    let (manifests, second) = (plant("t"), device("e", "t", "C-2", "on-off"));
    cluster.apply(&manifests).await;
    cluster.apply(&second).await;
    cluster.apply(&format("spare")).await;
    cluster.until_held("ft", "t", "default", true).await;
    cluster.until_held("fpf", "on-off", "default", true).await;
    cluster.until("fpf", "spare", "Ready=True Accepted").await;
    assert!(cluster.finalizers("fpf", "spare", "default").await.is_empty(), "nobody uses it");
    cluster.until("fd", "e", "Ready=True Accepted").await;
    // The finalizer is no difference to the applied manifests. kubectl diff fails if there is a difference.
    for diff in [&["diff", "--server-side", "-f", "-"][..], &["diff", "-f", "-"]] {
        cluster.api.kubectl(diff, &manifests).await.unwrap();
    }
    // Applying the manifests again doesn't remove the finalizer.
    cluster.apply(&manifests).await;

    cluster.kubectl(&["delete", "fpf/on-off", "ft/t", "--wait=false"]).await;
    let users = "Device d (C-1) and another one use it";
    for (kind, name) in [("fpf", "on-off"), ("ft", "t")] {
        let said = cluster.until(kind, name, "Ready=False InUse Reconciling=True").await;
        assert!(
            said.contains("held (flutecast.io/in-use) until nobody uses it any more") && said.contains(users),
            "{said}"
        );
    }
    for name in ["d", "e"] {
        let said = cluster.until("fd", name, "Ready=True Terminating").await;
        for told in [
            "Tenant t is being deleted, and goes with its last user",
            "PushFormat on-off is being deleted, and goes",
        ] {
            assert!(said.contains(told), "{said}");
        }
    }
    assert!(cluster.mapping().await["flutecast-t-0"].contains("C-1"), "what is held is served");
    // A Device that refers to another format is no user of this one.
    cluster.apply(&second.replace("on-off", "spare")).await;
    wait_until("the user to be one less", SOON, async || {
        let said = cluster.until("fpf", "on-off", "Ready=False InUse Reconciling=True").await;
        if said.contains("Device d (C-1) uses it") { Ok(()) } else { Err(said) }
    })
    .await
    .unwrap();
    cluster.kubectl(&["delete", "fd", "d"]).await;
    cluster.until_gone("fpf", "on-off").await;
    cluster.until("ft", "t", "Ready=False InUse Reconciling=True").await;
    cluster.kubectl(&["delete", "fd", "e"]).await;
    cluster.until_gone("ft", "t").await;
    cluster.until_held("fpf", "spare", "default", false).await;
}

/// The Tenant is the user, and has a condition about it; without its template it is none.
async fn a_template_holds_what_it_names(cluster: &Cluster) {
    cluster.apply(&format("alarm")).await;
    cluster.apply(&with_template("maker", "alarm")).await;
    cluster.until_held("fpf", "alarm", "default", true).await;
    cluster.until_held("ft", "maker", "default", false).await;
    cluster.until("tenant", "maker", "Ready=True Accepted").await;
    cluster.kubectl(&["delete", "fpf", "alarm", "--wait=false"]).await;
    let said = cluster.until("fpf", "alarm", "Ready=False InUse Reconciling=True").await;
    for told in [
        "held (flutecast.io/in-use) until nobody uses it any more: the template of Tenant maker uses it",
        "have spec.enrollment.template of the Tenant name another format",
    ] {
        assert!(said.contains(told), "{said}");
    }
    let said = cluster.until("ft", "maker", "Ready=True Terminating").await;
    let told = "PushFormat alarm is being deleted, and goes with its last user; have channel alarm of \
                spec.enrollment.template name";
    assert!(said.contains(told), "{said}");
    // A Device uses it too, so it stays without the template.
    cluster.apply(&device("f", "maker", "C-9", "alarm")).await;
    wait_until("both users to be told", SOON, async || {
        let said = cluster.until("fpf", "alarm", "Ready=False InUse Reconciling=True").await;
        let expected = "Device f (C-9) and the template of Tenant maker use it";
        if said.contains(expected) { Ok(()) } else { Err(said) }
    })
    .await
    .unwrap();
    cluster.apply(&with_template("maker", "spare")).await;
    cluster.until("ft", "maker", "Ready=True Accepted").await;
    cluster.until("fpf", "alarm", "Ready=False InUse Reconciling=True").await;
    cluster.kubectl(&["delete", "fd", "f"]).await;
    cluster.until_gone("fpf", "alarm").await;
    // The same with the Tenant.
    cluster.until_held("fpf", "spare", "default", true).await;
    cluster.kubectl(&["delete", "ft", "maker"]).await;
    cluster.until_held("fpf", "spare", "default", false).await;
    cluster.kubectl(&["delete", "fpf", "spare", "--timeout=10s"]).await;
}

/// The deletion of a namespace deletes all objects in it, also when another controller delays a user.
async fn a_namespace_is_let_go_at_once(cluster: &Cluster) {
    cluster.plant_in("plant-1").await;
    cluster.until_held("ft", "t-plant-1", "plant-1", true).await;
    cluster.until_held("fpf", "on-off", "plant-1", true).await;
    cluster.set_others("fd", "d", "plant-1", json!([OTHERS])).await;
    cluster.kubectl(&["delete", "namespace", "plant-1", "--wait=false"]).await;
    wait_until("what is in use to go before its user", SOON, async || {
        let left = cluster.list("tenants,pushformats,devices", "plant-1").await;
        let left: Vec<&str> = left.iter().map(|object| object["kind"].as_str().unwrap()).collect();
        if left == ["Device"] { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}\n{}", cluster.operator_log()));
    cluster.set_others("fd", "d", "plant-1", json!([])).await;
    cluster.until_namespace_gone("plant-1").await;
}

/// The finalizers of a killed operator stay, and the next one removes them.
async fn a_killed_operator_is_made_up_for(cluster: &mut Cluster) {
    cluster.plant_in("plant-2").await;
    cluster.plant_in("plant-3").await;
    for namespace in ["plant-2", "plant-3"] {
        cluster.until_held("ft", &format!("t-{namespace}"), namespace, true).await;
        cluster.until_held("fpf", "on-off", namespace, true).await;
    }
    cluster.operator.take().unwrap().process.kill().await.unwrap();
    for namespace in ["plant-2", "plant-3"] {
        cluster.kubectl(&["delete", "namespace", namespace, "--wait=false"]).await;
    }
    let why = ".status.conditions[?(@.type==\"NamespaceFinalizersRemaining\")].message";
    wait_until("the namespace to say what it waits for", SOON, async || {
        let path = format!("jsonpath={{{why}}}");
        let said = cluster.kubectl(&["get", "namespace", "plant-2", "-o", &path]).await;
        if said.contains("flutecast.io/in-use in 2 resource instances") { Ok(()) } else { Err(said) }
    })
    .await
    .unwrap();
    // The operator doesn't come back: the finalizers are removed with `--let-go`.
    let kubeconfig = cluster.kubeconfig_of_the_operator().await;
    let options =
        ProcessOptions { env: vec![("KUBECONFIG".into(), kubeconfig.into())], ..ProcessOptions::default() };
    let arguments = ["--kubernetes", "--let-go", "--namespace", "plant-2"];
    let mut let_go =
        Process::spawn_with(env!("CARGO_BIN_EXE_flutecast-operator"), arguments, options).unwrap();
    assert!(let_go.wait(SOON).await.unwrap().success(), "{}", let_go.tail());
    cluster.until_namespace_gone("plant-2").await;
    assert_eq!(
        cluster.list("tenants,pushformats", "plant-3").await.len(),
        2,
        "it wasn't asked to let these go"
    );
    // Or the next operator removes them.
    cluster.start_operator().await;
    cluster.until_namespace_gone("plant-3").await;
}

async fn the_last_one_lets_go(cluster: &mut Cluster) {
    cluster.plant_in("plant-4").await;
    cluster.until_held("ft", "t-plant-4", "plant-4", true).await;
    cluster.until_held("fpf", "on-off", "plant-4", true).await;
    let second = cluster.spawn_operator("another").await;
    second.wait_until_ready().await;
    let mut first = cluster.operator.replace(second).unwrap();
    assert!(first.process.terminate(SOON).await.unwrap().success());
    assert!(
        first.process.tail().contains("another operator holds what is in use"),
        "{}",
        first.process.tail()
    );
    assert_eq!(cluster.finalizers("ft", "t-plant-4", "plant-4").await, [FINALIZER]);
    assert_eq!(cluster.finalizers("fpf", "on-off", "plant-4").await, [FINALIZER]);
    let mut second = cluster.operator.take().unwrap();
    assert!(second.process.terminate(SOON).await.unwrap().success());
    assert!(second.process.tail().contains("no other operator runs"), "{}", second.process.tail());
    assert!(cluster.finalizers("ft", "t-plant-4", "plant-4").await.is_empty());
    assert!(cluster.finalizers("fpf", "on-off", "plant-4").await.is_empty());
    cluster.kubectl(&["delete", "namespace", "plant-4", "--wait=false"]).await;
    cluster.until_namespace_gone("plant-4").await;
}
