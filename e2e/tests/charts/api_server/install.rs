//! Installation of both charts, with every option enabled, on a real API server.

use flutecast_testbed::{Helm, HelmOutput};
use flutecast_testkit::ApiServer;
use flutecast_xtask::charts::chart_as;

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

const BUNDLED: [&str; 2] =
    ["--set", "nats.bundled.enabled=true,priorityClass.create=true,ingress.enabled=true,operator.replicas=2"];
const IN_PLANT_1: [&str; 2] = ["--namespace", "plant-1"];

/// Installed before the CRDs, the chart prints notes with the missing command, which can be run as printed.
fn notes_print_the_missing_install_command(helm: &Helm, crds: &str, flutecast: &str) {
    let early = ["install", "early", flutecast, "--namespace", "plant-0", "--create-namespace"];
    let early = helm.run(&[&early[..], &["--set", "nats.url=nats://n"]].concat()).unwrap().stdout;
    assert!(early.contains("doesn't know the kinds Tenant, Device and PushFormat yet"), "{early}");
    let kinds = helm.run(&printed(&early, crds)).unwrap().stdout;
    helm.run(&[&printed(&kinds, flutecast)[..], &["--dry-run=server"]].concat()).unwrap();
}

fn install_without_a_warning(helm: &Helm, flutecast: &str) {
    let install = [&["install", "factory", flutecast][..], &IN_PLANT_1, &BUNDLED].concat();
    let HelmOutput { stdout, stderr } = helm.run(&install).unwrap();
    assert!(!stdout.contains("helm install"), "the kinds are there: {stdout}");
    // The Pod Security level "restricted" warns of each pod that it would refuse, and the API server of each
    // unknown field.
    assert!(!stderr.contains("Warning") && !stderr.contains("would violate"), "{stderr}");
    assert!(stdout.contains("kubectl port-forward") || stdout.contains("Screens connect"), "{stdout}");
}

/// A second release in the namespace would overwrite the first one's mapping.
fn a_second_release_is_refused(helm: &Helm, flutecast: &str) {
    let second =
        [&["install", "other", flutecast][..], &IN_PLANT_1, &["--set", "nats.url=nats://n"]].concat();
    let refusal = helm.run(&second).unwrap_err().to_string();
    assert!(
        refusal.contains("flutecast-operator") && refusal.contains("invalid ownership metadata"),
        "{refusal}"
    );
}

async fn uninstall_leaves_the_kinds(api: &ApiServer, helm: &Helm) {
    helm.run(&[&["uninstall", "factory"][..], &IN_PLANT_1].concat()).unwrap();
    let kinds = "all,role,rolebinding,networkpolicy,pdb,secret,priorityclass,validatingadmissionpolicy";
    let get = ["get", kinds, "-l", "app.kubernetes.io/instance=factory", "-n", "plant-1", "-o", "name"];
    let left = api.kubectl(&get, "").await.unwrap();
    assert_eq!(left.trim(), "");
    helm.run(&["uninstall", "flutecast-crds", "--namespace", "flutecast-system"]).unwrap();
    let kinds = api.kubectl(&["get", "crd", "-o", "name"], "").await.unwrap();
    assert_eq!(kinds.lines().count(), 3, "the kinds stay: {kinds}");
}

#[tokio::test(flavor = "multi_thread")]
async fn both_charts_install_upgrade_and_uninstall() {
    let api = ApiServer::start().await.unwrap();
    let kubeconfig = api.kubeconfig();
    api.kubectl(&["apply", "-f", "-"], NAMESPACE).await.unwrap();
    let helm = Helm::new(Some(&kubeconfig)).unwrap();
    let (crds, flutecast) = (chart("flutecast-crds"), chart("flutecast"));
    notes_print_the_missing_install_command(&helm, &crds, &flutecast);
    install_without_a_warning(&helm, &flutecast);
    a_second_release_is_refused(&helm, &flutecast);

    let replicas = ["--set", "dataplane.replicas=3"];
    helm.run(&[&["upgrade", "factory", &flutecast][..], &IN_PLANT_1, &BUNDLED, &replicas].concat()).unwrap();
    uninstall_leaves_the_kinds(&api, &helm).await;
}

/// The template of the charts that made the passwords themselves, up to November 2026.
const PASSWORDS_BEFORE: &str = r#"
{{- $name := include "flutecast.natsPasswords" . }}
{{- $before := (lookup "v1" "Secret" .Release.Namespace $name).data | default dict }}
apiVersion: v1
kind: Secret
metadata:
  name: {{ $name }}
  namespace: {{ .Release.Namespace }}
  {{- if .Values.nats.bundled.persistence.keep }}
  annotations:
    helm.sh/resource-policy: keep
  {{- end }}
type: Opaque
data:
  {{- range list "operator" "dataplane" "devices" }}
  {{ . }}: {{ get $before . | default (printf "p%s" (randAlphaNum 40) | b64enc) }}
  {{- end }}
"#;

