//! A real API server takes both charts, with everything switched on.

use flutecast_testbed::Helm;
use flutecast_testkit::ApiServer;

use crate::support::{chart, documents, object};

const NAMESPACE: &str = r#"
apiVersion: v1
kind: Namespace
metadata:
  name: plant-1
  labels:
    pod-security.kubernetes.io/enforce: restricted
    pod-security.kubernetes.io/warn: restricted
"#;

#[tokio::test(flavor = "multi_thread")]
async fn both_charts_install_upgrade_and_go() {
    let cluster = ApiServer::start().await.unwrap();
    let kubeconfig = cluster.kubeconfig();
    cluster.kubectl(&["apply", "-f", "-"], NAMESPACE).await.unwrap();
    let helm = Helm::new(Some(&kubeconfig)).unwrap();
    let (crds, flutecast) = (chart("flutecast-crds"), chart("flutecast"));
    // Who begins at the wrong end is told, and what is told can be typed.
    let early = ["install", "early", &flutecast, "--namespace", "plant-0", "--create-namespace"];
    let early = helm.run(&[&early[..], &["--set", "nats.url=nats://n"]].concat()).unwrap().stdout;
    assert!(early.contains("doesn't know the kinds Tenant, Device and PushFormat yet"), "{early}");
    let kinds = helm.run(&printed(&early, &crds)).unwrap().stdout;
    helm.run(&[&printed(&kinds, &flutecast)[..], &["--dry-run=server"]].concat()).unwrap();
    let bundled = [
        "--set",
        "nats.bundled.enabled=true,priorityClass.create=true,ingress.enabled=true,operator.replicas=2",
    ];
    let mut install = vec!["install", "factory", &flutecast, "--namespace", "plant-1"];
    install.extend(bundled);
    let installed = helm.run(&install).unwrap();
    assert!(!installed.stdout.contains("helm install"), "the kinds are there: {}", installed.stdout);
    // The Pod Security level "restricted" would warn of each pod that it refuses, the server of each field
    // that it doesn't know.
    assert!(
        !installed.stderr.contains("Warning") && !installed.stderr.contains("would violate"),
        "{}",
        installed.stderr
    );
    assert!(
        installed.stdout.contains("kubectl port-forward") || installed.stdout.contains("Screens connect"),
        "{}",
        installed.stdout
    );
    let password = [
        "get",
        "secret",
        "-n",
        "plant-1",
        "factory-flutecast-nats-passwords",
        "-o",
        "jsonpath={.data.devices}",
    ];
    let before = cluster.kubectl(&password, "").await.unwrap();

    // A second release in the namespace would fight with the first one over the mapping.
    let second =
        helm.run(&["install", "other", &flutecast, "--namespace", "plant-1", "--set", "nats.url=nats://n"]);
    let refusal = second.unwrap_err().to_string();
    assert!(
        refusal.contains("flutecast-operator") && refusal.contains("invalid ownership metadata"),
        "{refusal}"
    );

    let mut upgrade = vec!["upgrade", "factory", &flutecast, "--namespace", "plant-1"];
    upgrade.extend(bundled);
    upgrade.extend(["--set", "dataplane.replicas=3"]);
    helm.run(&upgrade).unwrap();
    assert_eq!(cluster.kubectl(&password, "").await.unwrap(), before, "an upgrade changes no password");

    helm.run(&["uninstall", "factory", "--namespace", "plant-1"]).unwrap();
    let left = cluster
        .kubectl(
            &[
                "get",
                "all,role,rolebinding,networkpolicy,pdb,secret,priorityclass,validatingadmissionpolicy",
                "-l",
                "app.kubernetes.io/instance=factory",
                "-n",
                "plant-1",
                "-o",
                "name",
            ],
            "",
        )
        .await
        .unwrap();
    // The claims of the bundled NATS stay, and so do the passwords that devices know.
    assert_eq!(left.trim(), "secret/factory-flutecast-nats-passwords");
    helm.run(&["uninstall", "flutecast-crds", "--namespace", "flutecast-system"]).unwrap();
    let kinds = cluster.kubectl(&["get", "crd", "-o", "name"], "").await.unwrap();
    assert_eq!(kinds.lines().count(), 3, "the kinds stay: {kinds}");
}

/// The `helm install` that notes tell to type, in the repository's folder.
fn printed<'a>(notes: &'a str, chart: &'a str) -> Vec<&'a str> {
    let line = notes.lines().map(str::trim).find_map(|line| line.strip_prefix("helm "));
    let words = line.unwrap_or_else(|| panic!("no command in {notes}")).split(' ');
    words
        .map(|word| if word.starts_with("charts/") && chart.ends_with(word) { chart } else { word })
        .collect()
}

/// What Kubernetes or Helm would do to a factory that runs, in the middle of an upgrade.
#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_takes_no_pods_away_and_begins_nothing_that_it_cannot_end() {
    let cluster = ApiServer::start().await.unwrap();
    let helm = Helm::new(Some(&cluster.kubeconfig())).unwrap();
    let flutecast = chart("flutecast");
    let release = |verb: &'static str, values: &'static str| {
        let place = ["factory", &flutecast, "--namespace", "plant-1", "--create-namespace", "--set"];
        helm.run(&[&[verb][..], &place, &["nats.bundled.enabled=true", "--set", values]].concat())
    };
    let pods = async || {
        let path = ["-o", "jsonpath={.spec.replicas}"];
        let get = ["get", "deployment", "factory-flutecast-dataplane", "--namespace", "plant-1"];
        cluster.kubectl(&[&get[..], &path].concat(), "").await.unwrap()
    };
    release("install", "dataplane.replicas=4").unwrap();

    // A volume that is there can't be another one; nothing else of that upgrade is done.
    let larger = "nats.bundled.persistence.size=20Gi,dataplane.replicas=5";
    let refusal = release("upgrade", larger).unwrap_err().to_string();
    assert!(refusal.contains("the volume has 10Gi") && refusal.contains("docs/upgrade.md"), "{refusal}");
    assert_eq!(pods().await, "4");
    let (_, typed) = refusal.split_once("kubectl ").unwrap();
    let (typed, _) = typed.split_once(',').unwrap();
    // Nobody here would find the pods that are to stay.
    assert!(typed.ends_with(" --cascade=orphan"), "{typed}");
    let typed = typed.replace("=orphan", "=background");
    cluster.kubectl(&typed.split(' ').collect::<Vec<_>>(), "").await.unwrap();
    release("upgrade", larger).unwrap();
    assert_eq!(pods().await, "5");
    release("upgrade", "nats.bundled.persistence.size=20480Mi,dataplane.replicas=5").unwrap();

    // An autoscaler takes over what there is: Kubernetes makes 1 of what isn't said any more.
    let scaled = "dataplane.autoscaling.enabled=true,nats.bundled.persistence.size=20Gi";
    for _ in 0..2 {
        release("upgrade", scaled).unwrap();
        assert_eq!(pods().await, "5");
    }
    // As the autoscaler does it.
    let scale = ["scale", "deployment/factory-flutecast-dataplane", "--namespace", "plant-1", "--replicas=7"];
    cluster.kubectl(&scale, "").await.unwrap();
    for _ in 0..2 {
        release("upgrade", scaled).unwrap();
        assert_eq!(pods().await, "7");
    }
    let manifest = helm.run(&["get", "manifest", "factory", "--namespace", "plant-1"]).unwrap().stdout;
    let deployments = documents(&manifest);
    let dataplane = object(&deployments, "Deployment", "factory-flutecast-dataplane");
    assert!(dataplane["spec"]["replicas"].is_null(), "from now on it is the autoscaler's alone");
}
