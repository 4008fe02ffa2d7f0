//! The kinds of a cluster that all tests share, for those that bring in newer ones.

use std::process::{Command, Stdio};
use std::time::Duration;

use flutecast_testbed::cluster::Cluster;
use flutecast_testbed::release::install_crds;
use flutecast_testkit::in_repository;
use flutecast_testkit::wait_until;

const SOON: Duration = Duration::from_secs(30);
/// Binds the policy that keeps the kinds from going back.
const BINDING: &str = "validatingadmissionpolicybinding/flutecast-kinds-no-way-back";

/// While this is there the cluster's kinds may be newer ones.
pub(crate) struct Kinds<'a> {
    cluster: &'a Cluster,
}

impl<'a> Kinds<'a> {
    /// This tree's kinds, also where a test that was killed has left newer ones.
    pub(crate) async fn reset(cluster: &'a Cluster) -> Self {
        let this = Self { cluster };
        this.go_back().await;
        this
    }

    /// This tree's kinds again.
    pub(crate) async fn restore(self) {
        self.go_back().await;
    }

    async fn go_back(&self) {
        let chart = in_repository("charts/flutecast-crds");
        // The API server notices within a second that the policy isn't bound any more.
        wait_until("this tree's kinds", SOON, async || {
            let _ = self.cluster.kubectl(&["delete", "--ignore-not-found", BINDING]).await;
            install_crds(self.cluster, &chart).await
        })
        .await
        .unwrap();
    }
}

impl Drop for Kinds<'_> {
    /// A test that failed leaves the way back open for the next one.
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
