//! Resets the CRDs of the shared cluster after tests that install newer ones.

use std::process::{Command, Stdio};
use std::time::Duration;

use flutecast_testbed::cluster::Cluster;
use flutecast_testbed::release::install_crds;
use flutecast_testkit::in_repository;
use flutecast_testkit::wait_until;

const SOON: Duration = Duration::from_secs(30);
/// The policy binding that refuses older CRDs.
const BINDING: &str = "validatingadmissionpolicybinding/flutecast-kinds-no-way-back";

/// Guard of a test that installs newer CRDs.
pub(crate) struct Kinds<'a> {
    cluster: &'a Cluster,
}

impl<'a> Kinds<'a> {
    /// Installs this tree's CRDs, in case an aborted test has left newer ones.
    pub(crate) async fn reset(cluster: &'a Cluster) -> Self {
        let this = Self { cluster };
        this.go_back().await;
        this
    }

    /// Installs this tree's CRDs again.
    pub(crate) async fn restore(self) {
        self.go_back().await;
    }

    async fn go_back(&self) {
        let chart = in_repository("charts/flutecast-crds");
        // The API server needs up to a second to notice the deletion of the binding.
        wait_until("this tree's kinds", SOON, async || {
            let _ = self.cluster.kubectl(&["delete", "--ignore-not-found", BINDING]).await;
            install_crds(self.cluster, &chart).await
        })
        .await
        .unwrap();
    }
}

impl Drop for Kinds<'_> {
    /// After a failed test deletes the binding, so that the next test can install older CRDs.
    fn drop(&mut self) {
        if std::thread::panicking() {
            let mut kubectl = Command::new(self.cluster.program());
            kubectl.arg("--kubeconfig").arg(self.cluster.kubeconfig()).args([
                "delete",
                "--ignore-not-found",
                BINDING,
            ]);
            let _ = kubectl.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
        }
    }
}
