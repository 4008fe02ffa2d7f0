//! The inbox of the control loop: everything that wakes it.
//!
//! Changes of objects, reports on streams, leadership and timers arrive here. The first that asks for work
//! opens a window of a moment, in which whatever else arrives is collected, so that what belongs together is
//! done together.

use tokio::sync::{mpsc, watch};
use tokio::time::{Duration, Instant, sleep_until};

use crate::jetstream::reconciler::StreamReports;
use crate::lease::Leadership;

const BATCH: usize = 1024;

/// The receivers of the control loop. `C` is a change that the backend reports.
pub(crate) struct Inbox<C> {
    pub(crate) changes: mpsc::Receiver<C>,
    pub(crate) report: watch::Receiver<StreamReports>,
    /// The leadership of this operator; `None` if there can't be another one.
    pub(crate) leading: Option<watch::Receiver<Leadership>>,
}

#[derive(Debug)]
pub(crate) enum InboxMessage<C> {
    Change(C),
    Report(StreamReports),
}

/// The work that a message calls for; each variant includes the previous ones.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Wake {
    #[default]
    Nothing,
    /// Statuses only: the mapping is as it was.
    Status,
    Reconcile,
}

/// The times at which there is something to do without a message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WakeTimes {
    pub(crate) reconcile: Instant,
    pub(crate) status: Option<Instant>,
}

impl<C> Inbox<C> {
    /// Waits until there is something to do, and collects messages for `window` longer. `handle` gets each
    /// message as it arrives. Returns `None` when no change can arrive any more.
    ///
    /// # Cancel safety
    /// A message is either still in its channel or was handled.
    pub(crate) async fn wait(
        &mut self,
        times: WakeTimes,
        window: Duration,
        mut handle: impl FnMut(InboxMessage<C>) -> Wake,
    ) -> Option<Wake> {
        let mut until = times.status.map_or(times.reconcile, |status| status.min(times.reconcile));
        let mut wake = Wake::Nothing;
        let mut changes = Vec::new();
        loop {
            let is_collecting = wake != Wake::Nothing;
            wake = wake.max(tokio::select! {
                count = self.changes.recv_many(&mut changes, BATCH) => {
                    if count == 0 {
                        return None;
                    }
                    let wakes = changes.drain(..).map(|change| handle(InboxMessage::Change(change)));
                    wakes.fold(Wake::Nothing, Wake::max)
                }
                Ok(()) = self.report.changed() => {
                    let report = self.report.borrow_and_update().clone();
                    handle(InboxMessage::Report(report))
                }
                Ok(()) = changed(self.leading.as_mut()) => Wake::Reconcile,
                () = sleep_until(until) => {
                    let is_due = Instant::now() >= times.reconcile;
                    return Some(if is_due { Wake::Reconcile } else { wake.max(Wake::Status) });
                }
            });
            if wake != Wake::Nothing && !is_collecting {
                until = until.min(Instant::now() + window);
            }
        }
    }

    /// Returns the term of this operator; `None` while it is not the one that works.
    pub(crate) fn term(&self) -> Option<u64> {
        match self.leading.as_ref().map(|leading| *leading.borrow()) {
            None => Some(1),
            Some(Leadership::Leader(term)) => Some(term),
            Some(Leadership::Standby) => None,
        }
    }

    /// Returns a future that ends with `term`.
    pub(crate) fn end_of(&self, term: Option<u64>) -> impl Future<Output = ()> + use<C> {
        let leading = self.leading.clone();
        async move {
            let Some(mut leading) = leading else { return std::future::pending().await };
            let is_over = |lead: &Leadership| !matches!(lead, Leadership::Leader(now) if Some(*now) == term);
            // An election that has ended is the end of the term as well.
            let _ = leading.wait_for(is_over).await;
        }
    }
}

