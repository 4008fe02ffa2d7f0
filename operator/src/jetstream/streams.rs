//! The streams and consumers of a tenant as data: the build step plans them, the reconciler applies them.

use std::time::Duration;

use flutecast_contract::name::{SourceName, TenantName};

/// The durable consumer of a payload source, and its priority group.
pub(crate) const SPLIT_CONSUMER: &str = "split";

/// The owner of a stream, which is in the stream's metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// `None` for objects of a folder.
    pub(crate) uid: Option<String>,
    /// The installation that manages the stream; `None` in folder mode. It is known only when streams are
    /// applied, so the build step leaves it out.
    pub(crate) installation: Option<String>,
}

/// The handling of a tenant's streams when the Tenant is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnDelete {
    Delete,
    Keep,
}

impl OnDelete {
    /// Returns the value as it is in the Tenant.
    #[must_use]
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Delete => "Delete",
            Self::Keep => "Keep",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Storage {
    File,
    Memory,
}

/// The part of a stream's configuration that the operator owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StreamConfig {
    pub(crate) name: String,
    /// For the output of `nats stream info`.
    pub(crate) description: String,
    pub(crate) subjects: Vec<String>,
    /// The time for which it keeps a message; `None` for ever. Never zero.
    pub(crate) max_age: Option<Duration>,
    /// The most messages that it keeps on one subject; `None` if there is no limit.
    pub(crate) max_messages_per_subject: Option<u64>,
    /// The most bytes that it keeps; `None` if there is no limit.
    pub(crate) max_bytes: Option<u64>,
    pub(crate) storage: Storage,
    pub(crate) replicas: u8,
    /// The time for which a message id is remembered.
    pub(crate) duplicate_window: Duration,
    pub(crate) allow_direct: bool,
    /// `true` if a message may replace those before it on its subject.
    pub(crate) allow_rollup: bool,
    /// The subjects from and to which stored messages are republished.
    pub(crate) republish: Option<(String, String)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SourceStream {
    pub(crate) source: SourceName,
    /// The stream that captures its subject.
    pub(crate) stream: StreamConfig,
    pub(crate) reading: Reading,
}

/// The way of a source's messages to the tenant's stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reading {
    /// The id is in the subject: NATS sources and transforms it.
    Transform {
        /// The published subject.
        from: String,
        /// The tenant's subject, with `{{wildcard(n)}}` where the id goes.
        to: String,
    },
    /// The id is in the payload: the data plane splits it, through this durable consumer.
    Split {
        /// The consumer's name; its priority group has the same name.
        consumer: String,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TenantStreams {
    pub(crate) tenant: TenantName,
    pub(crate) owner: Owner,
    pub(crate) on_delete: OnDelete,
    pub(crate) stream: StreamConfig,
    /// The stream of the last values that outlive the messages.
    pub(crate) kept: StreamConfig,
    /// Sorted by name.
    pub(crate) sources: Vec<SourceStream>,
}
