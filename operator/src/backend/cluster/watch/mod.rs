//! Watches: what the API server holds arrives here, and leaves as [`Change`]s to the keeper, in order.
//!
//! Promised: a watch never ends by itself; after an error it goes on, later and later up to a cap, and starts
//! over with a full list, so that what was deleted meanwhile is noticed. When this operator begins to lead,
//! all of them start over with a full list: a connection may be dead for minutes before anybody notices, and
//! what was told before may be a world in which another operator has made much since. One object that can't
//! be read never stops the others. The channel to the keeper is bounded: a keeper that is busy slows the
//! watches down, it doesn't fill the memory.

mod pace;
pub(crate) mod secrets;

use flutecast_kube::Right;
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::Arc;

use flutecast_crds::{Device, PushFormat, Tenant};
use futures_util::{StreamExt, TryStreamExt};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::ObjectMeta;
use kube::core::{DeserializeGuard, Status};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::pace::Pace;
use crate::backend::cluster::brief;
use crate::index::kind::OurKind;
use crate::lease::Lead;
use crate::object::Key;
use crate::object::Kind;
use crate::rollout::PodStates;

/// The rights that watching the three kinds needs.
pub(crate) const RIGHTS: &[Right] = &[Right {
    group: "flutecast.io",
    resources: &["tenants", "devices", "pushformats"],
    names: &[],
    verbs: &["list", "watch"],
    why: "",
}];

/// A kind, and the namespace that is watched for it; none: all of them.
pub(crate) type Place = Option<String>;

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

/// What happened to the objects of one watch.
#[derive(Debug)]
pub(crate) enum Event<K> {
    /// All objects of this place are going to be told again.
    Restart(Place),
    /// It is there, or has changed.
    Apply(Box<K>),
    /// It is there, but isn't what it should be.
    Broken {
        /// What could be read of it.
        meta: Box<ObjectMeta>,
        /// What is wrong.
        error: String,
    },
    /// It is gone.
    Delete(Box<ObjectMeta>),
    /// All objects of this place were told since [`Event::Restart`]; what wasn't among them is gone. The list
    /// was begun in this turn of [`Lead`], 0 before the first.
    Complete(Place, u64),
    /// The operator has no right to see them.
    Forbidden,
}

/// The watches of one operator.
#[derive(Debug)]
pub(crate) struct Watches {
    changes: mpsc::Sender<Change>,
    leading: watch::Receiver<Lead>,
    cancel: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl Watches {
    /// None yet.
    #[must_use]
    pub(crate) fn new(
        changes: mpsc::Sender<Change>,
        leading: watch::Receiver<Lead>,
        cancel: CancellationToken,
    ) -> Self {
        Self { changes, leading, cancel, tasks: Vec::new() }
    }

    /// Watches a kind of ours.
    pub(crate) fn kind<K: OurKind>(&mut self, client: &Client, place: &Place, wrap: fn(Event<K>) -> Change) {
        let api: Api<DeserializeGuard<K>> = match place {
            Some(namespace) => Api::namespaced(client.clone(), namespace),
            None => Api::all(client.clone()),
        };
        let name = K::KIND.to_string();
        self.start(api, watcher::Config::default(), place.clone(), name, wrap);
    }

    /// Watches the ConfigMaps of the mapping, by their label.
    pub(crate) fn shards(&mut self, client: &Client, namespace: &str, labels: &str) {
        let api: Api<DeserializeGuard<ConfigMap>> = Api::namespaced(client.clone(), namespace);
        let config = watcher::Config::default().labels(labels);
        self.start(api, config, Some(namespace.to_owned()), "ConfigMap".to_owned(), Change::Shard);
    }

    /// Watches the one Secret that the data plane reads.
    pub(crate) fn access(&mut self, client: &Client, namespace: &str, name: &str) {
        let api: Api<DeserializeGuard<Secret>> = Api::namespaced(client.clone(), namespace);
        let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
        self.start(api, config, Some(namespace.to_owned()), "Secret".to_owned(), Change::Access);
    }

    /// Watches the EndpointSlices of a Service, by their label.
    pub(crate) fn slices(&mut self, client: &Client, namespace: &str, labels: &str) {
        let api: Api<DeserializeGuard<EndpointSlice>> = Api::namespaced(client.clone(), namespace);
        let config = watcher::Config::default().labels(labels);
        self.start(api, config, Some(namespace.to_owned()), "EndpointSlice".to_owned(), Change::Slice);
    }

    /// The tasks; whoever gets them watches them.
    #[must_use = "a task that nobody watches fails unseen"]
    pub(crate) fn into_tasks(self) -> Vec<JoinHandle<()>> {
        self.tasks
    }

    fn start<K>(
        &mut self,
        api: Api<DeserializeGuard<K>>,
        config: watcher::Config,
        place: Place,
        name: String,
        wrap: impl Fn(Event<K>) -> Change + Send + 'static,
    ) where
        K: Watched,
    {
        let to = Listener { changes: self.changes.clone(), leading: self.leading.clone() };
        let watch = forward(api, config, place, name, to, wrap);
        let cancel = self.cancel.clone();
        self.tasks.push(tokio::spawn(async move {
            cancel.run_until_cancelled_owned(watch).await.unwrap_or_default();
        }));
    }
}

/// What can be watched.
pub(crate) trait Watched:
    kube::Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + DeserializeOwned
    + Clone
    + Debug
    + Send
    + Sync
    + 'static
{
}

impl<K> Watched for K where
    K: kube::Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + DeserializeOwned
        + Clone
        + Debug
        + Send
        + Sync
        + 'static
{
}

/// Who hears what a watch tells.
struct Listener {
    changes: mpsc::Sender<Change>,
    leading: watch::Receiver<Lead>,
}

impl Listener {
    /// The turn that it is, or was last.
    fn turn(&self, last: u64) -> u64 {
        match *self.leading.borrow() {
            Lead::Turn(turn) => turn,
            Lead::No => last,
        }
    }

