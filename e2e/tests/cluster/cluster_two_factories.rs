//! Two factories share one cluster and one NATS: two releases in two namespaces, one CRD chart, and one
//! nats-server with an account for each. Names are the same in both on purpose. The test uses every
//! credential of one factory to show that it can't reach the other's objects, ConfigMaps, Secrets, tokens or
//! subjects.

use std::path::PathBuf;
use std::time::Duration;

use async_nats::{Client, ConnectOptions};
use flutecast_testbed::cluster::{Cluster, Namespace, ServiceAddress};
use flutecast_testbed::release::{Images, Release, install_crds};
use flutecast_testkit::in_repository;
use flutecast_testkit::{SseClient, http_client, wait_until};
use futures_util::StreamExt as _;
use http::Method;
use serde_json::{Value, json};

use crate::counting;

const SOON: Duration = Duration::from_secs(60);
const PASSWORD: &str = "p1-of_Many-letters";
const NAME: &str = "factory";
/// The release's programs, each with its own service account.
const PROGRAMS: [&str; 2] = ["operator", "dataplane"];
const RELEASE_VALUES: &str = "
dataplane: {replicas: 1, drain: {delay: 1s, window: 1s}}
nats: {bundled: {enabled: false}, urlSecretName: nats-login}
tokenSecrets: [walls]
";

/// Returns the objects of both factories, and those that only the second one has.
fn manifests() -> [Vec<Value>; 2] {
    let spec = json!({
        "retention": {"maxAge": "1h", "maxBytes": "64Mi"},
        "access": {"tokens": {"secretName": "walls"}},
    });
    let tenant = |name| counting::tenant(name, &spec);
    let both = vec![tenant("acme"), counting::format(), counting::device("acme", "a", "A-1")];
    [both, vec![tenant("secret"), counting::device("acme", "b", "B-1")]]
}

/// Starts a nats-server with the accounts of manifests/nats/two-factories.conf outside the factories'
/// namespaces. Returns its address inside the cluster.
async fn start_nats(cluster: &Cluster, namespace: &Namespace) -> String {
    let accounts = std::fs::read_to_string(in_repository("manifests/nats/two-factories.conf")).unwrap();
    let own =
        "listen: \"0.0.0.0:4222\"\nhttp: \"0.0.0.0:8222\"\njetstream { store_dir: /data, max_file: 20GB }\n";
    let factories = ["PLANT_1", "PLANT_2"];
    let users = factories.iter().flat_map(|plant| {
        ["OPERATOR", "DATAPLANE", "DEVICES"].map(|user| format!("{plant}_{user}_PASSWORD"))
    });
    let env: Vec<Value> = users
        .chain(["MES_PASSWORD".to_owned()])
        .map(|name| json!({"name": name, "value": PASSWORD}))
        .collect();
    let labels = json!({"app": "nats"});
    let pod = json!({
        "containers": [{
            "name": "nats", "image": cluster.image("flutecast.io/nats-server:e2e"),
             "imagePullPolicy": "IfNotPresent",
            "args": ["--config", "/etc/nats/nats.conf"], "env": env,
            "readinessProbe": {"httpGet": {"path": "/healthz", "port": 8222}, "periodSeconds": 1},
            "volumeMounts": [{"name": "conf", "mountPath": "/etc/nats"}, {"name": "data",
             "mountPath": "/data"}],
        }],
        "volumes": [{"name": "conf", "configMap": {"name": "nats"}}, {"name": "data", "emptyDir": {}}],
        "securityContext": {"runAsUser": 65_532, "runAsGroup": 65_532, "fsGroup": 65_532},
    });
    let (metadata, place) = (json!({"name": "nats"}), ["--namespace", namespace.name()]);
    let list = json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata,
         "data": {"nats.conf": format!("{own}{accounts}")}},
        {"apiVersion": "v1", "kind": "Service", "metadata": metadata,
         "spec": {"selector": labels, "ports": [{"name": "client", "port": 4222}]}},
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata,
         "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels},
          "spec": pod}}},
    ]});
    let apply = [&place[..], &["apply", "--filename", "-"]].concat();
    cluster.kubectl_with(&apply, &list.to_string(), SOON).await.unwrap();
    let rollout = [&place[..], &["rollout", "status", "deployment/nats", "--timeout=55s"]].concat();
    cluster.kubectl_with(&rollout, "", SOON).await.unwrap();
    format!("nats.{}.svc:4222", namespace.name())
}

fn screen_token(plant: &str) -> String {
    format!("wall-display-token-of-{plant}-0123456789")
}

