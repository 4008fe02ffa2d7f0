//! A watch of one kind of objects, as whole states and single changes.

use std::fmt::Debug;
use std::pin::Pin;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Resource};
use rand::RngExt as _;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::fault;

/// After what time the server ends a watch, which is taken up again where it stood; with that, a connection
/// that died unnoticed is noticed.
pub(super) const WATCH_SECONDS: u32 = 60;
/// The pause after the first fault, of which half is left to chance; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause: an API server that is back should be noticed within seconds, and all pods together must
/// not press it down.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// After this long without a fault the pauses begin anew.
const PAUSE_RESET: Duration = Duration::from_secs(60);
/// A watch that is taken up again says nothing until something changes. Faults come at most [`LONGEST_PAUSE`]
/// and a connection timeout apart, so after this long without one it is known to stand.
const CALM: Duration = Duration::from_secs(15);

/// What has changed.
#[derive(Debug, PartialEq)]
pub(crate) enum Change<K> {
    /// These objects are there, and no others.
    All(Vec<K>),
    /// This object is new, or changed.
    Applied(K),
    /// This object is gone.
    Deleted(K),
}

/// What a watch tells.
#[derive(Debug, PartialEq)]
pub(crate) enum Observed<K> {
    /// Something changed; the watch stands.
    Change(Change<K>),
    /// The watch is broken for now; the text says why.
    Fault(String),
    /// The watch stands again, and nothing has changed.
    Recovered,
}

pub(crate) type Events<K> = Pin<Box<dyn Stream<Item = watcher::Result<Event<K>>> + Send>>;

/// A watch that never ends and never gives up.
pub(crate) struct Watch<K> {
    resource: &'static str,
    events: Events<K>,
    assembler: Assembler<K>,
    pauses: Pauses,
    resume_at: Option<Instant>,
    faulty_since: Option<Instant>,
}

impl<K> Watch<K>
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    /// Watches what `config` selects. `resource` is the plural name, as roles call it.
    pub(crate) fn new(api: Api<K>, resource: &'static str, config: watcher::Config) -> Self {
        Self::over(resource, watcher::watcher(api, config.timeout(WATCH_SECONDS)).boxed())
    }
}

impl<K> Watch<K> {
    /// A watch of these events.
    pub(crate) fn over(resource: &'static str, events: Events<K>) -> Self {
        Self {
            resource,
            events,
            assembler: Assembler { listing: None },
            pauses: Pauses { next: FIRST_PAUSE, last: None },
            resume_at: None,
            faulty_since: None,
        }
    }

    /// What happens next. Can be dropped and asked again without losing anything.
    pub(crate) async fn next(&mut self) -> Observed<K> {
        loop {
            if let Some(moment) = self.resume_at {
                sleep_until(moment).await;
                self.resume_at = None;
            }
            let event = match self.faulty_since.filter(|_| self.assembler.listing.is_none()) {
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
                    // `Init` is said before the server was asked.
                    if !matches!(event, Event::Init) {
                        self.pauses.next = FIRST_PAUSE;
                    }
                    if let Some(change) = self.assembler.take(event) {
                        self.faulty_since = None;
                        return Observed::Change(change);
                    }
                }
                Some(Err(error)) => {
                    let now = Instant::now();
                    self.resume_at = Some(now + self.pauses.after_fault(now));
                    self.faulty_since = Some(now);
                    return Observed::Fault(fault::describe(self.resource, &error));
                }
                // Watches don't end.
                None => std::future::pending().await,
            }
        }
    }
}

/// Growing pauses. (kube's own begin anew with each attempt to list.)
#[derive(Debug)]
struct Pauses {
    next: Duration,
    last: Option<Instant>,
}

impl Pauses {
    fn after_fault(&mut self, now: Instant) -> Duration {
        if self.last.is_some_and(|last| now - last >= PAUSE_RESET) {
            self.next = FIRST_PAUSE;
        }
        self.last = Some(now);
        let pause = self.next;
        self.next = (pause * 2).min(LONGEST_PAUSE);
        pause.mul_f64(rand::rng().random_range(0.5..=1.0))
    }
}

/// Holds a list back until it is complete, so that nobody takes a part of it for all.
#[derive(Debug)]
struct Assembler<K> {
    listing: Option<Vec<K>>,
}

impl<K> Assembler<K> {
    fn take(&mut self, event: Event<K>) -> Option<Change<K>> {
        match event {
            Event::Init => {
                self.listing = Some(Vec::new());
                None
            }
            Event::InitApply(object) => {
                self.listing.get_or_insert_default().push(object);
                None
            }
            Event::InitDone => self.listing.take().map(Change::All),
            Event::Apply(object) => Some(Change::Applied(object)),
            Event::Delete(object) => Some(Change::Deleted(object)),
        }
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
        Watch::over("things", stream::iter(events).chain(stream::pending()).boxed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_list_that_breaks_off_is_never_told_in_part() {
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
        assert!(matches!(watch.next().await, Observed::Fault(text) if text.contains("things")));
        assert_eq!(watch.next().await, Observed::Change(Change::All(vec![2])));
        assert_eq!(watch.next().await, Observed::Change(Change::Applied(3)));
        assert_eq!(watch.next().await, Observed::Change(Change::Deleted(2)));
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_up_to_a_bound_also_while_the_list_fails() {
        let failing = (0..12).flat_map(|_| [Ok(Event::Init), error()]).collect();
        let mut watch = watch(failing);
        let mut pauses = Vec::new();
        for _ in 0..12 {
            let before = Instant::now();
            assert!(matches!(watch.next().await, Observed::Fault(_)));
            pauses.push(before.elapsed());
        }
        assert_eq!(pauses[0], Duration::ZERO);
        assert!(pauses[1] >= FIRST_PAUSE / 2 && pauses[1] <= FIRST_PAUSE, "{pauses:?}");
        assert!(pauses[11] >= LONGEST_PAUSE / 2 && pauses[11] <= LONGEST_PAUSE, "{pauses:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_was_taken_up_again_says_so_after_a_while() {
        let mut standing = watch(vec![Ok(Event::Init), Ok(Event::InitDone), error()]);
        assert_eq!(standing.next().await, Observed::Change(Change::All(vec![])));
        assert!(matches!(standing.next().await, Observed::Fault(_)));
        let before = Instant::now();
        assert_eq!(standing.next().await, Observed::Recovered);
        assert!(before.elapsed() >= CALM);
        // A list that was not answered yet is no sign that all is well.
        let mut listing = watch(vec![Ok(Event::Init), error(), Ok(Event::Init)]);
        assert!(matches!(listing.next().await, Observed::Fault(_)));
        let more = tokio::time::timeout(CALM * 4, listing.next()).await;
        assert!(more.is_err(), "{more:?}");
    }
}
