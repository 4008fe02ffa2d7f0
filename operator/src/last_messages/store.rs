//! The stream of last values: what is in it, copies, and purges.

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::header::{HeaderName, NATS_ROLLUP};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::{self, Context};
use flutecast_contract::header::{CAPTURED, ORIGIN_EPOCH, ORIGIN_SEQUENCE, ORIGIN_TIME};
use flutecast_contract::name::{ChannelName, IotId, TenantName};
use flutecast_contract::stream_position::Epoch;
use flutecast_contract::subject;
use flutecast_nats::{JetStreamApi, RequestError, StoredMessage, StreamReader};

use super::memory::{ChannelMemory, Kept, Purge, TenantMemory};

/// The longest wait for an acknowledgement.
const ACKNOWLEDGEMENT: Duration = Duration::from_secs(5);

/// The last values of one tenant.
#[derive(Debug, Clone)]
pub(super) struct KeptStore {
    tenant: TenantName,
    stream: String,
    reader: StreamReader,
    api: JetStreamApi,
    jetstream: Context,
}

impl KeptStore {
    pub(super) fn new(client: &async_nats::Client, api: &JetStreamApi, tenant: &TenantName) -> Self {
        let stream = subject::kept_stream(tenant);
        Self {
            tenant: tenant.clone(),
            reader: StreamReader::new(client.clone(), stream.clone()),
            stream,
            api: api.clone(),
            jetstream: jetstream::new(client.clone()),
        }
    }

    /// Returns what the stream holds: `before` while it is the same stream. Anything else is read from it.
    pub(super) async fn load(&self, before: Option<TenantMemory>) -> Result<TenantMemory, RequestError> {
        let stream = self.reader.state().await?.epoch;
        if let Some(before) = before.filter(|before| before.stream == stream) {
            return Ok(before);
        }
        let mut memory = TenantMemory::of(stream);
        let subjects = self.api.subjects(&self.stream, &subject::kept_all(&self.tenant)).await?;
        let newest = self.reader.last_headers_of(&subjects).await?.messages;
        let origins: BTreeMap<_, _> =
            newest.into_iter().map(|message| (message.subject, message.origin)).collect();
        for (subject, origin) in origins {
            let Some((iot_id, channel)) = subject::parse_kept(&self.tenant, &subject) else { continue };
            // Without an origin nobody can use it. As the copy of a message that never was, it is purged.
            let kept = origin
                .map_or(Kept::NOTHING, |origin| Kept { epoch: origin.epoch, sequence: origin.sequence });
            *memory.entry(&iot_id, &channel) = ChannelMemory { kept: Some(kept), looked: None };
        }
        Ok(memory)
    }

    /// Copies messages of one channel. The first one replaces what is kept of the channel.
    pub(super) async fn keep(
        &self,
        iot_id: &IotId,
        channel: &ChannelName,
        epoch: Epoch,
        messages: &[StoredMessage],
    ) -> Result<(), RequestError> {
        let subject = subject::kept(&self.tenant, iot_id, channel);
        for (place, message) in messages.iter().enumerate() {
            let mut headers = HeaderMap::new();
            let mut set = |name, value: String| headers.insert(HeaderName::from_static(name), value);
            set(ORIGIN_SEQUENCE, message.sequence.to_string());
            set(ORIGIN_TIME, message.stored_at.to_string());
            set(ORIGIN_EPOCH, epoch.to_string());
            if let Some(captured) = message.captured_at {
                set(CAPTURED, captured.to_string());
            }
            if place == 0 {
                headers.insert(NATS_ROLLUP, "sub");
            }
            let copy = PublishMessage::build().payload(message.payload.clone()).headers(headers);
            self.publish(&subject, copy.expected_stream(&self.stream)).await?;
        }
        Ok(())
    }

    async fn publish(&self, subject: &str, message: PublishMessage) -> Result<(), RequestError> {
        let published =
            async { self.jetstream.send_publish(subject.to_owned(), message).await?.await.map(drop) };
        // Without a timeout the NATS client waits for as long as the broker is away.
        match tokio::time::timeout(ACKNOWLEDGEMENT, published).await {
            Ok(published) => published.map_err(|error| RequestError::BadAnswer(error.to_string())),
            // So it is without the right to publish, too.
            Err(_) => Err(RequestError::Unavailable(format!(
                "no acknowledgement within {ACKNOWLEDGEMENT:?}; may the operator publish on {subject}?"
            ))),
        }
    }

    pub(super) async fn purge(&self, purge: &Purge) -> Result<(), RequestError> {
        let subject = match purge {
            Purge::All => subject::kept_all(&self.tenant),
            Purge::Device(iot_id) => subject::kept_of_device(&self.tenant, iot_id),
            Purge::Channel(iot_id, channel) => subject::kept(&self.tenant, iot_id, channel),
        };
        self.api.purge(&self.stream, &subject).await
    }
}
