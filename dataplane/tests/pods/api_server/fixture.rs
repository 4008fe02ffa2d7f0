//! A Kubernetes API and a nats-server for data planes with the rights of manifests/dataplane/rbac.yaml.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use flutecast_testkit::http_client::{Response, get, request};
use flutecast_testkit::{
    ApiServer, NatsServer, Process, ProcessOptions, SseClient, free_ports, program, wait_until,
};
use futures_util::StreamExt;
use http::Method;
use serde_json::{Value, json};

use crate::fixture::{DEADLINE, create_stream};

/// The namespace of manifests/dataplane/rbac.yaml.
pub(crate) const NAMESPACE: &str = "flutecast";
const ACCOUNT: &str = "flutecast-dataplane";

/// The API server and the nats-server.
pub(crate) struct KubeFixture {
    pub(crate) api: ApiServer,
    pub(crate) nats: NatsServer,
    pub(crate) client: async_nats::Client,
    /// Has the rights of the service account.
    kubeconfig: PathBuf,
}

impl KubeFixture {
    /// Starts an API server with an empty namespace and the service account, still without rights, and a
    /// nats-server with the streams of two tenants.
    pub(crate) async fn start() -> Self {
        let (api, nats) = tokio::join!(ApiServer::start(), NatsServer::start());
        let (api, nats) = (api.unwrap(), nats.unwrap());
        let client = nats.client().await.unwrap();
        for tenant in ["open", "acme"] {
            create_stream(&client, tenant).await;
        }
        api.kubectl(&["create", "namespace", NAMESPACE], "").await.unwrap();
        api.kubectl(&["create", "serviceaccount", ACCOUNT, "-n", NAMESPACE], "").await.unwrap();
        let kubeconfig = api.kubeconfig_of(NAMESPACE, ACCOUNT).await.unwrap();
        Self { api, nats, client, kubeconfig }
    }

    /// As [`Self::start`], with the rights of the manifest.
    pub(crate) async fn with_rights() -> Self {
        let this = Self::start().await;
        this.grant().await;
        this
    }

    pub(crate) async fn grant(&self) {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../manifests/dataplane/rbac.yaml");
        self.kubectl(&["apply", "--server-side", "--force-conflicts", "-f", path.to_str().unwrap()], "")
            .await;
    }

    /// Runs kubectl in the namespace, as cluster admin.
    pub(crate) async fn kubectl(&self, args: &[&str], stdin: &str) -> String {
        let args: Vec<&str> = ["-n", NAMESPACE].iter().chain(args).copied().collect();
        self.api.kubectl(&args, stdin).await.unwrap()
    }

    pub(crate) async fn apply(&self, object: &Value) {
        self.kubectl(&["apply", "--server-side", "-f", "-"], &object.to_string()).await;
    }

    /// Writes the shard of a tenant, as the operator does.
    pub(crate) async fn apply_shard(&self, tenant: &str, document: &str) {
        self.apply(&config_map(&format!("flutecast-{tenant}-0"), document)).await;
    }

    pub(crate) async fn apply_access(&self, document: &str) {
        self.apply(&json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": "flutecast-access"},
            "stringData": {"access.yaml": document},
        }))
        .await;
    }

    /// The token of the service account.
    pub(crate) fn token(&self) -> String {
        let config: Value = serde_json::from_slice(&std::fs::read(&self.kubeconfig).unwrap()).unwrap();
        config["users"][0]["user"]["token"].as_str().unwrap().to_owned()
    }

    /// Starts a data plane without waiting until it is ready.
    pub(crate) fn dataplane(&self, arguments: &[&str]) -> Pod {
        self.dataplane_on(free_ports().unwrap(), arguments)
    }

    /// As [`Self::dataplane`], on the ports given.
    pub(crate) fn dataplane_on(&self, [port, admin]: [u16; 2], arguments: &[&str]) -> Pod {
        let options = ProcessOptions {
            env: vec![("KUBECONFIG".into(), self.kubeconfig.clone().into())],
            ..ProcessOptions::default()
        };
        let (listen, admin) = (format!("127.0.0.1:{port}"), format!("127.0.0.1:{admin}"));
        let nats = self.nats.url();
        let all = ["--kubernetes", "--nats", &nats, "--listen", &listen, "--admin", &admin];
        let all: Vec<OsString> = all.iter().chain(arguments).map(Into::into).collect();
        let process = Process::spawn_with(program("flutecast-dataplane").unwrap(), all, options).unwrap();
        Pod { process, url: format!("http://{listen}"), admin_url: format!("http://{admin}") }
    }

    /// Publishes to a device of a tenant, and waits until the stream has stored the message.
    pub(crate) async fn publish(&self, tenant: &str, device: &str, value: u64) {
        let context = async_nats::jetstream::new(self.client.clone());
        let subject = format!("iot.{tenant}.{device}{tenant}.telemetry");
        context.publish(subject, format!("{{\"v\":{value}}}").into()).await.unwrap().await.unwrap();
    }

    /// Subscribes to what pods announce from now on.
    pub(crate) async fn announcements(&self) -> Announcements {
        let subscriber = self.client.subscribe("flutecast.serving.>").await.unwrap();
        self.client.flush().await.unwrap();
        Announcements { subscriber }
    }
}

