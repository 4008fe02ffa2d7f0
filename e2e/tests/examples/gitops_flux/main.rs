//! `make gitops-soak`: measures Flux with thousands of Devices in one Kustomization and in several, and
//! writes docs/generated/gitops-flux.md.
//!
//! `--scale 2000/1,2000/10 --into FILE`

#![allow(clippy::unwrap_used, clippy::panic, reason = "it measures with what tests use")]

#[path = "../../cluster/counting.rs"]
#[allow(dead_code, reason = "tests need all of it")]
mod counting;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use flutecast_testbed::cluster::{Cluster, Component, Request};
use flutecast_testbed::gitops::{Flux, GitRepository, remove_flux_objects};
use flutecast_testbed::release::Images;
use flutecast_testkit::wait_until;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

/// The namespace of the factory in `manifests/flux`, and the Tenant of the Devices.
const PLANT: &str = "plant-1";
const TENANT: &str = "lines";
/// Time limit for each step.
const STEP: Duration = Duration::from_secs(1200);
/// For so long nothing happens, to see what that costs.
const QUIET: Duration = Duration::from_secs(60);
/// The Kustomization as shipped, whose health checks those of the lines have too.
const SHIPPED: &str = "manifests/flux/plant-1/3-factory.yaml";

/// So many Devices in so many Kustomizations.
#[derive(Debug, Clone, Copy)]
struct Size {
    devices: usize,
    kustomizations: usize,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let (mut scale, mut into) = ("2000/1,2000/10".to_owned(), None);
    let mut args = std::env::args().skip(1);
    while let Some(name) = args.next() {
        let value = args.next().with_context(|| format!("{name} needs a value"))?;
        match name.as_str() {
            "--scale" => scale = value,
            "--into" => into = Some(value),
            _ => bail!("unknown: {name}"),
        }
    }
    let into = into.context("--into FILE")?;
    let cluster = Cluster::shared().await?;
    Images::of_workspace()?.load_as_shipped(&cluster).await?;
    let flux = Flux::start(&cluster).await?;
    let plant =
        Plant { cluster: &cluster, git: GitRepository::of_checkout(&cluster, "flutecast").await?, flux };
    plant.come_up().await?;
    let mut rows: Vec<(String, Vec<String>)> = Vec::new();
    let mut heads = String::new();
    for size in scale.split(',') {
        let (devices, kustomizations) = size.split_once('/').context("--scale DEVICES/KUSTOMIZATIONS")?;
        let size = Size { devices: devices.parse()?, kustomizations: kustomizations.parse()? };
        write!(heads, " {} in {} |", size.devices, size.kustomizations)?;
        for (index, (what, value)) in plant.measure(size).await?.into_iter().enumerate() {
            eprintln!("{size:?}: {what}: {value}");
            if rows.len() <= index {
                rows.push((what, Vec::new()));
            }
            rows[index].1.push(value);
        }
    }
    let columns = " --- |".repeat(scale.split(',').count());
    let mut text = format!(
        "# Flux with a factory: what was measured\n\nWritten by `make gitops-soak`; \
         [gitops.md](../gitops.md) says what follows from it.\nDevices in Kustomizations with the options of \
         the shipped one.\n\
         \n| |{heads}\n| --- |{columns}\n"
    );
    for (what, values) in rows {
        writeln!(text, "| {what} | {} |", values.join(" | "))?;
    }
    let load = std::fs::read_to_string("/proc/loadavg")?;
    let (load, processors) =
        (load.split(' ').next().unwrap_or_default(), std::thread::available_parallelism()?);
    writeln!(text, "\n{processors} processors for everything, load average {load} at the end.")?;
    std::fs::write(&into, &text)?;
    eprintln!("{text}");
    remove_flux_objects(&cluster).await
}

struct Plant<'a> {
    cluster: &'a Cluster,
    git: GitRepository,
    flux: Flux<'a>,
}

/// What the controllers and the operator have cost so far.
#[derive(Debug, Clone, Default)]
struct Cost {
    /// Answers of the API server to kustomize-controller, by method.
    requests: BTreeMap<String, u64>,
    processor: f64,
    /// Kilobytes at most since the start.
    memory: u64,
}

