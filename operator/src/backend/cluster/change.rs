//! Reports of the other tasks to the control loop.

use std::collections::BTreeSet;
use std::sync::Arc;

use flutecast_crds::{Device, PushFormat, Tenant};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::object::{Key, Kind};
use crate::rollout::PodStates;
use crate::watch::Event;

/// A report to the control loop. Events of watches are in the order in which the API server sent them.
#[derive(Debug)]
pub(crate) enum ClusterChange {
    Tenant(Event<Tenant>),
    Device(Event<Device>),
    PushFormat(Event<PushFormat>),
    Shard(Event<ConfigMap>),
    Access(Event<Secret>),
    /// Of a Secret that a Tenant names, and is watched under this name.
    Tokens(Key, Event<Secret>),
    Slice(Event<EndpointSlice>),
    /// The data plane's pods announced something.
    Pods(Arc<PodStates>),
    /// A status was written; the object was reported before.
    Written(Kind, Key),
    Presence(Key),
    /// The namespaces where the operator should create Devices, and may not.
    CreationForbidden(BTreeSet<String>),
}
