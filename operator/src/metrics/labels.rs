//! The labels of the metrics: closed sets. Values are written as the API and the protocol write them
//! (decision 47).

use std::hash::Hash;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};

use crate::enrollment::answer::Reason;
use crate::verdict;

/// A closed set of values: each is shown from the start, so that a rate of what never happened is zero and
/// not unknown.
pub(super) trait Closed: Sized + 'static {
    /// All values that there can be.
    fn all() -> Vec<Self>;
}

macro_rules! closed {
    ($(#[$about:meta])* $visible:vis enum $name:ident { $($(#[$doc:meta])* $value:ident,)* }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
        $visible enum $name { $($(#[$doc])* $value,)* }

        impl Closed for $name {
            fn all() -> Vec<Self> {
                vec![$(Self::$value,)*]
            }
        }
    };
}

macro_rules! labels {
    ($(#[$about:meta])* $name:ident { $($label:ident: $values:ty,)* }) => {
        $(#[$about])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
        pub(super) struct $name { $(pub(super) $label: $values,)* }
    };
}

closed! {
    /// How something ended.
    pub enum Ending {
        /// Well.
        Done,
        /// Badly; it is tried again.
        Failed,
    }
}

closed! {
    /// A kind of the API.
    pub enum ObjectKind {
        /// Tenant.
        Tenant,
        /// Device.
        Device,
        /// PushFormat.
        PushFormat,
    }
}

impl ObjectKind {
    /// The kind as a label; none if it is none of ours.
    #[must_use]
    pub fn of(kind: verdict::Kind) -> Option<Self> {
        match kind {
            verdict::Kind::Tenant => Some(Self::Tenant),
            verdict::Kind::Device => Some(Self::Device),
            verdict::Kind::PushFormat => Some(Self::PushFormat),
            verdict::Kind::Secret | verdict::Kind::File => None,
        }
    }
}

closed! {
    /// How it stands with an object, by its conditions.
    pub enum Standing {
        /// It is Ready.
        Ready,
        /// Something that isn't there yet is waited for.
        Reconciling,
        /// Somebody has to change something.
        Stalled,
        /// Nothing is said of it yet.
        Unsettled,
    }
}

closed! {
    /// The kind of what is written to the API server.
    pub enum WrittenKind {
        /// A Tenant.
        Tenant,
        /// A Device.
        Device,
        /// A PushFormat.
        PushFormat,
        /// A shard of the mapping.
        ConfigMap,
        /// The access document.
        Secret,
        /// An Event.
        Event,
        /// The Lease of the leader.
        Lease,
    }
}

closed! {
    /// How it is written.
    pub enum Verb {
        /// Made, by server-side apply if somebody may have made it already.
        Create,
        /// Applied by server-side apply.
        Apply,
        /// Its status is applied.
        ApplyStatus,
        /// Replaced.
        Update,
        /// A part of it is changed.
        Patch,
        /// Deleted.
        Delete,
    }
}

/// What is written to the API server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApiWrite {
    /// The status of an object.
    Status(ObjectKind),
    /// The finalizer of what is in use.
    Finalizer(ObjectKind),
    /// A Device that enrolled.
    Device,
    /// A ConfigMap of the mapping.
    Shard,
    /// A ConfigMap of the mapping is deleted.
    ShardDeleted,
    /// The Secret with the access document.
    Access,
    /// An Event.
    Event,
    /// The Lease of the leader.
    Lease,
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
    pub(super) fn all() -> Vec<Self> {
        let rest = [Self::Device, Self::Shard, Self::ShardDeleted, Self::Access, Self::Event, Self::Lease];
        let statuses = ObjectKind::all().into_iter().map(Self::Status);
        let held = [ObjectKind::Tenant, ObjectKind::PushFormat].map(Self::Finalizer);
        rest.into_iter().chain(statuses).chain(held).collect()
    }

    pub(super) fn labels(self, result: Ending) -> WriteLabels {
        let (kind, verb) = match self {
            Self::Status(kind) => (kind.into(), Verb::ApplyStatus),
            Self::Finalizer(kind) => (kind.into(), Verb::Patch),
            Self::Device => (WrittenKind::Device, Verb::Create),
            Self::Shard => (WrittenKind::ConfigMap, Verb::Apply),
            Self::ShardDeleted => (WrittenKind::ConfigMap, Verb::Delete),
            Self::Access => (WrittenKind::Secret, Verb::Apply),
            Self::Event => (WrittenKind::Event, Verb::Create),
            Self::Lease => (WrittenKind::Lease, Verb::Update),
        };
        WriteLabels { kind, verb, result }
    }
}

closed! {
    /// What JetStream is asked.
    pub enum NatsCall {
        /// Which streams there are.
        StreamList,
        /// How a stream is.
        StreamInfo,
        /// To make a stream.
        StreamCreate,
        /// To change a stream in place.
        StreamUpdate,
        /// To delete a stream.
        StreamDelete,
        /// For a stored message.
        MessageGet,
        /// How a consumer is.
        ConsumerInfo,
        /// To make a consumer, or to change it in place.
        ConsumerCreate,
        /// To delete a consumer.
        ConsumerDelete,
    }
}

closed! {
    /// What JetStream answers.
    pub enum NatsResult {
        /// It is done; that something isn't there is an answer too.
        Done,
        /// No, for good.
        Refused,
        /// Nothing, or that it can't work now.
        Away,
    }
}

closed! {
    /// What became of a device's request for its topics.
    pub enum Enrolled {
        /// It was told its topics.
        Answered,
        /// A Device was created for it, and it was told its topics.
        Created,
        /// The request or the code can't be understood.
        Invalid,
        /// No Device has the code, and none is created.
        Unknown,
        /// The code isn't one for which a Device is created.
        NotAllowed,
        /// A Device should be created, and its name is that of another one.
        NameTaken,
        /// The Device is refused.
        NotReady,
        /// The Device was created and isn't in force yet.
        Pending,
        /// There is no room for more devices.
        QuotaExceeded,
        /// It was told that the tenant's devices ask too often.
        RateLimited,
        /// A Device should be created and can't be.
        Unavailable,
        /// It was not even told that.
        Dropped,
    }
}

impl From<Reason> for Enrolled {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::InvalidRequest | Reason::InvalidCode => Self::Invalid,
            Reason::UnknownDevice => Self::Unknown,
            Reason::CodeNotAllowed => Self::NotAllowed,
            Reason::NameTaken => Self::NameTaken,
            Reason::NotReady => Self::NotReady,
            Reason::Pending => Self::Pending,
            Reason::QuotaExceeded => Self::QuotaExceeded,
            Reason::RateLimited => Self::RateLimited,
            Reason::Unavailable => Self::Unavailable,
        }
    }
}

closed! {
    /// Whether a device is heard of.
    pub(super) enum PresenceValue {
        /// It is.
        Online,
        /// It was, and isn't any more.
        Silent,
        /// Nobody knows yet.
        Unknown,
    }
}

impl From<flutecast_crds::Presence> for PresenceValue {
    fn from(presence: flutecast_crds::Presence) -> Self {
        match presence {
            flutecast_crds::Presence::Online => Self::Online,
            flutecast_crds::Presence::Silent => Self::Silent,
            flutecast_crds::Presence::Unknown => Self::Unknown,
        }
    }
}

closed! {
    /// How it stands with a ready pod of the data plane.
    pub(super) enum PodState {
        /// It serves the mapping as it is.
        Confirmed,
        /// It serves an older one, or not all tenants.
        Lagging,
        /// It was not heard of lately.
        Silent,
    }
}

labels! { EndingLabel { result: Ending, } }
labels! { ReconcileLabels { kind: ObjectKind, result: Standing, } }
labels! { ObjectLabels { kind: ObjectKind, condition: Standing, } }
labels! { WriteLabels { kind: WrittenKind, verb: Verb, result: Ending, } }
labels! { RepairLabel { kind: WrittenKind, } }
labels! { NatsLabels { kind: NatsCall, result: NatsResult, } }
labels! { EnrolledLabel { result: Enrolled, } }
labels! { PresenceLabel { presence: PresenceValue, } }
labels! { PodLabel { state: PodState, } }
