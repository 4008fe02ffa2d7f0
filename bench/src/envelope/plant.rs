//! The running programs: etcd, kube-apiserver, nats-server, operator, data plane.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use flutecast_contract::document::ShardDocument;
use flutecast_testkit::in_repository;
use flutecast_testkit::{
    ApiServer, NatsServer, Process, ProcessOptions, free_port, free_ports, http_client, program, wait_until,
};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde_json::json;
use tokio::time::Instant;

use super::Size;
use super::load::tenants_and_formats;
use super::writes::Writes;
use crate::process_stats::ProcessStats;

/// The namespace of the Devices.
pub(super) const NAMESPACE: &str = "default";
/// The namespace of the mapping, as in manifests/operator/rbac.yaml.
const OWN: &str = "flutecast-system";
/// Longest time that small things may take.
const SOON: Duration = Duration::from_secs(60);
/// Longest time that the operator may take for all devices.
const LONG: Duration = Duration::from_secs(300);
/// Longest time that a program may take to end.
const END: Duration = Duration::from_secs(15);
/// Interval at which the operator is asked whether it has reconciled.
const LOOK: Duration = Duration::from_millis(5);
/// Number of Devices per page of a list.
const PAGE: u32 = 500;

/// The programs. Dropping it kills them.
pub(super) struct Plant {
    size: Size,
    api: ApiServer,
    nats: NatsServer,
    client: Client,
    operator: Running,
    dataplane: Running,
    dataplane_url: String,
}

struct Running {
    process: Process,
    admin: String,
}

impl Plant {
    /// Starts all of it, with tenants and formats and without devices.
    pub(super) async fn start(size: Size) -> anyhow::Result<Self> {
        let (api, nats) = tokio::join!(ApiServer::start(), NatsServer::start());
        let (api, nats) = (api?, nats?);
        api.apply_kinds().await?;
        api.kubectl(&["create", "namespace", OWN], "").await?;
        let rights = in_repository("manifests/operator/rbac.yaml").display().to_string();
        api.kubectl(&["apply", "--server-side", "-f", &rights], "").await?;
        let client = client(&api).await?;
        let (operator, _) = start_operator(&api, &nats).await?;
        api.kubectl(&["apply", "--server-side", "-f", "-"], &tenants_and_formats(size)).await?;
        let (dataplane, dataplane_url) = start_dataplane(&api, &nats)?;
        dataplane.wait_until_ready().await?;
        api.kubectl(&["apply", "--server-side", "-f", "-"], &endpoint_slice()).await?;
        let this = Self { size, api, nats, client, operator, dataplane, dataplane_url };
        this.wait_until_idle().await?;
        Ok(this)
    }

    pub(super) fn size(&self) -> Size {
        self.size
    }

    pub(super) fn dataplane_url(&self) -> &str {
        &self.dataplane_url
    }

