//! A namespace for one test.

use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::Cluster;

/// If this variable is set, namespaces are kept for inspection.
const KEEP: &str = "FLUTECAST_KEEP_NAMESPACES";
/// Time limit for the deletion of all objects.
const END: Duration = Duration::from_secs(120);

/// A namespace with a random name. Its deletion begins when this is dropped, unless
/// `FLUTECAST_KEEP_NAMESPACES` is set.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    kubectl: PathBuf,
    kubeconfig: PathBuf,
    there: bool,
}

impl Namespace {
    pub(super) async fn make(cluster: &Cluster, prefix: &str) -> anyhow::Result<Self> {
        // A `RandomState` has random keys, so the hash of any value is a random number.
        let random = RandomState::new().hash_one(std::process::id()) % 0x100_0000;
        let name = format!("{prefix}-{random:06x}");
        cluster.kubectl(&["create", "namespace", &name]).await?;
        cluster.kubectl(&["label", "namespace", &name, "flutecast.io/e2e=true"]).await?;
        let (kubectl, kubeconfig) = (cluster.program().to_owned(), cluster.kubeconfig().to_owned());
        Ok(Self { name, kubectl, kubeconfig, there: true })
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Deletes the namespace and waits until it is gone. This takes 8 to 16 s, because Kubernetes checks its
    /// pods only then. Tests that don't need to wait drop it instead.
    ///
    /// # Errors
    /// If it still exists after two minutes.
    pub async fn delete(mut self, cluster: &Cluster) -> anyhow::Result<()> {
        self.there = false;
        cluster.kubectl_with(&["delete", "namespace", &self.name, "--timeout=110s"], "", END).await.map(drop)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if !self.there || std::env::var_os(KEEP).is_some() {
            return;
        }
        let mut kubectl = Command::new(&self.kubectl);
        kubectl.arg("--kubeconfig").arg(&self.kubeconfig).args(["--request-timeout", "10s"]);
        kubectl.args(["delete", "namespace", &self.name, "--wait=false", "--ignore-not-found"]);
        // A failure is ignored: this only tidies up after the test.
        let _ = kubectl.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}
