//! Tells when this machine's clock was set. Nothing that the operator decides rests on it, but times in statuses and in the log come
//! from it, and whoever reads them wants to know.

use std::fmt;
use std::time::{Duration, Instant, SystemTime};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How often is looked.
const LOOK: Duration = Duration::from_secs(2);
/// A clock that is corrected moves by less: time daemons slew what is below 128 ms, and a busy machine is late.
const STEP: Duration = Duration::from_secs(2);

/// By how much a clock was set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Jump {
    /// Ahead, or the machine slept.
    Ahead(Duration),
    /// Back.
    Back(Duration),
}

impl fmt::Display for Jump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ahead(by) => write!(f, "{} s ahead", by.as_secs()),
            Self::Back(by) => write!(f, "{} s back", by.as_secs()),
        }
    }
}

/// What the clocks showed last.
#[derive(Debug)]
pub struct Clock {
    steady: Instant,
    wall: SystemTime,
}

impl Clock {
    /// With what they show now.
    #[must_use]
    pub fn new(steady: Instant, wall: SystemTime) -> Self {
        Self { steady, wall }
    }

    /// Whether the clock on the wall was set since the last call.
    pub fn compare(&mut self, steady: Instant, wall: SystemTime) -> Option<Jump> {
        let expected = self.wall + steady.duration_since(self.steady);
        *self = Self { steady, wall };
        let jump = match wall.duration_since(expected) {
            Ok(by) => (by, Jump::Ahead(by)),
            Err(error) => (error.duration(), Jump::Back(error.duration())),
        };
        (jump.0 >= STEP).then_some(jump.1)
    }
}

/// Starts the task that looks. It ends when `cancel` is cancelled; whoever gets the handle watches it.
#[must_use = "a task that nobody watches fails unseen"]
pub fn spawn(cancel: CancellationToken) -> JoinHandle<()> {
    let look = async {
        let mut clock = Clock::new(Instant::now(), SystemTime::now());
        loop {
            tokio::time::sleep(LOOK).await;
            if let Some(by) = clock.compare(Instant::now(), SystemTime::now()) {
                tracing::warn!(%by, "this machine's clock was set; times in statuses and in the log follow it, nothing else does");
            }
        }
    };
    tokio::spawn(async move { cancel.run_until_cancelled_owned(look).await.unwrap_or_default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_set_is_told_once() {
        let (steady, wall) = (Instant::now(), SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000));
        let seconds = Duration::from_secs;
        let mut clock = Clock::new(steady, wall);
        assert_eq!(clock.compare(steady + seconds(10), wall + seconds(11)), None);
        assert_eq!(
            clock.compare(steady + seconds(20), wall + seconds(7220)),
            Some(Jump::Ahead(seconds(7199)))
        );
        assert_eq!(clock.compare(steady + seconds(30), wall + seconds(7230)), None);
        assert_eq!(clock.compare(steady + seconds(40), wall + seconds(40)), Some(Jump::Back(seconds(7200))));
        assert_eq!(Jump::Back(seconds(7200)).to_string(), "7200 s back");
    }
}
