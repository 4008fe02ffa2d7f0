//! A factory that is changed in git, and whose Tenants and Devices Argo CD brings.

use std::time::Duration;

use flutecast_testbed::gitops::Application;
use flutecast_testkit::{SseClient, SseEvent};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::counting;
use crate::plant_1::Plant;

/// The folder of the factory's own manifests, and their Tenant.
pub(crate) const FOLDER: &str = "manifests/demo";
pub(crate) const TENANT: &str = "demo";
/// Time limit for a screen, or for a commit that has nothing to wait for.
pub(crate) const SOON: Duration = Duration::from_secs(60);
/// The Applications that these manifests are in.
const APPLICATIONS: [&str; 2] = ["plant-1-tenants", "plant-1-devices"];

pub(crate) struct GitFactory<'a> {
    pub(crate) plant: &'a Plant<'a>,
    pub(crate) git: &'a flutecast_testbed::gitops::GitRepository,
    begin: Instant,
}

impl<'a> GitFactory<'a> {
    pub(crate) fn new(plant: &'a Plant<'a>) -> Self {
        Self { plant, git: &plant.repository, begin: Instant::now() }
    }

    /// Prints the begin of a story, which is the last line before a failure.
    pub(crate) fn story(&self, text: &str) {
        eprintln!("{:>4} s  {text}", self.begin.elapsed().as_secs());
    }

    pub(crate) fn write(&self, file: &str, text: &str) {
        self.git.write(&format!("{FOLDER}/{file}"), text).unwrap();
    }

    /// Replaces a text of a file, which has to be there.
    pub(crate) fn edit(&self, file: &str, old: &str, new: &str) {
        let text = self.git.read(&format!("{FOLDER}/{file}")).unwrap();
        assert!(text.contains(old), "{file} has no {old:?}");
        self.write(file, &text.replace(old, new));
    }

    /// Writes a Device that counts.
    pub(crate) fn device(&self, file: &str, tenant: &str, name: &str, code: &str) {
        self.write(&format!("devices/{file}.yaml"), &counting::device(tenant, name, code).to_string());
    }

    pub(crate) fn remove(&self, file: &str) {
        self.git.remove(&format!("{FOLDER}/{file}")).unwrap();
    }

    /// Commits, and tells Argo CD as a webhook does. Returns the revision.
    pub(crate) async fn commit(&self, message: &str) -> String {
        let revision = self.git.commit(message).await.unwrap();
        self.tell().await;
        revision
    }

    /// Commits, and waits until all of it is in force.
    pub(crate) async fn commit_healthy(&self, message: &str) {
        let begin = Instant::now();
        let revision = self.commit(message).await;
        self.healthy(&revision, SOON).await;
        eprintln!("        in force after {:.1?}", begin.elapsed());
    }

    /// Takes a commit back, and waits until that is in force.
    pub(crate) async fn revert(&self, revision: &str, deadline: Duration) {
        let revision = self.git.revert(revision).await.unwrap();
        self.tell().await;
        self.healthy(&revision, deadline).await;
    }

    async fn tell(&self) {
        for name in APPLICATIONS {
            self.plant.argocd.refresh(name).await.unwrap();
        }
    }

    pub(crate) async fn healthy(&self, revision: &str, deadline: Duration) {
        let end = Instant::now() + deadline;
        for name in APPLICATIONS {
            let left = end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            self.plant.argocd.wait_healthy(name, Some(revision), left).await.unwrap();
        }
    }

    pub(crate) async fn applications(&self) -> Vec<Application> {
        let mut found = Vec::new();
        for name in APPLICATIONS {
            found.push(self.plant.argocd.application(name).await.unwrap());
        }
        found
    }

    pub(crate) async fn kubectl(&self, args: &[&str]) -> String {
        self.plant.release.kubectl(args).await.unwrap()
    }

    /// Returns an object of ours; `Null` if it isn't there.
    pub(crate) async fn object(&self, kind: &str, name: &str) -> Value {
        let get = ["get", &format!("{kind}.flutecast.io"), name, "--ignore-not-found", "-o", "json"];
        serde_json::from_str(&self.kubectl(&get).await).unwrap_or(Value::Null)
    }

    /// Returns the names of Devices that aren't Ready.
    pub(crate) async fn devices_not_ready(&self) -> Vec<String> {
        let all: Value =
            serde_json::from_str(&self.kubectl(&["get", "devices.flutecast.io", "-o", "json"]).await)
                .unwrap();
        let ready = |device: &Value| {
            let conditions = device["status"]["conditions"].as_array().cloned().unwrap_or_default();
            conditions.iter().any(|one| one["type"] == "Ready" && one["status"] == "True")
        };
        let devices = all["items"].as_array().unwrap().iter().filter(|device| !ready(device));
        devices.map(|device| device["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    }

    /// Returns the operator's mapping of a tenant as text.
    pub(crate) async fn mapping(&self, tenant: &str) -> String {
        self.kubectl(&["get", "configmaps", "-l", &format!("flutecast.io/tenant={tenant}"), "-o", "yaml"])
            .await
    }

    /// Returns the names of the streams in NATS.
    pub(crate) async fn streams(&self) -> Vec<String> {
        let client = self.plant.release.nats().await.unwrap().connect("operator").await.unwrap();
        let answer = client.request("$JS.API.STREAM.NAMES", "".into()).await.unwrap();
        let answer: Value = serde_json::from_slice(&answer.payload).unwrap();
        serde_json::from_value(answer["streams"].clone()).unwrap_or_default()
    }

    pub(crate) async fn url(&self, path: &str) -> String {
        format!("http://{}/v1/{path}", self.plant.release.dataplane().await.unwrap().address)
    }

    pub(crate) async fn screen(&self, tenant: &str, devices: &str) -> SseClient {
        let url = self.url(&format!("{tenant}/events?device={devices}")).await;
        let mut screen = SseClient::connect(&url, &[]).await.unwrap();
        screen.next_named("hello", SOON).await.unwrap();
        screen
    }

    /// Sends a number as a counting device does, and waits until the screen shows it.
    pub(crate) async fn shows(&self, screen: &mut SseClient, tenant: &str, code: &str, number: u64) {
        self.sends(tenant, code, number).await;
        self.is_shown(screen, code, number).await;
    }

    pub(crate) async fn sends(&self, tenant: &str, code: &str, number: u64) {
        let nats = self.plant.release.nats().await.unwrap().connect("devices").await.unwrap();
        let payload = counting::payload(number).to_string();
        nats.publish(counting::subject(tenant, code), payload.into()).await.unwrap();
        nats.flush().await.unwrap();
    }

    /// Waits until the screen shows a number of a device.
    pub(crate) async fn is_shown(&self, screen: &mut SseClient, code: &str, number: u64) {
        let shown = |event: &SseEvent| {
            let data = if event.is_data() { event.json().unwrap_or_default() } else { Value::Null };
            data["device"] == code && data["values"]["n"].as_u64() == Some(number)
        };
        screen.next_where(&format!("{code} to show {number}"), SOON, shown).await.unwrap();
    }

    /// Waits until the screen is told of devices that came (`added`) or went (`removed`).
    pub(crate) async fn is_told(&self, screen: &mut SseClient, what: &str, code: &str) {
        let told = |event: &SseEvent| {
            let data = if event.name() == "devices" { event.json().unwrap_or_default() } else { json!({}) };
            data[what].to_string().contains(code)
        };
        screen.next_where(&format!("{code} to be {what}"), SOON, told).await.unwrap();
    }
}