impl Plant<'_> {
    async fn come_up(&self) -> anyhow::Result<()> {
        let revision = self.git.commit("The factory").await?;
        self.cluster.apply(&self.git.read("manifests/flux/plant-1.yaml")?).await?;
        self.flux.wait_applied("plant-1", &revision, STEP).await?;
        self.flux.wait_applied("plant-1-factory", &revision, STEP).await.map(drop)
    }

    async fn push(&self, message: &str) -> anyhow::Result<String> {
        let revision = self.git.commit(message).await?;
        self.flux.reconcile(Flux::NAMESPACE, "gitrepository/flutecast").await?;
        Ok(revision)
    }

    async fn measure(&self, size: Size) -> anyhow::Result<Vec<(String, String)>> {
        let mut rows = Vec::new();
        let mut row = |what: &str, value: String| rows.push((what.to_owned(), value));
        self.git.write("manifests/demo/formats/count.yaml", &counting::format().to_string())?;
        let tenant = json!({"quota": {"maxDevices": size.devices}});
        self.git.write("manifests/demo/lines.yaml", &counting::tenant(TENANT, &tenant).to_string())?;
        for number in 0..size.devices {
            self.git.write(&path(size, number), &device(number, ""))?;
        }
        let revision = self.push(&format!("{size:?}")).await?;
        self.flux.wait_applied("plant-1-factory", &revision, STEP).await?;

        let (before, begin) = (self.cost().await?, Instant::now());
        self.cluster.apply(&self.kustomizations(size)?).await?;
        self.all(size, &revision).await?;
        row("all Ready after", seconds(begin.elapsed()));
        let after = self.cost().await?;
        row("requests of kustomize-controller meanwhile", requests(&before, &after));
        row("its processor time", format!("{:.0} s", after.processor - before.processor));
        row("its memory at most so far", format!("{} MB", after.memory / 1024));
        row("largest Kustomization object", format!("{} kB", self.largest().await? / 1000));

        let (before, begin) = (self.cost().await?, Instant::now());
        self.git.write(&path(size, 0), &device(0, "changed"))?;
        let revision = self.push("One device changes").await?;
        self.all(size, &revision).await?;
        row("a commit with one Device: all Ready after", seconds(begin.elapsed()));
        row("requests meanwhile", requests(&before, &self.cost().await?));

        let before = self.cost().await?;
        sleep(QUIET).await;
        let after = self.cost().await?;
        row("requests in a quiet minute", requests(&before, &after));

        let begin = Instant::now();
        let lines = ["-n", Flux::NAMESPACE, "delete", "kustomizations", "-l", "line", "--wait=false"];
        self.cluster.kubectl(&lines).await?;
        wait_until("the Devices to go", STEP, async || {
            let names =
                self.cluster.kubectl(&["-n", PLANT, "get", "devices.flutecast.io", "-o", "name"]).await?;
            let left = names.lines().filter(|name| name.contains("/dev-")).count();
            ensure!(left == 0, "{left} are left");
            anyhow::Ok(())
        })
        .await?;
        row("all deleted after", seconds(begin.elapsed()));
        self.git.remove("lines")?;
        self.push("No lines").await?;
        Ok(rows)
    }

    /// Returns the Kustomizations of the lines: as the shipped one, each with a folder of its own.
    fn kustomizations(&self, size: Size) -> anyhow::Result<String> {
        let shipped: Value = serde_yaml::from_str(&self.git.read(SHIPPED)?)?;
        let one = |number: usize| {
            let mut one = shipped.clone();
            let name = format!("line-{number}");
            one["metadata"] = json!({"name": name, "namespace": Flux::NAMESPACE, "labels": {"line": name}});
            one["spec"]["path"] = json!(format!("lines/{number}"));
            one
        };
        let all: Vec<_> = (0..size.kustomizations).map(one).collect();
        Ok(counting::manifests(&all))
    }

    /// Waits until all lines are Ready at a revision.
    async fn all(&self, size: Size, revision: &str) -> anyhow::Result<()> {
        for number in 0..size.kustomizations {
            self.flux.wait_applied(&format!("line-{number}"), revision, STEP).await?;
        }
        Ok(())
    }

    async fn cost(&self) -> anyhow::Result<Cost> {
        let mut cost = Cost::default();
        for line in self.flux.metrics(Component::KustomizeController).await?.lines() {
            let value = || line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok()).unwrap_or(0.0);
            if line.starts_with("process_cpu_seconds_total ") {
                cost.processor = value();
            } else if line.starts_with("rest_client_requests_total{") {
                let method = line.split_once("method=\"").and_then(|(_, rest)| rest.split_once('"'));
                let method = method.map_or("", |(method, _)| method);
                *cost.requests.entry(method.to_owned()).or_default() += value() as u64;
            }
        }
        let node = self.cluster.node()?;
        let statuses = node.request(Request::Status).await?;
        let pid = statuses.iter().find(|status| status.component == Component::KustomizeController);
        let pid = pid.and_then(|status| status.pid).context("kustomize-controller doesn't run")?;
        let status = node.exec("cat", &[&format!("/proc/{pid}/status")]).await?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("VmHWM")?;
        cost.memory = peak.trim().trim_end_matches(" kB").parse()?;
        Ok(cost)
    }

    /// Returns the size in bytes of the largest Kustomization, which etcd bounds to about 1.5 MB.
    async fn largest(&self) -> anyhow::Result<usize> {
        let text =
            self.cluster.kubectl(&["-n", Flux::NAMESPACE, "get", "kustomizations", "-o", "json"]).await?;
        let list: Value = serde_json::from_str(&text)?;
        let items = list["items"].as_array().context("a list")?;
        Ok(items.iter().map(|item| item.to_string().len()).max().unwrap_or_default())
    }
}

fn path(size: Size, number: usize) -> String {
    format!("lines/{}/dev-{number:05}.yaml", number % size.kustomizations)
}

fn device(number: usize, description: &str) -> String {
    let mut device = counting::device(TENANT, &format!("dev-{number:05}"), &format!("DEV-{number:05}"));
    if !description.is_empty() {
        device["metadata"]["annotations"] = json!({"example.com/description": description});
    }
    device.to_string()
}

fn requests(before: &Cost, after: &Cost) -> String {
    let more = after
        .requests
        .iter()
        .map(|(method, count)| (method, count - before.requests.get(method).copied().unwrap_or_default()));
    let more: Vec<_> =
        more.filter(|(_, count)| *count > 0).map(|(method, count)| format!("{count} {method}")).collect();
    if more.is_empty() { "none".to_owned() } else { more.join(", ") }
}

fn seconds(time: Duration) -> String {
    format!("{:.0} s", time.as_secs_f64())
}
