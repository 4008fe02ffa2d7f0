//! Creates Devices. An object that exists is never changed.

use flutecast_rights::Right;
use std::sync::Arc;
use std::time::Duration;

use flutecast_crds::Device;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::{Notify, Semaphore};

use crate::kubernetes::{MANAGER, brief};
use crate::metrics::{ApiWrite, Ending, Metrics};

/// The right that creating Devices needs.
pub const RIGHTS: &[Right] = &[Right {
    group: "flutecast.io",
    resources: &["devices"],
    names: &[],
    verbs: &["create"],
    why: "Only for Tenants with enrollment.policy Automatic: a Device is created for a code that nobody has. Without this rule such Tenants say EnrollmentUnavailable, and all else works. docs/enrolment.md",
}];

/// How many are created at once, of all tenants together. Whoever comes first is served first, and no tenant has more than
/// [`super::desk::CREATIONS_AT_ONCE`].
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
    /// There is one of this name.
    Exists,
    /// The API server says that the namespace has no room.
    QuotaExceeded(String),
    /// The API server says no, or nothing.
    Failed(String),
}

impl Maker {
    /// Creates through `client`; `recheck` is notified when the API server says no, so that somebody looks whether that is for want of a
    /// right.
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
            Err(kube::Error::Api(answer)) if answer.is_already_exists() => Made::Exists,
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
}
