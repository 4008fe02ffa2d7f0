//! The operator at the API server: its name there, the metric that counts its writes.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use crate::metrics::{CallResult, ClosedSet, closed_set, with_labels};
use crate::object::ObjectKind;

/// The operator's name as a field manager, in Events, and of its Lease.
pub(crate) const MANAGER: &str = "flutecast-operator";

closed_set! {
    enum WrittenKind {
        Tenant,
        Device,
        PushFormat,
        /// A shard of the mapping.
        ConfigMap,
        /// The access document, the passwords of NATS.
        Secret,
        Event,
        Lease,
    }
}

closed_set! {
    enum Verb {
        /// By server-side apply if the object may exist already.
        Create,
        Apply,
        ApplyStatus,
        Update,
        Patch,
        Delete,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ApiWrite {
    Status(ObjectKind),
    /// The finalizer of an object that is in use.
    Finalizer(ObjectKind),
    /// A Device that enrolled.
    Device,
    /// A ConfigMap of the mapping.
    Shard,
    ShardDeleted,
    /// The Secret with the access document.
    Access,
    /// The Secret with the passwords of the bundled NATS.
    Passwords,
    Event,
    Lease,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WriteLabels {
    kind: WrittenKind,
    verb: Verb,
    result: CallResult,
}

impl From<ObjectKind> for WrittenKind {
    fn from(kind: ObjectKind) -> Self {
        match kind {
            ObjectKind::Tenant => Self::Tenant,
            ObjectKind::Device => Self::Device,
            ObjectKind::PushFormat => Self::PushFormat,
        }
    }
}

impl ApiWrite {
    fn all() -> impl Iterator<Item = Self> {
        let rest = [
            Self::Device,
            Self::Shard,
            Self::ShardDeleted,
            Self::Access,
            Self::Passwords,
            Self::Event,
            Self::Lease,
        ];
        let finalizers = [ObjectKind::Tenant, ObjectKind::PushFormat].map(Self::Finalizer);
        rest.into_iter().chain(ObjectKind::ALL.iter().copied().map(Self::Status)).chain(finalizers)
    }

    fn labels(self, result: CallResult) -> WriteLabels {
        let (kind, verb) = match self {
            Self::Status(kind) => (kind.into(), Verb::ApplyStatus),
            Self::Finalizer(kind) => (kind.into(), Verb::Patch),
            Self::Device => (WrittenKind::Device, Verb::Create),
            Self::Shard => (WrittenKind::ConfigMap, Verb::Apply),
            Self::ShardDeleted => (WrittenKind::ConfigMap, Verb::Delete),
            Self::Access => (WrittenKind::Secret, Verb::Apply),
            Self::Passwords => (WrittenKind::Secret, Verb::Create),
            Self::Event => (WrittenKind::Event, Verb::Create),
            Self::Lease => (WrittenKind::Lease, Verb::Update),
        };
        WriteLabels { kind, verb, result }
    }
}

/// Counts writes to the API server. Clones share their count.
#[derive(Debug, Clone, Default)]
pub(crate) struct ApiWrites(Family<WriteLabels, Counter>);

impl ApiWrites {
    pub(crate) fn register(&self, registry: &mut Registry) {
        let all =
            ApiWrite::all().flat_map(|write| CallResult::ALL.iter().map(move |result| write.labels(*result)));
        registry.register("api_writes", "Writes to the API server", with_labels(&self.0, all));
    }

    pub(crate) fn count(&self, write: ApiWrite, result: CallResult) {
        self.0.get_or_create(&write.labels(result)).inc();
    }
}
