//! Events (events.k8s.io): what `kubectl describe` shows of an object's past.
//!
//! Told is what a person would want to know and the status no longer says: that something was refused, and
//! that it has healed. The same thing told again within some minutes counts up instead of making a new Event.
//! An Event that can't be stored is logged and forgotten: the status says what is the case.

use flutecast_kube::Right;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::api_server::MANAGER;
use crate::api_server::{ApiWrite, ApiWrites};
use crate::metrics::CallResult;

/// The rights that telling needs.
pub(crate) const RIGHTS: &[Right] = &[Right {
    group: "events.k8s.io",
    resources: &["events"],
    names: &[],
    verbs: &["create", "patch"],
    why: "",
}];

/// How many may wait. More than that at once says nothing that a person would read.
const WAITING: usize = 256;
/// How long one may take.
const DEADLINE: Duration = Duration::from_secs(10);
/// The longest text that an Event takes, in bytes.
const LONGEST_NOTE: usize = 1000;

/// Something to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Notice {
    /// Whether somebody should look.
    pub(crate) is_warning: bool,
    /// One word.
    pub(crate) reason: String,
    /// What happened, and what to do.
    pub(crate) message: String,
}

/// Where notices are handed in.
#[derive(Debug, Clone)]
pub(crate) struct Announcer(mpsc::Sender<(ObjectReference, Notice)>);

impl Announcer {
    /// Tells of an object. When too many wait, this one is left out.
    pub(crate) fn announce(&self, object: ObjectReference, notice: Notice) {
        if self.0.try_send((object, notice)).is_err() {
            tracing::debug!("too many events; one is left out");
        }
    }
}

/// Starts the task that stores them. It ends when `cancel` is cancelled; whoever gets the handle watches it.
#[must_use = "a task that nobody watches fails unseen"]
pub(crate) fn spawn(
    client: Client,
    instance: &str,
    writes: ApiWrites,
    cancel: CancellationToken,
) -> (Announcer, JoinHandle<()>) {
    let (sender, mut notices) = mpsc::channel::<(ObjectReference, Notice)>(WAITING);
    let reporter =
        Reporter { controller: format!("flutecast.io/{MANAGER}"), instance: Some(instance.to_owned()) };
    let recorder = Recorder::new(client, reporter);
    let store = async move {
        while let Some((object, notice)) = notices.recv().await {
            let stored = tokio::time::timeout(DEADLINE, recorder.publish(&event(notice), &object)).await;
            let ending = match stored {
                Ok(Ok(())) => CallResult::Done,
                Ok(Err(error)) => {
                    tracing::debug!(%error, "an event can't be stored");
                    CallResult::Failed
                }
                Err(_) => CallResult::Failed,
            };
            writes.count(ApiWrite::Event, ending);
        }
    };
    let task = tokio::spawn(async move { cancel.run_until_cancelled_owned(store).await.unwrap_or_default() });
    (Announcer(sender), task)
}

fn event(notice: Notice) -> Event {
    let Notice { is_warning, reason, mut message } = notice;
    if message.len() > LONGEST_NOTE {
        let end = (0..=LONGEST_NOTE).rev().find(|end| message.is_char_boundary(*end)).unwrap_or(0);
        message.truncate(end);
        message.push('…');
    }
    Event {
        type_: if is_warning { EventType::Warning } else { EventType::Normal },
        reason,
        note: Some(message),
        action: "Reconcile".to_owned(),
        secondary: None,
    }
}
