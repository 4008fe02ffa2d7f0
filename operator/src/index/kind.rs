//! The three kinds, as far as the index, the watches and the status write-back treat them alike.

use std::fmt::Debug;

use flutecast_crds::condition::Condition;
use flutecast_crds::{
    Device, DeviceSpec, DeviceStatus, Presence, PushFormat, PushFormatSpec, PushFormatStatus, Tenant,
    TenantSpec, TenantStatus,
};
use kube::api::ObjectMeta;
use serde::Serialize;

use crate::controller::status::conditions::ours;
use crate::object::Kind;
use crate::watch::Watched;

/// One of the kinds of the API.
pub(crate) trait OurKind: Watched {
    /// Which one.
    const KIND: Kind;
    /// What the user wants.
    type Spec: Debug + Clone + PartialEq + Send + Sync;
    /// What the operator says.
    type Status: OurStatus;

    /// Takes an object apart.
    fn into_parts(self) -> (ObjectMeta, Self::Spec, Option<Self::Status>);
}

/// The status of one of the kinds.
pub(crate) trait OurStatus:
    Debug + Clone + Default + PartialEq + Serialize + Into<AnyStatus> + Send + Sync + 'static
{
    /// Its conditions.
    fn conditions(&self) -> &[Condition];

    /// The part of it that the operator writes: without the conditions of others.
    fn normal(&self) -> Self;

    /// Whether it says that the object has a place that only one can have.
    fn holds_its_place(&self) -> bool;

    /// Whether what it is about is heard of, if that is said of its kind.
    fn presence(&self) -> Option<Presence>;
}

/// A status of any of the kinds.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub(crate) enum AnyStatus {
    /// Of a Tenant.
    Tenant(TenantStatus),
    /// Of a Device.
    Device(DeviceStatus),
    /// Of a PushFormat.
    PushFormat(PushFormatStatus),
}

impl AnyStatus {
    /// Its conditions.
    #[must_use]
    pub(crate) fn conditions(&self) -> &[Condition] {
        match self {
            Self::Tenant(status) => &status.conditions,
            Self::Device(status) => &status.conditions,
            Self::PushFormat(status) => &status.conditions,
        }
    }
}

macro_rules! our_kind {
    ($object:ident, $spec:ident, $status:ident, $holds:expr, $presence:expr) => {
        impl OurKind for $object {
            const KIND: Kind = Kind::$object;
            type Spec = $spec;
            type Status = $status;

            fn into_parts(self) -> (ObjectMeta, $spec, Option<$status>) {
                let Self { metadata, spec, status } = self;
                (metadata, spec, status)
            }
        }

        impl From<$status> for AnyStatus {
            fn from(status: $status) -> Self {
                Self::$object(status)
            }
        }

        impl OurStatus for $status {
            fn conditions(&self) -> &[Condition] {
                &self.conditions
            }

            fn normal(&self) -> Self {
                Self { conditions: ours(&self.conditions), ..self.clone() }
            }

            fn holds_its_place(&self) -> bool {
                let holds: fn(&Self) -> bool = $holds;
                holds(self)
            }

            fn presence(&self) -> Option<Presence> {
                let presence: fn(&Self) -> Option<Presence> = $presence;
                presence(self)
            }
        }
    };
}

our_kind!(Tenant, TenantSpec, TenantStatus, |status| status.stream.is_some(), |_| None);
our_kind!(Device, DeviceSpec, DeviceStatus, |status| status.iot_id.is_some(), |status| status.presence);
our_kind!(PushFormat, PushFormatSpec, PushFormatStatus, |_| false, |_| None);
