//! The Kubernetes API as this pod uses it. Nothing here writes to it.

use std::time::Duration;

use flutecast_kube::{ConnectError, connect};
use kube::Client;
use kube::runtime::watcher::Config;

/// The path of the manifest with the rights of a pod.
pub(crate) const MANIFEST: &str = "manifests/dataplane/rbac.yaml";
/// The server ends a watch after this many seconds, and it is resumed where it was. So a connection that died
/// unnoticed is noticed.
const WATCH_SECONDS: u32 = 60;
/// The longest silence of the server. It ends a watch after [`WATCH_SECONDS`], so after a longer silence the
/// connection is dead.
const READ_TIMEOUT: Duration = Duration::from_secs(75);

/// The namespace of a cluster in which everything of this release is.
#[derive(Clone)]
pub(crate) struct Cluster {
    pub(crate) client: Client,
    pub(crate) namespace: String,
}

impl Cluster {
    /// Creates a client as [`connect`] does. Without `namespace`, the one of the configuration is used.
    pub(crate) async fn from_environment(namespace: Option<&str>) -> Result<Self, ConnectError> {
        let client = connect(READ_TIMEOUT).await?;
        let namespace = namespace.unwrap_or(client.default_namespace()).to_owned();
        Ok(Self { client, namespace })
    }
}

/// Returns the options of a watch, to which a selector is added.
pub(crate) fn watch_config() -> Config {
    Config::default().timeout(WATCH_SECONDS)
}
