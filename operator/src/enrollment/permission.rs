//! Checks that the operator may create Devices where Tenants want it. The API server is asked before a device
//! enrolls, so that the Tenant's conditions say it and not only the reply to the first device.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use flutecast_crds::GROUP;
use flutecast_process::backoff::jittered;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::{Notify, watch};

use super::directory::{Directory, DirectoryReceiver};
use super::policy::CreationPolicy;

/// The interval at which the API server is asked again. A right that is granted has an effect on the Tenant
/// within this time; one that is revoked is noticed at the next creation too.
const RECHECK: Duration = Duration::from_secs(15);
/// The shortest time between two rounds.
const MIN_INTERVAL: Duration = Duration::from_secs(1);
const DEADLINE: Duration = Duration::from_secs(5);

/// The namespaces in which Devices should be created, and the operator may not do it.
pub(crate) type ForbiddenNamespaces = BTreeSet<String>;

pub(crate) struct PermissionCheck {
    pub(crate) client: Client,
    pub(crate) directory: DirectoryReceiver,
    /// Gets the result.
    pub(crate) forbidden: watch::Sender<ForbiddenNamespaces>,
    /// Causes a check at once.
    pub(crate) recheck: Arc<Notify>,
}

impl PermissionCheck {
    /// Calls `notify` with the result when it changed.
    pub(crate) async fn run<F: Future<Output = ()>>(mut self, notify: impl Fn(ForbiddenNamespaces) -> F) {
        let api: Api<SelfSubjectAccessReview> = Api::all(self.client);
        let directory = &mut self.directory;
        loop {
            let wanted = namespaces_with_creation(directory.borrow_and_update().as_deref());
            let mut now = ForbiddenNamespaces::new();
            for namespace in &wanted {
                let before = self.forbidden.borrow().contains(namespace);
                if !may_create(&api, namespace).await.unwrap_or(!before) {
                    now.insert(namespace.clone());
                }
            }
            if *self.forbidden.borrow() != now {
                self.forbidden.send_replace(now.clone());
                notify(now).await;
            }
            tokio::time::sleep(MIN_INTERVAL).await;
            let changed = async {
                while directory.changed().await.is_ok() {
                    if namespaces_with_creation(directory.borrow_and_update().as_deref()) != wanted {
                        return;
                    }
                }
                std::future::pending().await
            };
            tokio::select! {
                () = changed => {}
                () = self.recheck.notified() => {}
                () = tokio::time::sleep(jittered(RECHECK)), if !wanted.is_empty() => {}
            }
        }
    }
}

fn namespaces_with_creation(directory: Option<&Directory>) -> BTreeSet<String> {
    let tenants = directory.into_iter().flat_map(Directory::values);
    let creating = tenants.filter(|tenant| tenant.enrollment.creation != CreationPolicy::Refuse);
    creating.map(|tenant| tenant.namespace.clone()).collect()
}

/// Asks the API server; `None` if it gives no answer.
async fn may_create(api: &Api<SelfSubjectAccessReview>, namespace: &str) -> Option<bool> {
    let attributes = ResourceAttributes {
        group: Some(GROUP.to_owned()),
        resource: Some("devices".to_owned()),
        verb: Some("create".to_owned()),
        namespace: Some(namespace.to_owned()),
        ..ResourceAttributes::default()
    };
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(attributes),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    };
    let asked = tokio::time::timeout(DEADLINE, api.create(&PostParams::default(), &review)).await;
    match asked {
        Ok(Ok(review)) => Some(review.status?.allowed),
        Ok(Err(error)) => {
            tracing::debug!(%error, "whether Devices may be created isn't known");
            None
        }
        Err(_) => None,
    }
}