/// Returns a ConfigMap with the operator's label.
pub(crate) fn config_map(name: &str, document: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "labels": {"app.kubernetes.io/managed-by": "flutecast"}},
        "data": {"mapping.yaml": document},
    })
}

/// A running data plane.
pub(crate) struct Pod {
    pub(crate) process: Process,
    pub(crate) url: String,
    pub(crate) admin_url: String,
}

impl Pod {
    pub(crate) async fn ready(&self) -> Response {
        get(&format!("{}/readyz", self.admin_url)).await.unwrap()
    }

    /// Waits until the pod is ready or not, and its reasons contain `reason`.
    pub(crate) async fn wait_for_readiness(&self, ready: bool, reason: &str) {
        wait_until(&format!("readiness {ready} with {reason:?}"), DEADLINE, async || {
            let answer = get(&format!("{}/readyz", self.admin_url)).await;
            let answer = answer.map_err(|error| format!("{error:#}\n{}", self.process.tail()))?;
            let text = answer.text();
            let is_ready = answer.status.is_success();
            if is_ready == ready && text.contains(reason) { Ok(()) } else { Err(text) }
        })
        .await
        .unwrap();
    }

    /// Waits until a metric, written with its labels, has this value.
    pub(crate) async fn wait_for_metric(&self, name: &str, value: u64) {
        let wanted = format!("{name} {value}");
        // A resumed watch counts as recovered only after 15 s.
        wait_until(&wanted, DEADLINE * 2, async || {
            let answer = get(&format!("{}/metrics", self.admin_url)).await;
            let text = answer.map_err(|error| format!("{error:#}"))?.text();
            if text.lines().any(|line| line == wanted) {
                return Ok(());
            }
            let family = name.split('{').next().unwrap_or(name);
            let seen: Vec<&str> = text.lines().filter(|line| line.starts_with(family)).collect();
            Err(format!("{seen:?}\n{}", self.process.tail()))
        })
        .await
        .unwrap();
    }

    /// Waits until the tenant `open` has exactly these devices.
    pub(crate) async fn wait_for_codes(&self, expected: &[&str], deadline: Duration) {
        wait_until("the devices", deadline, async || {
            let url = format!("{}/v1/open/devices", self.url);
            let answer = request(Method::GET, &url, &[], "").await.map_err(|error| format!("{error:#}"))?;
            let answer = answer.json().map_err(|error| format!("{error:#}"))?;
            let devices = answer["devices"].as_array().into_iter().flatten();
            let mut codes: Vec<&str> = devices.filter_map(|device| device["device"].as_str()).collect();
            codes.sort_unstable();
            if codes == expected { Ok(()) } else { Err(answer.to_string()) }
        })
        .await
        .unwrap();
    }

    pub(crate) async fn connect(&self, path: &str) -> SseClient {
        SseClient::connect(&format!("{}{path}", self.url), &[]).await.unwrap()
    }
}

/// The announcements of all pods.
pub(crate) struct Announcements {
    subscriber: async_nats::Subscriber,
}

impl Announcements {
    /// Returns the subject and the content of the next one.
    pub(crate) async fn next(&mut self, deadline: Duration) -> (String, Value) {
        let message = tokio::time::timeout(deadline, self.subscriber.next()).await.unwrap().unwrap();
        (message.subject.to_string(), serde_json::from_slice(&message.payload).unwrap())
    }

    /// Waits for an announcement with these tenants.
    pub(crate) async fn wait_for(&mut self, deadline: Duration, tenants: &Value) -> (String, Value) {
        let mut seen = Vec::new();
        let found = tokio::time::timeout(deadline, async {
            loop {
                let (subject, content) = self.next(DEADLINE).await;
                if content["tenants"] == *tenants {
                    return (subject, content);
                }
                seen.push(content);
            }
        });
        found
            .await
            .unwrap_or_else(|_| panic!("no announcement of {tenants} within {deadline:?}; seen: {seen:?}"))
    }
}
