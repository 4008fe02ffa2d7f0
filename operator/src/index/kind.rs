//! The common interface of the three kinds of the API for the index and the statuses.

use std::fmt::Debug;

use flutecast_crds::condition::Condition;
use flutecast_crds::{
    Device, DeviceSpec, DeviceStatus, Presence, PushFormat, PushFormatSpec, PushFormatStatus, Tenant,
    TenantSpec, TenantStatus,
};
use kube::api::ObjectMeta;
use serde::{Deserialize, Serialize};

use crate::controller::status::conditions::ours;
use crate::object::Kind;
use crate::watch::Watched;

pub(crate) trait ApiKind: Watched {
    const KIND: Kind;
    type Spec: Debug + Clone + PartialEq + Send + Sync;
    type Status: ApiStatus;

    fn into_parts(self) -> (ObjectMeta, Self::Spec, Option<Self::Status>);
}

pub(crate) trait ApiStatus:
    Debug
    + Clone
    + Default
    + PartialEq
    + Serialize
    + for<'de> Deserialize<'de>
    + Into<AnyStatus>
    + Send
    + Sync
    + 'static
{
    fn conditions(&self) -> &[Condition];

    /// Returns the part that the operator writes: without the conditions of others.
    fn own_part(&self) -> Self;

    /// Returns whether the object has got a name or code that only one can have.
    fn holds_claim(&self) -> bool;

    /// Returns the presence, if the kind has one.
    fn presence(&self) -> Option<Presence>;

    /// Returns the status, if it is one of this kind.
    fn of_any(status: AnyStatus) -> Option<Self>;
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub(crate) enum AnyStatus {
    Tenant(TenantStatus),
    Device(DeviceStatus),
    PushFormat(PushFormatStatus),
}

macro_rules! api_kind {
    ($object:ident, $spec:ident, $status:ident, $holds:expr, $presence:expr) => {
        impl ApiKind for $object {
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

        impl ApiStatus for $status {
            fn conditions(&self) -> &[Condition] {
                &self.conditions
            }

            fn own_part(&self) -> Self {
                Self { conditions: ours(&self.conditions), ..self.clone() }
            }

            fn holds_claim(&self) -> bool {
                let holds: fn(&Self) -> bool = $holds;
                holds(self)
            }

            fn presence(&self) -> Option<Presence> {
                let presence: fn(&Self) -> Option<Presence> = $presence;
                presence(self)
            }

            fn of_any(status: AnyStatus) -> Option<Self> {
                if let AnyStatus::$object(status) = status { Some(status) } else { None }
            }
        }
    };
}

api_kind!(Tenant, TenantSpec, TenantStatus, |status| status.stream.is_some(), |_| None);
api_kind!(Device, DeviceSpec, DeviceStatus, |status| status.iot_id.is_some(), |status| status.presence);
api_kind!(PushFormat, PushFormatSpec, PushFormatStatus, |_| false, |_| None);