/// A factory with all its credentials.
struct Factory<'a> {
    /// Its name in the accounts: `plant-1`.
    plant: &'static str,
    release: Release<'a>,
    reach: ServiceAddress,
}

impl<'a> Factory<'a> {
    async fn install(
        cluster: &'a Cluster,
        namespace: &Namespace,
        plant: &'static str,
        nats: &str,
        images: &Images,
    ) -> Self {
        let mut release = Release::absent(cluster, namespace, NAME).await.unwrap();
        let url = |user: &str| format!("nats://{plant}-{user}:{PASSWORD}@{nats}");
        for (name, data) in [
            ("nats-login", json!({"operator": url("operator"), "dataplane": url("dataplane")})),
            ("walls", json!({"wall": screen_token(plant)})),
        ] {
            let secret =
                json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data});
            release.apply(&secret.to_string()).await.unwrap();
        }
        release.helm("install", &in_repository("charts/flutecast"), images, RELEASE_VALUES).await.unwrap();
        let reach = release.dataplane().await.unwrap();
        Self { plant, release, reach }
    }

    async fn screen(&self, device: &str) -> SseClient {
        let url = format!("http://{}/v1/acme/events?device={device}", self.reach.address);
        let bearer = format!("Bearer {}", screen_token(self.plant));
        let mut screen = SseClient::connect(&url, &[("authorization", &bearer)]).await.unwrap();
        screen.next_named("hello", SOON).await.unwrap();
        screen
    }

    /// Sends a request with a token. Returns the status.
    async fn status(&self, path: &str, token: &str) -> u16 {
        let bearer = format!("Bearer {token}");
        let url = format!("http://{}/v1/{path}", self.reach.address);
        let answer =
            http_client::request(Method::GET, &url, &[("authorization", &bearer)], "").await.unwrap();
        assert!(!answer.text().contains("wall-display-token"), "{}", answer.text());
        answer.status.as_u16()
    }

    /// Writes a kubeconfig whose only credential is the token of one of its service accounts.
    async fn kubeconfig(&self, account: &str, folder: &tempfile::TempDir) -> PathBuf {
        let token = self.release.kubectl(&["create", "token", account]).await.unwrap();
        let admin = self.release.kubectl(&["config", "view", "--raw", "-o", "json"]).await.unwrap();
        let mut config: Value = serde_json::from_str(&admin).unwrap();
        for user in config["users"].as_array_mut().unwrap() {
            user["user"] = json!({"token": token.trim()});
        }
        let path = folder.path().join(format!("{}-{account}.kubeconfig", self.plant));
        std::fs::write(&path, config.to_string()).unwrap();
        path
    }
}

async fn expect(screen: &mut SseClient, n: u64) {
    let event = screen.next_where("a value", SOON, flutecast_testkit::SseEvent::is_data).await.unwrap();
    let seen = event.json().unwrap();
    assert_eq!(seen["values"]["n"].as_f64(), Some(n as f64), "another factory's value: {seen}");
}

async fn login(address: &str, user: &str) -> Client {
    let options = ConnectOptions::with_user_and_password(user.to_owned(), PASSWORD.to_owned());
    options.connect(address).await.unwrap()
}

async fn publish(client: &Client, device: &str, n: u64) {
    let payload = counting::payload(n).to_string();
    client.publish(counting::subject("acme", device), payload.into()).await.unwrap();
    client.flush().await.unwrap();
}

/// Returns the rights of a service account in a namespace, as reported by the API server.
async fn rights(cluster: &Cluster, kubeconfig: &str, namespace: &str) -> String {
    let args = ["--kubeconfig", kubeconfig, "auth", "can-i", "--list", "--no-headers", "-n", namespace];
    let list = cluster.kubectl(&args).await.unwrap();
    let mut lines: Vec<_> =
        list.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    lines.sort_unstable();
    lines.join("\n")
}

