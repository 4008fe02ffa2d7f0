//! The connection to NATS.

use std::io;
use std::time::Duration;

use async_nats::{Client, ConnectOptions, Event, ServerAddr};
use tokio::sync::watch;

use crate::percent;

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

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The address can't be used; it is not shown, as it may hold a password.
    #[error("the NATS address can't be used: {0}")]
    Address(io::Error),
    /// The client could not be started.
    #[error("the connection to NATS can't be started: {0}")]
    Connect(async_nats::ConnectError),
}

impl Broker {
    /// Starts to connect to `url` and returns at once; the connection is made and made anew in the background for ever.
    ///
    /// # Errors
    /// [`BrokerError`] if the address makes no sense.
    pub async fn connect(url: &str, name: &str) -> Result<Self, BrokerError> {
        Self::connect_with(ConnectOptions::new(), url, name).await
    }

    /// The same with credentials or certificates in `options`. Several addresses of one cluster are separated
    /// by commas.
    ///
    /// # Errors
    /// [`BrokerError`] if an address makes no sense.
    pub async fn connect_with(options: ConnectOptions, url: &str, name: &str) -> Result<Self, BrokerError> {
        let parse = |address: &str| address.trim().parse::<ServerAddr>().map_err(BrokerError::Address);
        let addresses = url.split(',').map(parse).collect::<Result<Vec<_>, _>>()?;
        let options = with_login(options, &addresses)
            .map_err(|problem| BrokerError::Address(io::Error::other(problem)))?;
        let (sender, state) = watch::channel(BrokerState::default());
        let client = options
            .name(name)
            .retry_on_initial_connect()
            .subscription_capacity(SUBSCRIPTION_CAPACITY)
            .connection_timeout(Duration::from_secs(3))
            .ping_interval(Duration::from_secs(5))
            .request_timeout(Some(Duration::from_secs(5)))
            .event_callback(move |event| {
                sender.send_modify(|state| state.note(&event));
                async {}
            })
            .connect(addresses)
            .await
            .map_err(BrokerError::Connect)?;
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

/// The client ignores what stands before the '@' of an address: a name and a password, or only a token.
fn with_login(options: ConnectOptions, addresses: &[ServerAddr]) -> Result<ConnectOptions, &'static str> {
    let Some(address) = addresses.iter().find(|address| address.username().is_some()) else {
        return Ok(options);
    };
    let decode = |text: &str| {
        percent::decode(text)
            .map(String::from)
            .map_err(|_| "the name or the password in it is not percent-encoded")
    };
    let name = decode(address.username().unwrap_or_default())?;
    match address.password() {
        Some(password) => Ok(options.user_and_password(name, decode(password)?)),
        None => Ok(options.token(name)),
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
