//! The Kubernetes API as this pod sees it: a connection, and watches that never give up.
//!
//! What the objects mean is decided elsewhere; nothing here writes to the API.

use std::time::Duration;

use kube::{Client, Config};

mod fault;
mod watch;

pub(crate) use watch::{Change, Observed, Watch};

/// How long making a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the server may be silent. It ends a watch after [`watch::WATCH_SECONDS`], so a longer silence is
/// a connection that is dead.
const READ_TIMEOUT: Duration = Duration::from_secs(75);
/// How long sending a request may take.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// A namespace of a cluster.
#[derive(Clone)]
pub struct Cluster {
    pub(crate) client: Client,
    pub(crate) namespace: String,
}

/// Why the API can't even be tried.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// Neither a kubeconfig nor a service account was found, or what was found makes no sense.
    #[error("there is no way to the Kubernetes API: {0}")]
    NoConfig(#[from] kube::config::InferConfigError),
    /// The client can't be made of the configuration.
    #[error("the Kubernetes API can't be talked to with this configuration: {0}")]
    BadConfig(#[from] kube::Error),
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

impl Cluster {
    /// Reads how the API is reached: the kubeconfig that `KUBECONFIG` names or that lies in the home folder,
    /// else the pod's service account. Left out, the namespace is the one of that configuration. Nothing is
    /// sent yet.
    ///
    /// # Errors
    /// [`ClusterError`] if there is no usable configuration.
    pub async fn from_environment(namespace: Option<&str>) -> Result<Self, ClusterError> {
        let mut config = Config::infer().await?;
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        config.read_timeout = Some(READ_TIMEOUT);
        config.write_timeout = Some(WRITE_TIMEOUT);
        // An idle connection is taken up again, and then its age must not count against the answer.
        config.reset_reader_on_write = true;
        let namespace = namespace.unwrap_or(&config.default_namespace).to_owned();
        let client = Client::try_from(config)?;
        Ok(Self { client, namespace })
    }

    /// The namespace in which everything of this release lives.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }
}
