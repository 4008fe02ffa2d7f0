//! Listens to the pods on NATS.
//!
//! Promised: what a pod announced last is known at once, for as long as the pod is heard of. Announcements
//! are whole, so one that is lost is made good by the next. Not promised: that each announcement is seen; the
//! newest is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_nats::{Message, Subscriber};
use futures_util::StreamExt;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::announcement::{Announced, Heard, Subjects};
use crate::backend::cluster::Nats;
use flutecast_process::backoff::Backoff;

/// After how long without a word a pod isn't counted on. It announces every 4 to 6 s
/// (docs/protocol-internal.md).
const SILENCE: Duration = Duration::from_secs(15);
/// How many pods are remembered. More than that are no data plane of ours.
const MOST_PODS: usize = 1000;
/// How long handing something to the connection may take.
const DEADLINE: Duration = Duration::from_secs(5);
/// The first and the longest wait before a subscription is tried again.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// Starts the task. The value is what was heard of all pods. The task ends when `cancel` is cancelled;
/// whoever gets the handle watches it.
#[must_use = "a task that nobody watches fails unseen"]
pub fn spawn(
    nats: Nats,
    release: &str,
    cancel: CancellationToken,
) -> (watch::Receiver<Arc<Heard>>, JoinHandle<()>) {
    let (sender, heard) = watch::channel(Arc::default());
    let listener = Listener { nats, subjects: Subjects::new(release), last: BTreeMap::new(), heard: sender };
    let task = tokio::spawn(async move {
        cancel.run_until_cancelled_owned(listener.run()).await.unwrap_or_default();
    });
    (heard, task)
}

struct Listener {
    nats: Nats,
    subjects: Subjects,
    /// When each pod was heard of last.
    last: BTreeMap<String, Instant>,
    heard: watch::Sender<Arc<Heard>>,
}

impl Listener {
    /// Ends only when the connection is closed for good, which ends the process.
    async fn run(mut self) {
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        loop {
            match timeout(DEADLINE, self.nats.client.subscribe(self.subjects.announcements.clone())).await {
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
        let mut connected = self.nats.connected.clone();
        connected.mark_changed();
        loop {
            let silence = self.last.values().min().map(|last| *last + SILENCE);
            tokio::select! {
                message = announcements.next() => match message {
                    Some(message) => self.take(&message),
                    None => return,
                },
                Ok(()) = connected.changed() => {
                    let connected = *connected.borrow_and_update();
                    self.note_connection(connected);
                    if connected {
                        self.ask().await;
                    }
                }
                () = sleep_until(silence.unwrap_or_else(Instant::now)), if silence.is_some() => self.forget_silent(),
            }
        }
    }

    /// Asks all pods what they serve. Without an answer they say so within some seconds anyway.
    async fn ask(&self) {
        let asked = timeout(DEADLINE, self.nats.client.publish(self.subjects.query.clone(), "".into())).await;
        if !matches!(asked, Ok(Ok(()))) {
            tracing::debug!(?asked, "the pods can't be asked what they serve");
        }
    }

    fn take(&mut self, message: &Message) {
        if message.subject.as_str() == self.subjects.query {
            return;
        }
        let announced = Announced::parse(&message.payload)
            .filter(|announced| self.subjects.is_of(&message.subject, &announced.server));
        let Some(announced) = announced else {
            tracing::debug!(subject = %message.subject, "this is no announcement");
            return;
        };
        if self.last.len() >= MOST_PODS && !self.last.contains_key(&announced.server) {
            tracing::warn!(
                server = announced.server,
                "more than {MOST_PODS} pods announce; this one is left out"
            );
            return;
        }
        self.last.insert(announced.server.clone(), Instant::now());
        self.heard.send_if_modified(|heard| {
            let is_known = heard.pods.get(&announced.server).is_some_and(|known| **known == announced);
            if !is_known {
                let heard = Arc::make_mut(heard);
                heard.pods.insert(announced.server.clone(), Arc::new(announced));
            }
            !is_known
        });
    }

    fn note_connection(&self, connected: bool) {
        self.heard.send_if_modified(|heard| {
            let changed = heard.connected != connected;
            if changed {
                Arc::make_mut(heard).connected = connected;
            }
            changed
        });
    }

    fn forget_silent(&mut self) {
        let now = Instant::now();
        self.last.retain(|_, last| *last + SILENCE > now);
        let last = &self.last;
        self.heard.send_if_modified(|heard| {
            let any = heard.pods.keys().any(|pod| !last.contains_key(pod));
            if any {
                Arc::make_mut(heard).pods.retain(|pod, _| last.contains_key(pod));
            }
            any
        });
    }
}
