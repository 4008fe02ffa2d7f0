//! The whole stack for one test: nats-server, an operator in folder mode, and as many data planes as wanted.

use std::path::PathBuf;

use anyhow::{Context, ensure};
use async_nats::HeaderMap;
use async_nats::jetstream::{self, message::PublishMessage};
use flutecast_contract::name::{ChannelName, DeviceCode, IotId, TenantName};
use flutecast_contract::{iot_id, subject};

use crate::folder_copy::copy_folder;
use crate::{
    Dataplane, DataplaneOptions, NatsOptions, NatsServer, Operator, OperatorOptions, ProcessOptions,
    in_repository,
};

/// A nats-server and an operator on a folder of manifests of its own. All of it goes with this value.
#[derive(Debug)]
pub struct LocalStack {
    /// The broker.
    pub nats: NatsServer,
    /// The operator.
    pub operator: Operator,
    tenant: TenantName,
    folder: tempfile::TempDir,
}

impl LocalStack {
    /// A stack on a copy of `manifests/demo`, with MQTT. The tenant is `demo`.
    ///
    /// # Errors
    /// If something doesn't start.
    pub async fn demo() -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("flutecast-stack-").tempdir()?;
        let source = in_repository("manifests/demo");
        copy_folder(&source, &folder.path().join("manifests"))?;
        Self::open(TenantName::new("demo")?, folder).await
    }

    /// A stack on manifests of the test: file name and text.
    ///
    /// # Errors
    /// If something doesn't start.
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

    /// Starts a data plane of this stack.
    ///
    /// # Errors
    /// If it isn't ready in time.
    pub async fn dataplane(&self) -> anyhow::Result<Dataplane> {
        self.dataplane_with(&[]).await
    }

    /// The same with more arguments.
    ///
    /// # Errors
    /// If it isn't ready in time.
    pub async fn dataplane_with(&self, arguments: &[&str]) -> anyhow::Result<Dataplane> {
        Dataplane::start(DataplaneOptions {
            mapping: self.mapping(),
            nats: self.nats.url(),
            args: arguments.iter().map(Into::into).collect(),
            process: quiet(),
            ..DataplaneOptions::default()
        })
        .await
    }

    /// The folder with the manifests.
    #[must_use]
    pub fn manifests(&self) -> PathBuf {
        self.folder.path().join("manifests")
    }

    /// The folder with the mapping.
    #[must_use]
    pub fn mapping(&self) -> PathBuf {
        self.folder.path().join("mapping")
    }

    /// Writes a manifest the way editors do: a new file, renamed over the old one.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn write_manifest(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let partial = self.folder.path().join("manifest.partial");
        std::fs::write(&partial, text)?;
        std::fs::rename(&partial, self.manifests().join(name)).with_context(|| name.to_owned())
    }

    /// Changes a manifest: every `from` becomes `to`.
    ///
    /// # Errors
    /// If the file doesn't hold `from`.
    pub fn edit_manifest(&self, name: &str, from: &str, to: &str) -> anyhow::Result<()> {
        let text = std::fs::read_to_string(self.manifests().join(name)).with_context(|| name.to_owned())?;
        ensure!(text.contains(from), "{name} doesn't hold {from:?}:\n{text}");
        self.write_manifest(name, &text.replace(from, to))
    }

    /// The generated id of a device of this stack's tenant.
    ///
    /// # Errors
    /// If `device` is no device code.
    pub fn iot_id(&self, device: &str) -> anyhow::Result<IotId> {
        Ok(iot_id::generate(&self.tenant, &DeviceCode::new(device)?))
    }

    /// Where a device publishes.
    ///
    /// # Errors
    /// If a name is wrong.
    pub fn subject(&self, device: &str, channel: &str) -> anyhow::Result<String> {
        Ok(subject::stored(&self.tenant, &self.iot_id(device)?, &ChannelName::new(channel)?))
    }

    /// Where the data plane hears a device.
    ///
    /// # Errors
    /// If a name is wrong.
    pub fn live_subject(&self, device: &str, channel: &str) -> anyhow::Result<String> {
        Ok(subject::live(&self.tenant, &self.iot_id(device)?, &ChannelName::new(channel)?))
    }

    /// A publisher that knows when its messages are stored.
    ///
    /// # Errors
    /// If nats-server doesn't answer.
    pub async fn publisher(&self) -> anyhow::Result<Publisher> {
        let options = async_nats::ConnectOptions::new()
            .reconnect_delay_callback(|_| std::time::Duration::from_millis(50));
        let client = options.connect(self.nats.url()).await?;
        Ok(Publisher { jetstream: jetstream::new(client) })
    }
}

/// Publishes as a device does that waits for the broker's acknowledgement.
#[derive(Debug, Clone)]
pub struct Publisher {
    jetstream: jetstream::Context,
}

impl Publisher {
    /// Publishes and waits until it is stored; the answer is the message's sequence in the stream that stored
    /// it.
    ///
    /// # Errors
    /// If no stream says that it has stored it.
    pub async fn publish(&self, subject: &str, payload: impl Into<String>) -> anyhow::Result<u64> {
        let acknowledgement = self.jetstream.publish(subject.to_owned(), payload.into().into()).await?;
        Ok(acknowledgement.await.with_context(|| subject.to_owned())?.sequence)
    }

    /// The same, with a message id: a second one with the same id is acknowledged, but not stored.
    ///
    /// # Errors
    /// If no stream says that it has it.
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

    /// The JetStream context, for what else a test wants to know.
    #[must_use]
    pub fn jetstream(&self) -> &jetstream::Context {
        &self.jetstream
    }
}

fn quiet() -> ProcessOptions {
    ProcessOptions { env: vec![("NO_COLOR".into(), "1".into())], ..ProcessOptions::default() }
}
