//! Reads more than the last message of a channel, within a budget.

use std::sync::atomic::{AtomicUsize, Ordering};

use flutecast_contract::name::{ChannelName, IotId, TenantName};
use flutecast_contract::{subject, tail};
use flutecast_nats::{RequestError, StoredMessage, StreamReader};

/// The most channels of which a look reads more than the last message for its [`super::Judge`].
const MOST_CHANNELS: usize = 64;

/// Reads the tails of a tenant's channels during one look.
#[derive(Debug)]
pub(crate) struct TailReader {
    reader: StreamReader,
    tenant: TenantName,
    left: AtomicUsize,
}

impl TailReader {
    pub(super) fn new(reader: StreamReader, tenant: TenantName) -> Self {
        Self { reader, tenant, left: AtomicUsize::new(MOST_CHANNELS) }
    }

    /// Returns the newest `count` messages of a channel in stream order. `None` if this look has read too
    /// many channels already, or NATS can't be asked.
    pub(crate) async fn newest(
        &self,
        iot_id: &IotId,
        channel: &ChannelName,
        count: usize,
    ) -> Option<Vec<StoredMessage>> {
        let take = |left: usize| left.checked_sub(1);
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).ok()?;
        self.read(iot_id, channel, count).await.ok()
    }

    /// Returns the tail of a channel.
    pub(super) async fn tail(
        &self,
        iot_id: &IotId,
        channel: &ChannelName,
    ) -> Result<Vec<StoredMessage>, RequestError> {
        self.read(iot_id, channel, tail::MESSAGES).await
    }

    async fn read(
        &self,
        iot_id: &IotId,
        channel: &ChannelName,
        count: usize,
    ) -> Result<Vec<StoredMessage>, RequestError> {
        self.reader.tail(&subject::stored(&self.tenant, iot_id, channel), count).await
    }
}