    /// Waits until it is another turn than this one.
    async fn next_turn(&mut self, last: u64) {
        let is_next = |lead: &Lead| matches!(lead, Lead::Turn(turn) if *turn != last);
        if self.leading.wait_for(is_next).await.is_err() {
            // There will be no other.
            std::future::pending::<()>().await;
        }
    }
}

/// Hands on what the API server tells, until nobody listens.
async fn forward<K: Watched>(
    api: Api<DeserializeGuard<K>>,
    config: watcher::Config,
    place: Place,
    name: String,
    mut to: Listener,
    wrap: impl Fn(Event<K>) -> Change,
) {
    let begin = || watcher(api.clone(), config.clone()).backoff(Pace::default()).boxed();
    let mut turn = to.turn(0);
    let mut events = begin();
    let mut is_well = true;
    loop {
        let next = tokio::select! {
            next = events.try_next() => next,
            () = to.next_turn(turn) => {
                turn = to.turn(turn);
                events = begin();
                continue;
            }
        };
        let event = match next {
            Ok(None) => return,
            Ok(Some(event)) => {
                if !is_well && !matches!(event, watcher::Event::Init) {
                    tracing::info!(kind = name, "the watch is taken up again");
                    is_well = true;
                }
                translated(event, &place, turn)
            }
            Err(error) => {
                // Every list ends some day, for instance because the server restarts; only a failure that
                // stays is news.
                let is_forbidden = is_forbidden(&error);
                if is_well {
                    let error = in_words(&error, &name);
                    tracing::warn!(kind = name, error, "the watch broke off; it is taken up again");
                }
                is_well = false;
                if !is_forbidden {
                    continue;
                }
                Event::Forbidden
            }
        };
        if to.changes.send(wrap(event)).await.is_err() {
            return;
        }
    }
}

fn translated<K: Watched>(event: watcher::Event<DeserializeGuard<K>>, place: &Place, turn: u64) -> Event<K> {
    match event {
        watcher::Event::Init => Event::Restart(place.clone()),
        watcher::Event::InitDone => Event::Complete(place.clone(), turn),
        watcher::Event::Apply(object) | watcher::Event::InitApply(object) => match object.0 {
            Ok(object) => Event::Apply(Box::new(object)),
            Err(broken) => Event::Broken { meta: Box::new(broken.metadata), error: broken.error },
        },
        watcher::Event::Delete(object) => Event::Delete(Box::new(match object.0 {
            Ok(object) => object.meta().clone(),
            Err(broken) => broken.metadata,
        })),
    }
}

fn in_words(error: &watcher::Error, kind: &str) -> String {
    match error {
        // A list of a kind that is there is found, however empty. The answer is no Status, so it has no
        // reason.
        error if is(error, |status| status.code == 404) => {
            format!("the API server knows no {kind}: install the kinds (chart flutecast-crds)")
        }
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => brief(error),
        watcher::Error::WatchError(status) => format!("{} ({})", status.message, status.code),
        watcher::Error::NoResourceVersion => error.to_string(),
    }
}

fn is_forbidden(error: &watcher::Error) -> bool {
    is(error, Status::is_forbidden)
}

/// Whether the API server answered with a status of this sort.
fn is(error: &watcher::Error, sort: fn(&Status) -> bool) -> bool {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status))
        | watcher::Error::WatchError(status) => sort(status),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_that_are_missing_are_said_to_be() {
        let answer = |code, message: &str| {
            let status = Status { code, message: message.to_owned(), ..Status::default() };
            in_words(&watcher::Error::InitialListFailed(kube::Error::Api(Box::new(status))), "Tenant")
        };
        let expected = "the API server knows no Tenant: install the kinds (chart flutecast-crds)";
        assert_eq!(answer(404, "404 page not found"), expected);
        assert_eq!(answer(500, "etcd is away"), "etcd is away (500)");
    }
}
