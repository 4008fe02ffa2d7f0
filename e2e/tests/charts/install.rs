//! A real API server takes both charts, with everything switched on.

use flutecast_e2e::{ControlPlane, Helm};

use crate::support::chart;

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
    let cluster = ControlPlane::start().await.unwrap();
    let kubeconfig = cluster.kubeconfig();
    cluster.kubectl(&["apply", "-f", "-"], NAMESPACE).await.unwrap();
    let helm = Helm::new(Some(&kubeconfig)).unwrap();
    let (crds, flutecast) = (chart("flutecast-crds"), chart("flutecast"));
    helm.run(&["install", "crds", &crds, "--namespace", "flutecast-system", "--create-namespace"]).unwrap();
    let bundled = [
        "--set",
        "nats.bundled.enabled=true,priorityClass.create=true,ingress.enabled=true,operator.replicas=2",
    ];
    let mut install = vec!["install", "factory", &flutecast, "--namespace", "plant-1"];
    install.extend(bundled);
    let installed = helm.run(&install).unwrap();
    // The Pod Security level "restricted" would warn of each pod that it refuses, the server of each field that it doesn't know.
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
    helm.run(&["uninstall", "crds", "--namespace", "flutecast-system"]).unwrap();
    let kinds = cluster.kubectl(&["get", "crd", "-o", "name"], "").await.unwrap();
    assert_eq!(kinds.lines().count(), 3, "the kinds stay: {kinds}");
}
