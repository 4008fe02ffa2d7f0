//! Runs the whole stack for one test: nats-server, an operator in folder mode and any number of data planes.

use std::path::PathBuf;

use anyhow::{Context, ensure};
use async_nats::HeaderMap;
use async_nats::jetstream::{self, message::PublishMessage};
use flutecast_contract::name::{ChannelName, DeviceCode, IotId, TenantName};
use flutecast_contract::{iot_id, subject};

use crate::folder_copy::copy_folder;
use crate::{
    Dataplane, DataplaneOptions, FakeClock, NatsOptions, NatsServer, Operator, OperatorOptions,
    ProcessOptions, in_repository,
};

/// A nats-server, and an operator with its own folder of manifests. Dropping it kills the processes and
/// removes the folder.
#[derive(Debug)]
pub struct LocalStack {
    pub nats: NatsServer,
    pub operator: Operator,
    tenant: TenantName,
    folder: tempfile::TempDir,
}

impl LocalStack {
    /// Starts a stack with a copy of `manifests/demo`, MQTT enabled, and the tenant `demo`.
    ///
    /// # Errors
    /// Returns an error if a file can't be written or a process does not start.
    pub async fn demo() -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("flutecast-stack-").tempdir()?;
        let source = in_repository("manifests/demo");
        copy_folder(&source, &folder.path().join("manifests"))?;
        Self::open(TenantName::new("demo")?, folder).await
    }

    /// Starts a stack with the given manifests, each a file name and its text.
    ///
    /// # Errors
    /// Returns an error if a file can't be written or a process does not start.
    pub async fn with(tenant: &str, files: &[(&str, &str)]) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("flutecast-stack-").tempdir()?;
        std::fs::create_dir(folder.path().join("manifests"))?;
        for (name, text) in files {
            std::fs::write(folder.path().join("manifests").join(name), text)?;
        }
        Self::open(TenantName::new(tenant)?, folder).await
    }

    async fn open(tenant: TenantName, folder: tempfile::TempDir) -> anyhow::Result<Self> {
        let nats = NatsServer::start_with(NatsOptions { mqtt: true, ..NatsOptions::default() }).await?;
        std::fs::create_dir(folder.path().join("mapping"))?;
        let operator = Operator::start(OperatorOptions {
            manifests: folder.path().join("manifests"),
            mapping: folder.path().join("mapping"),
            nats: nats.url(),
            process: quiet(),
            ..OperatorOptions::default()
        })
        .await?;
        Ok(Self { nats, operator, tenant, folder })
    }

    /// Starts a data plane on this stack's mapping and broker.
    ///
    /// # Errors
    /// Returns an error if the data plane is not ready in time.
    pub async fn dataplane(&self) -> anyhow::Result<Dataplane> {
        self.dataplane_with(&[]).await
    }

    /// Starts a data plane with additional arguments.
    ///
    /// # Errors
    /// Returns an error if the data plane is not ready in time.
    pub async fn dataplane_with(&self, arguments: &[&str]) -> anyhow::Result<Dataplane> {
        let args = arguments.iter().map(Into::into).collect();
        self.dataplane_as(DataplaneOptions { args, process: quiet(), ..DataplaneOptions::default() }).await
    }

    /// Starts a data plane that sees this wall clock.
    ///
    /// # Errors
    /// Returns an error if the data plane is not ready in time.
    pub async fn dataplane_at(&self, clock: &FakeClock) -> anyhow::Result<Dataplane> {
        let mut process = quiet();
        process.env.extend(clock.env());
        self.dataplane_as(DataplaneOptions { process, ..DataplaneOptions::default() }).await
    }

    async fn dataplane_as(&self, options: DataplaneOptions) -> anyhow::Result<Dataplane> {
        Dataplane::start(DataplaneOptions { mapping: self.mapping(), nats: self.nats.url(), ..options }).await
    }

    /// Returns the folder with the manifests.
    #[must_use]
    pub fn manifests(&self) -> PathBuf {
        self.folder.path().join("manifests")
    }

    /// Returns the folder with the mapping.
    #[must_use]
    pub fn mapping(&self) -> PathBuf {
        self.folder.path().join("mapping")
    }

    /// Writes a manifest as editors do: to a new file that is renamed over the old one.
    ///
    /// # Errors
    /// Returns an error if the file can't be written.
    pub fn write_manifest(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let partial = self.folder.path().join("manifest.partial");
        std::fs::write(&partial, text)?;
        std::fs::rename(&partial, self.manifests().join(name)).with_context(|| name.to_owned())
    }

    /// Replaces every `from` in a manifest by `to`.
    ///
    /// # Errors
    /// Returns an error if the manifest does not contain `from` or can't be written.
    pub fn edit_manifest(&self, name: &str, from: &str, to: &str) -> anyhow::Result<()> {
        let text = std::fs::read_to_string(self.manifests().join(name)).with_context(|| name.to_owned())?;
        ensure!(text.contains(from), "{name} does not contain {from:?}:\n{text}");
        self.write_manifest(name, &text.replace(from, to))
    }

    /// Returns the generated id of a device of this stack's tenant.
    ///
    /// # Errors
    /// Returns an error if `device` is not a valid device code.
    pub fn iot_id(&self, device: &str) -> anyhow::Result<IotId> {
        Ok(iot_id::generate(&self.tenant, &DeviceCode::new(device)?))
    }

    /// Returns the subject on which a device publishes.
    ///
    /// # Errors
    /// Returns an error if a name is invalid.
    pub fn subject(&self, device: &str, channel: &str) -> anyhow::Result<String> {
        Ok(subject::stored(&self.tenant, &self.iot_id(device)?, &ChannelName::new(channel)?))
    }

    /// Returns the subject on which the data plane receives a device's messages.
    ///
    /// # Errors
    /// Returns an error if a name is invalid.
    pub fn live_subject(&self, device: &str, channel: &str) -> anyhow::Result<String> {
        Ok(subject::live(&self.tenant, &self.iot_id(device)?, &ChannelName::new(channel)?))
    }

    /// Connects a publisher that waits until its messages are stored.
    ///
    /// # Errors
    /// Returns an error if the connection fails.
    pub async fn publisher(&self) -> anyhow::Result<Publisher> {
        let options = async_nats::ConnectOptions::new()
            .reconnect_delay_callback(|_| std::time::Duration::from_millis(50));
        let client = options.connect(self.nats.url()).await?;
        Ok(Publisher { jetstream: jetstream::new(client) })
    }
}

