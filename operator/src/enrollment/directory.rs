//! The devices of each tenant, as enrollment needs them.

use std::collections::BTreeMap;
use std::sync::Arc;

use flutecast_contract::name::{ChannelName, DeviceCode, IotId, TenantName};

use super::policy::Enrollment;

/// All tenants in force.
pub(crate) type Directory = BTreeMap<TenantName, Arc<TenantDirectory>>;

/// The directory for those who read it; `None` while another operator leads, or nothing was built yet.
pub(crate) type DirectoryReceiver = tokio::sync::watch::Receiver<Option<Arc<Directory>>>;

#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct TenantDirectory {
    /// The namespace of the Tenant and its Devices.
    pub(crate) namespace: String,
    /// `true` if its stream exists. Before that, messages of devices get lost.
    pub(crate) has_stream: bool,
    pub(crate) enrollment: Enrollment,
    pub(crate) devices: BTreeMap<DeviceCode, DeviceEntry>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum DeviceEntry {
    /// The device is in the stored mapping.
    Mapped { iot_id: IotId, channels: Arc<[ChannelName]> },
    /// The Device exists, and is not in the mapping.
    Pending {
        /// The Device as it is named in messages.
        object: String,
        /// Its problem; `None` if it is about to be in the mapping.
        problem: Option<String>,
    },
}