/// Charts up to November 2026 had the Secret of the passwords among their objects, so Helm would delete it
/// when the chart has it no more.
#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_from_a_chart_that_made_the_passwords_keeps_them() {
    let api = ApiServer::start().await.unwrap();
    let helm = Helm::new(Some(&api.kubeconfig())).unwrap();
    let (now, folder) = (chart("flutecast"), tempfile::tempdir().unwrap());
    let before = chart_as(now.as_ref(), "0.0.9", folder.path()).unwrap();
    std::fs::write(before.join("templates/passwords.yaml"), PASSWORDS_BEFORE).unwrap();
    let before = before.display().to_string();
    for (namespace, keep) in [("kept", "true"), ("not-kept", "false")] {
        let values = format!("nats.bundled.enabled=true,nats.bundled.persistence.keep={keep}");
        let options = ["--namespace", namespace, "--create-namespace", "--set", &values];
        let release = |verb: &str, chart: &str| {
            helm.run(&[&[verb, "factory", chart], &options[..]].concat()).unwrap();
            helm.run(&["get", "manifest", "factory", "--namespace", namespace]).unwrap().stdout
        };
        let get = ["get", "secret", "-n", namespace, "factory-flutecast-nats-passwords", "-o"];
        let data = async || api.kubectl(&[&get[..], &["jsonpath={.data}"]].concat(), "").await.unwrap();

        let manifest = release("install", &before);
        assert!(manifest.contains("kind: Secret"), "{manifest}");
        let made = data().await;
        assert_eq!(made.matches("\":\"").count(), 3, "{made}");
        for upgrade in 1..=2 {
            let manifest = release("upgrade", &now);
            assert_eq!(data().await, made, "{namespace}, upgrade {upgrade}");
            // Helm 3 can't roll back to a revision whose object is there and isn't in the one before.
            assert!(manifest.contains("kind: Secret"), "{namespace}, upgrade {upgrade}");
        }
        helm.run(&["rollback", "factory", "1", "--namespace", namespace]).unwrap();
        assert_eq!(data().await, made, "{namespace}, rollback");
        release("upgrade", &now);
        // No node runs the clean-up here, which removes the Secret where nothing is to be kept.
        helm.run(&["uninstall", "factory", "--namespace", namespace, "--no-hooks"]).unwrap();
        assert_eq!(data().await, made, "{namespace}, uninstall");
        release("install", &now);
        assert_eq!(data().await, made, "{namespace}, installed again");
    }
}

/// Returns the arguments of the helm command in the notes, with the chart's path made absolute.
fn printed<'a>(notes: &'a str, chart: &'a str) -> Vec<&'a str> {
    let line = notes.lines().map(str::trim).find_map(|line| line.strip_prefix("helm "));
    let words = line.unwrap_or_else(|| panic!("no command in {notes}")).split(' ');
    words
        .map(|word| if word.starts_with("charts/") && chart.ends_with(word) { chart } else { word })
        .collect()
}

/// Upgrades must neither reduce the number of running pods nor stop half-way at an immutable field.
#[tokio::test(flavor = "multi_thread")]
async fn upgrade_keeps_the_replica_count_and_refuses_volume_changes_up_front() {
    let api = ApiServer::start().await.unwrap();
    let helm = Helm::new(Some(&api.kubeconfig())).unwrap();
    let flutecast = chart("flutecast");
    let release = |verb: &'static str, values: &'static str| {
        let place = ["factory", &flutecast, "--namespace", "plant-1", "--create-namespace", "--set"];
        helm.run(&[&[verb][..], &place, &["nats.bundled.enabled=true", "--set", values]].concat())
    };
    let pods = async || {
        let path = ["-o", "jsonpath={.spec.replicas}"];
        let get = ["get", "deployment", "factory-flutecast-dataplane", "--namespace", "plant-1"];
        api.kubectl(&[&get[..], &path].concat(), "").await.unwrap()
    };
    release("install", "dataplane.replicas=4").unwrap();

    // The size of an existing volume can't be changed, so the upgrade is refused before any object changes.
    let larger = "nats.bundled.persistence.size=20Gi,dataplane.replicas=5";
    let refusal = release("upgrade", larger).unwrap_err().to_string();
    assert!(refusal.contains("the volume has 10Gi") && refusal.contains("docs/upgrade.md"), "{refusal}");
    assert_eq!(pods().await, "4");
    let (_, typed) = refusal.split_once("kubectl ").unwrap();
    let (typed, _) = typed.split_once(',').unwrap();
    // Orphaning needs the garbage collector, which this API server runs without, so the test deletes instead.
    assert!(typed.ends_with(" --cascade=orphan"), "{typed}");
    let typed = typed.replace("=orphan", "=background");
    api.kubectl(&typed.split(' ').collect::<Vec<_>>(), "").await.unwrap();
    release("upgrade", larger).unwrap();
    assert_eq!(pods().await, "5");
    release("upgrade", "nats.bundled.persistence.size=20480Mi,dataplane.replicas=5").unwrap();

    // When an autoscaler takes over, the current replica count must be kept: Kubernetes sets it to 1 if the
    // field is removed.
    let scaled = "dataplane.autoscaling.enabled=true,nats.bundled.persistence.size=20Gi";
    for _ in 0..2 {
        release("upgrade", scaled).unwrap();
        assert_eq!(pods().await, "5");
    }
    // Scales as the autoscaler would.
    let scale = ["scale", "deployment/factory-flutecast-dataplane", "--namespace", "plant-1", "--replicas=7"];
    api.kubectl(&scale, "").await.unwrap();
    for _ in 0..2 {
        release("upgrade", scaled).unwrap();
        assert_eq!(pods().await, "7");
    }
    let manifest = helm.run(&["get", "manifest", "factory", "--namespace", "plant-1"]).unwrap().stdout;
    let deployments = documents(&manifest);
    let dataplane = object(&deployments, "Deployment", "factory-flutecast-dataplane");
    assert!(dataplane["spec"]["replicas"].is_null(), "only the autoscaler sets replicas from now on");
}
