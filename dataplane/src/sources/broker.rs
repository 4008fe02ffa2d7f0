//! The connection to NATS.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_nats::{Client, Event, ServerError};
use flutecast_nats::{Login, LoginError};
use tokio::sync::watch;
use tokio::time::Instant;

/// How many messages one subscription holds before the client drops the newest one. Enough for a tenth of a
/// second of the fastest channel; what is dropped is read back from the stream. It bounds memory too, since a
/// message may have 1 MiB.
pub const SUBSCRIPTION_CAPACITY: usize = 4_096;

/// How often it is told that the broker refuses something.
const TOLD_EVERY: Duration = Duration::from_secs(60);

/// A connection to NATS that never gives up.
#[derive(Debug, Clone)]
pub struct Broker {
    /// The client.
    pub client: Client,
    state: watch::Receiver<BrokerState>,
}

/// What is known of the connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BrokerState {
    /// Whether it stands now.
    pub connected: bool,
    /// How often it was made, lost, or dropped messages; another number means that messages may be missing.
    pub generation: u64,
    /// How often it refused something, such as a subscription for which this pod's login has no right.
    pub refusals: u64,
}

impl Broker {
    /// Starts to connect as `login` says and returns at once; the connection is made and made anew in the
    /// background for ever.
    ///
    /// # Errors
    /// When the login can't be used.
    pub async fn connect(login: &Login, name: &str) -> Result<Self, LoginError> {
        let (sender, state) = watch::channel(BrokerState::default());
        let told = Mutex::new(None);
        let client = login
            .connect(name, |options| {
                options
                    .subscription_capacity(SUBSCRIPTION_CAPACITY)
                    .request_timeout(Some(Duration::from_secs(5)))
                    .event_callback(move |event| {
                        if let Event::ServerError(error) = &event {
                            warn_of_refusal(error, &told);
                        }
                        sender.send_modify(|state| state.note(&event));
                        async {}
                    })
            })
            .await?;
        Ok(Self { client, state })
    }

    /// What is known of the connection now.
    #[must_use]
    pub fn state(&self) -> BrokerState {
        *self.state.borrow()
    }

    /// The same, to wait for changes.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<BrokerState> {
        self.state.clone()
    }
}

/// Tells of the first of what may be thousands: one for each channel that somebody watches.
fn warn_of_refusal(error: &ServerError, told: &Mutex<Option<Instant>>) {
    // A moment is never left half changed.
    let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
    if told.is_none_or(|told| told.elapsed() >= TOLD_EVERY) {
        *told = Some(Instant::now());
        tracing::warn!(%error, "the broker refuses something, so that data may be missing; which rights a login needs is in docs/install.md");
    }
}

impl BrokerState {
    fn note(&mut self, event: &Event) {
        match event {
            Event::Connected => {
                self.connected = true;
                self.generation += 1;
            }
            Event::Disconnected | Event::Closed => {
                self.connected = false;
                self.generation += 1;
            }
            Event::SlowConsumer(_) => self.generation += 1,
            Event::ServerError(_) => self.refusals += 1,
            Event::LameDuckMode | Event::Draining | Event::ClientError(_) => {}
        }
    }
}
