//! Brings up a cluster in which pods run.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::task::spawn_blocking;

use super::supervisor::{COMMANDS, HIDDEN, Request, Start};
use super::{
    ClusterDir, Component, Node, certificates, cgroup, cni, command, containerd, control_plane, dns, image,
    kubelet, network_policies, preflight, proxy, storage, sysctl, take_down,
};
use crate::tools;
use flutecast_testkit::{GoTool, program, wait_until};

/// Time limit for each step on a busy machine with two cores.
const STEP: Duration = Duration::from_secs(120);
/// Time limit for one attempt of a polled command.
const LOOK: Duration = Duration::from_secs(10);
/// The cluster's programs that aren't components.
const TOOLS: [GoTool; 9] = [
    GoTool::KUBECTL,
    tools::CONTAINERD_SHIM,
    tools::CTR,
    tools::CNI_BRIDGE,
    tools::CNI_HOST_LOCAL,
    tools::CNI_LOOPBACK,
    tools::CNI_PORTMAP,
    tools::COREDNS,
    tools::PROBE,
];

/// Brings the cluster up unless it is up, and writes the progress to `out`. Returns when a pod (CoreDNS) is
/// ready.
///
/// # Errors
/// If this machine lacks something or a step fails; the error then holds the end of each log. Nothing is left
/// running.
pub async fn bring_up(dir: &ClusterDir, out: &mut impl Write) -> anyhow::Result<()> {
    let _lock = take_down::lock().await?;
    if is_up(dir).await {
        return Ok(());
    }
    preflight::check(dir).await?;
    let components: Vec<_> = Component::CLUSTER.into_iter().filter_map(Component::tool).collect();
    GoTool::build_missing(&components, out)?;
    GoTool::build_missing(&TOOLS, out)?;
    network_policies::check().await?;
    take_down::remove_all(dir).await?;
    let start = Instant::now();
    let result = bring_up_from_nothing(dir, out).await;
    match result {
        Ok(()) => {
            writeln!(out, "the cluster is up after {:.1} s", start.elapsed().as_secs_f32())?;
            Ok(())
        }
        Err(error) => {
            let logs = log_tails(dir);
            take_down::remove_all(dir).await.context("clearing up after a start that failed")?;
            Err(error.context(format!("the cluster can't be brought up; its logs end with\n{logs}")))
        }
    }
}

/// Returns whether the node runs and knows all components.
async fn is_up(dir: &ClusterDir) -> bool {
    let Some(node) = Node::running(dir) else { return false };
    let whole = |statuses: Vec<super::ComponentStatus>| {
        let known: Vec<_> = statuses.iter().map(|status| status.component).collect();
        Component::CLUSTER.iter().all(|component| known.contains(component))
    };
    node.ask(Request::Status).is_ok_and(whole)
}

async fn bring_up_from_nothing(dir: &ClusterDir, out: &mut impl Write) -> anyhow::Result<()> {
    write_files(dir)?;
    sysctl::prepare(dir)?;
    cgroup::make(dir)?;
    let packing = spawn_blocking(image::archives);
    let node = Node::start(dir, &program("flutecast-cluster")?).await?;
    node.link().await?;
    start(&node, &[Component::Etcd, Component::Containerd, Component::KubeApiserver]).await?;

    let archives = packing.await??;
    wait_until("containerd's answer", STEP, async || ctr(dir, &["version"]).await.map(drop)).await?;
    for archive in &archives {
        import_image(dir, archive).await?;
    }
    wait_until("kube-apiserver's readiness", STEP, async || {
        kubectl(dir, &["get", "--raw", "/readyz"], "").await
    })
    .await?;
    writeln!(out, "the API is ready")?;
    start(&node, &[Component::KubeControllerManager, Component::KubeScheduler]).await?;
    // The policy program must run before the first pod, because it decides about the connections of pods.
    start(&node, &[Component::NetworkPolicies, Component::Kubelet]).await?;
    for manifest in [dns::manifest(dir), storage::manifest(dir)] {
        kubectl(dir, &["apply", "-f", "-"], &manifest).await?;
    }
    let name = dir.node_name();
    let jsonpath = "jsonpath={.status.conditions[?(@.type==\"Ready\")].status}";
    wait_until("the node's readiness", STEP, async || {
        match kubectl(dir, &["get", "node", &name, "-o", jsonpath], "").await {
            Ok(status) if status == "True" => Ok(()),
            Ok(status) => Err(format!("Ready is {status:?}")),
            Err(error) => Err(format!("{error:#}")),
        }
    })
    .await?;
    writeln!(out, "the node is ready")?;
    // kube-proxy exits if the node's address appears while it runs, so it starts only now.
    start(&node, &[Component::KubeProxy]).await?;
    let rollout = ["-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout", "5s"];
    wait_until("CoreDNS", STEP, async || kubectl(dir, &rollout, "").await).await?;
    network_policies::wait_until_enforced(&node, STEP).await?;
    Ok(())
}

