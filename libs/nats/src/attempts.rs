//! Logs why NATS can't be reached. The NATS client does not report most errors.

use std::fmt::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_nats::Server;
use tokio::time::timeout;

/// The time that attempts may fail before the first log line. A server that restarts is back by then.
const PATIENCE: Duration = Duration::from_secs(4);
/// The time between two log lines.
const SILENCE: Duration = Duration::from_secs(60);
/// The longest that looking up a server's name may take. The next attempt waits for it.
const LOOK_UP: Duration = Duration::from_secs(1);

/// The attempts to connect since the last connection that held.
#[derive(Debug)]
pub(crate) struct Attempts {
    /// The connection's name.
    name: String,
    failures: Mutex<Failures>,
}

#[derive(Debug, Default)]
struct Failures {
    /// The first attempt of all, or the first one after a connection that held.
    since: Option<Instant>,
    logged: Option<Instant>,
    /// The errors of the earlier rounds, and the time at which they were looked up.
    why: Option<(Instant, String)>,
}

impl Failures {
    /// Returns for how long attempts have failed, if a log line is due.
    fn due(&self, now: Instant) -> Option<Duration> {
        let lasts = now.duration_since(self.since?);
        let is_news = self.logged.is_none_or(|logged| now.duration_since(logged) >= SILENCE);
        (lasts >= PATIENCE && is_news).then_some(lasts)
    }

    /// Records attempt number `attempt` since there was a connection. Returns what the log line says of the
    /// earlier ones, if it is due.
    fn next(&mut self, attempt: usize, now: Instant) -> Option<(Duration, String)> {
        if attempt <= 1 {
            *self = Self { since: Some(now), ..Self::default() };
        }
        let lasts = self.due(now)?;
        let (_, why) = self.why.take().filter(|(at, _)| Some(*at) > self.since)?;
        self.logged = Some(now);
        Some((lasts, why))
    }
}

impl Attempts {
    pub(crate) fn new(name: &str) -> Arc<Self> {
        Arc::new(Self { name: name.to_owned(), failures: Mutex::default() })
    }

    /// Records what the NATS client knows of its servers. It calls this before each round of attempts.
    pub(crate) async fn before_round(&self, servers: &[Server]) {
        // In the first round after a connection that held, this is what was wrong before it. `next` drops
        // that.
        let now = Instant::now();
        if self.failures().due(now).is_some() {
            let why = reasons(servers).await;
            self.failures().why = Some((now, why));
        }
    }

    /// Logs what was wrong so far if that is due. The NATS client calls this before attempt number `attempt`.
    pub(crate) fn before_attempt(&self, attempt: usize) {
        if let Some((lasts, why)) = self.failures().next(attempt, Instant::now()) {
            let (connection, seconds) = (&*self.name, lasts.as_secs());
            tracing::warn!(connection, seconds, why, "NATS can't be reached; it is tried again and again");
        }
    }

    fn failures(&self) -> MutexGuard<'_, Failures> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the address of each server, without the login, and what was wrong with it.
async fn reasons(servers: &[Server]) -> String {
    let mut text = String::new();
    for server in servers {
        let (host, port) = (server.addr.host(), server.addr.port());
        let reason = match &server.last_error {
            Some(error) => error.clone(),
            // The NATS client does not record that a name was not found.
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
    fn a_failure_is_logged_after_four_seconds_and_then_each_minute() {
        let (mut failures, start) = (Failures::default(), Instant::now());
        let mut round = |attempt, at: u64| {
            let now = start + Duration::from_secs(at);
            if failures.due(now).is_some() {
                failures.why = Some((now, format!("round {at}")));
            }
            failures.next(attempt, now)
        };
        let line = |at: u64, of: u64| Some((Duration::from_secs(at), format!("round {of}")));
        assert_eq!((round(1, 0), round(2, 1), round(3, 3)), (None, None, None), "NATS may be restarting");
        assert_eq!((round(4, 5), round(5, 9), round(6, 64)), (line(5, 5), None, None));
        assert_eq!(round(7, 66), line(66, 66));
        // The connection held for an hour. What was wrong before it is not what ended it.
        assert_eq!((round(1, 4_000), round(2, 4_001)), (None, None));
        assert_eq!(round(3, 4_005), line(5, 4_005));
    }

    #[tokio::test]
    async fn each_server_is_named_with_its_fault_and_without_the_login() {
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
