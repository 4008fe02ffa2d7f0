//! Whether the operator may create Devices, where Tenants want it to. Asked of the API server before a device
//! needs it, so that the Tenant says so and not only the device that comes first.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use flutecast_crds::GROUP;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::roster::Roster;
use crate::enrollment::policy::Newcomers;
use crate::backend::cluster::watch::Change;
use flutecast_process::backoff::jittered;

/// How often it is asked again: a right that is given heals the Tenant within this time, one that is taken is
/// noticed at the next Device too.
const AGAIN: Duration = Duration::from_secs(15);
/// The shortest time between two rounds.
const PAUSE: Duration = Duration::from_secs(1);
/// How long one answer may take.
const DEADLINE: Duration = Duration::from_secs(5);

/// The namespaces where the operator may not create Devices, of those where it should.
pub type Forbidden = BTreeSet<String>;

/// Asks, and tells the others.
pub struct Asker {
    /// The way to the API server.
    pub client: Client,
    /// Who wants Devices to be created.
    pub roster: watch::Receiver<Option<Arc<Roster>>>,
    /// Gets the answers: for enrollment.
    pub forbidden: watch::Sender<Forbidden>,
    /// Gets the answers too: for the statuses.
    pub changes: mpsc::Sender<Change>,
    /// Says that it should be asked at once.
    pub recheck: Arc<Notify>,
}

impl Asker {
    /// Starts the task. It ends when `cancel` is cancelled; whoever gets the handle watches it.
    #[must_use = "a task that nobody watches fails unseen"]
    pub fn spawn(self, cancel: CancellationToken) -> JoinHandle<()> {
        tokio::spawn(async move { cancel.run_until_cancelled_owned(self.run()).await.unwrap_or_default() })
    }

    async fn run(mut self) {
        let api: Api<SelfSubjectAccessReview> = Api::all(self.client);
        let roster = &mut self.roster;
        let forbidden = &self.forbidden;
        loop {
            let wanted = wanting(roster.borrow_and_update().as_deref());
            let mut not_allowed = Forbidden::new();
            for namespace in &wanted {
                let before = forbidden.borrow().contains(namespace);
                if !may_create(&api, namespace).await.unwrap_or(!before) {
                    not_allowed.insert(namespace.clone());
                }
            }
            if *forbidden.borrow() != not_allowed {
                forbidden.send_replace(not_allowed.clone());
                let _ends_with_the_keeper = self.changes.send(Change::CreationForbidden(not_allowed)).await;
            }
            tokio::time::sleep(PAUSE).await;
            let news = async {
                while roster.changed().await.is_ok() {
                    if wanting(roster.borrow_and_update().as_deref()) != wanted {
                        return;
                    }
                }
                std::future::pending().await
            };
            tokio::select! {
                () = news => {}
                () = self.recheck.notified() => {}
                () = tokio::time::sleep(jittered(AGAIN)), if !wanted.is_empty() => {}
            }
        }
    }
}

/// The namespaces where Devices are to be created.
fn wanting(roster: Option<&Roster>) -> BTreeSet<String> {
    let rolls = roster.into_iter().flat_map(Roster::values);
    let wanting = rolls.filter(|roll| roll.enrollment.newcomers != Newcomers::Refused);
    wanting.map(|roll| roll.namespace.clone()).collect()
}

/// Asks; none: nobody can say.
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
            tracing::debug!(%error, "nobody says whether Devices may be created");
            None
        }
        Err(_) => None,
    }
}
