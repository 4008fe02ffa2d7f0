//! Watches: what the API server holds arrives here, and leaves as [`Change`]s to the keeper, in order.
//!
//! Promised: a watch never ends by itself; after an error it goes on, later and later up to a cap, and starts
//! over with a full list, so that what was deleted meanwhile is noticed. When this operator begins to lead,
//! all of them start over with a full list: a connection may be dead for minutes before anybody notices, and
//! what was told before may be a world in which another operator has made much since. One object that can't
//! be read never stops the others. The channel to the keeper is bounded: a keeper that is busy slows the
//! watches down, it doesn't fill the memory.

use std::fmt::Debug;

use flutecast_kube::{Observed, Right, Watch};
use k8s_openapi::NamespaceResourceScope;
use kube::api::ObjectMeta;
use kube::core::DeserializeGuard;
use kube::runtime::watcher;
use kube::{Api, Client};
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::lease::Lead;

/// The rights that watching the three kinds needs.
pub(crate) const RIGHTS: &[Right] = &[Right {
    group: "flutecast.io",
    resources: &["tenants", "devices", "pushformats"],
    names: &[],
    verbs: &["list", "watch"],
    why: "",
}];

/// The manifest with the rights of the operator.
const MANIFEST: &str = "manifests/operator/rbac.yaml";

/// A kind, and the namespace that is watched for it; none: all of them.
pub(crate) type Place = Option<String>;

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
pub(crate) struct Watches<C> {
    changes: mpsc::Sender<C>,
    leading: watch::Receiver<Lead>,
    cancel: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl<C: Send + 'static> Watches<C> {
    /// None yet.
    #[must_use]
    pub(crate) fn new(
        changes: mpsc::Sender<C>,
        leading: watch::Receiver<Lead>,
        cancel: CancellationToken,
    ) -> Self {
        Self { changes, leading, cancel, tasks: Vec::new() }
    }

    /// Watches a kind of ours.
    pub(crate) fn kind<K: Watched>(&mut self, client: &Client, place: &Place, wrap: fn(Event<K>) -> C) {
        let api: Api<DeserializeGuard<K>> = match place {
            Some(namespace) => Api::namespaced(client.clone(), namespace),
            None => Api::all(client.clone()),
        };
        let name = K::kind(&()).into_owned();
        self.start(api, watcher::Config::default(), place.clone(), name, wrap);
    }

    /// Watches the objects of one namespace that `config` selects.
    pub(crate) fn namespaced<K: Watched>(
        &mut self,
        client: &Client,
        namespace: &str,
        config: watcher::Config,
        wrap: fn(Event<K>) -> C,
    ) {
        let api: Api<DeserializeGuard<K>> = Api::namespaced(client.clone(), namespace);
        self.start(api, config, Some(namespace.to_owned()), K::kind(&()).into_owned(), wrap);
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
        wrap: impl Fn(Event<K>) -> C + Send + 'static,
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
pub(crate) struct Listener<C> {
    pub(crate) changes: mpsc::Sender<C>,
    pub(crate) leading: watch::Receiver<Lead>,
}

impl<C> Listener<C> {
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

/// Hands on what the API server reports, until nothing receives it.
pub(crate) async fn forward<K: Watched, C>(
    api: Api<DeserializeGuard<K>>,
    config: watcher::Config,
    place: Place,
    name: String,
    mut to: Listener<C>,
    wrap: impl Fn(Event<K>) -> C,
) {
    let begin = || Watch::new(api.clone(), config.clone(), MANIFEST);
    let mut turn = to.turn(0);
    let mut watch = begin();
    let mut is_well = true;
    loop {
        let observed = tokio::select! {
            observed = watch.next_event() => observed,
            () = to.next_turn(turn) => {
                turn = to.turn(turn);
                watch = begin();
                continue;
            }
        };
        // `Init` comes before the server is asked.
        if !is_well && !matches!(observed, Observed::Fault(_) | Observed::Change(watcher::Event::Init)) {
            tracing::info!(kind = name, "the watch is taken up again");
            is_well = true;
        }
        let event = match observed {
            Observed::Change(event) => translated(event, &place, turn),
            Observed::Recovered => continue,
            Observed::Fault(fault) => {
                // Every list ends some day, for instance because the server restarts; only a failure that
                // stays is news.
                if is_well {
                    let error = fault.text;
                    tracing::warn!(kind = name, error, "the watch broke off; it is taken up again");
                }
                is_well = false;
                if !fault.is_forbidden {
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
