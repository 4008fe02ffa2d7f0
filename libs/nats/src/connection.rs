//! A connection to NATS that reconnects forever, and its state.

use async_nats::{Client, ConnectOptions, Event};
use tokio::sync::watch;

use crate::login::{Login, LoginError};

/// A connection to NATS. It is made in the background, and again whenever it is lost.
#[derive(Debug, Clone)]
pub struct NatsConnection {
    /// The client. It is valid also while there is no connection.
    pub client: Client,
    state: watch::Receiver<ConnectionState>,
    connected: watch::Receiver<bool>,
}

/// The state of a connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ConnectionState {
    /// `true` if it is established.
    pub connected: bool,
    /// Number of times that it was made, lost, or dropped messages. When it changes, messages may be missing.
    pub generation: u64,
    /// Number of refusals by the server, such as of a subscription that the login has no right to.
    pub refusals: u64,
}

impl NatsConnection {
    /// Starts to connect as `login` says, under the name `name` and with the further options that `more`
    /// sets. Returns at once. `on_event` is called with each event of the client and must not block.
    ///
    /// # Errors
    /// [`LoginError`] if the login can't be used. A server that is not there is no error.
    pub async fn open(
        login: &Login,
        name: &str,
        more: impl FnOnce(ConnectOptions) -> ConnectOptions,
        on_event: impl Fn(&Event) + Send + Sync + 'static,
    ) -> Result<Self, LoginError> {
        let (state_sender, state) = watch::channel(ConnectionState::default());
        let (connected_sender, connected) = watch::channel(false);
        let callback = move |event| {
            on_event(&event);
            state_sender.send_modify(|state| state.observe(&event));
            match event {
                Event::Connected => drop(connected_sender.send_replace(true)),
                Event::Disconnected => drop(connected_sender.send_replace(false)),
                _ => {}
            }
            std::future::ready(())
        };
        let client = login.connect(name, |options| more(options).event_callback(callback)).await?;
        Ok(Self { client, state, connected })
    }

    /// Returns what is known of the connection now.
    #[must_use]
    pub fn state(&self) -> ConnectionState {
        *self.state.borrow()
    }

    /// Returns the state as a channel, which changes with each event that the state counts.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<ConnectionState> {
        self.state.clone()
    }

    /// Returns whether the connection is established as a channel, which changes only when it is made or
    /// lost.
    #[must_use]
    pub fn connected(&self) -> watch::Receiver<bool> {
        self.connected.clone()
    }
}

impl ConnectionState {
    fn observe(&mut self, event: &Event) {
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
