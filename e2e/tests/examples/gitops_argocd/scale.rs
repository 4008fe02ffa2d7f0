//! Thousands of Devices in one Application and in several, which an ApplicationSet makes of folders.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::str::FromStr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, ensure};
use flutecast_testbed::cluster::{Cluster, Node};
use flutecast_testkit::wait_until;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::counting;
use crate::gitops::{Log, PLANT, make_bare};
use crate::plant_1::Plant;

/// The Tenant of the Devices.
const TENANT: &str = "lines";
/// Time limit for each step.
const STEP: Duration = Duration::from_secs(900);
/// For so long nothing happens after the first sync, to see what that costs.
const QUIET: Duration = Duration::from_secs(120);
/// The programs that are looked at: their names, and what their command lines hold.
const PROGRAMS: [(&str, &str); 5] = [
    ("controller", "argocd --metrics-port 8082"),
    ("repo server", "argocd --port 8081"),
    ("redis", "redis-server"),
    ("operator", "flutecast-operator"),
    ("API server", "kube-apiserver"),
];

/// So many Devices in so many Applications.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    devices: usize,
    applications: usize,
}

impl FromStr for Size {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (devices, applications) = text.split_once('/').context("--scale DEVICES/APPLICATIONS")?;
        Ok(Self { devices: devices.parse()?, applications: applications.parse()? })
    }
}

/// Kilobytes at most and seconds of processor time so far, for each program.
type Usage = BTreeMap<&'static str, (u64, u64)>;

/// Looks at the programs once a second.
struct Sampler {
    seen: Arc<Mutex<Usage>>,
    task: tokio::task::JoinHandle<()>,
}

impl Sampler {
    fn begin(node: &Node) -> Self {
        let (node, seen) = (node.clone(), Arc::new(Mutex::new(Usage::new())));
        let sampled = seen.clone();
        let task = tokio::spawn(async move {
            loop {
                let list = node.exec("ps", &["-eo", "rss,times,args"]).await.unwrap_or_default();
                for (name, (memory, time)) in usage(&list) {
                    let mut seen = sampled.lock().unwrap();
                    let entry = seen.entry(name).or_default();
                    *entry = (entry.0.max(memory), time);
                }
                sleep(Duration::from_secs(1)).await;
            }
        });
        Self { seen, task }
    }

