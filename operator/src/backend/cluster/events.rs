//! Events (events.k8s.io): what `kubectl describe` shows of an object's past.
//!
//! There is one for what a person would want to know and the status no longer says: that an object was
//! refused, and that it is Ready again. The same again within some minutes counts up instead of making a new
//! Event. An Event that can't be stored is dropped: the status says what is the case now.

use flutecast_kube::Right;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use tokio::sync::mpsc;

use crate::api_server::{ApiWrite, ApiWrites, MANAGER};
use crate::controller::status::conditions::truncate;
use crate::metrics::CallResult;

pub(crate) const RIGHTS: &[Right] = &[Right::new("events.k8s.io", &["events"], &["create", "patch"])];

/// The most Events that wait. A person would not read more at once.
const QUEUE: usize = 256;
const DEADLINE: Duration = Duration::from_secs(10);
/// The longest note that an Event may have, in bytes.
const MAX_NOTE: usize = 1000;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Notice {
    /// `true` if the object needs attention.
    pub(crate) is_warning: bool,
    pub(crate) reason: String,
    pub(crate) message: String,
}

#[derive(Debug, Clone)]
pub(crate) struct Announcer(mpsc::Sender<(ObjectReference, Notice)>);

impl Announcer {
    /// Queues an Event about an object. It is dropped when too many wait.
    pub(crate) fn announce(&self, object: ObjectReference, notice: Notice) {
        if self.0.try_send((object, notice)).is_err() {
            tracing::debug!("too many events; one is left out");
        }
    }
}

/// Returns the queue of Events, and the task that stores them.
pub(crate) fn announcer(
    client: Client,
    instance: &str,
    writes: ApiWrites,
) -> (Announcer, impl Future<Output = ()> + use<>) {
    let (sender, mut notices) = mpsc::channel::<(ObjectReference, Notice)>(QUEUE);
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
    (Announcer(sender), store)
}

fn event(notice: Notice) -> Event {
    let Notice { is_warning, reason, mut message } = notice;
    truncate(&mut message, MAX_NOTE);
    Event {
        type_: if is_warning { EventType::Warning } else { EventType::Normal },
        reason,
        note: Some(message),
        action: "Reconcile".to_owned(),
        secondary: None,
    }
}
