//! Creates Devices. An object that exists is never changed, also when it has the name that a Device should
//! have.

use flutecast_kube::Right;
use std::sync::Arc;
use std::time::Duration;

use flutecast_crds::Device;
use kube::api::{ApiResource, DynamicObject, ListParams, PostParams};
use kube::{Api, Client};
use tokio::sync::{Notify, Semaphore};

use crate::backend::cluster::{MANAGER, brief};
use crate::metrics::{ApiWrite, Ending, Metrics};

/// The right that creating Devices needs.
pub const RIGHTS: &[Right] = &[Right {
    group: "flutecast.io",
    resources: &["devices"],
    names: &[],
    verbs: &["create"],
    why: "Only for Tenants with enrollment.policy Automatic: a Device is created for a code that nobody has. Without this rule such Tenants say EnrollmentUnavailable, and all else works. docs/enrollment.md",
}];

/// How many are created at once, of all tenants together. Whoever comes first is served first, and no tenant
/// has more than [`super::desk::CREATIONS_AT_ONCE`].
const AT_ONCE: usize = 16;
/// How long one may take, the wait for its turn included.
const DEADLINE: Duration = Duration::from_secs(4);

/// Creates Devices.
#[derive(Clone)]
pub struct Maker {
    client: Client,
    turns: Arc<Semaphore>,
    recheck: Arc<Notify>,
    metrics: Arc<Metrics>,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Made {
    /// It was created.
    Created,
    /// It is there already.
    Exists,
    /// Another one has its name.
    NameTaken(Holder),
    /// The API server says that the namespace has no room.
    QuotaExceeded(String),
    /// The API server says no, or nothing.
    Failed(String),
}

/// Who has the name of a Device that should be created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The tenant that it names; empty: its spec can't be read.
    pub tenant: String,
    /// Its device code; empty: its spec can't be read.
    pub code: String,
}

impl Maker {
    /// Creates through `client`; `recheck` is notified when the API server says no, so that somebody looks
    /// whether that is for want of a right.
    #[must_use]
    pub fn new(client: Client, recheck: Arc<Notify>, metrics: Arc<Metrics>) -> Self {
        Self { client, turns: Arc::new(Semaphore::new(AT_ONCE)), recheck, metrics }
    }

    /// Creates a Device.
    pub async fn create(&self, device: &Device) -> Made {
        let made = tokio::time::timeout(DEADLINE, self.try_create(device)).await;
        made.unwrap_or_else(|_| Made::Failed(format!("no answer within {DEADLINE:?}")))
    }

    async fn try_create(&self, device: &Device) -> Made {
        let Ok(_turn) = self.turns.acquire().await else {
            return Made::Failed("ending".to_owned());
        };
        let namespace = device.metadata.namespace.as_deref().unwrap_or_default();
        let api: Api<Device> = Api::namespaced(self.client.clone(), namespace);
        let parameters = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
        let created = api.create(&parameters, device).await;
        let ending = if created.is_ok() { Ending::Done } else { Ending::Failed };
        self.metrics.api_write(ApiWrite::Device, ending);
        match created {
            Ok(_) => Made::Created,
            Err(kube::Error::Api(answer)) if answer.is_already_exists() => self.whose_name(device).await,
            // How a ResourceQuota says so; there is no code of its own for it.
            Err(kube::Error::Api(answer))
                if answer.is_forbidden() && answer.message.contains("exceeded quota") =>
            {
                Made::QuotaExceeded(answer.message)
            }
            Err(error) => {
                if matches!(&error, kube::Error::Api(answer) if answer.is_forbidden()) {
                    self.recheck.notify_one();
                }
                Made::Failed(brief(&error))
            }
        }
    }

    /// Looks who has the name of a Device. Asked of the API server itself: what another operator created a
    /// moment ago the watch may not have told yet. By a list of this one name, for which the right of the
    /// watches is enough, and untyped, since one that was stored under other rules has a name, too.
    async fn whose_name(&self, device: &Device) -> Made {
        let name = device.metadata.name.as_deref().unwrap_or_default();
        let namespace = device.metadata.namespace.as_deref().unwrap_or_default();
        let kind = ApiResource::erase::<Device>(&());
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &kind);
        let named = ListParams::default().fields(&format!("metadata.name={name}"));
        let found = match api.list(&named).await {
            Ok(list) => list.items.into_iter().next(),
            Err(error) => return Made::Failed(brief(&error)),
        };
        // It went meanwhile: whoever asks again gets one.
        let Some(found) = found else { return Made::Exists };
        let field =
            |pointer| found.data.pointer(pointer).and_then(|value| value.as_str()).unwrap_or_default();
        let holder =
            Holder { tenant: field("/spec/tenant").to_owned(), code: field("/spec/deviceCode").to_owned() };
        if holder.tenant == device.spec.tenant && holder.code == device.spec.device_code {
            Made::Exists
        } else {
            Made::NameTaken(holder)
        }
    }
}
