//! Plays the line in real time.

use std::fmt;
use std::io::Write as _;
use std::time::Duration;

use anyhow::Context as _;
use jiff::Timestamp;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::line::{Delivery, Line, LineOptions, Message, WallClock};
use crate::publish::{Outgoing, PublishOptions, Publisher, TallySnapshot};

/// The interval at which the line is advanced.
const TICK: Duration = Duration::from_millis(10);
/// The interval at which a summary is printed.
const SUMMARY_EVERY: Duration = Duration::from_secs(10);
/// Longer pauses, such as those of a suspended laptop or a stopped process, are not part of the line's
/// running time. Larger changes of the system clock are followed.
const LONGEST_LEAP: Duration = Duration::from_secs(2);

#[derive(Debug, Clone)]
pub struct PlayOptions {
    pub line: LineOptions,
    pub publish: PublishOptions,
    /// Speed of the line as a multiple of real time.
    pub rate_factor: f64,
    /// `None` to run until the token is cancelled.
    pub duration: Option<Duration>,
}

#[derive(Debug, Clone, Copy, Default)]
pub struct Played {
    pub seconds: u64,
    /// Number of messages of the line.
    pub messages: u64,
    /// Number of deliberately late messages.
    pub late: u64,
    /// Number of deliberate duplicates.
    pub duplicates: u64,
    pub tally: TallySnapshot,
}

impl fmt::Display for Played {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seconds, messages, late, duplicates, tally } = self;
        write!(f, "line {seconds} s: {messages} messages ({late} late, {duplicates} twice); {tally}")
    }
}

/// Plays until the duration ends or `shutdown` is cancelled, and prints a summary to stderr at intervals.
///
/// # Errors
/// Returns an error if an address or name is invalid. An unavailable broker is not an error; see
/// [`Publisher`].
pub async fn play(options: &PlayOptions, shutdown: &CancellationToken) -> anyhow::Result<Played> {
    let PlayOptions { line, publish, rate_factor, duration } = options;
    let mut line = Line::new(line).context("the line's names")?;
    let mut publisher = Publisher::start(publish).await?;
    let mut pace = Pace::new(*rate_factor);
    let mut played = Played::default();
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut summary = tokio::time::interval_at(Instant::now() + SUMMARY_EVERY, SUMMARY_EVERY);
    let over = end_of(*duration);
    tokio::pin!(over);
    loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            () = &mut over => break,
            _ = summary.tick() => {
                played.seconds = pace.lived().as_secs();
                report(&Played { tally: publisher.tally(), ..played });
            }
            _ = tick.tick() => {
                for message in line.advance(pace.virtual_ms()) {
                    played.note(&message);
                    publisher.offer(outgoing(message, &pace.clock)?);
                }
            }
        }
    }
    played.seconds = pace.lived().as_secs();
    played.tally = publisher.stop().await;
    report(&played);
    Ok(played)
}

impl Played {
    fn note(&mut self, message: &Message) {
        self.messages += 1;
        match message.delivery {
            Delivery::OnTime => {}
            Delivery::Late => self.late += 1,
            Delivery::Duplicate => self.duplicates += 1,
        }
    }
}

fn outgoing(message: Message, clock: &WallClock) -> serde_json::Result<Outgoing> {
    let payload = message.payload(clock)?.into();
    Ok(Outgoing { route: message.route, quality: message.quality, payload })
}

fn report(played: &Played) {
    // A closed stderr must not end the line.
    let _ = writeln!(std::io::stderr(), "{played}");
}

async fn end_of(duration: Option<Duration>) {
    match duration {
        Some(duration) => tokio::time::sleep(duration).await,
        None => std::future::pending().await,
    }
}

struct Pace {
    started: Instant,
    last: Duration,
    left_out: Duration,
    clock: WallClock,
}

impl Pace {
    fn new(rate_factor: f64) -> Self {
        let clock = WallClock { start_unix_ms: Timestamp::now().as_millisecond(), rate_factor };
        Self { started: Instant::now(), last: Duration::ZERO, left_out: Duration::ZERO, clock }
    }

    /// Returns the running time of the line, without pauses.
    fn lived(&self) -> Duration {
        self.started.elapsed().saturating_sub(self.left_out)
    }

    /// Returns the current virtual time.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a positive time far below 2^52 ms"
    )]
    fn virtual_ms(&mut self) -> u64 {
        let leap = self.lived().saturating_sub(self.last);
        if leap > LONGEST_LEAP {
            self.left_out += leap;
        }
        self.last = self.lived();
        let lived_ms = self.last.as_secs_f64() * 1000.0;
        self.follow_clock(lived_ms as i64);
        (lived_ms * self.clock.rate_factor) as u64
    }

    /// Devices send the time of their clock, so a change of the system clock shifts the times that they send.
    fn follow_clock(&mut self, lived_ms: i64) {
        let drift = Timestamp::now().as_millisecond() - lived_ms - self.clock.start_unix_ms;
        if u128::from(drift.unsigned_abs()) > LONGEST_LEAP.as_millis() {
            self.clock.start_unix_ms += drift;
        }
    }
}