async fn start(node: &Node, components: &[Component]) -> anyhow::Result<()> {
    for component in components {
        node.request(Request::Start(*component)).await?;
    }
    Ok(())
}

/// Runs kubectl with the cluster's administrator kubeconfig.
async fn kubectl(dir: &ClusterDir, args: &[&str], input: &str) -> anyhow::Result<String> {
    let (kubeconfig, cache) = (dir.kubeconfig().display().to_string(), dir.text("kubectl-cache"));
    let mut all = vec!["--kubeconfig", &kubeconfig, "--cache-dir", &cache, "--request-timeout", "8s"];
    all.extend(args);
    command::run_with(GoTool::KUBECTL.path()?, &all, input, LOOK).await
}

/// Runs containerd's command line in the namespace of Kubernetes.
pub(super) async fn ctr(dir: &ClusterDir, args: &[&str]) -> anyhow::Result<String> {
    let socket = dir.containerd_socket().display().to_string();
    let mut all = vec!["--address", &socket, "--namespace", "k8s.io"];
    all.extend(args);
    command::run(tools::CTR.path()?, &all, STEP).await
}

/// Imports an image archive into the node's containerd.
pub(super) async fn import_image(dir: &ClusterDir, archive: &Path) -> anyhow::Result<()> {
    let archive = archive.display().to_string();
    ctr(dir, &["images", "import", "--all-platforms", &archive]).await.map(drop)
}

/// Writes folders, certificates, configuration files, and the command of each component.
fn write_files(dir: &ClusterDir) -> anyhow::Result<()> {
    for folder in ["logs", "cni", "pods", "opt", "volume-plugins", "tmp"] {
        fs::create_dir_all(dir.path(folder)).with_context(|| dir.text(folder))?;
    }
    for (hidden, _) in HIDDEN {
        take_down::make_host_folder(dir, Path::new(hidden))?;
    }
    certificates::write_all(dir)?;
    storage::make_folders(dir)?;
    let plugins = tools::CNI_BRIDGE.path()?;
    let plugins = plugins.parent().context("the plugin has a folder")?;
    let runc = preflight::find("runc").context("runc is missing")?;
    let files = [
        ("containerd.toml", containerd::config(dir, plugins, &runc)),
        ("cni/10-flutecast.conflist", cni::config(dir)),
        ("kubelet-config.yaml", kubelet::config(dir)),
        ("kube-proxy-config.yaml", proxy::config(dir)),
        // For pods with the node's DNS. It is empty, because the cluster has no connection to the outside.
        ("resolv.conf", String::new()),
        (COMMANDS, serde_json::to_string_pretty(&commands(dir)?)?),
    ];
    for (file, text) in files {
        fs::write(dir.path(file), text).with_context(|| dir.text(file))?;
    }
    Ok(())
}

fn commands(dir: &ClusterDir) -> anyhow::Result<BTreeMap<Component, Start>> {
    let commands = [
        (Component::Etcd, control_plane::etcd(dir)),
        (Component::KubeApiserver, control_plane::kube_apiserver(dir)),
        (Component::KubeControllerManager, control_plane::kube_controller_manager(dir)),
        (Component::KubeScheduler, control_plane::kube_scheduler(dir)),
        (Component::Containerd, containerd::args(dir)),
        (Component::NetworkPolicies, network_policies::args(dir)),
        (Component::Kubelet, kubelet::args(dir)),
        (Component::KubeProxy, proxy::args(dir)),
    ];
    let start = |(component, args): (Component, _)| Ok((component, Start::new(component.program()?, args)));
    commands.into_iter().map(start).collect()
}

/// Returns the last lines of each log.
fn log_tails(dir: &ClusterDir) -> String {
    const LINES: usize = 8;
    let mut text = String::new();
    let Ok(logs) = fs::read_dir(dir.path("logs")) else { return text };
    for path in logs.flatten().map(|entry| entry.path()) {
        let log = fs::read_to_string(&path).unwrap_or_default();
        let lines: Vec<_> = log.lines().rev().take(LINES).collect();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        text.push_str(&format!("--- {name}\n"));
        text.extend(lines.into_iter().rev().flat_map(|line| [line, "\n"]));
    }
    text
}
