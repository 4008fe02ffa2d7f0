//! Watches of the Secrets that Tenants name. Each is watched by its name, so that a role that names them is
//! enough.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Secret;
use kube::runtime::watcher;
use kube::{Api, Client};
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

use super::change::ClusterChange;
use crate::object::Key;
use crate::watch::{EventSink, Guarded, forward};

pub(crate) struct SecretWatches {
    client: Client,
    to: EventSink<ClusterChange>,
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
    pub(crate) fn new(client: Client, to: EventSink<ClusterChange>, cancel: CancellationToken) -> Self {
        Self { client, to, cancel, running: BTreeMap::new() }
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

    pub(crate) fn keys(&self) -> impl Iterator<Item = &Key> {
        self.running.keys()
    }

    fn start(&self, key: &Key) -> Running {
        let (namespace, name) = key.clone();
        let api: Api<Guarded<Secret>> = Api::namespaced(self.client.clone(), &namespace);
        let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let scope = Some(namespace.clone());
        let label = format!("Secret {namespace}/{name}");
        let key = key.clone();
        let wrap = move |event| ClusterChange::Tokens(key.clone(), event);
        let watch = forward(api, config, scope, label, self.to.clone(), wrap);
        // It ends with the token, with the control loop, or when its handle is dropped.
        Running(tokio::spawn(self.cancel.clone().run_until_cancelled_owned(watch)).abort_handle())
    }
}