    /// Returns what was seen, and begins anew with the memory.
    fn take(&self) -> Usage {
        let mut seen = self.seen.lock().unwrap();
        let taken = seen.clone();
        seen.values_mut().for_each(|(memory, _)| *memory = 0);
        taken
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn usage(list: &str) -> Usage {
    let mut usage = Usage::new();
    for line in list.lines() {
        let mut words = line.split_whitespace();
        let (Some(Ok(memory)), Some(Ok(time))) = (words.next().map(str::parse), words.next().map(str::parse))
        else {
            continue;
        };
        if let Some((name, _)) = PROGRAMS.iter().find(|(_, part)| line.contains(part)) {
            usage.insert(name, (memory, time));
        }
    }
    usage
}

/// Returns a table with a column for each size.
pub(crate) async fn measure(cluster: &Cluster, sizes: &[Size]) -> anyhow::Result<String> {
    let plant = Plant::bring_up(cluster, &[], |_| ()).await;
    let sampler = Sampler::begin(cluster.node()?);
    let mut rows: Vec<(String, Vec<String>)> = Vec::new();
    for size in sizes {
        for (index, (what, value)) in
            one_size(&plant, cluster, &sampler, *size).await?.into_iter().enumerate()
        {
            eprintln!("{size:?}: {what}: {value}");
            if rows.len() <= index {
                rows.push((what, Vec::new()));
            }
            rows[index].1.push(value);
        }
    }
    drop(sampler);
    plant.delete().await;
    make_bare(cluster).await;
    let heads = sizes.iter().map(|size| format!(" {} in {} |", size.devices, size.applications));
    let mut table =
        "## Many Devices\n\nDevices in Applications that an ApplicationSet makes, one for each folder, \
        with the options of the shipped ones.\n\n| |"
            .to_owned();
    table.extend(heads);
    write!(table, "\n| --- |{}\n", " --- |".repeat(sizes.len()))?;
    for (what, values) in rows {
        writeln!(table, "| {what} | {} |", values.join(" | "))?;
    }
    Ok(table)
}

async fn one_size(
    plant: &Plant<'_>,
    cluster: &Cluster,
    sampler: &Sampler,
    size: Size,
) -> anyhow::Result<Vec<(String, String)>> {
    let mut rows = Vec::new();
    let mut row = |what: &str, value: String| rows.push((what.to_owned(), value));
    let repository = &plant.repository;
    repository.write("manifests/demo/formats/count.json", &counting::format().to_string())?;
    let tenant = json!({"quota": {"maxDevices": size.devices}});
    repository.write("manifests/demo/lines.json", &counting::tenant(TENANT, &tenant).to_string())?;
    for number in 0..size.devices {
        repository.write(&path(size, number), &device(number, ""))?;
    }
    let revision = repository.commit(&format!("{size:?}")).await?;
    plant.argocd.refresh("plant-1-tenants").await?;
    plant.argocd.wait_healthy("plant-1-tenants", Some(&revision), STEP).await?;

    let (before, requests) = (sampler.take(), requests(cluster).await?);
    let begin = Instant::now();
    cluster.apply(&application_set(repository.url()).to_string()).await?;
    until(cluster, size, &revision, "Synced", "").await?;
    row("all Synced after", seconds(begin.elapsed()));
    until(cluster, size, &revision, "Synced", "Healthy").await?;
    row("all Healthy after", seconds(begin.elapsed()));
    let after = self::requests(cluster).await?;
    row("requests about Devices meanwhile", difference(&requests, &after));
    let used = sampler.take();
    for (name, (memory, time)) in &used {
        let (_, earlier) = before.get(name).copied().unwrap_or_default();
        row(
            &format!("{name}: memory at most, processor time"),
            format!("{} MB, {} s", memory / 1024, time - earlier),
        );
    }
    row("largest Application object", format!("{} kB", largest(cluster).await? / 1000));

    repository.write(&path(size, 7), &device(7, "changed"))?;
    let revision = repository.commit("One device changed").await?;
    let begin = Instant::now();
    plant.argocd.refresh(&format!("line-{}", 7 % size.applications)).await?;
    plant.argocd.wait_healthy(&format!("line-{}", 7 % size.applications), Some(&revision), STEP).await?;
    row("one Device changed: Synced and Healthy after", seconds(begin.elapsed()));

    let (log, earlier) = (Log::from_now(&plant.argocd), sampler.take());
    sleep(QUIET).await;
    let refreshes = log.refreshes(&plant.argocd);
    let comparisons: u32 =
        refreshes.by_reason.iter().filter(|(why, _)| why.starts_with("line-")).map(|(_, n)| n).sum();
    let idle = sampler.take();
    let time = |usage: &Usage| usage.get("controller").map_or(0, |(_, time)| *time);
    row(
        &format!("then nothing for {} s: comparisons, processor time of the controller", QUIET.as_secs()),
        format!("{comparisons}, {} s", time(&idle) - time(&earlier)),
    );

    let begin = Instant::now();
    cluster.kubectl(&["-n", "argocd", "delete", "applicationset", "lines", "--wait=false"]).await?;
    wait_until("the Devices to go", STEP, async || {
        let names = cluster.kubectl(&["-n", PLANT, "get", "devices.flutecast.io", "-o", "name"]).await?;
        let left = names.lines().filter(|name| name.contains("/dev-")).count();
        ensure!(left == 0, "{left} are left");
        anyhow::Ok(())
    })
    .await?;
    row("all deleted after", seconds(begin.elapsed()));
    repository.remove("lines")?;
    repository.commit("No lines").await?;
    Ok(rows)
}

fn path(size: Size, number: usize) -> String {
    format!("lines/{}/dev-{number:05}.json", number % size.applications)
}

fn device(number: usize, description: &str) -> String {
    let mut device = counting::device(TENANT, &format!("dev-{number:05}"), &format!("DEV-{number:05}"));
    if !description.is_empty() {
        device["metadata"]["annotations"] = json!({"example.com/description": description});
    }
    device.to_string()
}

fn application_set(url: &str) -> Value {
    json!({
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "ApplicationSet",
        "metadata": {"name": "lines", "namespace": "argocd"},
        "spec": {
            "goTemplate": true,
            "generators": [{"git": {
                "repoURL": url, "revision": "main", "directories": [{"path": "lines/*"}],
            }}],
            "template": {
                "metadata": {
                    "name": "line-{{.path.basename}}",
                    "finalizers": ["resources-finalizer.argocd.argoproj.io"],
                    "annotations": {"argocd.argoproj.io/compare-options": "ServerSideDiff=false"},
                },
                "spec": {
                    "project": PLANT,
                    "source": {"repoURL": url, "targetRevision": "main", "path": "{{.path.path}}"},
                    "destination": {"server": "https://kubernetes.default.svc", "namespace": PLANT},
                    "syncPolicy": {
                        "automated": {"prune": true, "selfHeal": true},
                        "syncOptions": ["ApplyOutOfSyncOnly=true"],
                    },
                },
            },
        },
    })
}

/// Waits until all Applications of the lines are in a state at a revision.
async fn until(
    cluster: &Cluster,
    size: Size,
    revision: &str,
    sync: &str,
    health: &str,
) -> anyhow::Result<()> {
    let state = "jsonpath={range .items[*]}{.metadata.name} {.status.sync.status} {.status.sync.revision} \
                 {.status.health.status}{\"\\n\"}{end}";
    wait_until("the lines", STEP, async || {
        let list = cluster.kubectl(&["-n", "argocd", "get", "applications.argoproj.io", "-o", state]).await?;
        let lines: Vec<_> = list.lines().filter(|line| line.starts_with("line-")).collect();
        let wanted = format!(" {sync} {revision} {health}");
        let there = lines.iter().filter(|line| line.contains(&wanted)).count();
        ensure!(there == size.applications, "{lines:#?}");
        anyhow::Ok(())
    })
    .await
}

/// Returns how many requests about Devices the API server has answered, by verb.
async fn requests(cluster: &Cluster) -> anyhow::Result<BTreeMap<String, u64>> {
    let text = cluster.kubectl(&["get", "--raw", "/metrics"]).await?;
    let mut counts = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with("apiserver_request_total{")) {
        let label = |name: &str| {
            let rest = line.split_once(&format!("{name}=\""))?.1;
            rest.split_once('"').map(|(value, _)| value)
        };
        if label("resource") == Some("devices") && label("group") == Some("flutecast.io") {
            let key =
                format!("{} {}", label("verb").unwrap_or_default(), label("subresource").unwrap_or_default());
            let count: f64 = line.rsplit(' ').next().unwrap_or_default().parse()?;
            *counts.entry(key.trim().to_owned()).or_default() += count as u64;
        }
    }
    Ok(counts)
}

fn difference(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>) -> String {
    let more =
        after.iter().map(|(verb, count)| (verb, count - before.get(verb).copied().unwrap_or_default()));
    more.filter(|(_, count)| *count > 0)
        .map(|(verb, count)| format!("{count} {verb}"))
        .collect::<Vec<_>>()
        .join(", ")
}

/// Returns the size in bytes of the largest Application, which the API server and etcd bound to about 1.5 MB.
async fn largest(cluster: &Cluster) -> anyhow::Result<usize> {
    let text = cluster.kubectl(&["-n", "argocd", "get", "applications.argoproj.io", "-o", "json"]).await?;
    let list: Value = serde_json::from_str(&text)?;
    let items = list["items"].as_array().context("a list")?;
    Ok(items.iter().map(|item| item.to_string().len()).max().unwrap_or_default())
}

fn seconds(time: Duration) -> String {
    format!("{:.0} s", time.as_secs_f64())
}
