//! Watches of the API server, whose events go to the control loop in order.
//!
//! # Guarantees
//! - A watch goes on after each fault: see [`flutecast_kube::watch`].
//! - When this operator begins to lead, every watch starts again with a full list, which carries the number
//!   of the term. A connection may be dead for minutes before that is noticed, and what was reported before
//!   may be older than what another operator has written since.
//! - An object that can't be parsed does not stop the others.
//! - The channel to the control loop is bounded: a busy loop slows the watches down instead of filling the
//!   memory. For the same reason the objects of a list are handed on one by one, and the receiver holds back
//!   what a partial list implies.

use std::borrow::Cow;
use std::fmt::Debug;

use flutecast_kube::{Observed, Right, Watch};
use flutecast_process::tasks::Tasks;
use k8s_openapi::NamespaceResourceScope;
use kube::api::ObjectMeta;
use kube::runtime::watcher;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::lease::Leadership;

pub(crate) const RIGHTS: &[Right] =
    &[Right::new("flutecast.io", &["tenants", "devices", "pushformats"], &["list", "watch"])];

/// The manifest with the rights of the operator.
const MANIFEST: &str = "manifests/operator/rbac.yaml";

/// The namespace that is watched, or `None` for all namespaces.
pub(crate) type NamespaceScope = Option<String>;

/// An event of the watch of one kind in one namespace, or in all.
#[derive(Debug)]
pub(crate) enum Event<K> {
    /// A list of this place begins.
    Restart(NamespaceScope),
    /// The object exists or has changed.
    Apply(Box<K>),
    /// The object exists but can't be parsed.
    Broken(Box<Unreadable>),
    /// The object is gone.
    Delete(Box<ObjectMeta>),
    /// The list that began with [`Event::Restart`] is complete: objects that were not in it are gone. The
    /// number is the term of [`Leadership`] in which it began, or 0 before the first term.
    Complete(NamespaceScope, u64),
    /// The operator has no right to watch these objects.
    Forbidden,
}

/// An object, or what is left of one that can't be parsed.
///
/// In place of kube's `DeserializeGuard`, which drops the status.
#[derive(Debug, Clone)]
pub(crate) struct Guarded<K>(pub(crate) Result<K, Unreadable>);

/// An object that can't be parsed.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct Unreadable {
    #[serde(default)]
    pub(crate) metadata: ObjectMeta,
    /// Its status, which the operator has written.
    #[serde(default)]
    pub(crate) status: Value,
    #[serde(skip)]
    pub(crate) error: String,
}

impl<'de, K: DeserializeOwned> Deserialize<'de> for Guarded<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let object = Value::deserialize(deserializer)?;
        let error = match K::deserialize(&object) {
            Ok(object) => return Ok(Self(Ok(object))),
            Err(error) => error.to_string(),
        };
        let left = Unreadable::deserialize(object).map_err(serde::de::Error::custom)?;
        Ok(Self(Err(Unreadable { error, ..left })))
    }
}

impl<K: Resource> Resource for Guarded<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(of: &Self::DynamicType) -> Cow<'_, str> {
        K::kind(of)
    }

    fn group(of: &Self::DynamicType) -> Cow<'_, str> {
        K::group(of)
    }

    fn version(of: &Self::DynamicType) -> Cow<'_, str> {
        K::version(of)
    }

    fn plural(of: &Self::DynamicType) -> Cow<'_, str> {
        K::plural(of)
    }

    fn meta(&self) -> &ObjectMeta {
        self.0.as_ref().map_or_else(|left| &left.metadata, K::meta)
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.0.as_mut().map_or_else(|left| &mut left.metadata, K::meta_mut)
    }
}

/// Starts watches, which end when the token is cancelled.
pub(crate) struct Watches<'a, C> {
    pub(crate) to: EventSink<C>,
    pub(crate) cancel: &'a CancellationToken,
    pub(crate) tasks: &'a mut Tasks,
}

impl<C: Send + 'static> Watches<'_, C> {
    /// Watches the objects of a kind in `place` that `config` selects.
    pub(crate) fn start<K: Watched>(
        &mut self,
        client: &Client,
        place: &NamespaceScope,
        config: watcher::Config,
        wrap: fn(Event<K>) -> C,
    ) {
        let api: Api<Guarded<K>> = match place {
            Some(namespace) => Api::namespaced(client.clone(), namespace),
            None => Api::all(client.clone()),
        };
        let name = K::kind(&()).into_owned();
        let watch = forward(api, config, place.clone(), name, self.to.clone(), wrap);
        self.tasks.spawn_until("watch", self.cancel, watch);
    }
}

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

/// The receiver of a watch's events, and the term that its lists carry.
pub(crate) struct EventSink<C> {
    pub(crate) changes: mpsc::Sender<C>,
    pub(crate) leading: watch::Receiver<Leadership>,
}

impl<C> Clone for EventSink<C> {
    fn clone(&self) -> Self {
        Self { changes: self.changes.clone(), leading: self.leading.clone() }
    }
}

impl<C> EventSink<C> {
    /// Returns the current term or, while another operator leads, `last`.
    fn term(&self, last: u64) -> u64 {
        match *self.leading.borrow() {
            Leadership::Leader(term) => term,
            Leadership::Standby => last,
        }
    }

    /// Waits for a term that is not `last`.
    async fn next_term(&mut self, last: u64) {
        let is_next = |lead: &Leadership| matches!(lead, Leadership::Leader(term) if *term != last);
        if self.leading.wait_for(is_next).await.is_err() {
            // The lease task has ended, so there will be no other term.
            std::future::pending::<()>().await;
        }
    }
}

/// Hands on the events of a watch until the receiver is closed.
pub(crate) async fn forward<K: Watched, C>(
    api: Api<Guarded<K>>,
    config: watcher::Config,
    place: NamespaceScope,
    name: String,
    mut to: EventSink<C>,
    wrap: impl Fn(Event<K>) -> C,
) {
    let begin = || Watch::new(api.clone(), config.clone(), MANIFEST);
    let mut term = to.term(0);
    let mut watch = begin();
    let mut is_well = true;
    loop {
        let observed = tokio::select! {
            observed = watch.next_event() => observed,
            () = to.next_term(term) => {
                term = to.term(term);
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
            Observed::Change(event) => translated(event, &place, term),
            Observed::Recovered => continue,
            Observed::Fault(fault) => {
                // Every watch breaks off some day, for instance because the server restarts. It is logged
                // once, until the watch works again.
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

fn translated<K: Watched>(event: watcher::Event<Guarded<K>>, place: &NamespaceScope, term: u64) -> Event<K> {
    match event {
        watcher::Event::Init => Event::Restart(place.clone()),
        watcher::Event::InitDone => Event::Complete(place.clone(), term),
        watcher::Event::Apply(object) | watcher::Event::InitApply(object) => match object.0 {
            Ok(object) => Event::Apply(Box::new(object)),
            Err(broken) => Event::Broken(Box::new(broken)),
        },
        watcher::Event::Delete(object) => Event::Delete(Box::new(match object.0 {
            Ok(object) => object.meta().clone(),
            Err(broken) => broken.metadata,
        })),
    }
}
