//! Listens to the announcements of the pods on NATS.
//!
//! Guarantees: the latest announcement of each pod is available at once, for as long as the pod announces.
//! Announcements are complete, so the next one makes up for one that gets lost. Not guaranteed: that each
//! announcement is seen; only the latest one is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, Message, Subscriber};
use flutecast_contract::serving::ANNOUNCE_SILENCE;
use flutecast_contract::subject;
use futures_util::StreamExt;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::pod_states::{self, PodStates};
use flutecast_process::backoff::Backoff;

/// More pods than that are not a data plane of this installation.
const MAX_PODS: usize = 1000;
/// Timeout for handing something to the connection.
const DEADLINE: Duration = Duration::from_secs(5);
/// The first and the longest wait before a subscription is tried again.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// Returns what the pods announce, and the task that listens.
pub(crate) fn listener(
    client: Client,
    connected: watch::Receiver<bool>,
    release: &str,
) -> (watch::Receiver<Arc<PodStates>>, impl Future<Output = ()> + use<>) {
    let (sender, states) = watch::channel(Arc::default());
    let listener = Listener {
        client,
        connected,
        release: release.to_owned(),
        last_seen: BTreeMap::new(),
        states: sender,
    };
    (states, listener.run())
}

struct Listener {
    client: Client,
    connected: watch::Receiver<bool>,
    release: String,
    /// The time of each pod's last announcement.
    last_seen: BTreeMap<String, Instant>,
    states: watch::Sender<Arc<PodStates>>,
}

impl Listener {
    /// Ends only when the connection is closed for good, which ends the process.
    async fn run(mut self) {
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        loop {
            match timeout(DEADLINE, self.client.subscribe(subject::serving_all(&self.release))).await {
                Ok(Ok(announcements)) => {
                    backoff.reset();
                    self.listen(announcements).await;
                }
                Ok(Err(error)) => tracing::warn!(%error, "the pods' announcements can't be listened to"),
                Err(_) => tracing::warn!(
                    "the pods' announcements can't be listened to: not taken within {DEADLINE:?}"
                ),
            }
            sleep(backoff.next_wait()).await;
        }
    }

    async fn listen(&mut self, mut announcements: Subscriber) {
        let mut connected = self.connected.clone();
        connected.mark_changed();
        loop {
            let silence = self.last_seen.values().min().map(|seen| *seen + ANNOUNCE_SILENCE);
            let silent = async {
                match silence {
                    Some(silence) => sleep_until(silence).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                message = announcements.next() => match message {
                    Some(message) => self.apply(&message),
                    None => return,
                },
                Ok(()) = connected.changed() => {
                    let connected = *connected.borrow_and_update();
                    self.set_connected(connected);
                    if connected {
                        self.query().await;
                    }
                }
                () = silent => self.forget_silent(),
            }
        }
    }

    /// Asks all pods to announce. They do so within some seconds anyway.
    async fn query(&self) {
        let asked =
            timeout(DEADLINE, self.client.publish(subject::serving_query(&self.release), "".into())).await;
        if !matches!(asked, Ok(Ok(()))) {
            tracing::debug!(?asked, "the pods can't be asked what they serve");
        }
    }

    fn apply(&mut self, message: &Message) {
        if message.subject.as_str() == subject::serving_query(&self.release) {
            return;
        }
        let announced = pod_states::read(&self.release, &message.subject, &message.payload);
        let Some(announced) = announced else {
            tracing::debug!(subject = %message.subject, "this is no announcement");
            return;
        };
        if self.last_seen.len() >= MAX_PODS && !self.last_seen.contains_key(&announced.server) {
            tracing::warn!(
                server = announced.server,
                "more than {MAX_PODS} pods announce; this one is left out"
            );
            return;
        }
        self.last_seen.insert(announced.server.clone(), Instant::now());
        self.states.send_if_modified(|states| {
            let is_known = states.pods.get(&announced.server).is_some_and(|known| **known == announced);
            if !is_known {
                let states = Arc::make_mut(states);
                states.pods.insert(announced.server.clone(), Arc::new(announced));
            }
            !is_known
        });
    }

    fn set_connected(&self, connected: bool) {
        self.states.send_if_modified(|states| {
            let changed = states.connected != connected;
            if changed {
                Arc::make_mut(states).connected = connected;
            }
            changed
        });
    }

    fn forget_silent(&mut self) {
        let now = Instant::now();
        self.last_seen.retain(|_, seen| *seen + ANNOUNCE_SILENCE > now);
        let last_seen = &self.last_seen;
        self.states.send_if_modified(|states| {
            let any = states.pods.keys().any(|pod| !last_seen.contains_key(pod));
            if any {
                Arc::make_mut(states).pods.retain(|pod, _| last_seen.contains_key(pod));
            }
            any
        });
    }
}
