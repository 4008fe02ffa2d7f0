//! A watch of one kind of objects that never ends.
//!
//! # Guarantees
//! - A fault ends nothing. The watch goes on after a pause, which grows from 0.5 s to 5 s, and lists
//!   everything again if it can't resume, so that deletions in between are noticed.
//! - [`Watch::next`] never shows a part of a list: it holds a list back until it is complete.
//! - After a fault, either a change or [`Observed::Recovered`] shows that the watch works again.
//!
//! # Not guaranteed
//! Every change of an object is not seen; its last one is.
//!
//! # Memory
//! [`Watch::next`] holds a whole list. [`Watch::next_event`] hands on each object as it arrives, for callers
//! that hold back what a partial list implies themselves.

use std::fmt::Debug;
use std::pin::Pin;
use std::time::Duration;

use flutecast_process::backoff::Backoff;
use futures_util::{Stream, StreamExt};
use kube::core::Status;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::fault::{WatchedKind, status_of};

/// The first pause after a fault.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause. An API server that is back has to be noticed within seconds, and all pods together must
/// not overload it.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// After this long without a fault the pauses start again with [`FIRST_PAUSE`].
const PAUSE_RESET: Duration = Duration::from_secs(60);
/// A watch that was resumed says nothing until something changes. Faults are at most [`LONGEST_PAUSE`] and a
/// connection timeout apart, so after this long without one it works.
const CALM: Duration = Duration::from_secs(15);

/// A change of the watched objects.
#[derive(Debug, Clone, PartialEq)]
pub enum Change<K> {
    /// These objects exist, and no others.
    All(Vec<K>),
    /// This object is new or has changed.
    Applied(K),
    /// This object is gone.
    Deleted(K),
}

/// An event of a watch: a change, or the state of the watch itself.
#[derive(Debug, PartialEq)]
pub enum Observed<C> {
    /// A change. The watch works.
    Change(C),
    /// The watch is broken for now.
    Fault(WatchFault),
    /// The watch works again, and nothing has changed.
    Recovered,
}

/// Why a watch is broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchFault {
    /// The problem, in words. It quotes no object.
    pub text: String,
    /// `true` if a right is missing.
    pub is_forbidden: bool,
}

/// The events of a watch as kube delivers them.
pub type Events<K> = Pin<Box<dyn Stream<Item = watcher::Result<Event<K>>> + Send>>;

/// A watch that never ends.
pub struct Watch<K> {
    watched: WatchedKind,
    events: Events<K>,
    /// A list was begun and is not complete yet.
    is_listing: bool,
    /// The objects of the list so far, for [`Self::next`].
    listed: Vec<K>,
    pauses: Backoff,
    resume_at: Option<Instant>,
    last_fault: Option<Instant>,
    faulty_since: Option<Instant>,
}

impl<K> Watch<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    /// Watches what `config` selects. `manifest` is the file with the role that allows it, for the words of a
    /// fault.
    #[must_use]
    pub fn new(api: Api<K>, config: watcher::Config, manifest: &'static str) -> Self {
        Self::over(K::kind(&()), K::plural(&()), manifest, watcher::watcher(api, config).boxed())
    }
}

impl<K> Watch<K> {
    /// Returns a watch of these events, for tests.
    #[must_use]
    pub fn over(
        kind: impl Into<String>,
        resource: impl Into<String>,
        manifest: &'static str,
        events: Events<K>,
    ) -> Self {
        Self {
            watched: WatchedKind { kind: kind.into(), resource: resource.into(), manifest },
            events,
            is_listing: false,
            listed: Vec::new(),
            pauses: Backoff::new(FIRST_PAUSE, LONGEST_PAUSE),
            resume_at: None,
            last_fault: None,
            faulty_since: None,
        }
    }

    /// Waits for the next change. A list comes as a whole.
    ///
    /// # Cancel safety
    /// Nothing is lost if the future is dropped.
    pub async fn next(&mut self) -> Observed<Change<K>> {
        loop {
            let change = match self.next_event().await {
                Observed::Fault(fault) => return Observed::Fault(fault),
                Observed::Recovered => return Observed::Recovered,
                Observed::Change(Event::Init) => {
                    self.listed.clear();
                    continue;
                }
                Observed::Change(Event::InitApply(object)) => {
                    self.listed.push(object);
                    continue;
                }
                Observed::Change(Event::InitDone) => Change::All(std::mem::take(&mut self.listed)),
                Observed::Change(Event::Apply(object)) => Change::Applied(object),
                Observed::Change(Event::Delete(object)) => Change::Deleted(object),
            };
            return Observed::Change(change);
        }
    }

