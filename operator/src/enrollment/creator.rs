//! Creates Devices. An existing object is never changed, also when it has the name of the Device to be
//! created.

use std::sync::Arc;
use std::time::Duration;

use flutecast_crds::Device;
use flutecast_kube::Right;
use flutecast_kube::fault::brief;
use kube::api::{ApiResource, DynamicObject, ListParams, PostParams};
use kube::{Api, Client};
use tokio::sync::{Notify, Semaphore};

use crate::api_server::{ApiWrite, ApiWrites, MANAGER};
use crate::metrics::CallResult;

pub(crate) const RIGHTS: &[Right] = &[Right::new("flutecast.io", &["devices"], &["create"]).because(
    "Only for Tenants with enrollment.policy Automatic: a Device is created for a code that nobody has. \
          Without this rule such Tenants say EnrollmentUnavailable, and all else works. docs/enrollment.md",
)];

/// The most Devices of all tenants together that are created at once, in the order of the requests. One
/// tenant has at most [`super::admission::MAX_CONCURRENT_CREATIONS`].
const MAX_CONCURRENT: usize = 16;
/// Timeout for a creation, including the wait for its turn.
const DEADLINE: Duration = Duration::from_secs(4);

#[derive(Clone)]
pub(crate) struct DeviceCreator {
    client: Client,
    turns: Arc<Semaphore>,
    recheck: Arc<Notify>,
    writes: ApiWrites,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Creation {
    Created,
    /// The Device exists already.
    Exists,
    /// Another Device has its name.
    NameTaken(NameHolder),
    /// A ResourceQuota of the namespace has no room.
    QuotaExceeded,
    /// The API server refuses, or gives no answer.
    Failed(String),
}

impl Creation {
    /// Returns the error for the log, if an operator has to do something about it.
    pub(super) fn into_failure(self, name: &str) -> Option<String> {
        match self {
            Self::Failed(error) => Some(error),
            Self::NameTaken(NameHolder { tenant, code }) => {
                Some(format!("the name {name:?} is that of a Device of tenant {tenant:?} with code {code:?}"))
            }
            Self::Created | Self::Exists | Self::QuotaExceeded => None,
        }
    }
}

/// The Device that has the name of one that is to be created. Both fields are empty if its spec can't be
/// read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NameHolder {
    pub(super) tenant: String,
    pub(super) code: String,
}

impl DeviceCreator {
    /// `recheck` is notified when the API server forbids a creation, which may be for want of a right.
    pub(crate) fn new(client: Client, recheck: Arc<Notify>, writes: ApiWrites) -> Self {
        Self { client, turns: Arc::new(Semaphore::new(MAX_CONCURRENT)), recheck, writes }
    }

    pub(super) async fn create(&self, device: &Device) -> Creation {
        let creation = tokio::time::timeout(DEADLINE, self.try_create(device)).await;
        creation.unwrap_or_else(|_| Creation::Failed(format!("no answer within {DEADLINE:?}")))
    }

    async fn try_create(&self, device: &Device) -> Creation {
        let Ok(_turn) = self.turns.acquire().await else {
            return Creation::Failed("ending".to_owned());
        };
        let namespace = device.metadata.namespace.as_deref().unwrap_or_default();
        let api: Api<Device> = Api::namespaced(self.client.clone(), namespace);
        let parameters = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
        let created = api.create(&parameters, device).await;
        let result = if created.is_ok() { CallResult::Done } else { CallResult::Failed };
        self.writes.count(ApiWrite::Device, result);
        match created {
            Ok(_) => Creation::Created,
            Err(kube::Error::Api(answer)) if answer.is_already_exists() => self.find_holder(device).await,
            // There is no status code for an exceeded ResourceQuota.
            Err(kube::Error::Api(answer))
                if answer.is_forbidden() && answer.message.contains("exceeded quota") =>
            {
                Creation::QuotaExceeded
            }
            Err(error) => {
                if matches!(&error, kube::Error::Api(answer) if answer.is_forbidden()) {
                    self.recheck.notify_one();
                }
                Creation::Failed(brief(&error))
            }
        }
    }

    /// Finds out which Device has the name, if not this one. The API server is asked, since the watch may not
    /// know yet what another operator created a moment ago. A list of one name needs no other right than the
    /// watches have, and it is untyped because an object of another schema has a name too.
    async fn find_holder(&self, device: &Device) -> Creation {
        let name = device.metadata.name.as_deref().unwrap_or_default();
        let namespace = device.metadata.namespace.as_deref().unwrap_or_default();
        let kind = ApiResource::erase::<Device>(&());
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &kind);
        let named = ListParams::default().fields(&format!("metadata.name={name}"));
        let found = match api.list(&named).await {
            Ok(list) => list.items.into_iter().next(),
            Err(error) => return Creation::Failed(brief(&error)),
        };
        // It was deleted meanwhile; the next request gets a new one.
        let Some(found) = found else { return Creation::Exists };
        let field =
            |pointer| found.data.pointer(pointer).and_then(|value| value.as_str()).unwrap_or_default();
        let holder = NameHolder {
            tenant: field("/spec/tenant").to_owned(),
            code: field("/spec/deviceCode").to_owned(),
        };
        if holder.tenant == device.spec.tenant && holder.code == device.spec.device_code {
            Creation::Exists
        } else {
            Creation::NameTaken(holder)
        }
    }
}