/// Asserts that the service accounts of `own` have no more rights in the namespace of `other` than an account
/// without any roles.
async fn assert_api_isolation(cluster: &Cluster, own: &Factory<'_>, other: &Factory<'_>) {
    let folder = tempfile::tempdir().unwrap();
    let default = own.kubeconfig("default", &folder).await;
    let nothing = rights(cluster, &default.display().to_string(), other.release.namespace()).await;
    let (foreign, home) = (other.release.namespace(), own.release.namespace());
    for program in PROGRAMS {
        let account = own.release.full_name(&format!("-{program}"));
        let kubeconfig = own.kubeconfig(&account, &folder).await.display().to_string();
        assert_eq!(rights(cluster, &kubeconfig, foreign).await, nothing, "{account} in {foreign}");
        assert_ne!(rights(cluster, &kubeconfig, home).await, nothing, "{account} in {home}");
        let flutecast = "apis/flutecast.io/v1alpha1";
        let of = |group: &str, rest: &str| format!("/{group}/namespaces/{foreign}/{rest}");
        let reads = [
            of(flutecast, "devices"),
            of(flutecast, "devices/b"),
            of(flutecast, "devices?watch=true&timeoutSeconds=1"),
            of(flutecast, "tenants/acme"),
            of("api/v1", "configmaps"),
            of("api/v1", "configmaps?watch=true&timeoutSeconds=1"),
            of("api/v1", "configmaps/flutecast-acme-0"),
            of("api/v1", "secrets"),
            of("api/v1", "secrets/walls"),
            of("api/v1", "secrets/flutecast-access"),
            of("api/v1", "secrets/nats-login"),
            of("apis/discovery.k8s.io/v1", "endpointslices"),
            of("apis/coordination.k8s.io/v1", "leases/flutecast-operator"),
            // Requests for all namespaces.
            format!("/{flutecast}/devices"),
            "/api/v1/configmaps?watch=true&timeoutSeconds=1".to_owned(),
            "/api/v1/namespaces".to_owned(),
        ];
        for path in &reads {
            refused(cluster, &["--kubeconfig", &kubeconfig, "get", "--raw", path]).await;
        }
        let patch = ["--type=merge", "--patch", r#"{"metadata":{"labels":{"touched":"yes"}}}"#];
        for object in [
            "device/b",
            "tenant/acme",
            "configmap/flutecast-acme-0",
            "secret/flutecast-access",
            "lease/flutecast-operator",
        ] {
            let args = ["--kubeconfig", &kubeconfig, "-n", foreign, "patch", object];
            refused(cluster, &[&args[..], &patch].concat()).await;
        }
        refused(cluster, &["--kubeconfig", &kubeconfig, "-n", foreign, "delete", "device/b"]).await;
        // The same account may read its own namespace, so only the namespace makes the difference.
        let at_home = match program {
            "operator" => format!("/{flutecast}/namespaces/{home}/devices"),
            _ => format!("/api/v1/namespaces/{home}/configmaps"),
        };
        cluster.kubectl(&["--kubeconfig", &kubeconfig, "get", "--raw", &at_home]).await.unwrap();
    }
}

async fn refused(cluster: &Cluster, args: &[&str]) {
    let answer = cluster.kubectl(args).await;
    assert!(answer.is_err(), "{args:?} is allowed: {answer:?}");
    let error = format!("{:#}", answer.unwrap_err());
    assert!(error.contains("Forbidden") || error.contains("forbidden"), "{error}");
}

/// Asserts that the operator's login of `own`, which has the most rights, sees neither streams nor pods of
/// `other`.
async fn assert_nats_isolation(address: &str, own: &Factory<'_>, other: &Factory<'_>) {
    let client = login(address, &format!("{}-operator", own.plant)).await;
    let list = client.request("$JS.API.STREAM.LIST", "".into()).await.unwrap();
    let list: Value = serde_json::from_slice(&list.payload).unwrap();
    let streams = list["streams"].as_array().unwrap();
    let owner = |stream: &Value| stream["config"]["metadata"]["flutecast.io/owner-namespace"].clone();
    let own_alone = streams.iter().all(|stream| owner(stream) == own.release.namespace());
    assert!(!streams.is_empty() && own_alone, "{list:#}");
    let mut announcements = client.subscribe("flutecast.serving.*.*").await.unwrap();
    client.flush().await.unwrap();
    for release in [other, own] {
        let question = format!("flutecast.serving.{}.query", release.release.namespace());
        client.publish(question, "".into()).await.unwrap();
    }
    // Both factories were queried. The second announcement comes seconds later, so by then the pods of
    // `other` would have answered too.
    let mut pods = Vec::new();
    while pods.len() < 2 {
        let message = tokio::time::timeout(SOON, announcements.next()).await.unwrap().unwrap();
        if !message.subject.ends_with(".query") {
            let announcement: Value = serde_json::from_slice(&message.payload).unwrap();
            assert_eq!(message.subject.split('.').nth(2), Some(own.release.namespace()), "{announcement}");
            pods.push(announcement["server"].clone());
        }
    }
}

/// Both have the same tenant, device and channel; each screen receives values of its own factory only.
/// Returns a screen of a device that only the second factory has.
async fn screens_see_their_own_factory(
    nats: &str,
    second_devices: &async_nats::Client,
    first: &Factory<'_>,
    second: &Factory<'_>,
) -> SseClient {
    let first_devices = login(nats, "plant-1-devices").await;
    let mut screens = (first.screen("A-1").await, second.screen("A-1").await);
    let mut secret = second.screen("B-1").await;
    publish(second_devices, "A-1", 2_001).await;
    publish(second_devices, "B-1", 2_002).await;
    publish(&first_devices, "A-1", 1_001).await;
    expect(&mut screens.0, 1_001).await;
    expect(&mut screens.1, 2_001).await;
    expect(&mut secret, 2_002).await;
    secret
}

/// Asserts that tokens open only their own factory, and that the first factory's mapping holds nothing of the
/// second.
async fn assert_token_and_mapping_isolation(first: &Factory<'_>, second: &Factory<'_>) {
    let (token, other) = (screen_token(first.plant), screen_token(second.plant));
    for path in ["acme/devices", "acme/events?device=A-1", "acme/devices/B-1", "secret/devices"] {
        assert_eq!(second.status(path, &token).await, 401, "{path} of the second with a token of the first");
    }
    assert_eq!(second.status("acme/devices/B-1", &other).await, 200);
    assert_eq!(first.status("acme/devices/B-1", &token).await, 404, "a device that only the second has");
    assert_eq!(first.status("secret/devices", &token).await, 401, "a tenant that only the second has");
    assert_eq!(first.status("acme/devices", &other).await, 401, "a token of the second");
    let mapping = ["get", "configmaps", "-l", "app.kubernetes.io/managed-by=flutecast", "-o", "json"];
    let mapping = first.release.kubectl(&mapping).await.unwrap();
    assert!(mapping.contains("A-1") && !mapping.contains("B-1") && !mapping.contains("secret"), "{mapping}");
}

#[tokio::test(flavor = "multi_thread")]
async fn factories_on_one_cluster_and_nats_are_isolated() {
    let cluster = Cluster::shared().await.unwrap();
    let (company, first, second) = tokio::try_join!(
        cluster.namespace("company"),
        cluster.namespace("plant-1"),
        cluster.namespace("plant-2")
    )
    .unwrap();
    let images = Images::of_workspace().unwrap();
    images.load(&cluster).await.unwrap();
    install_crds(&cluster, &in_repository("charts/flutecast-crds")).await.unwrap();
    let nats = start_nats(&cluster, &company).await;
    let (mut first, second) = tokio::join!(
        Factory::install(&cluster, &first, "plant-1", &nats, &images),
        Factory::install(&cluster, &second, "plant-2", &nats, &images)
    );
    let [both, secret] = manifests();
    first.release.apply(&counting::manifests(&both)).await.unwrap();
    second.release.apply(&counting::manifests(&[both, secret].concat())).await.unwrap();
    for factory in [&first, &second] {
        factory.release.wait_ready().await.unwrap();
        let policies = factory.release.kubectl(&["get", "networkpolicies", "-o", "name"]).await.unwrap();
        assert_eq!(policies.lines().count(), PROGRAMS.len(), "{policies}");
    }

    let reach = cluster.reach(company.name(), "nats", 4222).await.unwrap();
    let second_devices = login(&reach.address, "plant-2-devices").await;
    let mut secret = screens_see_their_own_factory(&reach.address, &second_devices, &first, &second).await;
    assert_token_and_mapping_isolation(&first, &second).await;
    tokio::join!(
        assert_api_isolation(&cluster, &first, &second),
        assert_api_isolation(&cluster, &second, &first)
    );
    tokio::join!(
        assert_nats_isolation(&reach.address, &first, &second),
        assert_nats_isolation(&reach.address, &second, &first)
    );

    // A format in use is protected by the Devices of its own factory only. The second factory still uses its
    // format, the first doesn't after this deletion.
    let delete_format = ["delete", "pushformat", "count"];
    first.release.kubectl(&["delete", "device", "a"]).await.unwrap();
    wait_until("the deletion of an unused format", SOON, async || {
        first.release.kubectl(&delete_format).await
    })
    .await
    .unwrap();

    // Uninstalling one factory keeps the CRDs and doesn't affect the other.
    first.release.uninstall().await.unwrap();
    publish(&second_devices, "B-1", 2_003).await;
    expect(&mut secret, 2_003).await;
    second.release.wait_ready().await.unwrap();
    let kept = format!("{:#}", second.release.kubectl(&delete_format).await.unwrap_err());
    assert!(kept.contains("is used by Device"), "{kept}");
    let mut release = second.release;
    release.uninstall().await.unwrap();
}