    /// Waits for the next event. The objects of a list come one by one between `Init` and `InitDone`, and a
    /// list that breaks off begins again with `Init`.
    ///
    /// # Cancel safety
    /// Nothing is lost if the future is dropped.
    pub async fn next_event(&mut self) -> Observed<Event<K>> {
        if let Some(moment) = self.resume_at {
            sleep_until(moment).await;
            self.resume_at = None;
        }
        // A list that was not answered yet does not show that the watch works.
        let event = match self.faulty_since.filter(|_| !self.is_listing) {
            None => self.events.next().await,
            Some(since) => match timeout_at(since + CALM, self.events.next()).await {
                Ok(event) => event,
                Err(_) => {
                    self.faulty_since = None;
                    return Observed::Recovered;
                }
            },
        };
        match event {
            Some(Ok(event)) => {
                match event {
                    // It comes before the server is asked.
                    Event::Init => self.is_listing = true,
                    Event::InitApply(_) => self.pauses.reset(),
                    Event::InitDone | Event::Apply(_) | Event::Delete(_) => {
                        self.pauses.reset();
                        self.is_listing = false;
                        self.faulty_since = None;
                    }
                }
                Observed::Change(event)
            }
            Some(Err(error)) => Observed::Fault(self.fault(&error)),
            // The watcher's stream does not end.
            None => std::future::pending().await,
        }
    }

    fn fault(&mut self, error: &watcher::Error) -> WatchFault {
        let now = Instant::now();
        if self.last_fault.is_some_and(|last| now - last >= PAUSE_RESET) {
            self.pauses.reset();
        }
        self.last_fault = Some(now);
        self.resume_at = Some(now + self.pauses.next_wait());
        self.faulty_since = Some(now);
        let is_forbidden = status_of(error).is_some_and(Status::is_forbidden);
        WatchFault { text: self.watched.describe(error), is_forbidden }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    fn error() -> watcher::Result<Event<u8>> {
        Err(watcher::Error::NoResourceVersion)
    }

    fn watch(events: Vec<watcher::Result<Event<u8>>>) -> Watch<u8> {
        let events = stream::iter(events).chain(stream::pending()).boxed();
        Watch::over("Thing", "things", "manifests/x.yaml", events)
    }

    fn is_fault<C>(observed: &Observed<C>) -> bool {
        matches!(observed, Observed::Fault(_))
    }

    #[tokio::test(start_paused = true)]
    async fn a_list_that_breaks_off_is_never_shown_in_part() {
        let mut watch = watch(vec![
            Ok(Event::Init),
            Ok(Event::InitApply(1)),
            Ok(Event::InitApply(2)),
            error(),
            Ok(Event::Init),
            Ok(Event::InitApply(2)),
            Ok(Event::InitDone),
            Ok(Event::Apply(3)),
            Ok(Event::Delete(2)),
        ]);
        assert!(matches!(watch.next().await, Observed::Fault(fault) if fault.text.contains("things")));
        assert_eq!(watch.next().await, Observed::Change(Change::All(vec![2])));
        assert_eq!(watch.next().await, Observed::Change(Change::Applied(3)));
        assert_eq!(watch.next().await, Observed::Change(Change::Deleted(2)));
    }

    #[tokio::test(start_paused = true)]
    async fn events_arrive_one_by_one() {
        let mut watch = watch(vec![Ok(Event::Init), Ok(Event::InitApply(1)), error(), Ok(Event::Init)]);
        assert!(matches!(watch.next_event().await, Observed::Change(Event::Init)));
        assert!(matches!(watch.next_event().await, Observed::Change(Event::InitApply(1))));
        assert!(is_fault(&watch.next_event().await));
        assert!(matches!(watch.next_event().await, Observed::Change(Event::Init)));
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_up_to_a_limit_also_while_the_list_fails() {
        let failing = (0..12).flat_map(|_| [Ok(Event::Init), error()]).collect();
        let mut watch = watch(failing);
        let mut pauses = Vec::new();
        for _ in 0..12 {
            let before = Instant::now();
            assert!(is_fault(&watch.next().await));
            pauses.push(before.elapsed());
        }
        assert_eq!(pauses[0], Duration::ZERO);
        assert!(pauses[1] >= FIRST_PAUSE / 2 && pauses[1] <= FIRST_PAUSE, "{pauses:?}");
        assert!(pauses[11] >= LONGEST_PAUSE / 2 && pauses[11] <= LONGEST_PAUSE, "{pauses:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_resumed_watch_reports_its_recovery_after_a_while() {
        let mut standing = watch(vec![Ok(Event::Init), Ok(Event::InitDone), error()]);
        assert_eq!(standing.next().await, Observed::Change(Change::All(vec![])));
        assert!(is_fault(&standing.next().await));
        let before = Instant::now();
        assert_eq!(standing.next().await, Observed::Recovered);
        assert!(before.elapsed() >= CALM);
        // A list that was not answered yet does not show that the watch works.
        let mut listing = watch(vec![Ok(Event::Init), error(), Ok(Event::Init)]);
        assert!(is_fault(&listing.next().await));
        let more = tokio::time::timeout(CALM * 4, listing.next()).await;
        assert!(more.is_err(), "{more:?}");
    }
}
