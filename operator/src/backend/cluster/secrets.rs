//! Watches of the Secrets that Tenants name. Each is watched by its name, so that a role that names them is
//! enough.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Secret;
use kube::core::DeserializeGuard;
use kube::runtime::watcher;
use kube::{Api, Client};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

use super::change::ClusterChange;
use crate::lease::Leadership;
use crate::object::Key;
use crate::watch::{EventSink, forward};

pub(crate) struct SecretWatches {
    client: Client,
    changes: mpsc::Sender<ClusterChange>,
    leading: watch::Receiver<Leadership>,
    cancel: CancellationToken,
    running: BTreeMap<Key, Running>,
}

/// A running watch, which ends when this is dropped.
#[derive(Debug)]
struct Running(AbortHandle);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl SecretWatches {
    pub(crate) fn new(
        client: Client,
        changes: mpsc::Sender<ClusterChange>,
        leading: watch::Receiver<Leadership>,
        cancel: CancellationToken,
    ) -> Self {
        Self { client, changes, leading, cancel, running: BTreeMap::new() }
    }

    /// Watches these Secrets and no others. Returns those that are no longer watched.
    pub(crate) fn keep(&mut self, wanted: BTreeSet<Key>) -> Vec<Key> {
        let gone: Vec<Key> = self.running.keys().filter(|key| !wanted.contains(*key)).cloned().collect();
        for key in &gone {
            self.running.remove(key);
        }
        for key in wanted {
            if !self.running.contains_key(&key) {
                let running = self.start(&key);
                self.running.insert(key, running);
            }
        }
        gone
    }

    /// Returns the Secrets that are watched.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &Key> {
        self.running.keys()
    }

    fn start(&self, key: &Key) -> Running {
        let (namespace, name) = key.clone();
        let api: Api<DeserializeGuard<Secret>> = Api::namespaced(self.client.clone(), &namespace);
        let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let scope = Some(namespace.clone());
        let label = format!("Secret {namespace}/{name}");
        let wrap = {
            let key = key.clone();
            move |event| ClusterChange::Tokens(key.clone(), event)
        };
        let to = EventSink { changes: self.changes.clone(), leading: self.leading.clone() };
        let watch = forward(api, config, scope, label, to, wrap);
        let cancel = self.cancel.clone();
        // It ends with the token, with the control loop, or when its handle is dropped.
        let task = tokio::spawn(async move {
            cancel.run_until_cancelled_owned(watch).await.unwrap_or_default();
        });
        Running(task.abort_handle())
    }
}