    /// The Devices, with all rights.
    pub(super) fn devices(&self) -> Api<DynamicObject> {
        let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("flutecast.io", "v1alpha1", "Device"));
        Api::namespaced_with(self.client.clone(), NAMESPACE, &kind)
    }

    /// Subscribes to the announcements of data planes. They are asked once, so that the first one comes at
    /// once.
    pub(super) async fn announcements(&self) -> anyhow::Result<async_nats::Subscriber> {
        let client = self.nats.client().await?;
        let subscriber = client.subscribe(format!("flutecast.serving.{OWN}.{SERVER}")).await?;
        client.publish(format!("flutecast.serving.{OWN}.query"), "".into()).await?;
        client.flush().await?;
        Ok(subscriber)
    }

    /// Returns the writes to the API server so far.
    pub(super) async fn writes(&self) -> anyhow::Result<Writes> {
        let request = http_request("/metrics")?;
        let text = tokio::time::timeout(SOON, self.client.request_text(request)).await??;
        Writes::read(&text)
    }

    pub(super) fn operator_stats(&self) -> anyhow::Result<ProcessStats> {
        ProcessStats::read(self.operator.process.pid())
    }

    pub(super) fn dataplane_stats(&self) -> anyhow::Result<ProcessStats> {
        ProcessStats::read(self.dataplane.process.pid())
    }

    /// Waits until the mapping's ConfigMaps hold as many devices as there are.
    pub(super) async fn wait_until_mapped(&self) -> anyhow::Result<()> {
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), OWN);
        let only_ours = ListParams::default().labels("app.kubernetes.io/managed-by=flutecast");
        let mut known: BTreeMap<String, (Option<String>, usize)> = BTreeMap::new();
        self.with_log(wait_until("all devices in the mapping", LONG, async || {
            let list = maps.list_metadata(&only_ours).await.map_err(|error| error.to_string())?;
            known.retain(|name, _| list.items.iter().any(|map| map.metadata.name.as_ref() == Some(name)));
            for meta in list.items.iter().map(|map| &map.metadata) {
                let name = meta.name.clone().unwrap_or_default();
                if known.get(&name).is_some_and(|(version, _)| *version == meta.resource_version) {
                    continue;
                }
                let map = maps.get(&name).await.map_err(|error| error.to_string())?;
                let document = map.data.as_ref().and_then(|data| data.get("mapping.yaml"));
                let count = document.map(|document| devices_in(document));
                known.insert(name, (map.metadata.resource_version, count.unwrap_or_default()));
            }
            let count: usize = known.values().map(|(_, count)| count).sum();
            if count == self.size.devices as usize { Ok(()) } else { Err(format!("{count} of them")) }
        }))
        .await
    }

    /// Waits until all Devices are Ready.
    pub(super) async fn wait_until_ready(&self) -> anyhow::Result<()> {
        self.wait_until_all("ready", is_ready).await
    }

    /// Waits until all Devices are said to be silent: none of them sends anything, and that is written once
    /// for each.
    pub(super) async fn wait_until_silent(&self) -> anyhow::Result<()> {
        self.wait_until_all("silent", |device| device.data["status"]["presence"] == "Silent").await
    }

    async fn wait_until_all(&self, what: &str, is_so: fn(&DynamicObject) -> bool) -> anyhow::Result<()> {
        let devices = self.devices();
        self.with_log(wait_until(&format!("all devices to be {what}"), LONG, async || {
            // A list of all is much work for the API server, so the operator's own count is asked first.
            self.is_idle().await?;
            let mut parameters = ListParams::default().limit(PAGE);
            loop {
                let page = devices.list(&parameters).await.map_err(|error| error.to_string())?;
                if let Some(device) = page.items.iter().find(|device| !is_so(device)) {
                    return Err(format!("{:?}: {}", device.metadata.name, device.data["status"]));
                }
                match page.metadata.continue_.filter(|token| !token.is_empty()) {
                    Some(token) => parameters = parameters.continue_token(&token),
                    None => return Ok(()),
                }
            }
        }))
        .await
    }

    /// Waits until the operator has nothing left to write.
    pub(super) async fn wait_until_idle(&self) -> anyhow::Result<()> {
        self.with_log(wait_until("the operator to be idle", LONG, async || self.is_idle().await)).await
    }

    async fn is_idle(&self) -> Result<(), String> {
        // A status may be about to be wanted: two looks in a row must see none.
        for _ in 0..2 {
            let waiting = self.operator.metric("flutecast_operator_statuses_waiting").await?;
            if waiting != 0.0 {
                return Err(format!("{waiting} statuses wait"));
            }
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
        Ok(())
    }

    /// Ends the operator in order and starts another one. Returns the time until its first reconcile.
    pub(super) async fn restart_operator(&mut self) -> anyhow::Result<Duration> {
        let ended = self.operator.process.terminate(END).await.context("ending the operator")?;
        ensure!(ended.success(), "the operator ended with {ended}");
        let (operator, took) = start_operator(&self.api, &self.nats).await?;
        self.operator = operator;
        Ok(took)
    }

    /// Ends all in order.
    pub(super) async fn stop(self) -> anyhow::Result<()> {
        let Self { mut nats, mut operator, mut dataplane, .. } = self;
        dataplane.process.terminate(END).await.context("ending the data plane")?;
        let ended = operator.process.terminate(END).await.context("ending the operator")?;
        ensure!(ended.success(), "the operator ended with {ended}");
        nats.stop().await
    }

    async fn with_log(&self, wait: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
        wait.await.with_context(|| format!("the operator wrote:\n{}", self.operator.process.tail()))
    }
}

/// Under which name the data plane announces.
const SERVER: &str = "bench";
/// The data plane's Service, as far as there is one: its endpoints.
const SERVICE: &str = "flutecast-dataplane";

