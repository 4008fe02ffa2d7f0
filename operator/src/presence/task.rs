//! The task: does what the crowd wants done.

use std::sync::Arc;
use std::time::Duration;

use async_nats::Client;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::board::Board;
use super::crowd::{Crowd, Id};
use super::ears::Ears;
use super::lookup::look_up;
use crate::kubernetes::watch::Change;
use crate::metrics::{Ending, Metrics};

/// How many tenants are asked at once.
const AT_ONCE: usize = 8;
/// How long looks are gathered, so that many go into one request.
const GATHER: Duration = Duration::from_millis(200);
/// How often the devices are counted, for the metrics.
const COUNT: Duration = Duration::from_secs(2);

/// What it works with.
pub struct Links {
    /// NATS.
    pub client: Client,
    /// Whether it is connected.
    pub connected: watch::Receiver<bool>,
    /// Says who is followed, and gets what is to be said.
    pub board: Board,
    /// Is told of whom there is something new to say.
    pub changes: mpsc::Sender<Change>,
    /// Gets counts.
    pub metrics: Arc<Metrics>,
}

/// Starts the task. It ends when `cancel` is cancelled; whoever gets the handle watches it.
#[must_use = "a task that nobody watches fails unseen"]
pub fn spawn(links: Links, cancel: CancellationToken) -> JoinHandle<()> {
    tokio::spawn(async move { cancel.run_until_cancelled_owned(run(links)).await.unwrap_or_default() })
}

async fn run(links: Links) {
    let Links { client, mut connected, board, changes, metrics } = links;
    let mut crowd = Crowd::new(Instant::now());
    let mut ears = Ears::new(client.clone());
    let mut rounds = FuturesUnordered::new();
    let mut is_connected = *connected.borrow_and_update();
    let mut last_round = Instant::now();
    let mut next_count = Instant::now();
    loop {
        take_news(&board, &mut crowd, &mut ears);
        if is_connected && Instant::now() >= last_round + GATHER {
            while rounds.len() < AT_ONCE
                && let Some(round) = crowd.ask(Instant::now())
            {
                last_round = Instant::now();
                let client = client.clone();
                rounds.push(async move {
                    let answer = look_up(&client, &round).await;
                    (round, answer)
                });
            }
        }
        for news in crowd.tell(Instant::now()) {
            if board.say(&news.key, &news.followed, news.told) {
                // The keeper takes what it can; whoever is told of later has changed later.
                let _ends_with_the_keeper = changes.send(Change::Presence(news.key)).await;
            }
        }
        if Instant::now() >= next_count {
            metrics.presence(&crowd.counts(), ears.subscriptions());
            next_count = Instant::now() + COUNT;
        }
        let may_ask = is_connected && rounds.len() < AT_ONCE;
        let look = crowd.next_look().filter(|_| may_ask).map(|look| look.max(last_round + GATHER));
        let wake = [look, crowd.next_tell(Instant::now())].into_iter().flatten().min();
        tokio::select! {
            () = board.some_news() => {}
            changed = connected.changed() => {
                if changed.is_err() {
                    return;
                }
                is_connected = *connected.borrow_and_update();
                if is_connected {
                    crowd.begin_again(Instant::now());
                }
            }
            Some((round, answer)) = rounds.next() => match answer {
                Ok(answer) => {
                    metrics.looked_up(Ending::Done, round.subjects.len());
                    let unheard = crowd.answered(&round, &answer, Instant::now());
                    listen(&mut crowd, &mut ears, unheard).await;
                }
                Err(error) => {
                    metrics.looked_up(Ending::Failed, round.subjects.len());
                    tracing::debug!(tenant = %round.tenant, %error, "presence can't be looked up");
                    crowd.failed(&round, Instant::now());
                }
            },
            (id, heard) = ears.next() => {
                if crowd.heard(id, &heard, Instant::now()) {
                    listen(&mut crowd, &mut ears, vec![id]).await;
                }
            }
            () = tokio::time::sleep_until(wake.unwrap_or(next_count).min(next_count)) => {}
        }
    }
}

fn take_news(board: &Board, crowd: &mut Crowd, ears: &mut Ears) {
    let now = Instant::now();
    for (key, followed) in board.take_news() {
        let before = match followed {
            Some((followed, told)) => crowd.follow(&key, followed, told, now),
            None => crowd.forget(&key),
        };
        if let Some(id) = before {
            ears.forget(id);
        }
    }
}

async fn listen(crowd: &mut Crowd, ears: &mut Ears, unheard: Vec<Id>) {
    for id in unheard {
        let Some(followed) = crowd.followed(id).cloned() else { continue };
        if !ears.listen(id, &followed).await {
            // Too many, or no connection: these are looked up from time to time.
            return;
        }
        crowd.listened_to(id, Instant::now());
    }
}
