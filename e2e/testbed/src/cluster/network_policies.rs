//! NetworkPolicies are enforced by a small program of ours around kube-network-policies
//! (e2e/testbed/tools/network-policies), to which the kernel hands the first packet of each connection of
//! pods.

use std::time::Duration;

use anyhow::{Context, bail};

use super::{ClusterDir, Node, command, preflight};
use crate::tools;
use flutecast_testkit::wait_until;

/// One look takes milliseconds.
const SOON: Duration = Duration::from_secs(30);
/// The kernel's list of queues that have a listener.
const QUEUES: &str = "/proc/net/netfilter/nfnetlink_queue";

pub(super) fn args(dir: &ClusterDir) -> Vec<String> {
    vec![
        format!("--kubeconfig={}", dir.text("network-policies.yaml")),
        format!("--node={}", dir.node_name()),
        format!("--pods={}", dir.pods()),
    ]
}

/// Tries its rules and its queue in a network of its own, which vanishes with it. Nothing is tried while the
/// program isn't built.
///
/// # Errors
/// If the kernel lacks something.
pub(super) async fn check() -> anyhow::Result<()> {
    if !tools::NETWORK_POLICIES.is_built()? {
        return Ok(());
    }
    let mut unshare = tokio::process::Command::new(preflight::find("unshare").context("unshare is missing")?);
    unshare.arg("--net").arg(tools::NETWORK_POLICIES.path()?).args(["--check", "--pods=10.0.0.0/8"]);
    let output = command::output(unshare, "", SOON).await.context("NetworkPolicies can't be tried")?;
    if output.status.success() {
        return Ok(());
    }
    bail!(
        "this machine lacks queues of packets, by which NetworkPolicies are enforced (kernel: \
         CONFIG_NETFILTER_NETLINK_QUEUE, \
         CONFIG_NETFILTER_XT_TARGET_NFQUEUE, CONFIG_NFT_COMPAT; modprobe nfnetlink_queue xt_NFQUEUE \
         nft_compat)\nit said: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    )
}

/// Waits until its queue has a listener, which is the last thing that it does when it starts: the rules are
/// in place before, and let nothing new pass meanwhile.
///
/// # Errors
/// If it hasn't after `deadline`.
pub(super) async fn wait_until_enforced(node: &Node, deadline: Duration) -> anyhow::Result<()> {
    wait_until("the enforcement of NetworkPolicies", deadline, async || {
        match node.exec("cat", &[QUEUES]).await {
            Ok(queues) if queues.trim().is_empty() => Err("nobody listens to its queue".to_owned()),
            Ok(_) => Ok(()),
            Err(error) => Err(format!("{error:#}")),
        }
    })
    .await
}