/// A publisher that, like a device, waits for the broker's acknowledgement.
#[derive(Debug, Clone)]
pub struct Publisher {
    jetstream: jetstream::Context,
}

impl Publisher {
    /// Publishes a message, waits until it is stored, and returns its sequence in the stream that stored it.
    ///
    /// # Errors
    /// Returns an error if no stream acknowledges the message.
    pub async fn publish(&self, subject: &str, payload: impl Into<String>) -> anyhow::Result<u64> {
        let acknowledgement = self.jetstream.publish(subject.to_owned(), payload.into().into()).await?;
        Ok(acknowledgement.await.with_context(|| subject.to_owned())?.sequence)
    }

    /// Publishes a message with a message id. A second message with the same id is acknowledged but not
    /// stored.
    ///
    /// # Errors
    /// Returns an error if no stream acknowledges the message.
    pub async fn publish_once(
        &self,
        subject: &str,
        id: &str,
        payload: impl Into<String>,
    ) -> anyhow::Result<u64> {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Msg-Id", id);
        let message = PublishMessage::build().headers(headers).payload(payload.into().into());
        let acknowledgement = self.jetstream.send_publish(subject.to_owned(), message).await?;
        Ok(acknowledgement.await.with_context(|| subject.to_owned())?.sequence)
    }

    /// Returns the JetStream context, for requests beyond publishing.
    #[must_use]
    pub fn jetstream(&self) -> &jetstream::Context {
        &self.jetstream
    }
}

fn quiet() -> ProcessOptions {
    ProcessOptions { env: vec![("NO_COLOR".into(), "1".into())], ..ProcessOptions::default() }
}
