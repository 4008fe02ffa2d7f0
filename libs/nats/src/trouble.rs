//! Why NATS can't be reached, said in the log: the client itself keeps most of it to itself.

use std::fmt::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_nats::Server;
use tokio::time::timeout;

/// How long attempts may fail before it is said: a server that starts anew is back by then.
const PATIENCE: Duration = Duration::from_secs(4);
/// How long it is then not said again.
const SILENCE: Duration = Duration::from_secs(60);
/// How long the name of a server is looked up; the next attempt waits for that.
const LOOK_UP: Duration = Duration::from_secs(1);

/// Attempts that failed, one after the other.
#[derive(Debug)]
pub(crate) struct Trouble {
    /// What the connection is called.
    name: String,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The first attempt of all, or the first one after a connection that held.
    since: Option<Instant>,
    told: Option<Instant>,
    /// What was wrong in the rounds before, and when that was asked.
    why: Option<(Instant, String)>,
}

impl State {
    /// For how long attempts have failed, when that is to be said.
    fn is_due(&self, now: Instant) -> Option<Duration> {
        let lasts = now.duration_since(self.since?);
        let is_news = self.told.is_none_or(|told| now.duration_since(told) >= SILENCE);
        (lasts >= PATIENCE && is_news).then_some(lasts)
    }

    /// Takes note of attempt number `attempt` since there was a connection; answers with what is to be said
    /// of those before.
    fn next(&mut self, attempt: usize, now: Instant) -> Option<(Duration, String)> {
        if attempt <= 1 {
            *self = Self { since: Some(now), ..Self::default() };
        }
        let lasts = self.is_due(now)?;
        let (_, why) = self.why.take().filter(|(at, _)| Some(*at) > self.since)?;
        self.told = Some(now);
        Some((lasts, why))
    }
}

impl Trouble {
    /// None yet, of a connection that is called `name`.
    pub(crate) fn of(name: &str) -> Arc<Self> {
        Arc::new(Self { name: name.to_owned(), state: Mutex::default() })
    }

    /// The client asks before each round of attempts which server it is to try. It chooses itself; what it
    /// knows of them is kept.
    pub(crate) async fn look(&self, servers: &[Server]) {
        // In the first round after a connection that held this is what was before it, which `next` forgets.
        let now = Instant::now();
        if self.state().is_due(now).is_some() {
            let why = reasons(servers).await;
            self.state().why = Some((now, why));
        }
    }

    /// The client is about to make attempt number `attempt`.
    pub(crate) fn attempt(&self, attempt: usize) {
        if let Some((lasts, why)) = self.state().next(attempt, Instant::now()) {
            let (connection, seconds) = (&*self.name, lasts.as_secs());
            tracing::warn!(connection, seconds, why, "NATS can't be reached; it is tried again and again");
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Of each server its address, without the login, and what was wrong.
async fn reasons(servers: &[Server]) -> String {
    let mut text = String::new();
    for server in servers {
        let (host, port) = (server.addr.host(), server.addr.port());
        let reason = match &server.last_error {
            Some(error) => error.clone(),
            // The client forgets that it didn't find a name.
            None => match timeout(LOOK_UP, tokio::net::lookup_host((host, port))).await {
                Ok(Ok(_)) => "no answer yet".to_owned(),
                Ok(Err(error)) => format!("this name isn't found: {error}"),
                Err(_) => "this name isn't found: no answer to the question for it".to_owned(),
            },
        };
        let comma = if text.is_empty() { "" } else { "; " };
        let _ = write!(text, "{comma}{host}:{port}: {reason}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_after_a_moment_and_then_each_minute() {
        let (mut state, start) = (State::default(), Instant::now());
        let mut round = |attempt, at: u64| {
            let now = start + Duration::from_secs(at);
            if state.is_due(now).is_some() {
                state.why = Some((now, format!("round {at}")));
            }
            state.next(attempt, now)
        };
        let said = |at: u64, of: u64| Some((Duration::from_secs(at), format!("round {of}")));
        assert_eq!((round(1, 0), round(2, 1), round(3, 3)), (None, None, None), "NATS may be starting anew");
        assert_eq!((round(4, 5), round(5, 9), round(6, 64)), (said(5, 5), None, None));
        assert_eq!(round(7, 66), said(66, 66));
        // The connection held for an hour; what was wrong before it is not said of its end.
        assert_eq!((round(1, 4_000), round(2, 4_001)), (None, None));
        assert_eq!(round(3, 4_005), said(5, 4_005));
    }

    #[tokio::test]
    async fn each_server_is_named_with_its_trouble_and_without_the_login() {
        let server = |url: &str, last_error: Option<&str>| Server {
            addr: url.parse().unwrap(),
            failed_attempts: 1,
            did_connect: false,
            is_discovered: false,
            last_error: last_error.map(str::to_owned),
        };
        let why = reasons(&[
            server("nats://me:s3cr3t@127.0.0.1:4222", Some("IO error: Connection refused")),
            server("nats://me:s3cr3t@nowhere.invalid:4222", None),
        ])
        .await;
        assert!(
            why.starts_with(
                "127.0.0.1:4222: IO error: Connection refused; nowhere.invalid:4222: this name isn't found"
            ),
            "{why}"
        );
        assert!(!why.contains("s3cr3t"), "{why}");
    }
}
