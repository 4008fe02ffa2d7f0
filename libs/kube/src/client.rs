//! A client of the Kubernetes API.

use std::time::Duration;

use kube::{Client, Config};

/// The longest that making a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest that sending a request may take.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Neither a kubeconfig nor a service account was found, or it can't be read.
    #[error("there is no way to the Kubernetes API: {0}")]
    NoConfig(#[from] kube::config::InferConfigError),
    /// The configuration can't be used.
    #[error("the Kubernetes API can't be talked to with this configuration: {0}")]
    BadConfig(#[from] kube::Error),
}

/// Creates a client from the kubeconfig that `KUBECONFIG` names or that lies in the home folder, or, without
/// one, from the pod's service account. Sends nothing yet.
///
/// A connection that is silent for `read_timeout` counts as dead. Watches have to hear something more often:
/// a watch that the server ends earlier, or a bookmark, which comes about once a minute.
///
/// # Errors
/// [`ConnectError`] if there is no usable configuration.
pub async fn connect(read_timeout: Duration) -> Result<Client, ConnectError> {
    let mut config = Config::infer().await?;
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.read_timeout = Some(read_timeout);
    config.write_timeout = Some(WRITE_TIMEOUT);
    // An idle connection is used again. Its age must not count against the answer.
    config.reset_reader_on_write = true;
    Ok(Client::try_from(config)?)
}
