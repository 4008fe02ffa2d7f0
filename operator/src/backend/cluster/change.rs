//! What the other tasks report to the control loop.

use std::collections::BTreeSet;
use std::sync::Arc;

use flutecast_crds::{Device, PushFormat, Tenant};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::object::{Key, Kind};
use crate::rollout::PodStates;
use crate::watch::Event;

/// What a watch tells.
#[derive(Debug)]
pub(crate) enum Change {
    /// About a Tenant.
    Tenant(Event<Tenant>),
    /// About a Device.
    Device(Event<Device>),
    /// About a PushFormat.
    PushFormat(Event<PushFormat>),
    /// About a ConfigMap of the mapping.
    Shard(Event<ConfigMap>),
    /// About the Secret that the data plane reads.
    Access(Event<Secret>),
    /// What the data plane's pods announced.
    Pods(Arc<PodStates>),
    /// About an EndpointSlice of the data plane's Service.
    Slice(Event<EndpointSlice>),
    /// The answer to a write of this object's status was told before.
    Written(Kind, Key),
    /// About a Secret that a Tenant names; the namespace and name that are watched.
    Tokens((String, String), Event<Secret>),
    /// There is something new to say of the presence of a Device; its namespace and name.
    Presence((String, String)),
    /// The namespaces where the operator may not create Devices, of those where it should.
    CreationForbidden(BTreeSet<String>),
}
