//! The connection to NATS.

use std::time::Duration;

use async_nats::{Client, Event};
use flutecast_nats::{Login, LoginError};
use tokio::sync::watch;

/// How many messages one subscription holds before the client drops the newest one. Enough for a tenth of a
/// second of the fastest channel; what is dropped is read back from the stream. It bounds memory too, since a
/// message may have 1 MiB.
pub const SUBSCRIPTION_CAPACITY: usize = 4_096;

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
}

impl Broker {
    /// Starts to connect as `login` says and returns at once; the connection is made and made anew in the background for ever.
    ///
    /// # Errors
    /// When the login can't be used.
    pub async fn connect(login: &Login, name: &str) -> Result<Self, LoginError> {
        let (sender, state) = watch::channel(BrokerState::default());
        let client = login
            .connect(name, |options| {
                options
                    .subscription_capacity(SUBSCRIPTION_CAPACITY)
                    .request_timeout(Some(Duration::from_secs(5)))
                    .event_callback(move |event| {
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
            Event::LameDuckMode | Event::Draining | Event::ServerError(_) | Event::ClientError(_) => {}
        }
    }
}
