//! The streams and consumers that a tenant needs, as data. The build step makes them; `jetstream` applies
//! them.

use std::time::Duration;

use flutecast_contract::name::{SourceName, TenantName};

/// The durable consumer of a payload source, and its priority group.
pub(crate) const SPLIT_CONSUMER: &str = "split";

/// Who a stream belongs to; written into the stream's metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Owner {
    /// The namespace of the Tenant.
    pub(crate) namespace: String,
    /// The name of the Tenant.
    pub(crate) name: String,
    /// The uid of the Tenant; a folder's objects have none.
    pub(crate) uid: Option<String>,
    /// Which installation of Flutecast looks after it; none in folder mode. It is known only when streams are
    /// applied, so the build step leaves it out.
    pub(crate) installation: Option<String>,
}

/// What happens to a tenant's streams when the Tenant goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnDelete {
    /// They are deleted.
    Delete,
    /// They stay as they are.
    Keep,
}

impl OnDelete {
    /// The word for it, as in the Tenant.
    #[must_use]
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Delete => "Delete",
            Self::Keep => "Keep",
        }
    }
}

/// Where a stream keeps its messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Storage {
    /// On disk.
    File,
    /// In memory.
    Memory,
}

/// The part of a stream's configuration that the operator owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StreamConfig {
    /// The stream's name.
    pub(crate) name: String,
    /// For people who look at it with `nats stream info`.
    pub(crate) description: String,
    /// The subjects that it captures.
    pub(crate) subjects: Vec<String>,
    /// How long it keeps a message; never zero, since a silent device would keep its messages for ever.
    pub(crate) max_age: Duration,
    /// How many messages it keeps on one subject; none: no limit.
    pub(crate) max_messages_per_subject: Option<u64>,
    /// How many bytes it keeps; none: no limit.
    pub(crate) max_bytes: Option<u64>,
    /// Where.
    pub(crate) storage: Storage,
    /// On how many servers.
    pub(crate) replicas: u8,
    /// For how long a message id is remembered.
    pub(crate) duplicate_window: Duration,
    /// Whether messages can be read directly from it.
    pub(crate) allow_direct: bool,
    /// The subjects from and to which stored messages are republished.
    pub(crate) republish: Option<(String, String)>,
}

/// One source of a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SourceStream {
    /// Its name within the tenant.
    pub(crate) source: SourceName,
    /// The stream that captures it.
    pub(crate) stream: StreamConfig,
    /// How what it captures reaches the tenant's stream.
    pub(crate) reading: Reading,
}

/// How what a source captures reaches the tenant's stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reading {
    /// The id stands in the subject: NATS sources and transforms it.
    Transform {
        /// The subject as it is published.
        from: String,
        /// The tenant's subject, with `{{wildcard(n)}}` where the id goes.
        to: String,
    },
    /// The id stands in the payload: the data plane splits it, through this durable consumer.
    Split {
        /// The consumer's name; its priority group has the same name.
        consumer: String,
    },
}

/// Everything that one tenant needs in JetStream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TenantStreams {
    /// The tenant.
    pub(crate) tenant: TenantName,
    /// Whose streams these are.
    pub(crate) owner: Owner,
    /// What happens to them when the Tenant goes.
    pub(crate) on_delete: OnDelete,
    /// The tenant's stream.
    pub(crate) stream: StreamConfig,
    /// Its sources, by name.
    pub(crate) sources: Vec<SourceStream>,
}
