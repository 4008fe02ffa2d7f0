//! NetworkPolicies are enforced by our own program around the packages of kube-network-policies
//! (e2e/testbed/tools/network-policies). The kernel hands it the first packet of each connection of pods.

use std::time::Duration;

use anyhow::{Context, bail};

use super::{ClusterDir, Node, command, preflight};
use crate::tools;
use flutecast_testkit::wait_until;

/// Time limit for a check, which usually takes milliseconds.
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

/// Tries the program's rules and queue in a temporary network namespace. Does nothing if the program isn't
/// built.
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

/// Waits until the queue has a listener. The program listens last; its rules are in place before, and drop
/// new connections until then.
///
/// # Errors
/// If there is no listener after `deadline`.
pub(super) async fn wait_until_enforced(node: &Node, deadline: Duration) -> anyhow::Result<()> {
    wait_until("the enforcement of NetworkPolicies", deadline, async || {
        match node.exec("cat", &[QUEUES]).await {
            Ok(queues) if queues.trim().is_empty() => Err("its queue has no listener".to_owned()),
            Ok(_) => Ok(()),
            Err(error) => Err(format!("{error:#}")),
        }
    })
    .await
}