async fn changed(leading: Option<&mut watch::Receiver<Leadership>>) -> Result<(), watch::error::RecvError> {
    match leading {
        Some(leading) => leading.changed().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_millis(100);
    const RESYNC: Duration = Duration::from_secs(600);

    struct Senders {
        changes: mpsc::Sender<Wake>,
        report: watch::Sender<StreamReports>,
        leading: watch::Sender<Leadership>,
    }

    /// The changes of this inbox are what they ask for.
    fn inbox() -> (Senders, Inbox<Wake>) {
        let (changes, receiver) = mpsc::channel(16);
        let (report, reports) = watch::channel(StreamReports::new());
        let (leading, lead) = watch::channel(Leadership::Standby);
        (
            Senders { changes, report, leading },
            Inbox { changes: receiver, report: reports, leading: Some(lead) },
        )
    }

    fn times(status: Option<Duration>) -> WakeTimes {
        let now = Instant::now();
        WakeTimes { reconcile: now + RESYNC, status: status.map(|status| now + status) }
    }

    fn wake(message: InboxMessage<Wake>) -> Wake {
        match message {
            InboxMessage::Change(wake) => wake,
            InboxMessage::Report(_) => Wake::Reconcile,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn changes_are_collected_from_the_first_that_asks_for_work() {
        let (senders, mut inbox) = inbox();
        let began = Instant::now();
        let mut count = 0;
        let send = async {
            for change in [Wake::Nothing, Wake::Status, Wake::Reconcile, Wake::Nothing] {
                tokio::time::sleep(WINDOW / 4).await;
                senders.changes.send(change).await.unwrap();
            }
            std::future::pending::<()>().await;
        };
        let woken = tokio::select! {
            woken = inbox.wait(times(None), WINDOW, |message| { count += 1; wake(message) }) => woken,
            () = send => unreachable!(),
        };
        assert_eq!((woken, count), (Some(Wake::Reconcile), 4));
        assert_eq!(began.elapsed(), WINDOW / 4 * 2 + WINDOW, "the window opens with the first that matters");
    }

    #[tokio::test(start_paused = true)]
    async fn timers_wake_without_a_message() {
        let (_senders, mut inbox) = inbox();
        let began = Instant::now();
        let due = times(Some(Duration::from_secs(2)));
        assert_eq!(inbox.wait(due, WINDOW, wake).await, Some(Wake::Status));
        assert_eq!(began.elapsed(), Duration::from_secs(2));
        let due = WakeTimes { reconcile: began + RESYNC, status: None };
        assert_eq!(inbox.wait(due, WINDOW, wake).await, Some(Wake::Reconcile));
        assert_eq!(began.elapsed(), RESYNC);
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_does_not_put_off_a_timer() {
        let (senders, mut inbox) = inbox();
        let began = Instant::now();
        senders.changes.send(Wake::Status).await.unwrap();
        let due = times(Some(WINDOW / 2));
        assert_eq!(inbox.wait(due, WINDOW, wake).await, Some(Wake::Status));
        assert_eq!(began.elapsed(), WINDOW / 2);
    }

    #[tokio::test(start_paused = true)]
    async fn reports_and_leadership_ask_for_a_reconcile() {
        let (senders, mut inbox) = inbox();
        senders.report.send_replace(StreamReports::new());
        assert_eq!(inbox.wait(times(None), WINDOW, wake).await, Some(Wake::Reconcile));
        senders.leading.send_replace(Leadership::Leader(3));
        assert_eq!(inbox.wait(times(None), WINDOW, wake).await, Some(Wake::Reconcile));
        assert_eq!(inbox.term(), Some(3));
        let over = inbox.end_of(Some(3));
        tokio::pin!(over);
        assert!(tokio::time::timeout(RESYNC, &mut over).await.is_err());
        senders.leading.send_replace(Leadership::Standby);
        over.await;
        assert_eq!(inbox.term(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn it_ends_when_no_change_can_arrive() {
        let (senders, mut inbox) = inbox();
        drop(senders.changes);
        assert_eq!(inbox.wait(times(None), WINDOW, wake).await, None);
    }
}