/// Returns the slice that the endpoint controller would write for the data plane.
fn endpoint_slice() -> String {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {
            "name": SERVICE, "namespace": OWN, "labels": {"kubernetes.io/service-name": SERVICE},
        },
        "endpoints": [{
            "addresses": ["10.1.0.1"],
            "conditions": {"ready": true, "serving": true, "terminating": false},
            "targetRef": {"kind": "Pod", "name": SERVER, "namespace": OWN},
        }],
        "ports": [],
    })
    .to_string()
}

impl Running {
    async fn wait_until_ready(&self) -> anyhow::Result<()> {
        let ready = format!("{}/readyz", self.admin);
        let what = format!("{} to be ready", self.process.name());
        let wait = wait_until(&what, SOON, async || http_client::get_text(&ready).await);
        wait.await.map(drop).with_context(|| format!("it wrote:\n{}", self.process.tail()))
    }

    /// The value of a metric; all its labels together.
    async fn metric(&self, name: &str) -> Result<f64, String> {
        let answer = http_client::get(&format!("{}/metrics", self.admin)).await;
        let text = answer.map_err(|error| format!("{error:#}"))?.text();
        let values = text.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let is_it = rest.starts_with(' ') || rest.starts_with('{');
            is_it.then(|| line.rsplit_once(' ')?.1.parse::<f64>().ok()).flatten()
        });
        Ok(values.sum())
    }
}

async fn client(api: &ApiServer) -> anyhow::Result<Client> {
    let config = Kubeconfig::read_from(api.kubeconfig())?;
    Ok(Client::try_from(Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?)?)
}

/// Starts an operator under the rights of its manifest, and waits until it has reconciled for the first time.
/// Returns how long that took.
async fn start_operator(api: &ApiServer, nats: &NatsServer) -> anyhow::Result<(Running, Duration)> {
    let kubeconfig = api.kubeconfig_of(OWN, "flutecast-operator").await?;
    let admin = format!("127.0.0.1:{}", free_port()?);
    let nats = nats.url();
    let arguments = [
        "--kubernetes",
        "--nats",
        &nats,
        "--admin",
        &admin,
        "--mapping-namespace",
        OWN,
        "--identity",
        "bench",
        "--service",
        SERVICE,
    ];
    let begun = Instant::now();
    let process =
        Process::spawn_with(program("flutecast-operator")?, arguments, process_options(kubeconfig))?;
    let running = Running { process, admin: format!("http://{admin}") };
    while running.metric("flutecast_operator_passes_total").await.unwrap_or_default() == 0.0 {
        ensure!(
            begun.elapsed() < SOON,
            "no reconcile within {SOON:?}; the operator wrote:\n{}",
            running.process.tail()
        );
        tokio::time::sleep(LOOK).await;
    }
    Ok((running, begun.elapsed()))
}

/// Starts a data plane. What it may read is tested elsewhere; here it has all rights.
fn start_dataplane(api: &ApiServer, nats: &NatsServer) -> anyhow::Result<(Running, String)> {
    let [port, admin] = free_ports()?;
    let (listen, admin) = (format!("127.0.0.1:{port}"), format!("127.0.0.1:{admin}"));
    let nats = nats.url();
    let arguments = [
        "--kubernetes",
        "--namespace",
        OWN,
        "--nats",
        &nats,
        "--listen",
        &listen,
        "--admin",
        &admin,
        "--server-name",
        SERVER,
    ];
    let options = process_options(api.kubeconfig());
    let process = Process::spawn_with(program("flutecast-dataplane")?, arguments, options)?;
    Ok((Running { process, admin: format!("http://{admin}") }, format!("http://{listen}")))
}

fn process_options(kubeconfig: PathBuf) -> ProcessOptions {
    ProcessOptions {
        env: vec![("KUBECONFIG".into(), kubeconfig.into()), ("NO_COLOR".into(), "1".into())],
        ..ProcessOptions::default()
    }
}

fn http_request(path: &str) -> anyhow::Result<http::Request<Vec<u8>>> {
    Ok(http::Request::get(path).body(Vec::new())?)
}

/// Returns the number of devices in a mapping document; 0 if it can't be read.
fn devices_in(document: &str) -> usize {
    ShardDocument::from_yaml(document).map_or(0, |document| document.devices.len())
}

fn is_ready(device: &DynamicObject) -> bool {
    let conditions = device.data["status"]["conditions"].as_array();
    conditions.is_some_and(|all| all.iter().any(|one| one["type"] == "Ready" && one["status"] == "True"))
}
